//! All checkpoints of a node as one file, so that a replaced node can be seeded.
//!
//! JSON: `apiVersion`, `kind: NodeExport`, `writtenBy`, `exported` (wall-clock time), `node`,
//! `digest`, and `checkpoints`, each a document in clear text as in a checkpoint file, with the
//! number of its generation. In a sealed export, `sealed` contains the checkpoints instead. Digest
//! and sealing are those of a checkpoint file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::checkpoint::NodeCheckpoint;
use crate::checkpoint::format::{self, API_VERSION, Wiped, digest, short};
use crate::checkpoint::keys::Keys;
use crate::checkpoint::seal::{self, Key};
use crate::places::store::{self, KEPT};
use crate::pod::id::PodId;

/// Kind of an exported file.
pub const KIND: &str = "NodeExport";
/// The largest export in bytes that is read or written.
pub const MAX_SIZE: u64 = 256 << 20;
/// The most generations in an export; no node has that many.
const MOST_GENERATIONS: usize = 10_000;
/// The highest number of a generation that fits into the name of its file.
const LAST_NUMBER: u64 = 9_999_999_999;

/// Generations of each pod, oldest first, by `<namespace>_<pod>`.
pub type Generations = BTreeMap<PodId, Vec<(u64, NodeCheckpoint)>>;

