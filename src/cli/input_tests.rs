use std::fmt::Write as _;

use serde_json::json;

use super::*;

fn one(text: &str) -> Result<Value, String> {
    let mut found = parse(text.as_bytes()).map_err(|error| error.to_string())?;
    assert_eq!(found.len(), 1, "{text}");
    found.remove(0).content.map_err(|error| error.to_string())
}

#[test]
fn scalars_are_what_kubernetes_reads() {
    for (text, value) in [
        ("0444", json!(292)),
        ("0o17", json!(15)),
        ("0x1F", json!(31)),
        ("0b11", json!(3)),
        ("-017", json!(-15)),
        ("1_000", json!(1000)),
        ("08", json!(8)),
        ("1e3", json!(1000)),
        ("1.5", json!(1.5)),
        ("+1", json!(1)),
        ("18446744073709551615", json!(u64::MAX)),
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("y", json!(true)),
        ("~", json!(null)),
        ("\"0444\"", json!("0444")),
        ("'yes'", json!("yes")),
        ("!!str 1", json!("1")),
        ("12:30", json!("12:30")),
        ("1.2.3", json!("1.2.3")),
        ("-", json!([null])),
        ("-v", json!("-v")),
        ("2026-11-21", json!("2026-11-21")),
        ("0b", json!("0b")),
        (".5", json!(0.5)),
        ("512Mi", json!("512Mi")),
        ("0x", json!("0x")),
        ("yEs", json!("yEs")),
        ("|\n  a\n  b\n", json!("a\nb\n")),
    ] {
        let separator = if text.starts_with("- ") || text == "-" {
            "\n  "
        } else {
            " "
        };
        assert_eq!(
            one(&format!("k:{separator}{text}")),
            Ok(json!({"k": value})),
            "{text}"
        );
    }
    assert!(one("k: .inf").is_err());
}

#[test]
fn keys_are_text_and_stand_once() {
    assert_eq!(one("on: 1\n8: 2\n"), Ok(json!({"true": 1, "8": 2})));
    for text in [
        "a: 1\na: 2",
        "{\"a\": 1, \"a\": 2}",
        "a: {b: 1, \"b\": 2}",
        "~: 1",
        "[a]: 1",
        "{a: 1}: 2",
        "{\"a\": {\"b\": 1, \"b\": 1}}",
    ] {
        assert!(one(text).is_err(), "{text}");
    }
    assert_eq!(
        one("a: 1\na: 2").unwrap_err(),
        "line 2: invalid YAML: duplicate key \"a\""
    );
}

#[test]
fn aliases_and_merges_are_followed() {
    let text = "base: &b {image: i, tag: 1}\nuse: {<<: *b, tag: 2}\nmore: {<<: [*b, {x: 1}]}\nlist: [*b, &s t, *s]\n";
    let wanted = json!({"base": {"image": "i", "tag": 1}, "use": {"image": "i", "tag": 2},
        "more": {"image": "i", "tag": 1, "x": 1}, "list": [{"image": "i", "tag": 1}, "t", "t"]});
    assert_eq!(one(text), Ok(wanted));
    assert!(one("a: &a [*a]").is_err());
}

#[test]
fn documents_end_at_a_line_of_dashes_and_a_broken_one_spoils_no_other() {
    let text = "# licence\n---\na: 1\n--- # second\nb: [\n---\n---\nc: |\n  x\n  ---y\n";
    let found = parse(text.as_bytes()).unwrap();
    let numbers: Vec<usize> = found.iter().map(|it| it.number).collect();
    assert_eq!(numbers, [2, 3, 5]);
    assert_eq!(*found[0].content.as_ref().unwrap(), json!({"a": 1}));
    let error = found[1].content.as_ref().unwrap_err().to_string();
    assert!(
        error.starts_with("line 5") || error.starts_with("line 6"),
        "{error}"
    );
    assert_eq!(
        *found[2].content.as_ref().unwrap(),
        json!({"c": "x\n---y\n"})
    );
    assert!(
        one("a: 1\n...\nb: 2\n").is_err(),
        "what follows would be lost"
    );
}

#[test]
fn json_is_read_as_json() {
    let found = parse(b"{\"a\": \"\\ud83d\\ude00\", \"b\": 1.0}\n{\"c\": [1,2]}\n").unwrap();
    let values: Vec<_> = found.into_iter().map(|it| it.content.unwrap()).collect();
    assert_eq!(
        values,
        [json!({"a": "\u{1f600}", "b": 1}), json!({"c": [1, 2]})]
    );
    assert_eq!(
        one("{a: b, c: [d]}"),
        Ok(json!({"a": "b", "c": ["d"]})),
        "YAML that begins with a bracket"
    );
    assert!(parse(b"{\"a\": 1}\n{\"b\": ").unwrap()[1].content.is_err());
    assert!(one("{\"a\": 1").is_err());
}

#[test]
fn a_hundred_lines_of_comments_are_no_matter() {
    let text = format!(
        "{}a: 1\n{}",
        "# words\n".repeat(500),
        "# words\n".repeat(500)
    );
    assert_eq!(one(&text), Ok(json!({"a": 1})));
}

#[test]
fn aliases_nesting_and_weight_are_bounded() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..30 {
        let before = format!("*a{}", level - 1);
        writeln!(
            bomb,
            "a{level}: &a{level} [{}]",
            [before.as_str(); 10].join(",")
        )
        .unwrap();
    }
    assert!(one(&bomb).unwrap_err().contains("aliases"));
    let mut deep = "a0: &a0 [x]\n".to_owned();
    for level in 1..1000 {
        writeln!(deep, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
    }
    assert!(one(&deep).unwrap_err().contains("nested deeper"));
    for (open, close) in [
        ("[", "]"),
        ("{a: ", "}"),
        ("{\"a\": ", "}"),
        ("- ", ""),
        ("? ", ""),
    ] {
        let text = format!("{}x{}", open.repeat(100_000), close.repeat(100_000));
        assert!(one(&text).is_err(), "{open}");
    }
    assert!(
        one(&"- {a: 1}\n".repeat(1_000_000))
            .unwrap_err()
            .contains("larger")
    );
    assert!(
        one(&format!("[{}1]", "{\"a\":1},".repeat(1_000_000)))
            .unwrap_err()
            .contains("larger")
    );
}

#[test]
fn what_is_not_text_is_said_without_its_content() {
    assert!(matches!(parse(b"a: \xff\xfe"), Err(Error::NotText)));
    assert_eq!(parse("\u{feff}a: 1".as_bytes()).unwrap().len(), 1);
    for text in [
        "a: b: c",
        "\t- a",
        "a: 'secret",
        "%YAML 9\n---\n",
        "a: \"\\q secret\"",
        "&a",
        "*secret",
        "@secret",
        "{\"secret\": nope",
    ] {
        match parse(text.as_bytes()) {
            Ok(found) => {
                for error in found.into_iter().filter_map(|it| it.content.err()) {
                    assert!(!error.to_string().contains("secret"), "{error}");
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(parse(b"").unwrap().is_empty());
    assert!(parse(b"---\n# nothing\n---\n").unwrap().is_empty());
}
