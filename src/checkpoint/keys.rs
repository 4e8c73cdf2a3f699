//! Keys from files on the host (`--key-file`), read when they are needed and wiped from memory
//! afterwards.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use zeroize::Zeroizing;

use crate::checkpoint::seal::Key;
use crate::files::read;
use crate::node::host::HostRoot;

/// The most bytes that are read of a key file; a key in any form is shorter.
const MOST_BYTES: u64 = 256;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or is not trusted.
    #[error("cannot use key file {}", .0.display())]
    File(PathBuf, #[source] read::Error),
    /// The file does not exist on the host.
    #[error("cannot find key file {}", .0.display())]
    Path(PathBuf, #[source] std::io::Error),
    /// The file does not contain a key.
    #[error("key file {} does not contain 32 bytes, raw, hex or base64", .0.display())]
    Format(PathBuf),
    /// The bytes in the file are not random.
    #[error("key file {} contains 32 equal bytes: take random ones from /dev/urandom", .0.display())]
    Weak(PathBuf),
}

/// The files of the keys: the first key seals, every key opens. Paths are host paths.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    root: HostRoot,
    files: Vec<PathBuf>,
}

impl Default for KeyFiles {
    fn default() -> Self {
        Self {
            root: HostRoot::new("/"),
            files: Vec::new(),
        }
    }
}

impl KeyFiles {
    /// Takes host paths below `root`. No file is read yet.
    pub fn new(root: HostRoot, files: Vec<PathBuf>) -> Self {
        Self { root, files }
    }

    /// Whether no key file was given.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Reads all files. One that cannot be read does not keep the others from being used.
    pub fn load(&self) -> Keys {
        Keys(self.files.iter().map(|path| self.read(path)).collect())
    }

    fn read(&self, path: &Path) -> Result<Key, Error> {
        let real = self
            .root
            .resolve(path)
            .map_err(|error| Error::Path(path.to_owned(), error))?;
        let bytes =
            read::file(&real, MOST_BYTES).map_err(|error| Error::File(path.to_owned(), error))?;
        let secret = parse(&Zeroizing::new(bytes)).ok_or_else(|| Error::Format(path.to_owned()))?;
        if secret.iter().all(|byte| Some(byte) == secret.first()) {
            return Err(Error::Weak(path.to_owned()));
        }
        Ok(Key::new(&secret))
    }
}

/// The keys of all key files, each as read or as the error of its file.
#[derive(Debug, Default)]
pub struct Keys(Vec<Result<Key, Error>>);

impl Keys {
    /// The key with this ID, if it was given and could be read.
    pub fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().flatten().find(|key| key.id() == id)
    }

    /// Whether at least one key could be read.
    pub fn has_any(&self) -> bool {
        self.0.iter().any(Result::is_ok)
    }

    /// The key that seals; `None` if no key was given, so that nothing is sealed. A key that was
    /// given but cannot be read is an error, so that nothing is written in clear text by accident.
    pub fn sealing(&self) -> Result<Option<&Key>, &Error> {
        self.0.first().map(Result::as_ref).transpose()
    }

    /// The error of the first key that cannot be used.
    pub fn into_error(self) -> Option<Error> {
        self.0.into_iter().find_map(Result::err)
    }

    /// The errors of the keys that cannot be used.
    pub fn errors(&self) -> impl Iterator<Item = &Error> {
        self.0.iter().filter_map(|key| key.as_ref().err())
    }
}

impl From<Key> for Keys {
    fn from(key: Key) -> Self {
        Self(vec![Ok(key)])
    }
}

/// Parses 32 raw bytes, 64 hexadecimal digits or base64; text may end with a line break.
fn parse(bytes: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
        return Some(Zeroizing::new(raw));
    }
    let text = bytes.trim_ascii();
    let mut key = Zeroizing::new([0; 32]);
    if text.len() == 64 {
        for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        return text.iter().all(u8::is_ascii_hexdigit).then_some(key);
    }
    // the decoder wants more room than the key needs
    let mut room = Zeroizing::new([0; 48]);
    let length = base64::engine::general_purpose::STANDARD
        .decode_slice(text, room.as_mut_slice())
        .ok()?;
    key.copy_from_slice(room.get(..length).filter(|decoded| decoded.len() == 32)?);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::encoding::{encode, hex};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    fn secret() -> [u8; 32] {
        std::array::from_fn(|index| u8::try_from(index * 7 + 1).unwrap())
    }

    fn file(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(directory.join(name), bytes).unwrap();
        fs::set_permissions(directory.join(name), Permissions::from_mode(0o600)).unwrap();
        Path::new("/").join(name)
    }

    #[test]
    fn a_key_is_the_same_in_every_form() {
        let directory = tempfile::tempdir().unwrap();
        let forms = [
            secret().to_vec(),
            hex(&secret()).into_bytes(),
            format!("{}\n", hex(&secret()).to_uppercase()).into_bytes(),
            encode(&secret()).into_bytes(),
            format!("{}\n", encode(&secret())).into_bytes(),
        ];
        for form in forms {
            let path = file(directory.path(), "key", &form);
            let keys = KeyFiles::new(HostRoot::new(directory.path()), vec![path]).load();
            assert_eq!(
                keys.sealing().unwrap().unwrap().id(),
                Key::new(&secret()).id()
            );
        }
    }

    #[test]
    fn a_file_without_a_key_is_refused_by_name_and_its_content_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let forms: [&[u8]; 6] = [
            b"",
            b"correct horse battery staple",
            &[7; 32],
            &[7; 33],
            &[b'g'; 64],
            &[b'x'; 300],
        ];
        for form in forms {
            let path = file(directory.path(), "bad-key", form);
            let files = KeyFiles::new(HostRoot::new(directory.path()), vec![path]);
            let keys = files.load();
            let text = crate::text::chain(keys.sealing().unwrap_err());
            assert!(
                text.contains("bad-key") && !text.contains("horse"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_and_the_other_keys_still_work() {
        let directory = tempfile::tempdir().unwrap();
        let open = file(directory.path(), "open", &secret());
        fs::set_permissions(directory.path().join("open"), Permissions::from_mode(0o644)).unwrap();
        let good = file(directory.path(), "good", &secret());
        let files = KeyFiles::new(
            HostRoot::new(directory.path()),
            vec![open, good, "/none".into()],
        );
        let keys = files.load();
        assert!(crate::text::chain(keys.sealing().unwrap_err()).contains("0644"));
        assert!(keys.find(Key::new(&secret()).id()).is_some());
        assert_eq!(keys.errors().count(), 2);
        assert!(KeyFiles::default().load().sealing().unwrap().is_none());
    }
}
