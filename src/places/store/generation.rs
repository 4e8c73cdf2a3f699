//! One generation of a checkpoint: the name of its file, how it is written and read, and how a damaged one is set aside.

use std::path::{Path, PathBuf};

use super::Error;
use crate::checkpoint::format::{MAX_SIZE, NodeCheckpoint};
use crate::checkpoint::keys::Keys;
use crate::checkpoint::seal::Key;
use crate::files::read::Directory;
use crate::files::write;
use crate::pod::id::PodId;

/// Ending of a generation's file.
const ENDING: &str = ".yaml";
/// What a damaged file's name gets at its end.
pub const DAMAGED: &str = ".damaged";
/// What opening a file counts for.
const OPENING: u64 = 512;

/// A generation that passed verification.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The pod that it is of.
    pub pod: PodId,
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

/// Gives a damaged file a name that says so. Says where it is now.
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

/// The number of a generation's file, and whether it was set aside.
pub(super) fn parse_name(name: &str) -> Option<(u64, bool)> {
    let (rest, aside) = name.strip_suffix(DAMAGED).map_or((name, false), |rest| (rest, true));
    let digits = rest.strip_suffix(ENDING)?;
    let is_number = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten().map(|number| (number, aside))
}

pub(super) fn number_of(name: &str, aside: bool) -> Option<u64> {
    parse_name(name).filter(|(_, is_aside)| *is_aside == aside).map(|(number, _)| number)
}

/// The highest number that was ever used and can be seen: that of a damaged file is not used again.
pub(super) fn last_number(directory: &Path) -> Result<u64, Error> {
    let names = Directory::open(directory)?.names()?;
    Ok(names.iter().filter_map(|name| parse_name(name)).map(|(number, _)| number).max().unwrap_or(0))
}

/// Writes a generation's file, sealed if there is a key. Says how many bytes it has.
pub(super) fn write_generation(path: &Path, checkpoint: &NodeCheckpoint, seal: Option<&Key>) -> Result<u64, Error> {
    let bytes = checkpoint.write(seal).map_err(|source| Error::Format(checkpoint.shown(), Box::new(source)))?;
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
    let (checkpoint, sealed) = opened.map_err(|source| Error::Unusable(path.clone(), Box::new(source)))?;
    if !checkpoint.is_of(key) {
        return Err(Error::Foreign { path, of: checkpoint.shown() });
    }
    Ok(Generation { pod: key.clone(), number, path, size: bytes.len() as u64, sealed, checkpoint })
}
