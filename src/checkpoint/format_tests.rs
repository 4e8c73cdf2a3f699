//! The format: what is detected, what errors say, and what another program must do to verify a
//! file.

use super::*;
use crate::checkpoint::encoding::encode;
use crate::checkpoint::testing::checkpoint;
use serde_json::json;

fn key(byte: u8) -> Key {
    let mut secret = [byte; 32];
    secret[0] = 0;
    Key::new(&secret)
}

fn keys(byte: u8) -> Keys {
    key(byte).into()
}

#[test]
fn what_was_written_is_read_the_same_in_clear_and_sealed() {
    let made = checkpoint("shop", "till");
    assert_eq!(
        NodeCheckpoint::from_yaml(&made.to_yaml().unwrap()).unwrap(),
        made
    );
    let (mut read, id) =
        NodeCheckpoint::open(&made.write(Some(&key(1))).unwrap(), &keys(1)).unwrap();
    assert_eq!(id.as_deref(), Some(key(1).id()));
    assert!(read.digest.starts_with("hmac-sha256:"), "{}", read.digest);
    read.digest.clone_from(&made.digest);
    assert_eq!(read, made);
}

#[test]
fn no_bit_of_a_file_can_change_unnoticed() {
    let made = checkpoint("shop", "till");
    for (bytes, keys) in [
        (made.to_yaml().unwrap(), Keys::default()),
        (made.write(Some(&key(1))).unwrap(), keys(1)),
    ] {
        NodeCheckpoint::read(&bytes, &keys).unwrap();
        for at in 0..bytes.len() {
            // two bits of each byte, others each time: a checksum that notices these notices all
            for bit in [at % 8, (at + 5) % 8] {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let error = NodeCheckpoint::read(&changed, &keys).unwrap_err();
                assert!(
                    matches!(error, Error::Checksum),
                    "bit {bit} of byte {at}: {error:?}"
                );
            }
        }
    }
}

#[test]
fn every_length_that_is_cut_off_and_every_addition_is_noticed() {
    let bytes = checkpoint("shop", "till").to_yaml().unwrap();
    for length in 0..bytes.len() {
        assert!(
            NodeCheckpoint::from_yaml(&bytes[..length]).is_err(),
            "cut at {length}"
        );
    }
    for more in [&b"\n"[..], b"#", b"a: b\n"] {
        assert!(NodeCheckpoint::from_yaml(&[&bytes, more].concat()).is_err());
    }
}

/// Bytes with the checksum that they should have, as one who knows the format would forge them.
fn forged(body: &str) -> Vec<u8> {
    format!(
        "{body}{CHECKSUM}{}\n",
        hex(&Sha256::digest(body.as_bytes()))
    )
    .into_bytes()
}

#[test]
fn content_with_another_digest_is_noticed_also_when_its_checksum_is_right() {
    let text = String::from_utf8(checkpoint("shop", "till").to_yaml().unwrap()).unwrap();
    let body = text.split(CHECKSUM).next().unwrap();
    for (from, to) in [
        ("serve", "swerve"),
        ("uptimeSeconds: 100", "uptimeSeconds: 101"),
        ("mode: '0440'", "mode: '0444'"),
    ] {
        assert!(body.contains(from), "{from}");
        let error = NodeCheckpoint::from_yaml(&forged(&body.replace(from, to))).unwrap_err();
        assert!(matches!(error, Error::Digest { .. }), "{error:?}");
    }
    assert!(matches!(
        NodeCheckpoint::from_yaml(&forged(&format!("{body}more: 1\n"))),
        Err(Error::Digest { .. })
    ));
    assert!(matches!(
        NodeCheckpoint::from_yaml(&forged("[]\n")),
        Err(Error::Shape)
    ));
}

#[test]
fn a_sealed_file_shows_no_content_and_what_it_shows_cannot_be_changed() {
    let mut made = checkpoint("shop", "till");
    made.manifest["spec"]["containers"][0]["env"] =
        json!([{"name": "PASSWORD", "value": "hunter2"}]);
    let bytes = made.write(Some(&key(1))).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    // with a space, which base64 lacks: no sealed bytes look like it
    let argument = "- serve";
    assert!(
        String::from_utf8(made.to_yaml().unwrap())
            .unwrap()
            .contains(argument)
    );
    for secret in [
        "hunter2",
        "PASSWORD",
        argument,
        "shop/till:1",
        &encode(b"s3cret\n\0\xff"),
    ] {
        assert!(!text.contains(secret), "{secret}");
    }
    let plain = made.compute_digest();
    assert!(
        !text.contains(&plain["sha256:".len()..]),
        "a plain digest would let passwords be tried"
    );
    let body = text.split(CHECKSUM).next().unwrap();
    for (from, to) in [
        ("startGroup: 50", "startGroup: 10"),
        ("name: till", "name: tall"),
        ("uptimeSeconds: 100", "uptimeSeconds: 1"),
    ] {
        assert!(body.contains(from), "{from}");
        let error =
            NodeCheckpoint::read(&forged(&body.replacen(from, to, 1)), &keys(1)).unwrap_err();
        assert!(
            matches!(error, Error::Seal(seal::Error::Changed)),
            "{error:?}"
        );
    }
}

