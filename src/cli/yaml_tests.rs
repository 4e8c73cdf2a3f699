use super::*;
use crate::cli::input;
use proptest::prelude::*;
use serde_json::json;

fn back(value: &Value) -> Value {
    let mut read = input::parse(text(value).as_bytes()).unwrap();
    assert_eq!(read.len(), 1);
    read.remove(0).content.unwrap()
}

#[test]
fn strings_that_could_be_read_as_something_else_are_quoted() {
    for word in [
        "y",
        "NO",
        "On",
        "off",
        "null",
        "~",
        "",
        "012",
        "0x1",
        "1_000",
        "12:30",
        "1e3",
        ".inf",
        "NaN",
        "-",
        "- a",
        "a: b",
        "a #b",
        "#",
        "&a",
        "*a",
        "!a",
        "%a",
        "@a",
        "`a`",
        " a",
        "a ",
        "a\nb",
        "\u{85}",
        "\u{feff}",
        "\u{1f600}",
        "<<",
        "=",
        "2026-11-21",
        "$(A)",
        "\\",
        "\"",
        "'",
        "{}",
        "[",
        "\0",
        "\u{7f}",
        "\r\n",
        "?",
        ":",
        "|",
        ">",
    ] {
        let value = json!({word: [word, {"a": word}]});
        assert!(text(&value).contains('"'), "{word:?}");
        if word != "<<" {
            assert_eq!(back(&value), value, "{word:?}: {}", text(&value));
        }
    }
}

#[test]
fn the_output_looks_as_people_write_it() {
    let value = json!({"spec": {"containers": [{"name": "a", "args": ["-v", "x"], "env": []}, {"name": "b"}], "m": {}},
        "nested": [[1, [2]], [{}]], "kind": "Pod"});
    let wanted = "kind: Pod\nnested:\n-\n  - 1\n  -\n    - 2\n-\n  - {}\nspec:\n  containers:\n  - args:\n    - \"-v\"\n    - x\n    env: []\n    name: a\n  - name: b\n  m: {}\n";
    assert_eq!(text(&value), wanted);
    assert_eq!(back(&value), value);
}

fn any_json() -> impl Strategy<Value = Value> {
    let words = prop_oneof![any::<String>(), "[a-z0-9._/:# -]{0,6}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        words.prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map("[a-zA-Z0-9 /.~]{1,6}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same_value(value in any_json()) {
        let value = json!({"it": value});
        prop_assert_eq!(back(&value), value);
    }
}
