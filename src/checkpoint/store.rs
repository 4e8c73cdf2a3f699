//! Where checkpoints are kept: one directory a pod, one file a generation, the newest two that are good.
//!
//! ```text
//! <state dir>/checkpoints/<namespace>_<pod>/0000000007.yaml
//! <state dir>/node.yaml
//! ```
//! The agent is the only writer (it holds `agent.lock`); the supervisor and the command line read. Nothing is trusted for
//! its name: a file counts when it is a regular file of ours, not writable by others, and its digest is right. One bad
//! file never hides another.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checkpoint::format::{self, MAX_SIZE, NodeCheckpoint};
use crate::checkpoint::write;

/// Everything of ours in the state directory.
pub const NAMES: &[&str] = &["checkpoints", "node.yaml", "agent.lock"];
/// How many good generations are kept of a pod.
const KEPT: usize = 2;
/// Ending of a generation's file.
const ENDING: &str = ".yaml";

/// Why the store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Writing failed; what was there is there still.
    #[error(transparent)]
    Write(#[from] write::Error),
    /// Reading a directory or file failed.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file that cannot be trusted, whatever it holds.
    #[error("{} is not a checkpoint of ours: {why}", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file that is damaged.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf, #[source] Box<format::Error>),
    /// Not a file of this shape.
    #[error("{} is damaged", .0.display())]
    Syntax(PathBuf, #[source] serde_yaml::Error),
    /// A checkpoint that cannot become YAML.
    #[error("cannot write checkpoint {0} as YAML")]
    Serialize(String, #[source] serde_yaml::Error),
    /// Another process holds the lock.
    #[error("{} is held by another process: one agent and one supervisor run on a node", .0.display())]
    Locked(PathBuf),
    /// Not `<namespace>_<pod>`.
    #[error("{0:?} is not <namespace>_<pod>")]
    Key(String),
}

impl Error {
    /// The file, where it is ours and its content is not what was written.
    pub fn damaged(&self) -> Option<&PathBuf> {
        match self {
            Self::Damaged(path, source) if !matches!(**source, format::Error::Version { .. }) => Some(path),
            _ => None,
        }
    }

    /// Is a full disk the cause?
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Write(error) if error.is_full())
    }
}

/// What the supervisor must know of the node, recorded by the agent while the API server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRecord {
    /// [`format::API_VERSION`].
    pub api_version: String,
    /// `NodeRecord`.
    pub kind: String,
    /// Name of the node object.
    pub node_name: String,
    /// UID of the node object: another one means another node, whatever its name.
    pub node_uid: String,
    /// API servers, as the kubelet's own kubeconfig names them.
    pub servers: Vec<ServerRecord>,
}

/// One API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerRecord {
    /// For example `https://10.0.0.1:6443`.
    pub url: String,
    /// PEM.
    pub ca: String,
    /// Name that its certificate must have, when it is not the one in the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_name: Option<String>,
    /// HTTP proxy on the way to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// A generation that passed verification.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Its number; a later capture has a higher one.
    pub number: u64,
    /// Its file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// What is in it.
    pub checkpoint: NodeCheckpoint,
}

/// What a look at one pod's directory found.
#[derive(Debug, Default)]
pub struct Found {
    /// Good generations, newest first.
    pub good: Vec<Generation>,
    /// What is not, and why.
    pub bad: Vec<Error>,
    /// Names that do not belong here, temporary files among them.
    pub other: Vec<PathBuf>,
}

/// What putting a checkpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The newest generation says the same: nothing was written.
    Unchanged(u64),
    /// Written as this generation, with this many bytes.
    Written(u64, u64),
}

