//! Where checkpoints are kept: one directory a pod, one file a generation, the newest two that are good.
//!
//! ```text
//! <state dir>/checkpoints/<namespace>_<pod>/0000000007.yaml
//! <state dir>/checkpoints/<namespace>_<pod>/0000000006.yaml.damaged
//! <state dir>/node.yaml
//! ```
//! The agent is the only writer (it holds `agent.lock`); the supervisor and the command line read. Nothing is trusted for
//! its name: a file counts when it is a regular file of ours in directories of ours, not writable by others, and its digest
//! is right. One bad file never hides another. A damaged one is set aside under a name that says so, and removed when a
//! good newer generation is there. With keys ([`Store::with_keys`]), what is written is sealed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checkpoint::format::{self, MAX_SIZE, NodeCheckpoint, SealedCheckpoint};
use crate::checkpoint::keys::{self, KeyFiles, Keys};
use crate::checkpoint::read::{self, Directory};
use crate::checkpoint::seal::Key;
use crate::checkpoint::write;
use crate::names::{Blocked, STORE_FAILED, STORE_FULL};
use crate::room::Amounts;

/// Everything of ours in the state directory.
pub const NAMES: &[&str] = &["checkpoints", "node.yaml", "agent.lock"];
/// How many good generations are kept of a pod.
pub const KEPT: usize = 2;
/// Ending of a generation's file.
const ENDING: &str = ".yaml";
/// What a damaged file's name gets at its end.
pub const DAMAGED: &str = ".damaged";
/// Good generations of one pod that are looked at, and bad ones that are told of: there are two, and one more for a moment.
const MOST_TOLD: usize = 16;
/// What is read of one pod at a time, in bytes, however many files there are.
const MOST_READ: u64 = 4 * MAX_SIZE;
/// What opening a file counts for.
const OPENING: u64 = 512;
/// Longest record of the node.
const MOST_NODE: u64 = 4 << 20;

