//! One generation of a checkpoint: the name of its file, how the file is written and read, and how
//! a damaged one is set aside.

use std::path::{Path, PathBuf};

use super::Error;
use crate::checkpoint::format::{MAX_SIZE, NodeCheckpoint};
use crate::checkpoint::keys::Keys;
use crate::checkpoint::seal::Key;
use crate::files::read::Directory;
use crate::files::write;
use crate::pod::id::PodId;

/// End of the name of a generation's file.
const ENDING: &str = ".yaml";
/// Appended to the name of a damaged file.
pub const DAMAGED: &str = ".damaged";
/// What opening a file costs of the budget, in bytes.
const OPENING: u64 = 512;

/// A generation that passed verification.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The pod that it is of.
    pub pod: PodId,
    /// Number of the generation; a later capture has a higher one.
    pub number: u64,
    /// Path of its file.
    pub path: PathBuf,
    /// Size of its file in bytes.
    pub size: u64,
    /// ID of the key that it is sealed with; `None` if it is in clear text.
    pub sealed: Option<String>,
    /// The checkpoint.
    pub checkpoint: NodeCheckpoint,
}

/// Renames a damaged file so that it is no longer read. Returns the new path.
pub fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(DAMAGED);
    let aside = PathBuf::from(aside);
    write::rename(path, &aside)?;
    Ok(aside)
}

pub(super) fn file_name(number: u64) -> String {
    format!("{number:010}{ENDING}")
}

/// The number in the name of a generation's file, and whether the file was set aside.
pub(super) fn parse_name(name: &str) -> Option<(u64, bool)> {
    let (rest, aside) = name
        .strip_suffix(DAMAGED)
        .map_or((name, false), |rest| (rest, true));
    let digits = rest.strip_suffix(ENDING)?;
    let is_number = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number
        .then(|| digits.parse().ok())
        .flatten()
        .map(|number| (number, aside))
}

pub(super) fn number_of(name: &str, aside: bool) -> Option<u64> {
    parse_name(name)
        .filter(|(_, is_aside)| *is_aside == aside)
        .map(|(number, _)| number)
}

/// The highest number in use, including those of damaged files, which are not used again.
pub(super) fn last_number(directory: &Path) -> Result<u64, Error> {
    let names = Directory::open(directory)?.names()?;
    Ok(names
        .iter()
        .filter_map(|name| parse_name(name))
        .map(|(number, _)| number)
        .max()
        .unwrap_or(0))
}

/// Writes a generation's file, sealed if there is a key. Returns its size in bytes.
pub(super) fn write_generation(
    path: &Path,
    checkpoint: &NodeCheckpoint,
    seal: Option<&Key>,
) -> Result<u64, Error> {
    let bytes = checkpoint
        .write(seal)
        .map_err(|source| Error::Format(checkpoint.shown(), Box::new(source)))?;
    write::file(path, &bytes, 0o600)?;
    Ok(bytes.len() as u64)
}

pub(super) fn read_generation(
    directory: &Directory,
    number: u64,
    key: &PodId,
    keys: &Keys,
    budget: &mut u64,
) -> Result<Generation, Error> {
    let name = file_name(number);
    let path = directory.path().join(&name);
    *budget = budget.saturating_sub(OPENING);
    let bytes = directory.file(&name, MAX_SIZE)?;
    *budget = budget.saturating_sub(bytes.len() as u64);
    let opened = NodeCheckpoint::open(&bytes, keys);
    let (checkpoint, sealed) =
        opened.map_err(|source| Error::Unusable(path.clone(), Box::new(source)))?;
    if !checkpoint.is_of(key) {
        return Err(Error::Foreign {
            path,
            of: checkpoint.shown(),
        });
    }
    Ok(Generation {
        pod: key.clone(),
        number,
        path,
        size: bytes.len() as u64,
        sealed,
        checkpoint,
    })
}