/// Why an export cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The export is too large.
    #[error("larger than {MAX_SIZE} bytes")]
    TooLarge,
    /// The content does not have the format of an export. The text does not quote it, because it
    /// may be secret.
    #[error("not an export of this program")]
    Shape,
    /// The file has a format that this program does not read.
    #[error("written in format {found:?} by {by:?}; this program reads only {API_VERSION} {KIND}")]
    Version {
        /// Version and kind named in the file.
        found: String,
        /// Program named in the file.
        by: String,
    },
    /// The content does not match its digest.
    #[error("its content has changed since the export: the digest differs")]
    Digest,
    /// The export is sealed, and no key was given.
    #[error("sealed with key {0}: give that key with --key-file")]
    KeyMissing(String),
    /// The export is sealed with a key that was not given.
    #[error("sealed with key {0}, which was not given: give it with --key-file")]
    KeyWrong(String),
    /// The export cannot be sealed, or its key does not open it.
    #[error("cannot be sealed or opened with its key")]
    Seal(#[from] seal::Error),
    /// A checkpoint in the export is not valid.
    #[error("checkpoint {0} in it is not valid")]
    Checkpoint(usize, #[source] Box<format::Error>),
    /// The name of a checkpoint's pod is not valid.
    #[error(transparent)]
    Name(#[from] store::Error),
    /// The numbers of generations are not those of a store.
    #[error("its generations of {0} are not in order, or more than {KEPT}")]
    Order(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Item {
    generation: u64,
    checkpoint: Value,
}

/// The bytes of an export.
pub fn write(
    all: &Generations,
    node: &str,
    key: Option<&Key>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let items = all.values().flatten().map(
        |(generation, checkpoint)| json!({"generation": generation, "checkpoint": checkpoint.clone().with_digest()}),
    );
    let mut document = Wiped(json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "writtenBy": format::WRITTEN_BY,
        "exported": jiff::Timestamp::now().to_string(),
        "node": node,
        "checkpoints": items.collect::<Vec<Value>>(),
    }));
    let digest = digest(&document, key);
    if let Some(fields) = document.0.as_object_mut() {
        fields.insert("digest".into(), digest.into());
    }
    if let Some(key) = key {
        let content = Wiped(
            document
                .0
                .as_object_mut()
                .and_then(|it| it.remove("checkpoints"))
                .unwrap_or_default(),
        );
        let content = Zeroizing::new(content.0.to_string());
        document.0 = key.seal(document.0.take(), content.as_bytes())?;
    }
    let mut bytes = Zeroizing::new(document.0.to_string().into_bytes());
    bytes.push(b'\n');
    if bytes.len() as u64 > MAX_SIZE {
        Err(Error::TooLarge)
    } else {
        Ok(bytes)
    }
}

/// Reads an export and verifies everything in it.
pub fn read(bytes: &[u8], keys: &Keys) -> Result<Generations, Error> {
    if bytes.len() as u64 > MAX_SIZE {
        return Err(Error::TooLarge);
    }
    let mut document = Wiped(serde_json::from_slice(bytes).map_err(|_| Error::Shape)?);
    let text = |name: &str| {
        document
            .0
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    if (text("apiVersion"), text("kind")) != (API_VERSION, KIND) {
        let found = short(&format!("{} {}", text("apiVersion"), text("kind")));
        return Err(if text("kind") == KIND {
            Error::Version {
                found,
                by: short(text("writtenBy")),
            }
        } else {
            Error::Shape
        });
    }
    let mut key = None;
    if let Some(id) = document.0.pointer("/sealed/key").and_then(Value::as_str) {
        let id = short(id);
        let Some(found) = keys.find(&id) else {
            return Err(if keys.has_any() {
                Error::KeyWrong(id)
            } else {
                Error::KeyMissing(id)
            });
        };
        let content = found.open(&mut document.0)?;
        let content: Value = serde_json::from_slice(&content).map_err(|_| Error::Shape)?;
        let fields = document.0.as_object_mut().ok_or(Error::Shape)?;
        fields.remove("sealed");
        fields.insert("checkpoints".into(), content);
        key = Some(found);
    }
    if document.0.get("digest").and_then(Value::as_str) != Some(digest(&document, key).as_str()) {
        return Err(Error::Digest);
    }
    let items = document
        .0
        .get_mut("checkpoints")
        .map(Value::take)
        .ok_or(Error::Shape)?;
    let items: Vec<Item> = serde_json::from_value(items).map_err(|_| Error::Shape)?;
    if items.len() > MOST_GENERATIONS {
        return Err(Error::Shape);
    }
    let mut all = Generations::new();
    for (
        at,
        Item {
            generation,
            checkpoint,
        },
    ) in items.into_iter().enumerate()
    {
        let checkpoint = NodeCheckpoint::from_value(checkpoint)
            .map_err(|error| Error::Checkpoint(at, Box::new(error)))?;
        let key = checkpoint.pod().map_err(store::Error::from)?;
        let pod = all.entry(key.clone()).or_default();
        let after = pod.last().map_or(0, |(number, _)| *number);
        if generation <= after || generation > LAST_NUMBER || pod.len() >= KEPT {
            return Err(Error::Order(key.to_string()));
        }
        pod.push((generation, checkpoint));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::testing::checkpoint;
    use crate::pod::id::id;

    fn key(byte: u8) -> Key {
        Key::new(&[byte; 32])
    }

    fn all() -> Generations {
        let pod = |name: &str, numbers: [u64; 2]| {
            let generations = numbers.map(|number| (number, checkpoint("shop", name)));
            (id(&format!("shop_{name}")), generations.to_vec())
        };
        Generations::from([pod("till", [6, 7]), pod("radio", [1, 2])])
    }

    #[test]
    fn what_was_exported_is_read_the_same_in_clear_and_sealed() {
        let clear = write(&all(), "node-1", None).unwrap();
        assert_eq!(read(&clear, &Keys::default()).unwrap(), all());
        let sealed = write(&all(), "node-1", Some(&key(1))).unwrap();
        assert_eq!(read(&sealed, &key(1).into()).unwrap(), all());
        // each has a character that base64 lacks, so that sealed bytes cannot look like it
        for content in ["\"serve\"", "shop/till", "\"till\""] {
            let shows = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(content);
            assert!(shows(&clear) && !shows(&sealed), "{content}");
        }
        assert!(matches!(
            read(&sealed, &Keys::default()),
            Err(Error::KeyMissing(_))
        ));
        assert!(matches!(
            read(&sealed, &key(2).into()),
            Err(Error::KeyWrong(_))
        ));
    }

    #[test]
    fn no_change_of_an_exports_content_is_accepted() {
        for key in [None, Some(key(1))] {
            let keys = || {
                key.as_ref()
                    .map(|_| Keys::from(self::key(1)))
                    .unwrap_or_default()
            };
            let bytes = write(&all(), "node-1", key.as_ref()).unwrap();
            let known = read(&bytes, &keys()).unwrap();
            for at in (0..bytes.len() - 1).step_by(7) {
                let mut changed = bytes.to_vec();
                changed[at] ^= 1;
                // white space and the like may change; what it says may not
                if let Ok(read) = read(&changed, &keys()) {
                    assert_eq!(read, known, "byte {at}");
                }
                assert!(read(&bytes[..at], &keys()).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn generations_that_no_store_has_are_refused() {
        let with = |generations: Vec<(u64, NodeCheckpoint)>| {
            let all = Generations::from([(id("shop_x"), generations)]);
            read(&write(&all, "node-1", None).unwrap(), &Keys::default())
        };
        let one = || checkpoint("shop", "till");
        for numbers in [
            vec![0],
            vec![2, 1],
            vec![1, 1],
            vec![1, 2, 3],
            vec![LAST_NUMBER + 1],
        ] {
            let generations = numbers.iter().map(|number| (*number, one())).collect();
            assert!(
                matches!(with(generations), Err(Error::Order(_))),
                "{numbers:?}"
            );
        }
        assert!(matches!(
            with(vec![(1, checkpoint("..", "till"))]),
            Err(Error::Name(_))
        ));
        assert!(matches!(
            with(vec![(1, checkpoint("shop", "../till"))]),
            Err(Error::Name(_))
        ));
        let newer = br#"{"apiVersion":"podcheckpointer.io/v9","kind":"NodeExport","writtenBy":"pod-checkpointer 9.1"}"#;
        let error = read(newer, &Keys::default()).unwrap_err().to_string();
        assert!(
            error.contains("v9") && error.contains("pod-checkpointer 9.1"),
            "{error}"
        );
        assert!(matches!(read(b"{}", &Keys::default()), Err(Error::Shape)));
        assert!(matches!(
            read("[".repeat(10_000).as_bytes(), &Keys::default()),
            Err(Error::Shape)
        ));
    }
}
