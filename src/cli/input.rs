//! Reads objects as kubectl does: from YAML or JSON, several documents, standard input and
//! directories.
//!
//! Kubernetes reads YAML 1.1 (go-yaml v2): an unquoted `0444` is octal and an unquoted `yes` is a
//! boolean. So the parser's events are turned into values here, by the rules of go-yaml (its
//! resolve.go). A file's size is limited, and so are the depth and the size in memory of what its
//! aliases expand to.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use granit_parser::{Event, Parser, ScalarStyle, Tag};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The longest file in bytes that is read: the kubelet's own limit for a manifest
/// (pkg/kubelet/config/common.go).
pub const LONGEST_FILE: u64 = 10 << 20;
/// The deepest nesting; no Kubernetes object is nested more deeply.
const DEEPEST: usize = 100;
/// The largest document in memory, with aliases expanded, in approximate bytes.
const HEAVIEST: usize = 128 << 20;
/// Approximate bytes of a value without its text, and of an object without its values.
const VALUE: usize = 40;
const OBJECT: usize = 640;

/// Why a file or one of its documents cannot be read. The text names positions, never content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system reported an error.
    #[error("cannot read")]
    Read(#[source] io::Error),
    /// The file is longer than [`LONGEST_FILE`].
    #[error("larger than {} MiB", LONGEST_FILE >> 20)]
    TooLong,
    /// The file is not text.
    #[error("not UTF-8 text")]
    NotText,
    /// The document is not valid YAML.
    #[error("line {line}: invalid YAML: {what}")]
    Yaml {
        /// Line in the file, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The document is not valid JSON.
    #[error("invalid JSON: {0}")]
    Json(String),
}

/// One document of a file.
#[derive(Debug)]
pub struct Document {
    /// Position in its file, from 1.
    pub number: usize,
    /// The content, or why it cannot be read.
    pub content: Result<Value, Error>,
}

/// The files that a path stands for: itself, or the files of a directory that end in `.yaml`,
/// `.yml` or `.json`, sorted; with `recursive`, also those in the directories below, as with
/// kubectl. Links to directories are not followed.
pub fn files(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, (PathBuf, Error)> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, Error::Read(error))
    };
    let mut entries = fs::read_dir(path)
        .map_err(failed(path))?
        .map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed(path))?;
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    let mut found = Vec::new();
    for (path, kind) in entries {
        let is_wanted = path
            .extension()
            .is_some_and(|it| ["yaml", "yml", "json"].iter().any(|wanted| it == *wanted));
        if kind.is_dir() {
            if recursive {
                found.extend(files(&path, recursive)?);
            }
        } else if is_wanted && path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

/// The documents of a file, or of standard input for `-`; empty ones are left out.
pub fn read(path: &Path) -> Result<Vec<Document>, Error> {
    let mut bytes = Vec::new();
    let count = if path == Path::new("-") {
        io::stdin()
            .lock()
            .take(LONGEST_FILE + 1)
            .read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut bytes))
    };
    let count = count.map_err(Error::Read)?;
    if count as u64 > LONGEST_FILE {
        return Err(Error::TooLong);
    }
    parse(&bytes)
}

/// The documents in these bytes.
pub fn parse(bytes: &[u8]) -> Result<Vec<Document>, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let found = if text.trim_start().starts_with(['{', '[']) {
        objects(text)
    } else {
        None
    };
    let contents = found.unwrap_or_else(|| {
        chunks(text)
            .into_iter()
            .map(|(line, chunk)| yaml(chunk, line))
            .collect()
    });
    Ok(contents
        .into_iter()
        .zip(1..)
        .filter(|(content, _)| !matches!(content, Ok(Value::Null)))
        .map(|(content, number)| Document { number, content })
        .collect())
}

/// Splits a text at lines of `---` (apimachinery's util/yaml/decoder.go), so that an invalid
/// document does not affect others. Each comes with the number of lines before it.
fn chunks(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut begin, mut first, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---").map(str::trim);
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#')) {
            found.push((first, text.get(begin..at).unwrap_or_default()));
            (begin, first) = (at + line.len(), number + 1);
        }
        at += line.len();
    }
    found.push((first, text.get(begin..).unwrap_or_default()));
    found
}