/// Why the store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Writing failed; what was there is there still.
    #[error(transparent)]
    Write(#[from] write::Error),
    /// Reading a directory or file failed, or it cannot be trusted.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// A checkpoint of another pod.
    #[error("{} is a checkpoint of {of}", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The pod that it is of.
        of: String,
    },
    /// A file that holds no checkpoint that can be used: it is damaged, of another version, or its key is missing.
    #[error("{} cannot be used", .0.display())]
    Unusable(PathBuf, #[source] Box<format::Error>),
    /// Not a file of this shape.
    #[error("{} is damaged", .0.display())]
    Syntax(PathBuf, #[source] serde_yaml::Error),
    /// A checkpoint that cannot be written.
    #[error("cannot write the checkpoint of {0}")]
    Format(String, #[source] Box<format::Error>),
    /// A record that cannot be written.
    #[error("cannot write {0} as YAML")]
    Serialize(String, #[source] serde_yaml::Error),
    /// The key that seals cannot be used, and nothing is written in clear instead.
    #[error("nothing is stored without the key that was given")]
    Key(#[source] Box<keys::Error>),
    /// What is sealed is not put beside what is not.
    #[error("checkpoints of {0} are sealed, and no key was given: give it, or remove them")]
    NoKey(String),
    /// Another process holds the lock.
    #[error("{} is held by another process: one agent and one supervisor run on a node", .0.display())]
    Locked(PathBuf),
    /// The lock cannot be opened.
    #[error("cannot open {}", .0.display())]
    Lock(PathBuf, #[source] io::Error),
    /// Not `<namespace>_<pod>`.
    #[error("{0:?} is not <namespace>_<pod>")]
    Name(String),
}

impl Error {
    /// The file, where it is ours and its content is not what was written.
    pub fn damaged(&self) -> Option<&PathBuf> {
        match self {
            Self::Unusable(path, source) => match **source {
                format::Error::Version { .. } | format::Error::KeyMissing { .. } | format::Error::KeyWrong { .. } => {
                    None
                }
                _ => Some(path),
            },
            _ => None,
        }
    }

    /// What a file says in clear, where only its key is missing.
    pub fn header(&self) -> Option<&SealedCheckpoint> {
        match self {
            Self::Unusable(_, source) => source.header(),
            _ => None,
        }
    }

    /// Why a pod cannot be activated whose checkpoint this is.
    pub fn blocked(&self) -> Blocked {
        match self {
            Self::Unusable(_, source) => match **source {
                format::Error::KeyMissing { .. } => Blocked::KeyMissing,
                format::Error::KeyWrong { .. } => Blocked::KeyWrong,
                _ => Blocked::Damaged,
            },
            _ => Blocked::Damaged,
        }
    }

    /// Why a capture could not be stored, for a condition: one of [`crate::names::STORE_ERRORS`].
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Write(error) if error.is_full() => STORE_FULL,
            Self::Key(_) | Self::NoKey(_) => Blocked::KeyMissing.as_str(),
            _ => STORE_FAILED,
        }
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
    /// UID of the node object now, where it is not the one above: nothing is removed until it has been this for an hour, and
    /// nothing of the node before it is activated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_uid: Option<String>,
    /// What the kubelet may give to pods, by the node object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<Amounts>,
    /// API servers, as the kubelet's own kubeconfig names them.
    pub servers: Vec<ServerRecord>,
}

impl NodeRecord {
    /// UID of the node object as the API server last named it, if it ever did.
    pub fn current_uid(&self) -> Option<&str> {
        self.current_uid.as_deref().or(Some(self.node_uid.as_str())).filter(|uid| !uid.is_empty())
    }
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
    /// Id of the key that it is sealed with; `None`: it is in clear.
    pub sealed: Option<String>,
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
    /// Damaged ones that were set aside, by number, newest first.
    pub aside: Vec<(u64, PathBuf)>,
    /// Generations that nobody looked at, because there are so many newer ones.
    pub surplus: Vec<PathBuf>,
    /// Names that do not belong here, temporary files among them.
    pub other: Vec<PathBuf>,
}

impl Found {
    /// The highest number of any generation, usable or not.
    pub fn newest_number(&self) -> Option<u64> {
        let paths = self.bad.iter().filter_map(|error| match error {
            Error::Unusable(path, _)
            | Error::Foreign { path, .. }
            | Error::Read(read::Error::Untrusted { path, .. } | read::Error::Io(path, _)) => Some(path),
            _ => None,
        });
        let bad = paths.filter_map(|path| number_of(&path.file_name()?.to_string_lossy(), false));
        let good = self.good.iter().map(|generation| generation.number);
        good.chain(bad).chain(self.aside.iter().map(|(number, _)| *number)).max()
    }
}

/// What putting a checkpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The newest generation says the same: nothing was written.
    Unchanged(u64),
    /// Written as this generation, with this many bytes.
    Written(u64, u64),
}

/// What putting the store in order came to.
#[derive(Debug, Default)]
pub struct Tidied {
    /// Leftovers of a crash, and what a newer generation made superfluous, that are gone.
    pub removed: Vec<PathBuf>,
    /// Pods with a damaged file that was set aside, with where it is now.
    pub aside: Vec<(String, PathBuf)>,
    /// Pods whose newest file is damaged: no whole one has taken its place yet. `None`: nobody looked.
    pub damaged: Option<Vec<String>>,
    /// Generations that are sealed with the first key now.
    pub resealed: usize,
    /// What did not work. The rest was done.
    pub failed: Vec<Error>,
}

impl Tidied {
    /// All was in order: nothing was done and nothing failed.
    pub fn is_nothing(&self) -> bool {
        let Self { removed, aside, damaged: _, resealed, failed } = self;
        removed.is_empty() && aside.is_empty() && *resealed == 0 && failed.is_empty()
    }
}

/// The store of one node.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    keys: KeyFiles,
    /// Held by those who write one pod for reading, by one who puts the whole in order for writing.
    order: Arc<RwLock<()>>,
}

impl Store {
    /// The store in this directory (a real path, see [`crate::node::host::HostRoot::resolve`]), which need not exist.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), keys: KeyFiles::default(), order: Arc::default() }
    }

    /// Seals with the first of these keys and opens with all.
    #[must_use]
    pub fn with_keys(self, keys: KeyFiles) -> Self {
        Self { keys, ..self }
    }

    /// The keys that were given.
    pub fn keys_given(&self) -> &KeyFiles {
        &self.keys
    }

    /// Makes the directories, for root only.
    pub fn create(&self) -> Result<(), Error> {
        let checkpoints = self.checkpoints();
        write::directory(&checkpoints)?;
        for directory in [&self.directory, &checkpoints] {
            // made by somebody before us, or by a packager: what is in it is for root only
            write::make_private(directory)?;
        }
        Ok(())
    }

    /// Takes the lock of this name in the store's directory, for as long as the file lives.
    pub fn lock(&self, name: &str) -> Result<File, Error> {
        lock(&self.directory.join(name))
    }

    /// Keys of all pods that have a directory here, in order.
    pub fn keys(&self) -> Result<Vec<String>, Error> {
        let mut keys = match self.opened()? {
            Some(checkpoints) => checkpoints.names()?,
            None => Vec::new(),
        };
        keys.retain(|name| check_key(name).is_ok());
        keys.sort_unstable();
        Ok(keys)
    }

    /// Reads the generations of a pod; of very many the newest.
    pub fn find(&self, key: &str) -> Result<Found, Error> {
        self.find_with(key, &self.keys.load())
    }

    fn find_with(&self, key: &str, keys: &Keys) -> Result<Found, Error> {
        check_key(key)?;
        let mut found = Found::default();
        let Some(directory) = self.opened_pod(key)? else { return Ok(found) };
        let mut numbers = Vec::new();
        for name in directory.names()? {
            let path = directory.path().join(&name);
            match parse_name(&name) {
                Some((number, false)) => numbers.push(number),
                Some((number, true)) => found.aside.push((number, path)),
                None => found.other.push(path),
            }
        }
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        found.aside.sort_unstable_by(|one, other| other.cmp(one));
        found.other.sort_unstable();
        let mut budget = MOST_READ;
        for number in numbers {
            if found.good.len() < MOST_TOLD && budget > 0 {
                match read_generation(&directory, number, key, keys, &mut budget) {
                    Ok(generation) => {
                        found.good.push(generation);
                        continue;
                    }
                    Err(error) if found.bad.len() < MOST_TOLD => {
                        found.bad.push(error);
                        continue;
                    }
                    Err(_) => {}
                }
            }
            found.surplus.push(directory.path().join(file_name(number)));
        }
        Ok(found)
    }

    /// The newest good generation, read newest first and no further than needed, with what was wrong with newer ones.
    pub fn newest(&self, key: &str) -> Result<(Option<Generation>, Vec<Error>), Error> {
        check_key(key)?;
        let mut bad = Vec::new();
        let Some(directory) = self.opened_pod(key)? else { return Ok((None, bad)) };
        let mut numbers: Vec<u64> = directory.names()?.iter().filter_map(|name| number_of(name, false)).collect();
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        let keys = self.keys.load();
        let mut budget = MOST_READ;
        for number in numbers {
            if budget == 0 {
                break;
            }
            match read_generation(&directory, number, key, &keys, &mut budget) {
                Ok(generation) => return Ok((Some(generation), bad)),
                Err(error) if bad.len() < MOST_TOLD => bad.push(error),
                Err(_) => {}
            }
        }
        Ok((None, bad))
    }

    /// Adds a generation, unless the newest one says the same and all are whole; then removes what is no longer needed:
    /// good ones beyond the newest two with all that is older, and damaged ones, which have served their purpose when a
    /// good newer one exists.
    pub fn put(&self, checkpoint: &NodeCheckpoint) -> Result<Put, Error> {
        let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        let key = checkpoint.key();
        let directory = self.pod(&key)?;
        write::settle(&directory)?;
        let keys = self.keys.load();
        let seal = keys.sealing().map_err(|_| no_key(&self.keys, &key))?;
        let found = self.find_with(&key, &keys)?;
        if seal.is_none() && found.bad.iter().any(|error| error.header().is_some()) {
            return Err(Error::NoKey(key));
        }
        let damaged: Vec<&PathBuf> = found.bad.iter().filter_map(Error::damaged).collect();
        if let Some(newest) = found.good.first()
            && damaged.is_empty()
            && found.aside.iter().all(|(number, _)| *number < newest.number)
            && newest.checkpoint.content_digest() == checkpoint.content_digest()
        {
            // a pass that failed after it had written may have left more
            write::remove_each(&directory, &superseded(&found, KEPT))?;
            return Ok(Put::Unchanged(newest.number));
        }
        write::directory(&directory)?;
        let number = last_number(&directory)?.saturating_add(1);
        let path = directory.join(file_name(number));
        let size = write_generation(&path, checkpoint, seal)?;
        let mut needless = superseded(&found, KEPT.saturating_sub(1));
        for path in damaged.into_iter().chain(found.aside.iter().map(|(_, path)| path)) {
            tracing::warn!(file = %path.display(), "removing a damaged checkpoint: a good newer one is there");
            needless.push(path.clone());
        }
        write::remove_each(&directory, &needless)?;
        Ok(Put::Written(number, size))
    }

    /// Removes all of a pod: at once under this name, so that no part of it is taken for the whole. The caller has proof
    /// that the pod is gone.
    pub fn remove(&self, key: &str) -> Result<(), Error> {
        let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        let directory = self.pod(key)?;
        Ok(write::remove_directory(&directory)?)
    }

    /// Removes what a crash left (temporary files, directories half removed or still empty), and makes the rest last: a
    /// process that ended between a rename and its fsync left something that is seen but not kept.
    pub fn clean(&self) -> Result<(), Error> {
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let mut tidied = Tidied::default();
        self.clean_into(&mut tidied)?;
        tidied.failed.into_iter().next().map_or(Ok(()), Err)
    }

    fn clean_into(&self, tidied: &mut Tidied) -> Result<(), Error> {
        let mut directories = vec![self.directory.clone(), self.checkpoints()];
        for key in self.keys()? {
            directories.push(self.pod(&key)?);
        }
        for (at, directory) in directories.into_iter().enumerate() {
            let opened = match Directory::open(&directory) {
                Err(error) if error.is_absent() => continue,
                Err(error) => {
                    tidied.failed.push(error.into());
                    continue;
                }
                Ok(opened) => opened,
            };
            let names = opened.names()?;
            for name in names.iter().filter(|name| name.starts_with(write::TEMPORARY)) {
                let path = directory.join(name);
                let removed = if opened.has_directory(name) { write::remove_tree(&path) } else { write::remove(&path) };
                match removed {
                    Ok(()) => tidied.removed.push(path),
                    Err(error) => tidied.failed.push(error.into()),
                }
            }
            let is_pod = at > 1;
            if is_pod && names.iter().all(|name| name.starts_with(write::TEMPORARY)) {
                // only if nothing is in it: whatever came meanwhile stays
                match write::remove_empty(&directory) {
                    Ok(()) => {
                        tidied.removed.push(directory);
                        continue;
                    }
                    Err(error) => tidied.failed.push(error.into()),
                }
            }
            if let Err(error) = write::sync(&directory) {
                tidied.failed.push(error.into());
            }
        }
        Ok(())
    }

    /// Puts the store in order: removes leftovers and what newer generations made superfluous, sets damaged files aside,
    /// and seals with the first key what is not. Writes nothing where all is in order.
    pub fn tidy(&self) -> Result<Tidied, Error> {
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let mut tidied = Tidied::default();
        self.clean_into(&mut tidied)?;
        let keys = self.keys.load();
        tidied.damaged = Some(Vec::new());
        for key in self.keys()? {
            if let Err(error) = self.tidy_pod(&key, &keys, &mut tidied) {
                tidied.failed.push(error);
            }
        }
        Ok(tidied)
    }

    fn tidy_pod(&self, key: &str, keys: &Keys, tidied: &mut Tidied) -> Result<(), Error> {
        let found = self.find_with(key, keys)?;
        for path in found.bad.iter().filter_map(Error::damaged) {
            match set_aside(path) {
                Ok(path) => tidied.aside.push((key.to_owned(), path)),
                Err(error) => tidied.failed.push(error),
            }
        }
        let newest = found.good.first().map(|newest| newest.number);
        let number = |path: &PathBuf| parse_name(path.file_name()?.to_str()?).map(|(number, _)| number);
        let now_aside = found.bad.iter().filter_map(|error| number(error.damaged()?));
        if found.aside.iter().map(|(number, _)| *number).chain(now_aside).max() > newest {
            tidied.damaged.get_or_insert_default().push(key.to_owned());
        }
        let replaced = found.aside.iter().filter(|(number, _)| Some(*number) < newest).map(|(_, path)| path.clone());
        let needless: Vec<PathBuf> = replaced.chain(superseded(&found, KEPT)).collect();
        match write::remove_each(&self.pod(key)?, &needless) {
            Ok(()) => tidied.removed.extend(needless),
            Err(error) => tidied.failed.push(error.into()),
        }
        if let Ok(Some(first)) = keys.sealing() {
            for generation in found.good.iter().take(KEPT).filter(|it| it.sealed.as_deref() != Some(first.id())) {
                write_generation(&generation.path, &generation.checkpoint, Some(first))?;
                tidied.resealed += 1;
            }
        }
        Ok(())
    }

    /// Puts generations of another store here, under their own numbers. The caller has verified them and looked that none
    /// is in the way. Says how many were written.
    pub fn adopt(&self, key: &str, generations: &[(u64, &NodeCheckpoint)]) -> Result<usize, Error> {
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let directory = self.pod(key)?;
        let keys = self.keys.load();
        let seal = keys.sealing().map_err(|_| no_key(&self.keys, key))?;
        write::directory(&directory)?;
        // the older first: what is there is always the newest of what was
        for (number, checkpoint) in generations {
            write_generation(&directory.join(file_name(*number)), checkpoint, seal)?;
        }
        Ok(generations.len())
    }

    /// What the agent recorded of the node; `None`: nothing yet.
    pub fn node(&self) -> Result<Option<NodeRecord>, Error> {
        let path = self.directory.join("node.yaml");
        let read = Directory::open(&self.directory).and_then(|directory| directory.file("node.yaml", MOST_NODE));
        match read {
            Ok(bytes) => serde_yaml::from_slice(&bytes).map(Some).map_err(|source| Error::Syntax(path, source)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
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

    /// The directory of all pods, if it is there and ours.
    fn opened(&self) -> Result<Option<Directory>, Error> {
        let checkpoints = Directory::open(&self.directory).and_then(|directory| directory.directory("checkpoints"));
        absent(checkpoints)
    }

    fn opened_pod(&self, key: &str) -> Result<Option<Directory>, Error> {
        match self.opened()? {
            Some(checkpoints) => absent(checkpoints.directory(key)),
            None => Ok(None),
        }
    }
}

fn absent<T>(result: Result<T, read::Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The error of the key that should seal.
fn no_key(files: &KeyFiles, key: &str) -> Error {
    files.load().into_error().map_or_else(|| Error::NoKey(key.to_owned()), |error| Error::Key(Box::new(error)))
}

/// What nobody needs any more when this many good generations are there: all that is older than the last of them.
fn superseded(found: &Found, kept: usize) -> Vec<PathBuf> {
    let Some(last) = found.good.get(kept.saturating_sub(1)).map(|last| last.number) else { return Vec::new() };
    let bad = found.bad.iter().filter(|error| error.damaged().is_none()).filter_map(|error| match error {
        Error::Unusable(path, _) => Some(path),
        _ => None,
    });
    let is_older = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        number_of(&name, false).is_some_and(|number| number < last)
    };
    let good = found.good.iter().map(|generation| &generation.path);
    good.chain(bad).chain(&found.surplus).filter(is_older).cloned().collect()
}

/// Gives a damaged file a name that says so. Says where it is now.
pub fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(DAMAGED);
    let aside = PathBuf::from(aside);
    write::rename(path, &aside)?;
    Ok(aside)
}

/// Takes an advisory lock on a file, made if need be, for as long as the returned file lives. On a file system that cannot
/// be written any more, one that is there is enough.
pub fn lock(path: &Path) -> Result<File, Error> {
    let options = File::options().create(true).truncate(false).write(true).mode(0o600).clone();
    let file = options.open(path).or_else(|error| {
        let kind = error.kind();
        let is_disk = matches!(kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull);
        if is_disk { File::open(path).map_err(|_| error) } else { Err(error) }
    });
    let file = file.map_err(|source| Error::Lock(path.to_owned(), source))?;
    fs2::FileExt::try_lock_exclusive(&file).map_err(|_| Error::Locked(path.to_owned()))?;
    Ok(file)
}

/// Does somebody hold this lock? No file means no. Others who ask at the same moment are not taken for holders.
pub fn is_locked(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        file => Ok(fs2::FileExt::try_lock_shared(&file?).is_err()),
    }
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
        _ => Err(Error::Name(key.to_owned())),
    }
}

fn file_name(number: u64) -> String {
    format!("{number:010}{ENDING}")
}

/// The number of a generation's file, and whether it was set aside.
fn parse_name(name: &str) -> Option<(u64, bool)> {
    let (rest, aside) = name.strip_suffix(DAMAGED).map_or((name, false), |rest| (rest, true));
    let digits = rest.strip_suffix(ENDING)?;
    let is_number = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten().map(|number| (number, aside))
}

fn number_of(name: &str, aside: bool) -> Option<u64> {
    parse_name(name).filter(|(_, is_aside)| *is_aside == aside).map(|(number, _)| number)
}

/// The highest number that was ever used and can be seen: that of a damaged file is not used again.
fn last_number(directory: &Path) -> Result<u64, Error> {
    let names = Directory::open(directory)?.names()?;
    Ok(names.iter().filter_map(|name| parse_name(name)).map(|(number, _)| number).max().unwrap_or(0))
}

/// Writes a generation's file, sealed if there is a key. Says how many bytes it has.
fn write_generation(path: &Path, checkpoint: &NodeCheckpoint, seal: Option<&Key>) -> Result<u64, Error> {
    let bytes = checkpoint.write(seal).map_err(|source| Error::Format(checkpoint.key(), Box::new(source)))?;
    write::file(path, &bytes, 0o600)?;
    Ok(bytes.len() as u64)
}

fn read_generation(
    directory: &Directory,
    number: u64,
    key: &str,
    keys: &Keys,
    budget: &mut u64,
) -> Result<Generation, Error> {
    let name = file_name(number);
    let path = directory.path().join(&name);
    *budget = budget.saturating_sub(OPENING);
    let bytes = directory.file(&name, MAX_SIZE)?;
    *budget = budget.saturating_sub(bytes.len() as u64);
    let opened = NodeCheckpoint::open(&bytes, keys);
    let (checkpoint, sealed) = opened.map_err(|source| Error::Unusable(path.clone(), Box::new(source)))?;
    if checkpoint.key() != key {
        return Err(Error::Foreign { path, of: checkpoint.key() });
    }
    Ok(Generation { number, path, size: bytes.len() as u64, sealed, checkpoint })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
