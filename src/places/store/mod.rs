//! The store of checkpoints: one directory per pod, one file per generation, of which the newest
//! two good ones are kept.
//!
//! ```text
//! <state dir>/checkpoints/<namespace>_<pod>/0000000007.yaml
//! <state dir>/checkpoints/<namespace>_<pod>/0000000006.yaml.damaged
//! ```
//! The agent is the only writer (it holds `agent.lock`); the supervisor and the command line read.
//! Nothing is trusted because of its name: a file counts if it is a regular file, it and its
//! directories belong to this user and are not writable by others, and its digest is right. One bad
//! file never hides another. A damaged file is renamed, and removed once a good newer generation
//! exists. With keys ([`Store::with_keys`]), new files are sealed.

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
use crate::names::{AGENT_LOCK, AGES, CHECKPOINTS, NODE_RECORD, STORE_FAILED, STORE_FULL};
use crate::pod::id::{self, PodId};
use crate::reasons::Blocked;

pub use generation::{Generation, set_aside};
use generation::{
    file_name, last_number, number_of, parse_name, read_generation, write_generation,
};
pub use tidy::Tidied;
use tidy::superseded;

/// Names of all files and directories that the program creates in the state directory.
pub const NAMES: &[&str] = &[CHECKPOINTS, NODE_RECORD, AGES, AGENT_LOCK];
/// How many good generations of a pod are kept.
pub const KEPT: usize = 2;
/// The most good generations of one pod that are read, and the most bad ones that are reported.
/// There are two, and for a moment three.
const MOST_GENERATIONS: usize = 16;
/// The most bytes of one pod that are read at a time, however many files there are.
const MOST_READ: u64 = 4 * MAX_SIZE;

/// Why the store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Writing failed; the existing generations are unchanged.
    #[error(transparent)]
    Write(#[from] write::Error),
    /// A directory or file cannot be read or is not trusted.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// The file contains a checkpoint of another pod.
    #[error("{} is a checkpoint of {of}", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The pod in the file.
        of: String,
    },
    /// The file contains no usable checkpoint: it is damaged, of another version, or its key is
    /// missing.
    #[error("cannot use {}", .0.display())]
    Unusable(PathBuf, #[source] Box<format::Error>),
    /// The file does not have the expected content.
    #[error("cannot parse {}", .0.display())]
    Syntax(PathBuf, #[source] serde_yaml::Error),
    /// The checkpoint cannot be written.
    #[error("cannot write the checkpoint of {0}")]
    Format(String, #[source] Box<format::Error>),
    /// The record cannot be written.
    #[error("cannot write {0} as YAML")]
    Serialize(String, #[source] serde_yaml::Error),
    /// The sealing key cannot be used, and nothing is written in clear text instead.
    #[error("cannot store a checkpoint without the key that was given")]
    Key(#[source] Box<keys::Error>),
    /// The pod has sealed checkpoints, so that none may be stored in clear text.
    #[error(
        "checkpoints of {0} are sealed, and no key was given: give it with --key-file, or remove them"
    )]
    NoKey(String),
    /// The lock cannot be taken.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// A checkpoint that names no pod.
    #[error(transparent)]
    Name(#[from] id::Invalid),
}

impl Error {
    /// The file, if it is trusted and its content is damaged.
    pub fn damaged(&self) -> Option<&PathBuf> {
        match self {
            Self::Unusable(path, source) => match **source {
                format::Error::Version { .. }
                | format::Error::KeyMissing { .. }
                | format::Error::KeyWrong { .. } => None,
                _ => Some(path),
            },
            _ => None,
        }
    }

    /// What a file says in clear text, if only its key is missing.
    pub fn header(&self) -> Option<&SealedCheckpoint> {
        match self {
            Self::Unusable(_, source) => source.header(),
            _ => None,
        }
    }

    /// Why this error keeps the pod from being activated.
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

    /// The reason of the condition of a pod whose capture could not be stored: one of
    /// [`crate::names::STORE_ERRORS`].
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Write(error) if error.is_full() => STORE_FULL,
            Self::Key(_) | Self::NoKey(_) => Blocked::KeyMissing.as_str(),
            _ => STORE_FAILED,
        }
    }
}

/// The content of one pod's directory.
#[derive(Debug, Default)]
pub struct Found {
    /// Good generations, newest first.
    pub good: Vec<Generation>,
    /// Errors of the generations that are not usable.
    pub bad: Vec<Error>,
    /// Damaged generations that were set aside, with their numbers, newest first.
    pub aside: Vec<(u64, PathBuf)>,
    /// Generations that were not read, because there are too many newer ones.
    pub surplus: Vec<PathBuf>,
    /// Other files, including temporary ones.
    pub other: Vec<PathBuf>,
}

impl Found {
    /// The highest number of any generation, usable or not.
    pub fn newest_number(&self) -> Option<u64> {
        let paths = self.bad.iter().filter_map(|error| match error {
            Error::Unusable(path, _)
            | Error::Foreign { path, .. }
            | Error::Read(read::Error::Untrusted { path, .. } | read::Error::Io(path, _)) => {
                Some(path)
            }
            _ => None,
        });
        let bad = paths.filter_map(|path| number_of(&path.file_name()?.to_string_lossy(), false));
        let good = self.good.iter().map(|generation| generation.number);
        good.chain(bad)
            .chain(self.aside.iter().map(|(number, _)| *number))
            .max()
    }
}

/// What [`Store::put`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The newest generation, with this number, has the same content: nothing was written.
    Unchanged(u64),
    /// The checkpoint was written as the generation with this number, with this many bytes.
    Written(u64, u64),
}

