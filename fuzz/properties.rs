//! What holds of the readers whatever they are given. Shared by the fuzz targets and `tests/it/fuzz.rs`, which replays the
//! corpus.

use std::path::Path;

use pod_checkpointer::args::Output;
use pod_checkpointer::checkpoint::encoding;
use pod_checkpointer::checkpoint::format::{self, Error};
use pod_checkpointer::checkpoint::keys::Keys;
use pod_checkpointer::checkpoint::seal::Key;
use pod_checkpointer::checkpoint::{NodeCheckpoint, twin};
use pod_checkpointer::cli::input;
use pod_checkpointer::cli::render::Report;
use pod_checkpointer::files::yaml;
use serde_json::{Value, json};

/// The key that opens sealed seeds.
pub fn key() -> Key {
    Key::new(&std::array::from_fn(|at| u8::try_from(at).unwrap_or_default()))
}

/// Bytes are a checkpoint or none; so they are with the checksum, the digest and the seal that one who knows the format
/// (docs/store.md) would put on them, without which nothing behind these would ever be reached. Their ends tell what they
/// are meant as.
pub fn checkpoint(bytes: &[u8]) {
    let keys = Keys::from(key());
    match bytes {
        [b'{', ..] => with_seal(bytes, &keys),
        [.., b'\n'] => {
            if let Ok((read, _)) = NodeCheckpoint::open(bytes, &keys) {
                holds(&read, &keys);
            }
        }
        _ => with_digest(bytes, &keys),
    }
}

fn with_checksum(body: &[u8]) -> Vec<u8> {
    let sum = encoding::sha256(body);
    [body, format!("# sha256 of the lines above: {}\n", sum.trim_start_matches("sha256:")).as_bytes()].concat()
}

/// Bytes as the lines above the checksum.
fn with_digest(bytes: &[u8], keys: &Keys) {
    let Ok(mut document) = yaml::parse(bytes) else { return };
    let Err(Error::Digest { computed, .. }) = NodeCheckpoint::from_value(document.clone()) else { return };
    if let Some(fields) = document.as_object_mut() {
        fields.insert("digest".into(), computed.into());
    }
    match NodeCheckpoint::from_value(document) {
        Ok(read) => holds(&read, keys),
        Err(Error::Shape) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Bytes as the JSON that is sealed.
fn with_seal(bytes: &[u8], keys: &Keys) {
    let sealed = |digest: &str| {
        let header = json!({
            "apiVersion": format::API_VERSION, "kind": format::KIND, "digest": digest, "writtenBy": "fuzz",
            "captured": {"wall": "2026-11-21T10:00:00Z", "bootId": "boot-1", "uptimeSeconds": 100},
            "parent": {"namespace": "shop", "name": "till", "uid": "u1", "resourceVersion": "1"},
            "policy": {"startGroup": 50, "hostNetwork": false, "hostPort": false, "stateful": false, "slowStart": false,
                "graceSeconds": 30},
        });
        let document = key().seal(header, bytes).expect("the system has random bytes");
        NodeCheckpoint::open(&with_checksum(format!("{document}\n").as_bytes()), keys)
    };
    let Err(Error::Digest { computed, .. }) = sealed("none") else { return };
    match sealed(&computed) {
        Ok((read, id)) => {
            assert_eq!(id.as_deref(), Some(key().id()));
            holds(&read, keys);
        }
        Err(Error::Shape) => {}
        Err(error) => panic!("{error}"),
    }
}

/// What was read can be used, and is the same when it is written, in clear and sealed.
fn holds(read: &NodeCheckpoint, keys: &Keys) {
    let run_dir = Path::new("/run/pod-checkpointer");
    let Ok(pod) = read.pod() else { return };
    let made = twin::make(read, &pod, "boot/1", run_dir);
    assert_eq!(made.manifest.get("metadata").is_some(), read.manifest.get("metadata").is_some());
    // one of the two at a time, by the content: each takes as long as all the rest
    let is_sealed = read.digest.bytes().last().is_some_and(|digit| digit % 2 == 0);
    // what aliases have grown may be more than is read
    let Ok(bytes) = read.write(is_sealed.then(key).as_ref()) else { return };
    let mut again = NodeCheckpoint::read(&bytes, keys).unwrap_or_else(|error| panic!("written, not read: {error}"));
    // a file may say what is left out where it is empty, and digests of sealed ones have a key
    again.digest.clone_from(&read.digest);
    assert_eq!(again, *read);
    assert_eq!(again.content_digest(), read.content_digest());
}

/// Bytes are pods with a verdict each, or there is an error; a manifest refers to nothing, and is read as it was meant.
pub fn render(bytes: &[u8]) {
    let report = Report::of(bytes);
    for item in &report.items {
        assert_eq!(item.recoverable, item.reasons.is_empty());
        assert_eq!(item.recoverable, item.manifest.is_some());
        // Nothing that a kubelet would look up in the API, and no path outside.
        let text = item.manifest.as_ref().map(ToString::to_string).unwrap_or_default();
        for reference in [
            "secretKeyRef",
            "configMapKeyRef",
            "secretRef",
            "persistentVolumeClaim",
            "serviceAccountName\"",
            "/run/pod-checkpointer/volumes/..",
        ] {
            assert!(!text.contains(&format!("\"{reference}")), "{text}");
        }
    }
    let (manifests, remarks) = report.texts(Output::Yaml, true).expect("YAML");
    let written: Vec<&Value> = report.items.iter().filter_map(|item| item.manifest.as_ref()).collect();
    let documents = input::parse(manifests.as_bytes()).expect("YAML is text");
    let read: Vec<&Value> = documents
        .iter()
        .map(|it| it.content.as_ref().unwrap_or_else(|error| panic!("{error} in {manifests}")))
        .collect();
    assert_eq!(read, written, "{manifests}");
    let (table, failures) = report.texts(Output::Table, true).expect("a table");
    for text in [&remarks, &table, &failures] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
    let (all, _) = report.texts(Output::Json, false).expect("JSON");
    assert!(serde_json::from_str::<Value>(&all).is_ok(), "{all}");
}
