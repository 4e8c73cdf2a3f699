//! Where checkpoints are kept: one directory a pod, one file a generation, the newest two that are good.
//!
//! ```text
//! <state dir>/checkpoints/<namespace>_<pod>/0000000007.yaml
//! <state dir>/checkpoints/<namespace>_<pod>/0000000006.yaml.damaged
//! ```
//! The agent is the only writer (it holds `agent.lock`); the supervisor and the command line read. Nothing is trusted for
//! its name: a file counts when it is a regular file of ours in directories of ours, not writable by others, and its digest
//! is right. One bad file never hides another. A damaged one is set aside under a name that says so, and removed when a
//! good newer generation is there. With keys ([`Store::with_keys`]), what is written is sealed.

pub(crate) mod generation;
mod tidy;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::checkpoint::format::{self, MAX_SIZE, NodeCheckpoint, SealedCheckpoint};
use crate::checkpoint::keys::{self, KeyFiles, Keys};
use crate::files::lock;
use crate::files::read::{self, Directory};
use crate::files::write;
use crate::names::{AGENT_LOCK, CHECKPOINTS, NODE_RECORD, STORE_FAILED, STORE_FULL};
use crate::pod::id::{self, PodId};
use crate::reasons::Blocked;

pub use generation::{Generation, set_aside};
use generation::{file_name, last_number, number_of, parse_name, read_generation, write_generation};
pub use tidy::Tidied;
use tidy::superseded;

/// Everything of ours in the state directory.
pub const NAMES: &[&str] = &[CHECKPOINTS, NODE_RECORD, AGENT_LOCK];
/// How many good generations are kept of a pod.
pub const KEPT: usize = 2;
/// Good generations of one pod that are looked at, and bad ones that are told of: there are two, and one more for a moment.
const MOST_TOLD: usize = 16;
/// What is read of one pod at a time, in bytes, however many files there are.
const MOST_READ: u64 = 4 * MAX_SIZE;

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
    /// The lock cannot be taken.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// A checkpoint that names no pod.
    #[error(transparent)]
    Name(#[from] id::Invalid),
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
        Ok(lock::lock(&self.directory.join(name))?)
    }

    /// Keys of all pods that have a directory here, in order.
    pub fn keys(&self) -> Result<Vec<PodId>, Error> {
        let names = match self.opened()? {
            Some(checkpoints) => checkpoints.names()?,
            None => Vec::new(),
        };
        let mut keys: Vec<PodId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// Reads the generations of a pod; of very many the newest.
    pub fn find(&self, key: &PodId) -> Result<Found, Error> {
        self.find_with(key, &self.keys.load())
    }

    fn find_with(&self, key: &PodId, keys: &Keys) -> Result<Found, Error> {
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
    pub fn newest(&self, key: &PodId) -> Result<(Option<Generation>, Vec<Error>), Error> {
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
        let key = checkpoint.pod()?;
        let directory = self.pod(&key);
        write::settle(&directory)?;
        let keys = self.keys.load();
        let seal = keys.sealing().map_err(|_| no_key(&self.keys, &key))?;
        let found = self.find_with(&key, &keys)?;
        if seal.is_none() && found.bad.iter().any(|error| error.header().is_some()) {
            return Err(Error::NoKey(key.to_string()));
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
    pub fn remove(&self, key: &PodId) -> Result<(), Error> {
        let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        let directory = self.pod(key);
        Ok(write::remove_directory(&directory)?)
    }

    /// Puts generations of another store here, under their own numbers. The caller has verified them and looked that none
    /// is in the way. Says how many were written.
    pub fn adopt(&self, key: &PodId, generations: &[(u64, &NodeCheckpoint)]) -> Result<usize, Error> {
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let directory = self.pod(key);
        let keys = self.keys.load();
        let seal = keys.sealing().map_err(|_| no_key(&self.keys, key))?;
        write::directory(&directory)?;
        // the older first: what is there is always the newest of what was
        for (number, checkpoint) in generations {
            write_generation(&directory.join(file_name(*number)), checkpoint, seal)?;
        }
        Ok(generations.len())
    }

    /// The store's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn checkpoints(&self) -> PathBuf {
        self.directory.join(CHECKPOINTS)
    }

    fn pod(&self, key: &PodId) -> PathBuf {
        self.checkpoints().join(key.file_form())
    }

    /// The directory of all pods, if it is there and ours.
    fn opened(&self) -> Result<Option<Directory>, Error> {
        let checkpoints = Directory::open(&self.directory).and_then(|directory| directory.directory(CHECKPOINTS));
        absent(checkpoints)
    }

    fn opened_pod(&self, key: &PodId) -> Result<Option<Directory>, Error> {
        match self.opened()? {
            Some(checkpoints) => absent(checkpoints.directory(key.file_form())),
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
fn no_key(files: &KeyFiles, key: &PodId) -> Error {
    files.load().into_error().map_or_else(|| Error::NoKey(key.to_string()), |error| Error::Key(Box::new(error)))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