/// The store of one node.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store in this directory (a real path, see [`crate::node::host::HostRoot::resolve`]), which need not exist.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Makes the directories.
    pub fn create(&self) -> Result<(), Error> {
        Ok(write::directory(&self.checkpoints())?)
    }

    /// Takes the lock of this name in the store's directory, for as long as the file lives.
    pub fn lock(&self, name: &str) -> Result<File, Error> {
        lock(&self.directory.join(name))
    }

    /// Keys of all pods that have a directory here, in order.
    pub fn keys(&self) -> Result<Vec<String>, Error> {
        let directory = self.checkpoints();
        let mut keys: Vec<String> = names(&directory)?.into_iter().filter(|name| check_key(name).is_ok()).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// Reads every generation of a pod.
    pub fn find(&self, key: &str) -> Result<Found, Error> {
        let directory = self.pod(key)?;
        let mut found = Found::default();
        let mut numbers = Vec::new();
        for name in names(&directory)? {
            match name.strip_suffix(ENDING).and_then(parse_number) {
                Some(number) => numbers.push((number, directory.join(name))),
                None => found.other.push(directory.join(name)),
            }
        }
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        for (number, path) in numbers {
            match read(&path, key) {
                Ok((checkpoint, size)) => found.good.push(Generation { number, path, size, checkpoint }),
                Err(error) => found.bad.push(error),
            }
        }
        Ok(found)
    }

    /// The newest good generation, read newest first and no further than needed, with what was wrong with newer ones.
    pub fn newest(&self, key: &str) -> Result<(Option<Generation>, Vec<Error>), Error> {
        let directory = self.pod(key)?;
        let mut bad = Vec::new();
        for number in Self::numbers(&directory)? {
            let path = directory.join(file_name(number));
            match read(&path, key) {
                Ok((checkpoint, size)) => return Ok((Some(Generation { number, path, size, checkpoint }), bad)),
                Err(error) => bad.push(error),
            }
        }
        Ok((None, bad))
    }

    /// Adds a generation, unless the newest one says the same and all are whole; then removes what is no longer needed:
    /// good ones beyond the newest two, and damaged ones, which have served their purpose when a good newer one exists.
    pub fn put(&self, checkpoint: &NodeCheckpoint) -> Result<Put, Error> {
        let key = checkpoint.key();
        let directory = self.pod(&key)?;
        write::directory(&directory)?;
        write::settle(&directory)?;
        let found = self.find(&key)?;
        let damaged: Vec<&PathBuf> = found.bad.iter().filter_map(Error::damaged).collect();
        if let Some(newest) = found.good.first()
            && damaged.is_empty()
            && newest.checkpoint.content_digest() == checkpoint.content_digest()
        {
            // a pass that failed after it had written may have left more
            discard(&directory, found.good.iter().skip(KEPT).map(|old| old.path.as_path()))?;
            return Ok(Put::Unchanged(newest.number));
        }
        let number = Self::numbers(&directory)?.first().copied().unwrap_or(0).saturating_add(1);
        let path = directory.join(file_name(number));
        let bytes = checkpoint.to_yaml().map_err(|source| Error::Serialize(key.clone(), source))?;
        write::file(&path, &bytes, 0o600)?;
        let old = found.good.iter().skip(KEPT.saturating_sub(1)).map(|old| old.path.as_path());
        discard(&directory, old.chain(damaged.into_iter().map(PathBuf::as_path)))?;
        Ok(Put::Written(number, bytes.len() as u64))
    }

    /// Removes all of a pod. The caller has proof that the pod is gone.
    pub fn remove(&self, key: &str) -> Result<(), Error> {
        let directory = self.pod(key)?;
        Ok(write::remove_directory(&directory)?)
    }

    /// Removes what a crash left half made or half removed, and makes the rest last: a process that ended between a rename
    /// and its fsync left something that is seen but not kept.
    pub fn clean(&self) -> Result<(), Error> {
        let mut directories = vec![self.directory.clone(), self.checkpoints()];
        for key in self.keys()? {
            directories.push(self.pod(&key)?);
        }
        for directory in directories.iter().filter(|directory| directory.is_dir()) {
            for name in names(directory)?.into_iter().filter(|name| name.starts_with(write::TEMPORARY)) {
                write::remove_tree(&directory.join(name))?;
            }
            write::sync(directory)?;
        }
        Ok(())
    }

    /// What the agent recorded of the node; `None`: nothing yet.
    pub fn node(&self) -> Result<Option<NodeRecord>, Error> {
        let path = self.directory.join("node.yaml");
        match read_bytes(&path) {
            Ok(bytes) => serde_yaml::from_slice(&bytes).map(Some).map_err(|source| Error::Syntax(path, source)),
            Err(Error::Read(_, source)) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// When that record was last changed: only to be compared with itself.
    pub fn node_changed(&self) -> Option<SystemTime> {
        fs::metadata(self.directory.join("node.yaml")).and_then(|metadata| metadata.modified()).ok()
    }

    /// Records what the supervisor must know, if it is not what is recorded. Says whether it wrote.
    pub fn put_node(&self, record: &NodeRecord) -> Result<bool, Error> {
        write::settle(&self.directory)?;
        if let Ok(Some(known)) = self.node()
            && known == *record
        {
            return Ok(false);
        }
        let text = serde_yaml::to_string(record).map_err(|source| Error::Serialize("node.yaml".into(), source))?;
        write::file(&self.directory.join("node.yaml"), text.as_bytes(), 0o600)?;
        Ok(true)
    }

    /// The store's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn checkpoints(&self) -> PathBuf {
        self.directory.join("checkpoints")
    }

    fn pod(&self, key: &str) -> Result<PathBuf, Error> {
        check_key(key)?;
        Ok(self.checkpoints().join(key))
    }

    fn numbers(directory: &Path) -> Result<Vec<u64>, Error> {
        let mut numbers: Vec<u64> =
            names(directory)?.iter().filter_map(|name| name.strip_suffix(ENDING).and_then(parse_number)).collect();
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        Ok(numbers)
    }
}

/// Takes an advisory lock on a file, made if need be, for as long as the returned file lives.
pub fn lock(path: &Path) -> Result<File, Error> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|source| Error::Read(path.to_owned(), source))?;
    fs2::FileExt::try_lock_exclusive(&file).map_err(|_| Error::Locked(path.to_owned()))?;
    Ok(file)
}