#[test]
fn a_missing_and_a_wrong_key_are_told_apart_and_leave_what_is_in_clear() {
    let made = checkpoint("shop", "till");
    let bytes = made.write(Some(&key(1))).unwrap();
    let missing = NodeCheckpoint::from_yaml(&bytes).unwrap_err();
    assert!(matches!(missing, Error::KeyMissing { .. }), "{missing:?}");
    assert_eq!(missing.header().unwrap().parent, made.parent);
    let wrong = NodeCheckpoint::read(&bytes, &keys(2)).unwrap_err();
    assert!(
        matches!(wrong, Error::KeyWrong { .. }) && wrong.to_string().contains(key(1).id()),
        "{wrong}"
    );
    // one who has a key of the same id and not the key
    let (one, two) = (key(1), key(2));
    let text = String::from_utf8(bytes).unwrap();
    let renamed = text
        .split(CHECKSUM)
        .next()
        .unwrap()
        .replace(one.id(), two.id());
    assert!(matches!(
        NodeCheckpoint::read(&forged(&renamed), &two.into()),
        Err(Error::Seal(_))
    ));
}

#[test]
fn a_newer_format_is_named_with_the_program_that_wrote_it() {
    let text = "apiVersion: podcheckpointer.io/v9\nkind: NodeCheckpoint\nwrittenBy: pod-checkpointer 9.1\n";
    for bytes in [text.as_bytes(), &forged(text)] {
        let error = NodeCheckpoint::from_yaml(bytes).unwrap_err().to_string();
        assert!(
            error.contains("podcheckpointer.io/v9") && error.contains("pod-checkpointer 9.1"),
            "{error}"
        );
    }
}

#[test]
fn the_format_before_is_verified_as_it_was_written_and_then_made_ours() {
    fn upgrade(mut document: Value) -> Value {
        let fields = document.as_object_mut().unwrap();
        let parent = fields.remove("pod").unwrap();
        fields.insert("parent".into(), parent);
        fields.insert("apiVersion".into(), API_VERSION.into());
        document
    }
    let formats = [
        Format {
            version: API_VERSION,
            upgrade: |it| it,
        },
        Format {
            version: "test/v0",
            upgrade,
        },
    ];
    let mut document = checkpoint("shop", "till").document();
    let fields = document.0.as_object_mut().unwrap();
    let parent = fields.remove("parent").unwrap();
    fields.insert("pod".into(), parent);
    fields.insert("apiVersion".into(), "test/v0".into());
    document.0["digest"] = digest(&document, None).into();
    let bytes = forged(&serde_yaml::to_string(&document.0).unwrap());
    let (read, _) = NodeCheckpoint::open_formats(&bytes, &Keys::default(), &formats).unwrap();
    assert_eq!(
        (read.parent.name.as_str(), read.api_version.as_str()),
        ("till", API_VERSION)
    );
    assert!(matches!(
        NodeCheckpoint::from_yaml(&bytes),
        Err(Error::Version { .. })
    ));
    document.0["pod"]["uid"] = "another".into();
    let bytes = forged(&serde_yaml::to_string(&document.0).unwrap());
    assert!(matches!(
        NodeCheckpoint::open_formats(&bytes, &Keys::default(), &formats),
        Err(Error::Digest { .. })
    ));
}

#[test]
fn what_is_too_large_to_be_read_is_not_written() {
    let mut made = checkpoint("shop", "till");
    made.manifest["spec"]["containers"][0]["args"] = json!([",".repeat(5 << 20)]);
    assert!(matches!(made.to_yaml(), Err(Error::TooLarge(_))));
    assert!(made.write(Some(&key(1))).is_ok(), "sealed it has few parts");
}

/// The digest by the words of docs/store.md alone, without the code above.
fn by_the_words(value: &Value, top: bool) -> String {
    fn string(text: &str) -> String {
        let escaped = text.chars().map(|sign| match sign {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\u{8}' => "\\b".to_owned(),
            '\u{c}' => "\\f".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            sign if (sign as u32) < 0x20 => format!("\\u{:04x}", sign as u32),
            sign => sign.to_string(),
        });
        format!("\"{}\"", escaped.collect::<String>())
    }
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields
                .keys()
                .filter(|name| !(top && *name == "digest"))
                .collect();
            names.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
            let fields = names
                .iter()
                .map(|name| format!("{}:{}", string(name), by_the_words(&fields[*name], false)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            format!(
                "[{}]",
                items
                    .iter()
                    .map(|item| by_the_words(item, false))
                    .collect::<Vec<_>>()
                    .join(",")
            )
        }
        Value::String(text) => string(text),
        other => other.to_string(),
    }
}

#[test]
fn another_program_can_verify_a_file_by_the_words_of_the_documentation() {
    let mut made = checkpoint("shop", "till");
    made.manifest["spec"]["containers"][0]["args"] = json!(["\u{1}\u{8}\t\n\u{c}\r\"\\/\u{7f}äöü\u{2028}😀", -7, 1.5, true, null, {"b": 1, "a": 2, "é": 3, "Z": 4}]);
    let made = made.with_digest();
    let yaml: Value = serde_yaml::from_slice(&made.to_yaml().unwrap()).unwrap();
    assert_eq!(
        yaml["digest"],
        format!("sha256:{}", hex(&Sha256::digest(by_the_words(&yaml, true))))
    );
}

#[test]
fn the_schema_in_the_documentation_is_the_programs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/checkpoint.schema.json");
    let known = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        known == schema(),
        "write it again: cargo run --example checkpoint-schema > docs/checkpoint.schema.json"
    );
}

#[test]
fn texts_are_wiped_and_not_only_dropped() {
    let mut value = json!({"a": ["secret", {"b": "more"}], "n": 7});
    wipe(&mut value);
    assert_eq!(value, json!({"a": ["", {"b": ""}], "n": 7}));
}
