//! SELinux on the host: whether it is in force, and the label that lets a pod read a file.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, XattrFlags};

use crate::node::host::HostRoot;
use crate::node::mounts;

/// Label of files that every container may read; the kubelet does not relabel host paths
/// (pkg/volume/hostpath).
const LABEL: &[u8] = b"system_u:object_r:container_file_t:s0\0";
const ATTRIBUTE: &str = "security.selinux";
/// Type of the file system through which the kernel's SELinux is asked.
const FILE_SYSTEM: &str = "selinuxfs";

/// Whether the host's kernel labels files, so that a pod reads only those with a label that it may
/// read. A container does not see this in its own `/sys`, where no runtime mounts `selinuxfs`.
///
/// A permissive SELinux counts too: it may be made to enforce at any moment.
pub fn is_in_force(root: &HostRoot) -> io::Result<bool> {
    let mounts = mounts::read(root)?;
    let kind = |mount: &&mounts::Mount| mount.kind.as_deref() == Some(OsStr::new(FILE_SYSTEM));
    let Some(mount) = mounts.iter().rev().find(kind) else {
        return Ok(false);
    };
    let enforce = root.resolve(mount.point.join("enforce"))?;
    std::fs::read(enforce).map(|_| true)
}

/// Labels a file, directory or link, so that containers may read it.
pub fn label(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(
        path,
        ATTRIBUTE,
        LABEL,
        XattrFlags::empty(),
    )?)
}

/// Labels a file without a name in this directory, which is then gone: says whether files in it can
/// be labelled.
pub fn try_label(directory: &Path) -> io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(rustix::fs::fsetxattr(
        &file,
        ATTRIBUTE,
        LABEL,
        XattrFlags::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with this line in its table of mounts, and what SELinux says of itself.
    fn host(line: &str, enforce: Option<&str>) -> (tempfile::TempDir, HostRoot) {
        let directory = tempfile::tempdir().unwrap();
        let path = |below: &str| directory.path().join(below);
        std::fs::create_dir_all(path("proc/1")).unwrap();
        std::fs::create_dir_all(path("sys/fs/selinux")).unwrap();
        let table = format!("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{line}");
        std::fs::write(path("proc/1/mountinfo"), table).unwrap();
        if let Some(text) = enforce {
            std::fs::write(path("sys/fs/selinux/enforce"), text).unwrap();
        }
        let root = HostRoot::new(directory.path());
        (directory, root)
    }

    const MOUNTED: &str =
        "30 22 0:21 / /sys/fs/selinux rw,nosuid shared:9 - selinuxfs selinuxfs rw\n";

    #[test]
    fn the_hosts_mounts_say_whether_selinux_is_in_force() {
        for enforce in ["0", "1"] {
            let (_directory, root) = host(MOUNTED, Some(enforce));
            assert!(is_in_force(&root).unwrap(), "{enforce}");
        }
        let (_directory, root) = host("", None);
        assert!(!is_in_force(&root).unwrap());
        // unknown is not absent
        let (_directory, root) = host(MOUNTED, None);
        assert!(is_in_force(&root).is_err());
        let empty = tempfile::tempdir().unwrap();
        assert!(is_in_force(&HostRoot::new(empty.path())).is_err());
    }

    #[test]
    fn a_directory_is_tried_without_a_trace() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(
            try_label(directory.path()).is_ok(),
            label(&file).is_ok(),
            "both need the same right"
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
