//! Parses YAML of unknown origin, bounded in time and memory: files that may be damaged or
//! malicious reach serde_yaml only through this module.
//!
//! serde_yaml reads a whole document into a list of events before it returns the first, and lets
//! aliases repeat a hundred times as many. So the characters that can produce an event are counted
//! first, and the result must not be much larger than the text, so that aliases cannot expand it.
//! The time that the scanner takes grows with the square of the brackets open at once, so these are
//! limited too. serde_yaml itself limits the depth of values (128).

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The most characters that can separate parts of a document. A volume of 20,000 entries has
/// 300,000, and a manifest may be 9 MiB long.
const MOST_SIGNS: usize = 4 << 20;

/// The most brackets open at once, including those in strings; this program writes only `[]` and
/// `{}`.
const MOST_OPEN: usize = 1000;

/// Why a text could not be parsed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not YAML, or expands to far more than its length.
    #[error("not YAML that this program writes")]
    Syntax(#[source] serde_yaml::Error),
    /// The text has too many parts.
    #[error("it has more than {MOST_SIGNS} parts, or more than {MOST_OPEN} brackets open at once")]
    TooComplex,
}

/// Checks that a text does not have too many parts.
pub fn check(bytes: &[u8]) -> Result<(), Error> {
    let is_sign = |byte: &&u8| {
        matches!(
            byte,
            b'\n' | b'-' | b':' | b',' | b'?' | b'[' | b'{' | b'&' | b'*'
        )
    };
    let mut open = 0_usize;
    let is_deep = bytes.iter().any(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MOST_OPEN
    });
    if is_deep || bytes.iter().filter(is_sign).count() > MOST_SIGNS {
        Err(Error::TooComplex)
    } else {
        Ok(())
    }
}

/// Parses one document. Keys must be unique strings, and numbers must be valid in JSON.
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    check(bytes)?;
    let budget = Cell::new(bytes.len().saturating_mul(4).saturating_add(64));
    Bounded(&budget)
        .deserialize(serde_yaml::Deserializer::from_slice(bytes))
        .map_err(Error::Syntax)
}

#[derive(Clone, Copy)]
struct Bounded<'a>(&'a Cell<usize>);

impl Bounded<'_> {
    fn spend<E: serde::de::Error>(self, amount: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(amount.saturating_add(1));
        self.0
            .set(left.ok_or_else(|| E::custom("it expands to far more than its length"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.spend(0).map(|()| Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.spend(0).map(|()| value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.spend(0).map(|()| value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.spend(0).map(|()| value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.spend(0)?;
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that JSON cannot hold"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.spend(value.len())?;
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.spend(0)?;
        let mut all = Map::new();
        while let Some(key) = entries.next_key_seed(self)? {
            let Value::String(key) = key else {
                return Err(A::Error::custom("a key that is not a string"));
            };
            let value = entries.next_value_seed(self)?;
            if all.insert(key, value).is_some() {
                return Err(A::Error::custom("a duplicate key"));
            }
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_serde_yaml_writes_is_read_the_same() {
        let value = json!({
            "text": ["yes", "0o17", "1e3", "~", "", " x ", "a: b", "12:30", "-", "ä\u{2028}\u{7}", "line\nline\n", ".inf"],
            "numbers": [0, -1, u64::MAX, 1.5], "nothing": null, "empty": [{}, []], "is": true,
        });
        let text = serde_yaml::to_string(&value).unwrap();
        assert_eq!(parse(text.as_bytes()).unwrap(), value);
    }

    #[test]
    fn documents_that_would_exhaust_memory_or_time_are_refused() {
        let mut aliases = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let last = level - 1;
            let line = format!(
                "a{level}: &a{level} [*a{last},*a{last},*a{last},*a{last},*a{last},*a{last},*a{last}]\n"
            );
            aliases.push_str(&line);
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a,".repeat(50));
        let itself = "a: &a [*a]\n".to_owned();
        let deep = "[".repeat(MOST_OPEN + 1);
        let nested = "- ".repeat(1000);
        let closed = format!("{}{}", "[".repeat(MOST_OPEN), "]".repeat(MOST_OPEN));
        let wide = format!("[{}]", ",".repeat(MOST_SIGNS));
        for bomb in [aliases, long, itself, deep, nested, closed, wide] {
            assert!(
                parse(bomb.as_bytes()).is_err(),
                "{}",
                bomb.get(..40).unwrap()
            );
        }
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        for text in [
            "a: 1\na: 2\n",
            "1: a\n",
            "[a]: b\n",
            "a: .nan\n",
            "a: !tag b\n",
            "a: 1\n---\nb: 2\n",
            "",
        ] {
            assert!(
                !matches!(parse(text.as_bytes()), Ok(Value::Object(_))),
                "{text:?}"
            );
        }
    }
}
