//! A disk that may lose power: what was synced, what is pending, and which trees may be found
//! afterwards.
//!
//! It guarantees less than any supported file system: only that a rename is atomic, that fsync of a
//! file makes its content, size and mode durable (not its name), and that fsync of a directory
//! makes its entries durable (not those of the directories above or below). Everything else that is
//! pending may be lost or kept, each part independently and in any order.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::history::Random;
use crate::files::disk::Call;

const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// A recorded change of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Create(PathBuf, u32),
    /// Create or truncate, as a writer without temporary files does.
    Overwrite(PathBuf, u32),
    Write(PathBuf, Vec<u8>),
    Chmod(PathBuf, u32),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    Mkdir(PathBuf),
    Rmdir(PathBuf),
    SyncDirectory(PathBuf),
}

impl Change {
    /// What a call changes; `None` if nothing.
    pub fn of(call: &Call<'_>) -> Option<Self> {
        Some(match *call {
            Call::Space(_) | Call::Reserve(..) | Call::OpenDirectory(_) => return None,
            Call::Link(path) => panic!("the store has no links: {}", path.display()),
            Call::Create(path, mode) => Self::Create(path.into(), mode),
            Call::Write(path, bytes) => Self::Write(path.into(), bytes.into()),
            Call::Chmod(path, mode) => Self::Chmod(path.into(), mode),
            Call::Sync(path) => Self::Sync(path.into()),
            Call::Rename(from, to) => Self::Rename(from.into(), to.into()),
            Call::Unlink(path) => Self::Unlink(path.into()),
            Call::Mkdir(path, _) => Self::Mkdir(path.into()),
            Call::Rmdir(path) => Self::Rmdir(path.into()),
            Call::SyncDirectory(path) => Self::SyncDirectory(path.into()),
        })
    }
}

/// A tree of files as it may be found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tree {
    File(Image),
    Directory(BTreeMap<OsString, Tree>),
}

/// Content and mode of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image {
    pub bytes: Vec<u8>,
    pub mode: u32,
}

impl Tree {
    pub fn empty() -> Self {
        Self::Directory(BTreeMap::new())
    }

    /// Creates it at an unused path.
    pub fn write(&self, path: &Path) {
        use std::io::Write as _;
        match self {
            Self::File(Image { bytes, mode }) => {
                let mut file = fs::File::options()
                    .write(true)
                    .create_new(true)
                    .mode(*mode)
                    .open(path)
                    .unwrap();
                file.write_all(bytes).unwrap();
                file.set_permissions(fs::Permissions::from_mode(*mode))
                    .unwrap();
            }
            Self::Directory(entries) => {
                fs::DirBuilder::new().mode(0o700).create(path).unwrap();
                for (name, tree) in entries {
                    tree.write(&path.join(name));
                }
            }
        }
    }
}

/// What happens to pending entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entries {
    All,
    Lost,
    /// As with a journal: all up to some moment are kept, in all directories.
    Until(u64),
    /// Each one is kept or not, independently.
    Any,
}

/// What happens to pending content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    All,
    Lost,
    /// The size is kept, the bytes are not.
    Zeros,
    /// Kept up to the boundary of a sector or page, or up to any byte.
    Cut,
    /// Each sector or page independently: new, old, zero or stale.
    Torn,
}

#[derive(Clone, Debug)]
enum Node {
    File {
        lasting: Image,
        pending: Vec<Pending>,
    },
    Directory {
        lasting: BTreeMap<OsString, usize>,
        pending: Vec<(u64, Entry)>,
    },
}

#[derive(Clone, Debug)]
enum Pending {
    Truncate,
    Write(Vec<u8>),
    Mode(u32),
}

#[derive(Clone, Debug)]
enum Entry {
    Add(OsString, usize),
    Remove(OsString),
    Rename(OsString, OsString, usize),
}

/// The disk under a directory.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    clock: u64,
}

