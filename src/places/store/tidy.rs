//! Tidies the store: leftovers of a crash, superseded generations, damaged files, and generations
//! to seal with a new key.

use std::path::PathBuf;
use std::sync::PoisonError;

use super::generation::{number_of, parse_name, set_aside, write_generation};
use super::{Error, Found, KEPT, Store};
use crate::checkpoint::keys::Keys;
use crate::files::read::{self, Directory};
use crate::files::write;
use crate::pod::id::PodId;

/// What tidying the store did.
#[derive(Debug, Default)]
pub struct Tidied {
    /// Removed files: leftovers of a crash and superseded generations.
    pub removed: Vec<PathBuf>,
    /// Damaged files that were set aside, with their pods and new paths.
    pub aside: Vec<(PodId, PathBuf)>,
    /// Pods whose newest generation is damaged and has not been replaced by an intact one yet.
    /// `None` if this was not checked.
    pub damaged: Option<Vec<PodId>>,
    /// Number of generations that were sealed with the first key.
    pub resealed: usize,
    /// What failed. Everything else was done.
    pub failed: Vec<Error>,
}

impl Tidied {
    /// Whether nothing had to be done and nothing failed.
    pub fn is_nothing(&self) -> bool {
        let Self {
            removed,
            aside,
            damaged: _,
            resealed,
            failed,
        } = self;
        removed.is_empty() && aside.is_empty() && *resealed == 0 && failed.is_empty()
    }
}

impl Store {
    /// Removes what a crash left behind (temporary files, directories that are half removed or
    /// still empty), and makes everything else durable: a process that ended between a rename and
    /// its fsync left something that is visible but not durable.
    pub fn clean(&self) -> Result<(), Error> {
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let mut tidied = Tidied::default();
        self.clean_into(&mut tidied)?;
        tidied.failed.into_iter().next().map_or(Ok(()), Err)
    }

    fn clean_into(&self, tidied: &mut Tidied) -> Result<(), Error> {
        let mut directories = vec![self.directory.clone(), self.checkpoints()];
        for key in self.keys()? {
            directories.push(self.pod(&key));
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
            let names = match opened.names() {
                Ok(names) => names,
                Err(error) => {
                    tidied.failed.push(error.into());
                    continue;
                }
            };
            for name in names
                .iter()
                .filter(|name| name.starts_with(write::TEMPORARY))
            {
                let path = directory.join(name);
                let removed = if opened.has_directory(name) {
                    write::remove_tree(&path)
                } else {
                    write::remove(&path)
                };
                match removed {
                    Ok(()) => tidied.removed.push(path),
                    Err(error) => tidied.failed.push(error.into()),
                }
            }
            let is_pod = at > 1;
            if is_pod && names.iter().all(|name| name.starts_with(write::TEMPORARY)) {
                // only if it is empty: what has been created meanwhile stays
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

    /// Tidies the store: removes leftovers and superseded generations, sets damaged files aside,
    /// and seals with the first key what is not sealed with it. Writes nothing if all is in order.
    pub fn tidy(&self) -> Result<Tidied, Error> {
        let _order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let mut tidied = Tidied::default();
        self.clean_into(&mut tidied)?;
        let keys = self.keys.load();
        tidied.damaged = Some(Vec::new());
        for key in self.keys()? {
            match self.tidy_pod(&key, &keys, &mut tidied) {
                // its directory was reported above
                Ok(()) | Err(Error::Read(read::Error::Untrusted { .. })) => {}
                Err(error) => tidied.failed.push(error),
            }
        }
        Ok(tidied)
    }

    fn tidy_pod(&self, key: &PodId, keys: &Keys, tidied: &mut Tidied) -> Result<(), Error> {
        let found = self.find_with(key, keys)?;
        for path in found.bad.iter().filter_map(Error::damaged) {
            match set_aside(path) {
                Ok(path) => tidied.aside.push((key.clone(), path)),
                Err(error) => tidied.failed.push(error),
            }
        }
        let newest = found.good.first().map(|newest| newest.number);
        let number =
            |path: &PathBuf| parse_name(path.file_name()?.to_str()?).map(|(number, _)| number);
        let now_aside = found
            .bad
            .iter()
            .filter_map(|error| number(error.damaged()?));
        if found
            .aside
            .iter()
            .map(|(number, _)| *number)
            .chain(now_aside)
            .max()
            > newest
        {
            tidied.damaged.get_or_insert_default().push(key.clone());
        }
        let replaced = found
            .aside
            .iter()
            .filter(|(number, _)| Some(*number) < newest)
            .map(|(_, path)| path.clone());
        let needless: Vec<PathBuf> = replaced.chain(superseded(&found, KEPT)).collect();
        match write::remove_each(&self.pod(key), &needless) {
            Ok(()) => tidied.removed.extend(needless),
            Err(error) => tidied.failed.push(error.into()),
        }
        if let Ok(Some(first)) = keys.sealing() {
            for generation in found
                .good
                .iter()
                .take(KEPT)
                .filter(|it| it.sealed.as_deref() != Some(first.id()))
            {
                write_generation(&generation.path, &generation.checkpoint, Some(first))?;
                tidied.resealed += 1;
            }
        }
        Ok(())
    }
}

/// Files that are no longer needed if this many good generations are kept: everything older than
/// the last of them.
pub(super) fn superseded(found: &Found, kept: usize) -> Vec<PathBuf> {
    let Some(last) = found
        .good
        .get(kept.saturating_sub(1))
        .map(|last| last.number)
    else {
        return Vec::new();
    };
    let bad = found
        .bad
        .iter()
        .filter(|error| error.damaged().is_none())
        .filter_map(|error| match error {
            Error::Unusable(path, _) => Some(path),
            _ => None,
        });
    let is_older = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        number_of(&name, false).is_some_and(|number| number < last)
    };
    let good = found.good.iter().map(|generation| &generation.path);
    good.chain(bad)
        .chain(&found.surplus)
        .filter(is_older)
        .cloned()
        .collect()
}
