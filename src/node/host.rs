//! Access to the host's files, on the host or from a container.
//!
//! A container that shares the host's PID namespace reaches the host's root through its parent
//! process, the runtime's shim, without any volume. Absolute symbolic links on the host start at
//! the host's root, so they are resolved here and not by the kernel, which would start at the
//! container's root.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

/// The most links that one look-up follows, as many as the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Longest path of a unix socket in bytes, without the final NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// The host's root directory, as a path for this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoot(PathBuf);

impl HostRoot {
    /// Takes this directory as the host's root.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// `/proc/<parent pid>/root` if the parent is in another mount namespace, as in a container
    /// that shares the host's PID namespace; else `/`.
    ///
    /// A parent in another PID namespace has no ID here (getppid(2) returns 0). Then the host
    /// cannot be reached, and `/` is the container's own root. A parent whose namespace cannot be
    /// read is an error: with `/`, the container's own empty directories would look like a host
    /// without checkpoints.
    ///
    /// The parent of a process started by `kubectl exec` soon ends (runc, which leaves the process
    /// to the shim). So the parent is looked up again if it is gone, and if the host's first
    /// process has the same mounts, that one is used instead.
    pub fn detect() -> io::Result<Self> {
        let ours = std::fs::read_link("/proc/self/ns/mnt")
            .map_err(|error| explain(&error, "/proc/self/ns/mnt"))?;
        let mut before = None;
        loop {
            let Some(parent) = rustix::process::getppid() else {
                return Ok(Self::new("/"));
            };
            let link = format!("/proc/{}/ns/mnt", parent.as_raw_nonzero());
            let theirs = match std::fs::read_link(&link) {
                Ok(theirs) => theirs,
                Err(error) if error.kind() == io::ErrorKind::NotFound && before != Some(parent) => {
                    before = Some(parent);
                    continue;
                }
                Err(error) => {
                    return Err(explain(
                        &error,
                        &format!("{link} (needs the capability SYS_PTRACE)"),
                    ));
                }
            };
            if ours == theirs {
                return Ok(Self::new("/"));
            }
            let is_of_first =
                std::fs::read_link("/proc/1/ns/mnt").is_ok_and(|first| first == theirs);
            let process = if is_of_first {
                1
            } else {
                parent.as_raw_nonzero().get()
            };
            return Ok(Self::new(format!("/proc/{process}/root")));
        }
    }

    /// What is at a host path, as a type of `hostPath` (pkg/volume/hostpath/host_path.go,
    /// `checkTypeInternal`); `None` if there is no such type, for example for a FIFO.
    pub fn host_path_type(&self, path: impl AsRef<Path>) -> io::Result<Option<&'static str>> {
        let kind = std::fs::metadata(self.resolve(path)?)?.file_type();
        let types = [
            (kind.is_dir(), "Directory"),
            (kind.is_file(), "File"),
            (kind.is_socket(), "Socket"),
            (kind.is_char_device(), "CharDevice"),
            (kind.is_block_device(), "BlockDevice"),
        ];
        Ok(types
            .into_iter()
            .find_map(|(is_it, name)| is_it.then_some(name)))
    }

    /// The real path of a host path, with every link resolved within the root; parts that do not
    /// exist are kept as they are. A relative path starts at the root; `..` never leaves it.
    pub fn resolve(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let path = path.as_ref();
        let mut pending = parts(path);
        let mut real: Vec<OsString> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == ".." {
                real.pop();
                continue;
            }
            real.push(part);
            let target = match std::fs::read_link(self.under(&real)) {
                Ok(target) => target,
                // not a link, or nothing; a file in place of a directory is an error only when the
                // path is opened
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::InvalidInput
                            | io::ErrorKind::NotFound
                            | io::ErrorKind::NotADirectory
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(explain(&error, &self.under(&real).to_string_lossy())),
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::from(rustix::io::Errno::LOOP));
            }
            if target.is_absolute() {
                real.clear();
            } else {
                real.pop();
            }
            pending.extend(parts(&target));
        }
        Ok(self.under(&real))
    }

    /// The root directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn under(&self, parts: &[OsString]) -> PathBuf {
        let mut path = self.0.clone();
        path.extend(parts);
        path
    }
}

