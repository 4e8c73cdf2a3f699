//! Files as a container sees them, and how they differ from others. Only digests of the contents
//! are kept.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::checkpoint::Volume;
use crate::checkpoint::encoding;
use crate::checkpoint::format::{self, MAX_SIZE};

/// More than a captured volume can hold: each is a few objects of 1 MiB.
const MOST: usize = 20_000;

/// The file, directory or link at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    kind: Kind,
    /// Mode; the mode of a link is not compared.
    mode: u32,
    owner: (u32, u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File([u8; 32]),
    Link(PathBuf),
    Other,
}

/// Every file, directory and link by its path; the empty path is the root of the tree.
pub type Tree = BTreeMap<PathBuf, Item>;

/// Reads the tree at a path of the file system. Links are not followed.
pub fn read(place: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut bytes = 0;
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let real = if path.as_os_str().is_empty() {
            place.to_owned()
        } else {
            place.join(&path)
        };
        let metadata = fs::symlink_metadata(&real)?;
        bytes += if metadata.is_file() {
            metadata.len()
        } else {
            0
        };
        if bytes > MAX_SIZE || tree.len() >= MOST {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let kind = if metadata.is_dir() {
            for entry in fs::read_dir(&real)? {
                pending.push(path.join(entry?.file_name()));
            }
            Kind::Directory
        } else if metadata.is_file() {
            Kind::File(Sha256::digest(fs::read(&real)?).into())
        } else if metadata.is_symlink() {
            Kind::Link(fs::read_link(&real)?)
        } else {
            Kind::Other
        };
        let mode = if metadata.is_symlink() {
            0
        } else {
            metadata.permissions().mode() & 0o7777
        };
        tree.insert(
            path,
            Item {
                kind,
                mode,
                owner: (metadata.uid(), metadata.gid()),
            },
        );
    }
    Ok(tree)
}

/// The tree that a checkpoint describes for a volume.
pub fn of_volume(volume: &Volume) -> Tree {
    let item = |entry: &format::Entry| {
        let kind = match (&entry.data, &entry.link) {
            (Some(data), _) => {
                Kind::File(Sha256::digest(encoding::decode(data).unwrap_or_default()).into())
            }
            (None, Some(link)) => Kind::Link(link.into()),
            (None, None) => Kind::Directory,
        };
        let mode = u32::from_str_radix(&entry.mode, 8).unwrap_or_default();
        let mode = if matches!(kind, Kind::Link(_)) {
            0
        } else {
            mode
        };
        (
            PathBuf::from(&entry.path),
            Item {
                kind,
                mode,
                owner: (entry.uid, entry.gid),
            },
        )
    };
    volume.entries.iter().map(item).collect()
}

/// The differences of the tree `seen` from the expected one, in words, with paths below `place`.
pub fn differences(expected: &Tree, seen: &Tree, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    let shown = |path: &Path| {
        if path.as_os_str().is_empty() {
            place.to_owned()
        } else {
            format!("{place}/{}", path.display())
        }
    };
    for (path, item) in expected {
        let at = shown(path);
        let Some(other) = seen.get(path) else {
            found.push(format!("{at} is missing"));
            continue;
        };
        if item.kind != other.kind {
            found.push(match (&item.kind, &other.kind) {
                (Kind::File(_), Kind::File(_)) => format!("{at} has different content"),
                (Kind::Link(_), Kind::Link(_)) => format!("{at} leads elsewhere"),
                _ => format!("{at} is a different kind of file"),
            });
        }
        if item.mode != other.mode {
            found.push(format!(
                "{at} has mode {:04o}, not {:04o}",
                other.mode, item.mode
            ));
        }
        if item.owner != other.owner {
            let ((uid, gid), (other_uid, other_gid)) = (item.owner, other.owner);
            found.push(format!(
                "{at} belongs to {other_uid}:{other_gid}, not to {uid}:{gid}"
            ));
        }
    }
    for path in seen.keys().filter(|path| !expected.contains_key(*path)) {
        found.push(format!("{} is new", shown(path)));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::checkpoint::testing::checkpoint;
    use crate::checkpoint::twin;

    #[test]
    fn an_unpacked_volume_is_as_the_checkpoint_describes_it() {
        let directory = tempfile::tempdir().unwrap();
        let made = checkpoint("shop", "till");
        twin::unpack(&made, &directory.path().join("volumes"), false).unwrap();
        let seen = read(&directory.path().join("volumes/credentials")).unwrap();
        let expected = of_volume(made.volumes.get("credentials").unwrap());
        assert_eq!(seen.len(), 5);
        assert_eq!(differences(&expected, &seen, "/credentials"), [""; 0]);
    }

    #[test]
    fn every_difference_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, content: &str| {
            let place = directory.path().join(name);
            fs::create_dir_all(place.join("below")).unwrap();
            for file in ["below/same", "below/file", "mode", "gone", "kind"] {
                fs::write(place.join(file), "same").unwrap();
            }
            fs::write(place.join("below/file"), content).unwrap();
            symlink(content, place.join("link")).unwrap();
            place
        };
        let (one, other) = (make("one", "1"), make("other", "2"));
        fs::set_permissions(one.join("mode"), fs::Permissions::from_mode(0o440)).unwrap();
        fs::set_permissions(other.join("mode"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::remove_file(other.join("gone")).unwrap();
        fs::remove_file(other.join("kind")).unwrap();
        fs::create_dir(other.join("kind")).unwrap();
        fs::set_permissions(
            other.join("kind"),
            fs::metadata(one.join("kind")).unwrap().permissions(),
        )
        .unwrap();
        fs::write(other.join("new"), "").unwrap();
        let found = differences(&read(&one).unwrap(), &read(&other).unwrap(), "/etc");
        assert_eq!(
            found,
            [
                "/etc/below/file has different content",
                "/etc/gone is missing",
                "/etc/kind is a different kind of file",
                "/etc/link leads elsewhere",
                "/etc/mode has mode 0400, not 0440",
                "/etc/new is new",
            ]
        );
    }

    #[test]
    fn a_single_file_is_a_tree_too() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "1").unwrap();
        let before = read(&file).unwrap();
        fs::write(&file, "2").unwrap();
        assert_eq!(
            differences(&before, &read(&file).unwrap(), "/etc/file"),
            ["/etc/file has different content"]
        );
        assert!(read(&directory.path().join("none")).is_err());
    }
}