/// `<namespace>_<pod>`, both DNS names: never a path.
pub fn check_key(key: &str) -> Result<(&str, &str), Error> {
    let legal = |part: &str, dots: bool| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && part.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || (dots && byte == b'.')
            })
    };
    match key.split_once('_') {
        Some((namespace, name)) if key.len() <= 255 && legal(namespace, false) && legal(name, true) => {
            Ok((namespace, name))
        }
        _ => Err(Error::Key(key.to_owned())),
    }
}

/// Removes generations of a pod that are no longer needed, with one fsync for all: one that came back after a power cut
/// could be damaged, where a file system gives blocks away before it knows that they are free (ext4 with `data=writeback`).
fn discard<'a>(directory: &Path, paths: impl Iterator<Item = &'a Path>) -> Result<(), Error> {
    let mut paths = paths.peekable();
    if paths.peek().is_none() {
        return Ok(());
    }
    for path in paths {
        tracing::debug!(file = %path.display(), "removing a checkpoint: newer good ones are there");
        write::discard(path)?;
    }
    Ok(write::sync(directory)?)
}

fn file_name(number: u64) -> String {
    format!("{number:010}{ENDING}")
}

fn parse_number(text: &str) -> Option<u64> {
    (text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Names in a directory; none if it is not there.
fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Read(directory.to_owned(), source);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(failed)).collect()
}

fn read(path: &Path, key: &str) -> Result<(NodeCheckpoint, u64), Error> {
    let bytes = read_bytes(path)?;
    let checkpoint =
        NodeCheckpoint::from_yaml(&bytes).map_err(|source| Error::Damaged(path.to_owned(), Box::new(source)))?;
    if checkpoint.key() != key {
        let why = format!("it is a checkpoint of {}", checkpoint.key());
        return Err(Error::Foreign { path: path.to_owned(), why });
    }
    Ok((checkpoint, bytes.len() as u64))
}