/// Connects to a unix socket, even if its path is too long for an address, as a path below
/// `/proc/<pid>/root` may be: then the socket is addressed through its open directory.
pub async fn connect(socket: &Path) -> io::Result<UnixStream> {
    if socket.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH {
        return UnixStream::connect(socket).await;
    }
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let directory = rustix::fs::open(
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    UnixStream::connect(
        Path::new("/proc/self/fd")
            .join(directory.as_raw_fd().to_string())
            .join(name),
    )
    .await
}

/// The parts of a path as a stack, the first on top.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}

fn explain(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot read the link {what}: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, HostRoot) {
        let directory = tempfile::tempdir().unwrap();
        let root = HostRoot::new(directory.path());
        (directory, root)
    }

    #[test]
    fn an_absolute_link_is_followed_inside_the_root() {
        let (directory, root) = root();
        std::fs::create_dir_all(directory.path().join("data/kubelet")).unwrap();
        std::fs::create_dir_all(directory.path().join("var/lib")).unwrap();
        symlink("/data/kubelet", directory.path().join("var/lib/kubelet")).unwrap();
        assert_eq!(
            root.resolve("/var/lib/kubelet/pods").unwrap(),
            directory.path().join("data/kubelet/pods")
        );
    }

    #[test]
    fn a_relative_link_is_followed_from_where_it_is() {
        let (directory, root) = root();
        std::fs::create_dir_all(directory.path().join("run")).unwrap();
        std::fs::create_dir_all(directory.path().join("var")).unwrap();
        symlink("../run", directory.path().join("var/run")).unwrap();
        assert_eq!(
            root.resolve("var/run/crio/crio.sock").unwrap(),
            directory.path().join("run/crio/crio.sock")
        );
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let (directory, root) = root();
        symlink("../../../../etc", directory.path().join("escape")).unwrap();
        assert_eq!(
            root.resolve("/../../etc/passwd").unwrap(),
            directory.path().join("etc/passwd")
        );
        assert_eq!(
            root.resolve("/escape/passwd").unwrap(),
            directory.path().join("etc/passwd")
        );
    }

    #[test]
    fn a_loop_of_links_is_an_error() {
        let (directory, root) = root();
        symlink("/b", directory.path().join("a")).unwrap();
        symlink("/a", directory.path().join("b")).unwrap();
        let error = root.resolve("/a/file").unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(rustix::io::Errno::LOOP.raw_os_error())
        );
    }

    #[test]
    fn a_chain_of_as_many_links_as_the_kernel_follows_is_followed() {
        let (directory, root) = root();
        for i in 0..MAX_LINKS {
            symlink(
                format!("l{}", i + 1),
                directory.path().join(format!("l{i}")),
            )
            .unwrap();
        }
        assert_eq!(
            root.resolve("/l0").unwrap(),
            directory.path().join(format!("l{MAX_LINKS}"))
        );
    }

    #[test]
    fn what_does_not_exist_keeps_its_name() {
        let (directory, root) = root();
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert_eq!(
            root.resolve("/no/./such").unwrap(),
            directory.path().join("no/such")
        );
        assert_eq!(
            root.resolve("/file/below").unwrap(),
            directory.path().join("file/below")
        );
        assert_eq!(root.resolve("/").unwrap(), directory.path());
    }

    #[test]
    fn a_parent_in_our_own_mount_namespace_means_that_we_are_on_the_host() {
        assert_eq!(HostRoot::detect().unwrap(), HostRoot::new("/"));
    }

    #[tokio::test]
    async fn a_socket_is_reached_however_long_its_path() {
        let (directory, _) = root();
        let deep = directory.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        // A socket cannot be bound at a long path either: bound at a short one, and moved.
        let short = directory.path().join("s");
        let _listener = tokio::net::UnixListener::bind(&short).unwrap();
        std::fs::rename(short, deep.join("kubelet.sock")).unwrap();
        connect(&deep.join("kubelet.sock")).await.unwrap();
        assert_eq!(
            connect(&deep.join("none.sock")).await.unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
