//! Label selectors in the syntax of `kubectl -l`. kube evaluates them, but parses only the form
//! that objects have.
//!
//! Pure. Names and values must follow the rules for labels (apimachinery, pkg/labels/selector.go
//! and pkg/util/validation), so that a selector that can never match is refused at the start.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

use crate::pod::names::is_name;

/// Longest name or value of a label.
const LIMIT: usize = 63;

/// Parses for example `app=till,tier in (front,back),!canary`; all parts must match.
pub fn parse(text: &str) -> Result<Selector, String> {
    let parts = split(text)?;
    if parts.iter().all(|part| part.trim().is_empty()) {
        return Err(
            "names no label; write for example app=till, tier in (front,back), app or !app".into(),
        );
    }
    let expressions: Vec<Expression> = parts
        .into_iter()
        .map(requirement)
        .collect::<Result<_, _>>()?;
    Ok(expressions.into_iter().collect())
}

/// Splits at the commas that are not between brackets.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut begin, mut open) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        match (letter, open) {
            ('(', false) => open = true,
            (')', true) => open = false,
            ('(' | ')', _) => return Err(format!("{text:?} has brackets that do not match")),
            (',', false) => {
                parts.push(text.get(begin..at).unwrap_or_default());
                begin = at + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err(format!("{text:?} has brackets that do not match"));
    }
    parts.push(text.get(begin..).unwrap_or_default());
    Ok(parts)
}

fn requirement(text: &str) -> Result<Expression, String> {
    let text = text.trim();
    if let Some(list) = text.strip_suffix(')') {
        let (head, list) = list.split_once('(').ok_or_else(|| unclear(text))?;
        let values: BTreeSet<String> = list.split(',').map(value).collect::<Result<_, _>>()?;
        return match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [name, "in"] => Ok(Expression::In(key(name)?, values)),
            [name, "notin"] => Ok(Expression::NotIn(key(name)?, values)),
            _ => Err(unclear(text)),
        };
    }
    if let Some((name, given)) = text.split_once("!=") {
        return Ok(Expression::NotEqual(key(name)?, value(given)?));
    }
    if let Some((name, given)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Expression::Equal(key(name)?, value(given)?));
    }
    match text.strip_prefix('!') {
        Some(name) => Ok(Expression::DoesNotExist(key(name)?)),
        None => Ok(Expression::Exists(key(text)?)),
    }
}

fn unclear(text: &str) -> String {
    format!(
        "{text:?} is not part of a selector; write name=value, name!=value, name in (a,b), name notin (a,b), name or !name"
    )
}

fn key(text: &str) -> Result<String, String> {
    let text = text.trim();
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    if is_word(name) && prefix.is_none_or(is_name) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not the name of a label"))
    }
}

fn value(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || is_word(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not the value of a label"))
    }
}

fn is_word(text: &str) -> bool {
    let is_end = |letter: char| letter.is_ascii_alphanumeric();
    text.len() <= LIMIT
        && text.starts_with(is_end)
        && text.ends_with(is_end)
        && text
            .chars()
            .all(|letter| is_end(letter) || matches!(letter, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::SelectorExt as _;
    use std::collections::BTreeMap;

    #[test]
    fn a_selector_matches_as_with_kubectl() {
        let labels: BTreeMap<String, String> = [
            ("app", "till"),
            ("tier", "front"),
            ("shop.example/floor", "2"),
            ("empty", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for (text, matches) in [
            ("app=till", true),
            (" app == till ", true),
            ("app=other", false),
            ("app!=other", true),
            ("missing!=other", true),
            ("tier in (front, back)", true),
            ("tier in(back)", false),
            ("tier notin (back)", true),
            ("tier notin (front,back)", false),
            ("missing notin (a)", true),
            ("shop.example/floor=2", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("empty=", true),
            ("app=", false),
            ("app=till,tier in (front,back),!canary", true),
            ("app=till,tier in (back),!canary", false),
        ] {
            assert_eq!(parse(text).unwrap().matches(&labels), matches, "{text}");
        }
    }

    #[test]
    fn a_printed_selector_can_be_parsed_again() {
        for text in [
            "a=b",
            "a!=b",
            "a in (b,c)",
            "a notin (b)",
            "a",
            "!a",
            "x.y/a=b,c in (d,e),!f",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn empty_and_invalid_selectors_are_refused() {
        let long = "a".repeat(64);
        for text in [
            "",
            " ",
            ",",
            "a=b,",
            "=b",
            "a in b",
            "a in (b",
            "a in b)",
            "a in ((b))",
            "a around (b)",
            "a=b c",
            "a=ä",
            "-a=b",
            "a=-b",
            "/a=b",
            "X.y/a=b",
            "a/b/c=d",
            "a,,b",
            "a=b=c",
            "a>1",
            &long,
            &format!("a={long}"),
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