/// Parses a stream of JSON objects; `None` if it may be YAML that begins with a bracket.
fn objects(text: &str) -> Option<Vec<Result<Value, Error>>> {
    let mut found = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text);
    loop {
        match Unique(&Cell::new(0)).deserialize(&mut stream) {
            Ok(value) => found.push(Ok(value)),
            Err(error) if found.is_empty() && !error.is_data() => return None,
            Err(error) => {
                found.push(Err(Error::Json(place(&error))));
                return Some(found);
            }
        }
        if stream.end().is_ok() {
            return Some(found);
        }
    }
}

/// Describes an error without serde_json's own text, which may quote a value.
fn place(error: &serde_json::Error) -> String {
    let what = if error.is_data() {
        "a duplicate key, or larger than an object can be"
    } else {
        "syntax"
    };
    format!("{what}, at line {} column {}", error.line(), error.column())
}

/// Deserializes any JSON value that is not too large and has no duplicate keys; contains the size
/// so far.
struct Unique<'a>(&'a Cell<usize>);

impl Unique<'_> {
    fn weigh<E: serde::de::Error>(&self, weight: usize) -> Result<(), E> {
        self.0.set(self.0.get() + weight);
        if self.0.get() > HEAVIEST {
            Err(E::custom("larger than an object can be"))
        } else {
            Ok(())
        }
    }
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        number(value).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.weigh(value.len())?;
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Unique(self.0))? {
            self.weigh(VALUE)?;
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.weigh(OBJECT)?;
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            self.weigh(VALUE + key.len())?;
            let value = map.next_value_seed(Unique(self.0))?;
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("a duplicate key"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// A value with its size and depth, for the limits.
#[derive(Clone)]
struct Node {
    value: Value,
    weight: usize,
    depth: usize,
}

/// A collection that is not complete.
struct Open {
    anchor: usize,
    weight: usize,
    depth: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Value>),
    Map {
        object: Map<String, Value>,
        key: Option<Key>,
        merged: Vec<Value>,
    },
}

enum Key {
    Name(String),
    Merge,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    total: usize,
    done: Option<Value>,
}

fn yaml(text: &str, lines_before: usize) -> Result<Value, Error> {
    let mut builder = Builder::default();
    let mut documents = 0;
    // comments are skipped, however many there are
    let options = granit_parser::options! { emit_comments: false };
    for event in Parser::new_from_str_with_options(text, options) {
        let at = |line: usize, what: String| Error::Yaml {
            line: lines_before + line,
            what,
        };
        let (event, span) = event.map_err(|error| at(error.marker().line(), "syntax".into()))?;
        let line = span.start.line();
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
        }
        if documents > 1 {
            return Err(at(
                line,
                "another document begins here without a line ---".into(),
            ));
        }
        builder.take(event).map_err(|what| at(line, what))?;
    }
    Ok(builder.done.unwrap_or_default())
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_key = matches!(
                    self.open.last(),
                    Some(Open {
                        kind: Kind::Map { key: None, .. },
                        ..
                    })
                );
                if is_key {
                    return self.key(&text, style, tag.as_deref());
                }
                let value = scalar(&text, style, tag.as_deref())?;
                self.add(
                    Node {
                        value,
                        weight: VALUE + text.len(),
                        depth: 1,
                    },
                    anchor,
                )
            }
            Event::SequenceStart(_, anchor, _) => self.begin(anchor, Kind::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => self.begin(
                anchor,
                Kind::Map {
                    object: Map::new(),
                    key: None,
                    merged: Vec::new(),
                },
            ),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let known = self
                    .anchors
                    .get(&anchor)
                    .ok_or("an alias of something that contains it")?;
                if self.total + known.weight > HEAVIEST {
                    return Err("aliases make it larger than an object can be".into());
                }
                let node = known.clone();
                self.add(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, anchor: usize, kind: Kind) -> Result<(), String> {
        let weight = if matches!(kind, Kind::Map { .. }) {
            OBJECT
        } else {
            VALUE
        };
        if self.open.len() >= DEEPEST {
            return Err(format!("nested deeper than {DEEPEST}"));
        }
        if matches!(
            self.open.last(),
            Some(Open {
                kind: Kind::Map { key: None, .. },
                ..
            })
        ) {
            return Err("a key that is not a string".into());
        }
        self.total += weight;
        self.open.push(Open {
            anchor,
            weight,
            depth: 0,
            kind,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(Open {
            anchor,
            weight,
            depth,
            kind,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let value = match kind {
            Kind::List(values) => Value::Array(values),
            Kind::Map {
                mut object,
                key: _,
                merged,
            } => {
                for (key, value) in merged.into_iter().filter_map(into_object).flatten() {
                    object.entry(key).or_insert(value);
                }
                Value::Object(object)
            }
        };
        // the content has been counted already, and is counted again with its collection
        self.total = self.total.saturating_sub(weight);
        self.add(
            Node {
                value,
                weight,
                depth: depth + 1,
            },
            anchor,
        )
    }

    fn key(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<(), String> {
        let name = match scalar(text, style, tag)? {
            Value::String(name) if name == "<<" && style == ScalarStyle::Plain => Key::Merge,
            Value::String(name) => Key::Name(name),
            Value::Null => return Err("a key that is null".into()),
            // as sigs.k8s.io/yaml writes them
            other => Key::Name(other.to_string()),
        };
        if let Some(Open {
            kind: Kind::Map { object, key, .. },
            ..
        }) = self.open.last_mut()
        {
            if let Key::Name(name) = &name
                && object.contains_key(name)
            {
                return Err(format!("duplicate key {name:?}"));
            }
            *key = Some(name);
        }
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        let Node {
            value,
            weight,
            depth,
        } = node;
        self.total += weight;
        if self.total > HEAVIEST {
            return Err("larger than an object can be".into());
        }
        if self.open.len() + depth > DEEPEST + 1 {
            return Err(format!("nested deeper than {DEEPEST}"));
        }
        if anchor > 0 {
            self.anchors.insert(
                anchor,
                Node {
                    value: value.clone(),
                    weight,
                    depth,
                },
            );
            self.total += weight;
        }
        let Some(open) = self.open.last_mut() else {
            self.done = Some(value);
            return Ok(());
        };
        open.weight += weight;
        open.depth = open.depth.max(depth);
        match &mut open.kind {
            Kind::List(values) => values.push(value),
            Kind::Map {
                object,
                key,
                merged,
            } => match key.take() {
                Some(Key::Name(name)) => {
                    open.weight += name.len();
                    self.total += name.len();
                    object.insert(name, value);
                }
                Some(Key::Merge) => match value {
                    Value::Array(values) => merged.extend(values),
                    value => merged.push(value),
                },
                None => return Err("a key that is not a string".into()),
            },
        }
        Ok(())
    }
}

fn into_object(value: Value) -> Option<Map<String, Value>> {
    if let Value::Object(object) = value {
        Some(object)
    } else {
        None
    }
}

/// Resolves a scalar as go-yaml v2 does.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    match tag.map(Tag::core_suffix) {
        Some(Some("null" | "bool" | "int" | "float" | "timestamp")) => {}
        Some(Some("binary")) => return Err("!!binary is not supported".into()),
        Some(_) => return Ok(text.into()),
        None if style != ScalarStyle::Plain => return Ok(text.into()),
        None => {}
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            true.into()
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            false.into()
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => return Err("a number that JSON does not have".into()),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            let plain = text.replace('_', "");
            whole(&plain)
                .or_else(|| fraction(&plain))
                .unwrap_or_else(|| text.into())
        }
        _ => text.into(),
    })
}

/// Parses like Go's `strconv.ParseInt` with base 0.
fn whole(text: &str) -> Option<Value> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(digits) = lower.strip_prefix("0x") {
        (16, digits)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (8, digits)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (2, digits)
    } else if let Some(digits) = lower.strip_prefix('0').filter(|digits| !digits.is_empty()) {
        (8, digits)
    } else {
        (10, lower.as_str())
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok()?;
    if is_negative {
        Some(0_i64.checked_sub_unsigned(number)?.into())
    } else {
        Some(number.into())
    }
}

/// Parses digits with a point, an exponent or both (go-yaml's `yamlStyleFloat`).
fn fraction(text: &str) -> Option<Value> {
    let is_plain = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    if !text.chars().all(is_plain) || !text.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    number(text.parse().ok()?)
}

/// A number as Go writes a float: without a point if it is whole.
fn number(value: f64) -> Option<Value> {
    #[allow(clippy::cast_possible_truncation)] // whole, and small enough to be exact in a float
    if value.fract() == 0.0 && value.abs() < 9e15 {
        Some((value as i64).into())
    } else {
        Number::from_f64(value).map(Value::Number)
    }
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
