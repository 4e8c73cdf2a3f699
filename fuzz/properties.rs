//! Properties that must hold for the parsers on any input. Shared by the fuzz targets and
//! `tests/it/fuzz.rs`, which replays the corpus.

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
    Key::new(&std::array::from_fn(|at| {
        u8::try_from(at).unwrap_or_default()
    }))
}

/// Any bytes are either a valid checkpoint or an error. The same holds with a valid checksum,
/// digest and seal added, without which fuzzing would never reach the code behind these checks. The
/// first and last bytes of the input select what is added.
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
    [
        body,
        format!(
            "# sha256 of the lines above: {}\n",
            sum.trim_start_matches("sha256:")
        )
        .as_bytes(),
    ]
    .concat()
}

/// Takes the bytes as the lines above the checksum.
fn with_digest(bytes: &[u8], keys: &Keys) {
    let Ok(mut document) = yaml::parse(bytes) else {
        return;
    };
    let Err(Error::Digest { computed, .. }) = NodeCheckpoint::from_value(document.clone()) else {
        return;
    };
    if let Some(fields) = document.as_object_mut() {
        fields.insert("digest".into(), computed.into());
    }
    match NodeCheckpoint::from_value(document) {
        Ok(read) => holds(&read, keys),
        Err(Error::Shape) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Takes the bytes as the JSON to be sealed.
fn with_seal(bytes: &[u8], keys: &Keys) {
    let sealed = |digest: &str| {
        let header = json!({
            "apiVersion": format::API_VERSION, "kind": format::KIND, "digest": digest, "writtenBy": "fuzz",
            "captured": {"wall": "2026-11-21T10:00:00Z", "bootId": "boot-1", "uptimeSeconds": 100},
            "parent": {"namespace": "shop", "name": "till", "uid": "u1", "resourceVersion": "1"},
            "policy": {"startGroup": 50, "hostNetwork": false, "hostPort": false, "stateful": false, "slowStart": false,
                "graceSeconds": 30},
        });
        let document = key()
            .seal(header, bytes)
            .expect("the system has random bytes");
        NodeCheckpoint::open(&with_checksum(format!("{document}\n").as_bytes()), keys)
    };
    let Err(Error::Digest { computed, .. }) = sealed("none") else {
        return;
    };
    match sealed(&computed) {
        Ok((read, id)) => {
            assert_eq!(id.as_deref(), Some(key().id()));
            holds(&read, keys);
        }
        Err(Error::Shape) => {}
        Err(error) => panic!("{error}"),
    }
}

/// A parsed checkpoint can be used, and stays the same when it is written and parsed again, in
/// clear text or sealed.
fn holds(read: &NodeCheckpoint, keys: &Keys) {
    let run_dir = Path::new("/run/pod-checkpointer");
    let Ok(pod) = read.pod() else { return };
    let made = twin::make(read, &pod, "boot/1", run_dir);
    assert_eq!(
        made.manifest.get("metadata").is_some(),
        read.manifest.get("metadata").is_some()
    );
    // only one of the two, depending on the content, because each takes as long as everything else
    let is_sealed = read
        .digest
        .bytes()
        .last()
        .is_some_and(|digit| digit % 2 == 0);
    // what aliases expand to may be larger than the limit
    let Ok(bytes) = read.write(is_sealed.then(key).as_ref()) else {
        return;
    };
    let mut again = NodeCheckpoint::read(&bytes, keys)
        .unwrap_or_else(|error| panic!("written, not read: {error}"));
    // a file may contain empty fields, which are not written, and digests of sealed files depend on
    // the key
    again.digest.clone_from(&read.digest);
    assert_eq!(again, *read);
    assert_eq!(again.content_digest(), read.content_digest());
}

/// Any bytes are pods with a verdict each, or an error. A manifest refers to nothing in the API,
/// and its YAML is parsed as the same JSON.
pub fn render(bytes: &[u8]) {
    let report = Report::of(bytes);
    for item in &report.items {
        assert_eq!(item.recoverable, item.reasons.is_empty());
        assert_eq!(item.recoverable, item.manifest.is_some());
        // nothing that a kubelet would look up in the API, and no path outside the volume directory
        let text = item
            .manifest
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
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
    let written: Vec<&Value> = report
        .items
        .iter()
        .filter_map(|item| item.manifest.as_ref())
        .collect();
    let documents = input::parse(manifests.as_bytes()).expect("YAML is text");
    let read: Vec<&Value> = documents
        .iter()
        .map(|it| {
            it.content
                .as_ref()
                .unwrap_or_else(|error| panic!("{error} in {manifests}"))
        })
        .collect();
    assert_eq!(read, written, "{manifests}");
    let (table, failures) = report.texts(Output::Table, true).expect("a table");
    for text in [&remarks, &table, &failures] {
        assert!(
            !text.contains(|c: char| c.is_control() && c != '\n'),
            "{text:?}"
        );
    }
    let (all, _) = report.texts(Output::Json, false).expect("JSON");
    assert!(serde_json::from_str::<Value>(&all).is_ok(), "{all}");
}
