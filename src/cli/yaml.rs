//! Writes JSON as block-style YAML for people, which a YAML 1.1 parser such as the kubelet's reads
//! as the same JSON.
//!
//! serde_yaml writes YAML 1.2, in which an unquoted `on`, `012` or `1_000` is a string, but not for
//! a kubelet. Here a string is unquoted only if every version of YAML reads it as that string.

use std::fmt::Write as _;

use serde_json::Value;

/// Words that are not strings in some version of YAML.
const WORDS: [&str; 11] = [
    "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf",
];

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
            ' '..='~'
            | '\u{a0}'..='\u{2027}'
            | '\u{202a}'..='\u{d7ff}'
            | '\u{f900}'..='\u{fefe}' => write!(out, "{c}"),
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
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
