//! Writes JSON as block-style YAML for people, which a YAML 1.1 parser such as the kubelet's reads
//! as the same JSON.
//!
//! serde_yaml writes YAML 1.2, in which an unquoted `on`, `012` or `1_000` is a string, but not for
//! a kubelet. Here a string is unquoted only if every version of YAML reads it as that string.

use std::fmt::Write as _;

use serde_json::Value;

/// Words that are not strings in some version of YAML.
const WORDS: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];

/// A document, without the line `---`.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// Writes what follows `key:` or `-`, including the end of the line.
fn after(value: &Value, indent: usize, is_element: bool, out: &mut String) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            if is_element {
                // the first key is on the line of the dash
                let begin = out.len();
                block(value, indent + 2, out);
                out.replace_range(begin..begin + indent + 2, " ");
            } else {
                out.push('\n');
                block(value, indent + 2, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            block(value, if is_element { indent + 2 } else { indent }, out);
        }
        value => {
            out.push(' ');
            block(value, 0, out);
        }
    }
}

fn block(value: &Value, indent: usize, out: &mut String) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, value) in object {
                out.push_str(&margin);
                string(key, out);
                out.push(':');
                after(value, indent, false, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                out.push_str(&margin);
                out.push('-');
                after(value, indent, true, out);
            }
        }
        Value::String(text) => {
            string(text, out);
            out.push('\n');
        }
        // JSON's literals and numbers, `{}` and `[]` mean the same in every version
        value => {
            // writing to a string cannot fail
            let _ = writeln!(out, "{value}");
        }
    }
}

fn string(text: &str, out: &mut String) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => write!(out, "\\n"),
            '\t' => write!(out, "\\t"),
            ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{f900}'..='\u{fefe}' => write!(out, "{c}"),
            c if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
            c if u32::from(c) < 0x1_0000 => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "\\U{:08x}", u32::from(c)),
        };
    }
    out.push('"');
}

/// Whether a string needs no quotes: it begins with a letter or `/`, goes on with characters
/// without a special meaning, and is not one of [`WORDS`].
fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
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
}