/// The store of one node.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    keys: KeyFiles,
    /// Held for reading while one pod or the record of the node is written, and for writing while
    /// the whole store is tidied.
    pub(super) order: Arc<RwLock<()>>,
}

impl Store {
    /// The store in this directory, which need not exist; a real path (see
    /// [`crate::node::host::HostRoot::resolve`]).
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            keys: KeyFiles::default(),
            order: Arc::default(),
        }
    }

    /// The same store, which seals with the first of these keys and opens with all.
    #[must_use]
    pub fn with_keys(self, keys: KeyFiles) -> Self {
        Self { keys, ..self }
    }

    /// The keys that were given.
    pub fn keys_given(&self) -> &KeyFiles {
        &self.keys
    }

    /// Creates the directories, accessible to root only.
    pub fn create(&self) -> Result<(), Error> {
        let checkpoints = self.checkpoints();
        write::directory(&checkpoints)?;
        for directory in [&self.directory, &checkpoints] {
            // it may have been created earlier, by hand or by a package; its content is for root
            // only
            write::make_private(directory)?;
        }
        Ok(())
    }

    /// Takes the lock of this name in the store's directory, for as long as the returned file is
    /// open.
    pub fn lock(&self, name: &str) -> Result<File, Error> {
        Ok(lock::lock(&self.directory.join(name))?)
    }

    /// Keys of all pods that have a directory in the store, sorted.
    pub fn keys(&self) -> Result<Vec<PodId>, Error> {
        let names = match self.opened()? {
            Some(checkpoints) => checkpoints.names()?,
            None => Vec::new(),
        };
        let mut keys: Vec<PodId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// Reads the generations of a pod; if there are very many, only the newest.
    pub fn find(&self, key: &PodId) -> Result<Found, Error> {
        self.find_with(key, &self.keys.load())
    }

    fn find_with(&self, key: &PodId, keys: &Keys) -> Result<Found, Error> {
        let mut found = Found::default();
        let Some(directory) = self.opened_pod(key)? else {
            return Ok(found);
        };
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
            if found.good.len() < MOST_GENERATIONS && budget > 0 {
                match read_generation(&directory, number, key, keys, &mut budget) {
                    Ok(generation) => {
                        found.good.push(generation);
                        continue;
                    }
                    Err(error) if found.bad.len() < MOST_GENERATIONS => {
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

    /// The newest good generation, and the errors of newer ones. Reads no older generations.
    pub fn newest(&self, key: &PodId) -> Result<(Option<Generation>, Vec<Error>), Error> {
        let mut bad = Vec::new();
        let Some(directory) = self.opened_pod(key)? else {
            return Ok((None, bad));
        };
        let mut numbers: Vec<u64> = directory
            .names()?
            .iter()
            .filter_map(|name| number_of(name, false))
            .collect();
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        let keys = self.keys.load();
        let mut budget = MOST_READ;
        for number in numbers {
            if budget == 0 {
                break;
            }
            match read_generation(&directory, number, key, &keys, &mut budget) {
                Ok(generation) => return Ok((Some(generation), bad)),
                Err(error) if bad.len() < MOST_GENERATIONS => bad.push(error),
                Err(_) => {}
            }
        }
        Ok((None, bad))
    }

    /// Adds a generation, unless the newest one has the same content and none is damaged. Then
    /// removes what is no longer needed: everything older than the newest two good generations, and
    /// damaged ones, which are useless once a good newer one exists.
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
            && found
                .aside
                .iter()
                .all(|(number, _)| *number < newest.number)
            && newest.checkpoint.content_digest() == checkpoint.content_digest()
        {
            // an earlier call that failed after writing may have left more
            write::remove_each(&directory, &superseded(&found, KEPT))?;
            return Ok(Put::Unchanged(newest.number));
        }
        write::directory(&directory)?;
        let number = last_number(&directory)?.saturating_add(1);
        let path = directory.join(file_name(number));
        let size = write_generation(&path, checkpoint, seal)?;
        let mut needless = superseded(&found, KEPT.saturating_sub(1));
        for path in damaged
            .into_iter()
            .chain(found.aside.iter().map(|(_, path)| path))
        {
            tracing::warn!(file = %path.display(), "removing a damaged checkpoint, because a good newer one exists");
            needless.push(path.clone());
        }
        write::remove_each(&directory, &needless)?;
        Ok(Put::Written(number, size))
    }

    /// Removes everything of a pod, in a single step, so that a part of it is never taken for the
    /// whole. The caller must have proof that the pod is gone.
    pub fn remove(&self, key: &PodId) -> Result<(), Error> {
        let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        let directory = self.pod(key);
        Ok(write::remove_directory(&directory)?)
    }

    /// Adds generations of another store under their own numbers. The caller has verified them and
    /// made sure that they replace no other. Returns how many were written.
    pub fn adopt(
        &self,
        key: &PodId,
        generations: &[(u64, &NodeCheckpoint)],
    ) -> Result<usize, Error> {
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let directory = self.pod(key);
        let keys = self.keys.load();
        let seal = keys.sealing().map_err(|_| no_key(&self.keys, key))?;
        write::directory(&directory)?;
        // the older one first, so that the newest one written is the newest one of the store
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

    /// The directory of all pods; `None` if it does not exist.
    fn opened(&self) -> Result<Option<Directory>, Error> {
        let checkpoints =
            Directory::open(&self.directory).and_then(|directory| directory.directory(CHECKPOINTS));
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

/// The error of the sealing key.
fn no_key(files: &KeyFiles, key: &PodId) -> Error {
    files.load().into_error().map_or_else(
        || Error::NoKey(key.to_string()),
        |error| Error::Key(Box::new(error)),
    )
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