impl Disk {
    /// A disk on which this tree is durable, at `root`.
    pub fn new(root: &Path, tree: &Tree) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            nodes: Vec::new(),
            clock: 0,
        };
        disk.add(tree);
        disk
    }

    fn add(&mut self, tree: &Tree) -> usize {
        let id = self.nodes.len();
        match tree {
            Tree::File(image) => self.nodes.push(Node::File {
                lasting: image.clone(),
                pending: Vec::new(),
            }),
            Tree::Directory(entries) => {
                self.nodes.push(Node::Directory {
                    lasting: BTreeMap::new(),
                    pending: Vec::new(),
                });
                let made = entries
                    .iter()
                    .map(|(name, tree)| (name.clone(), self.add(tree)))
                    .collect();
                self.nodes[id] = Node::Directory {
                    lasting: made,
                    pending: Vec::new(),
                };
            }
        }
        id
    }

    /// Number of changed entries so far: the end of the range of [`Entries::Until`].
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Whether anything is pending.
    pub fn is_settled(&self) -> bool {
        self.nodes.iter().all(|node| match node {
            Node::File { pending, .. } => pending.is_empty(),
            Node::Directory { pending, .. } => pending.is_empty(),
        })
    }

    /// Applies a change. An impossible one (the name exists already, or does not exist) counts as
    /// failed and does nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(path, mode) => {
                if self.find(path).is_none() {
                    let image = Image {
                        bytes: Vec::new(),
                        mode: *mode,
                    };
                    self.link(
                        path,
                        Node::File {
                            lasting: image,
                            pending: Vec::new(),
                        },
                    );
                }
            }
            Change::Overwrite(path, mode) => match self.find(path) {
                Some(id) => self.change(id, Pending::Truncate),
                None => self.apply(&Change::Create(path.clone(), *mode)),
            },
            Change::Write(path, bytes) => {
                self.change(self.find(path).unwrap(), Pending::Write(bytes.clone()));
            }
            Change::Chmod(path, mode) => {
                self.change(self.find(path).unwrap(), Pending::Mode(*mode));
            }
            Change::Sync(path) => {
                let id = self.find(path).unwrap();
                let synced = self.image(id);
                self.nodes[id] = Node::File {
                    lasting: synced,
                    pending: Vec::new(),
                };
            }
            Change::Rename(from, to) => {
                assert_eq!(
                    from.parent(),
                    to.parent(),
                    "only renames within a directory are atomic everywhere"
                );
                if let Some(id) = self.find(from) {
                    self.enter(
                        from.parent().unwrap(),
                        Entry::Rename(last(from), last(to), id),
                    );
                }
            }
            Change::Unlink(path) | Change::Rmdir(path) => {
                if self.find(path).is_some() {
                    self.enter(path.parent().unwrap(), Entry::Remove(last(path)));
                }
            }
            Change::Mkdir(path) => {
                if self.find(path).is_none()
                    && path
                        .parent()
                        .is_some_and(|above| self.find(above).is_some())
                {
                    self.link(
                        path,
                        Node::Directory {
                            lasting: BTreeMap::new(),
                            pending: Vec::new(),
                        },
                    );
                }
            }
            Change::SyncDirectory(path) => {
                // directories above the root belong to the machine
                if let Some(id) = self.find(path) {
                    let entries = self.entries(id, |_, _| true);
                    self.nodes[id] = Node::Directory {
                        lasting: entries,
                        pending: Vec::new(),
                    };
                }
            }
        }
    }

    /// Changes a byte of a durable file, as a bad disk does.
    pub fn damage(&mut self, path: &Path, at: usize, byte: u8) {
        let id = self.find(path).unwrap();
        let Node::File { lasting, pending } = &mut self.nodes[id] else {
            panic!("{} is no file", path.display())
        };
        assert!(pending.is_empty());
        lasting.bytes[at] = byte;
    }

    /// One of the trees that may be found after a power cut at this moment.
    pub fn cut(&self, entries: Entries, content: Content, random: &mut Random) -> Tree {
        self.tree(0, entries, content, random)
    }

    fn tree(&self, id: usize, entries: Entries, content: Content, random: &mut Random) -> Tree {
        let Node::Directory { .. } = &self.nodes[id] else {
            return Tree::File(self.found(id, content, random));
        };
        let kept = self.entries(id, |when, _| match entries {
            Entries::All => true,
            Entries::Lost => false,
            Entries::Until(end) => when < end,
            Entries::Any => random.once_in(2),
        });
        Tree::Directory(
            kept.into_iter()
                .map(|(name, id)| (name, self.tree(id, entries, content, random)))
                .collect(),
        )
    }

    fn found(&self, id: usize, content: Content, random: &mut Random) -> Image {
        let Node::File { lasting, pending } = &self.nodes[id] else {
            panic!("not a file")
        };
        let new = self.image(id);
        if pending.is_empty() || content == Content::All {
            return new;
        }
        let (old, mode) = (
            &lasting.bytes,
            if random.once_in(2) {
                lasting.mode
            } else {
                new.mode
            },
        );
        let border = |random: &mut Random| {
            let unit = random.of(&[1, SECTOR, PAGE]);
            random.below(new.bytes.len() / unit + 1) * unit
        };
        let bytes = match content {
            Content::All => unreachable!(),
            Content::Lost => old.clone(),
            Content::Zeros => {
                let kept = old.len().min(new.bytes.len());
                old[..kept]
                    .iter()
                    .copied()
                    .chain(std::iter::repeat_n(0, new.bytes.len() - kept))
                    .collect()
            }
            Content::Cut => new.bytes[..border(random)].to_vec(),
            Content::Torn => {
                let cut = border(random);
                let size = random.of(&[old.len(), new.bytes.len(), new.bytes.len(), cut]);
                let unit = random.of(&[SECTOR, PAGE]);
                let mut bytes = vec![0; size];
                for (index, part) in bytes.chunks_mut(unit).enumerate() {
                    let source: &[u8] = match random.below(5) {
                        0 | 1 => &new.bytes,
                        2 => old,
                        3 => &[],
                        _ => {
                            part.fill(0xa5);
                            continue;
                        }
                    };
                    let from = source.get(index * unit..).unwrap_or_default();
                    let length = part.len().min(from.len());
                    part[..length].copy_from_slice(&from[..length]);
                }
                bytes
            }
        };
        Image { bytes, mode }
    }

    /// A file as it is visible while the machine runs.
    fn image(&self, id: usize) -> Image {
        let Node::File { lasting, pending } = &self.nodes[id] else {
            panic!("not a file")
        };
        let mut image = lasting.clone();
        for change in pending {
            match change {
                Pending::Truncate => image.bytes.clear(),
                Pending::Write(bytes) => image.bytes.extend(bytes),
                Pending::Mode(mode) => image.mode = *mode,
            }
        }
        image
    }

    fn entries(
        &self,
        id: usize,
        mut is_kept: impl FnMut(u64, &Entry) -> bool,
    ) -> BTreeMap<OsString, usize> {
        let Node::Directory { lasting, pending } = &self.nodes[id] else {
            panic!("not a directory")
        };
        let mut entries = lasting.clone();
        for (when, entry) in pending {
            if !is_kept(*when, entry) {
                continue;
            }
            match entry {
                Entry::Add(name, id) => {
                    entries.insert(name.clone(), *id);
                }
                Entry::Remove(name) => {
                    entries.remove(name);
                }
                Entry::Rename(from, to, id) => {
                    if entries.get(from) == Some(id) {
                        entries.remove(from);
                    }
                    entries.insert(to.clone(), *id);
                }
            }
        }
        entries
    }

    /// The node at a path; `None` if there is none, or if it is not below the root.
    fn find(&self, path: &Path) -> Option<usize> {
        let mut id = 0;
        for part in path.strip_prefix(&self.root).ok()?.components() {
            if matches!(self.nodes[id], Node::File { .. }) {
                return None;
            }
            id = *self.entries(id, |_, _| true).get(part.as_os_str())?;
        }
        Some(id)
    }

    fn link(&mut self, path: &Path, node: Node) {
        let id = self.nodes.len();
        self.nodes.push(node);
        self.enter(path.parent().unwrap(), Entry::Add(last(path), id));
    }

    fn enter(&mut self, directory: &Path, entry: Entry) {
        let id = self.find(directory).unwrap();
        let when = self.clock;
        self.clock += 1;
        let Node::Directory { pending, .. } = &mut self.nodes[id] else {
            panic!("not a directory")
        };
        pending.push((when, entry));
    }

    fn change(&mut self, id: usize, change: Pending) {
        let Node::File { pending, .. } = &mut self.nodes[id] else {
            panic!("not a file")
        };
        pending.push(change);
    }
}

fn last(path: &Path) -> OsString {
    path.file_name().unwrap().to_owned()
}