/// Reads a regular file of our own user's that nobody else can write, no larger than [`MAX_SIZE`]; follows no link and
/// waits for no FIFO.
fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source: io::Error| Error::Read(path.to_owned(), source);
    let foreign = |why: String| Error::Foreign { path: path.to_owned(), why };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::LOOP) => return Err(foreign("it is a symbolic link".into())),
        file => File::from(file.map_err(|error| failed(error.into()))?),
    };
    let metadata = file.metadata().map_err(failed)?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    if !metadata.is_file() {
        return Err(foreign("it is not a regular file".into()));
    }
    if metadata.nlink() != 1 {
        return Err(foreign("it has another name somewhere (a hard link)".into()));
    }
    if owner != rustix::process::geteuid().as_raw() || mode & 0o077 != 0 {
        return Err(foreign(format!("owner {owner} and mode {mode:04o}, not ours and 0600")));
    }
    if metadata.len() > MAX_SIZE {
        return Err(foreign(format!("{} bytes, more than {MAX_SIZE}", metadata.len())));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::testing::checkpoint;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        store.create().unwrap();
        (directory, store)
    }

    fn value(text: &str) -> NodeCheckpoint {
        let mut made = checkpoint("shop", "till");
        made.manifest["spec"]["containers"][0]["args"] = serde_json::json!([text]);
        made.with_digest()
    }

    fn argument(generation: &Generation) -> &serde_json::Value {
        &generation.checkpoint.manifest["spec"]["containers"][0]["args"][0]
    }

    #[test]
    fn two_generations_are_kept_and_the_newest_is_read() {
        let (_directory, store) = store();
        for text in ["one", "two", "three"] {
            store.put(&value(text)).unwrap();
        }
        let found = store.find("shop_till").unwrap();
        assert_eq!(found.good.iter().map(argument).collect::<Vec<_>>(), ["three", "two"]);
        assert!(found.bad.is_empty());
        assert_eq!(argument(&store.newest("shop_till").unwrap().0.unwrap()), "three");
    }

    #[test]
    fn what_did_not_change_is_not_written() {
        let (_directory, store) = store();
        assert!(matches!(store.put(&value("same")).unwrap(), Put::Written(1, _)));
        let mut later = value("same");
        later.captured.uptime_seconds += 100;
        assert_eq!(store.put(&later.with_digest()).unwrap(), Put::Unchanged(1));
    }

    #[test]
    fn a_damaged_generation_is_skipped_never_hides_the_older_one_and_goes_when_a_good_newer_one_is_there() {
        let (_directory, store) = store();
        store.put(&value("one")).unwrap();
        store.put(&value("two")).unwrap();
        let newest = store.find("shop_till").unwrap().good.remove(0).path;
        let text = fs::read_to_string(&newest).unwrap().replace("two", "twa");
        fs::write(&newest, text).unwrap();
        let (good, bad) = store.newest("shop_till").unwrap();
        assert_eq!(argument(&good.unwrap()), "one");
        assert!(bad[0].to_string().contains(newest.to_str().unwrap()), "{}", bad[0]);
        // also when nothing is new: two good ones are kept, whatever happened to them
        assert!(matches!(store.put(&value("one")).unwrap(), Put::Written(3, _)));
        let found = store.find("shop_till").unwrap();
        assert_eq!(found.good.iter().map(argument).collect::<Vec<_>>(), ["one", "one"]);
        assert_eq!(found.good[0].number, 3, "the number of a damaged generation is not used again");
        assert!(found.bad.is_empty());
    }

    #[test]
    fn every_byte_cut_off_the_end_is_noticed() {
        let (_directory, store) = store();
        store.put(&value("one")).unwrap();
        let path = store.find("shop_till").unwrap().good.remove(0).path;
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() - 1 {
            assert!(NodeCheckpoint::from_yaml(&whole[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn links_fifos_and_files_that_others_can_write_are_not_read() {
        let (directory, store) = store();
        store.put(&value("one")).unwrap();
        let good = store.find("shop_till").unwrap().good.remove(0).path;
        let elsewhere = directory.path().join("elsewhere");
        fs::copy(&good, &elsewhere).unwrap();
        let pod = good.parent().unwrap();
        symlink(&elsewhere, pod.join("0000000002.yaml")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, pod.join("0000000003.yaml"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .unwrap();
        fs::copy(&good, pod.join("0000000004.yaml")).unwrap();
        fs::set_permissions(pod.join("0000000004.yaml"), fs::Permissions::from_mode(0o666)).unwrap();
        fs::hard_link(&elsewhere, pod.join("0000000005.yaml")).unwrap();
        let found = store.find("shop_till").unwrap();
        assert_eq!(found.good.len(), 1);
        assert_eq!(found.bad.len(), 4);
        assert!(found.bad.iter().all(|error| matches!(error, Error::Foreign { .. })), "{:?}", found.bad);
    }

    #[test]
    fn a_checkpoint_of_another_pod_is_not_taken_for_this_one() {
        let (_directory, store) = store();
        store.put(&value("one")).unwrap();
        let path = store.find("shop_till").unwrap().good.remove(0).path;
        let other = store.pod("shop_other").unwrap();
        fs::create_dir(&other).unwrap();
        fs::copy(path, other.join("0000000001.yaml")).unwrap();
        assert!(store.newest("shop_other").unwrap().0.is_none());
    }

    #[test]
    fn a_key_is_never_a_path() {
        for key in ["", "a", "a_", "_b", "../x_y", "a_../b", "a_.b", "a/b_c", "A_b", "a_b_c", "a.b_c"] {
            assert!(check_key(key).is_err(), "{key}");
        }
        assert_eq!(check_key("kube-system_kube-proxy.x-1").unwrap(), ("kube-system", "kube-proxy.x-1"));
    }

    #[test]
    fn a_newer_format_is_named_with_the_program_that_wrote_it() {
        let text = "apiVersion: podcheckpointer.io/v9\nkind: NodeCheckpoint\nwrittenBy: pod-checkpointer 9.1\n";
        let error = NodeCheckpoint::from_yaml(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("podcheckpointer.io/v9") && error.contains("pod-checkpointer 9.1"), "{error}");
    }

    #[test]
    fn only_one_holds_a_lock() {
        let (_directory, store) = store();
        let held = store.lock("agent.lock").unwrap();
        assert!(matches!(store.lock("agent.lock"), Err(Error::Locked(_))));
        drop(held);
        store.lock("agent.lock").unwrap();
    }

    #[test]
    fn leftovers_of_a_crash_are_removed_and_foreign_files_stay() {
        let (_directory, store) = store();
        store.put(&value("one")).unwrap();
        let pod = store.pod("shop_till").unwrap();
        fs::write(pod.join(format!("{}xyz", write::TEMPORARY)), "torn").unwrap();
        fs::write(pod.join("README"), "somebody's").unwrap();
        store.clean().unwrap();
        assert_eq!(store.find("shop_till").unwrap().other, [pod.join("README")]);
    }
}
