//! The environment that a container was given, and how a twin's manifest reproduces it.
//!
//! Pure. The kubelet collects a container's environment in a Go map (pkg/kubelet/kubelet_pods.go,
//! `makeEnvironmentVariables`): names are unique, the last entry of a name counts, the order
//! differs at every start, and `$(X)` in a `value` is the value that X has when that entry is
//! processed. So the runtime's record is a set of names with values, and it is complete, except
//! that values that depend on the pod's address must get the new address. Those stay references;
//! everything else becomes a literal. At the end the kubelet's own steps are applied to the new
//! entries, and the result is compared with what ran.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, Container, EnvVar, EnvVarSource, FileKeySelector, ObjectFieldSelector,
    SecretKeySelector,
};
use serde_json::Value;

use crate::reasons::Refusal;

/// The variables that the kubelet gave to a container's process, by name. It contains values of
/// Secrets, so nothing prints it.
pub type Environment = BTreeMap<String, String>;

/// Longest value in bytes; Linux gives no longer string to a process (`MAX_ARG_STRLEN`).
const LONGEST: usize = 128 << 10;

/// Why an environment cannot be reproduced. The text names variables, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The runtime's record does not say what it was.
    #[error("{0}")]
    Unknown(String),
    /// A value that a manifest cannot hold.
    #[error("variable {0:?} is not UTF-8 text")]
    NotText(String),
}

impl Error {
    /// The reason for which the pod is refused.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Unknown(_) => Refusal::EnvironmentUnknown,
            Self::NotText(_) => Refusal::EnvironmentNotText,
        }
    }
}

/// A piece of a `value`, as the kubelet reads it (third_party/forked/golang/expansion).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Reference(String),
}

fn pieces(input: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut text = String::new();
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let after = from.get(1..).unwrap_or_default();
        if let Some(inner) = after.strip_prefix('(') {
            if let Some((name, tail)) = inner.split_once(')') {
                found.push(Piece::Text(std::mem::take(&mut text)));
                found.push(Piece::Reference(name.to_owned()));
                rest = tail;
            } else {
                text.push_str("$(");
                rest = inner;
            }
        } else if let Some(tail) = after.strip_prefix('$') {
            text.push('$');
            rest = tail;
        } else {
            // a `$` that starts nothing stands for itself, with the character after it
            text.push('$');
            let mut characters = after.chars();
            text.extend(characters.next());
            rest = characters.as_str();
        }
    }
    text.push_str(rest);
    found.push(Piece::Text(text));
    found.retain(|piece| *piece != Piece::Text(String::new()));
    found
}

/// Expands `$(X)` as the kubelet does; a reference without a value is left unchanged.
pub fn expand<'a>(input: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    pieces(input)
        .into_iter()
        .fold(String::new(), |mut out, piece| {
            match piece {
                Piece::Text(text) => out.push_str(&text),
                Piece::Reference(name) => match value(&name) {
                    Some(value) => out.push_str(value),
                    None => {
                        let _ = write!(out, "$({name})");
                    }
                },
            }
            out
        })
}

/// The text that expands to this one, whatever variables exist.
pub fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

/// The variables that the kubelet gave to a container, from the `info` of its verbose status.
///
/// containerd keeps what the kubelet asked for, `config.envs`. CRI-O has only the OCI spec: its
/// defaults (PATH, TERM, HOSTNAME, `default_env`), then the kubelet's variables, then the image's
/// own (server/container_create.go, `mergeEnvs`; a name that already exists is changed in place).
/// The kubelet's end with the variables of Services, so those from `envFrom` are found in between.
pub fn captured(
    info: &Value,
    container: &Container,
    hostname: Option<&str>,
) -> Result<Environment, Error> {
    let environment = if let Some(config) = info.get("config").filter(|config| config.is_object()) {
        asked(config)?
    } else if let Some(process) = info.pointer("/runtimeSpec/process") {
        started(process, container, hostname)?
    } else {
        return Err(Error::Unknown(
            "the runtime's record has neither config nor runtimeSpec".into(),
        ));
    };
    // a record in JSON has U+FFFD in place of bytes that are not UTF-8 (Go's encoding/json)
    match environment
        .iter()
        .find(|(_, value)| value.contains(['\0', '\u{fffd}']))
    {
        Some((name, _)) => Err(Error::NotText(name.clone())),
        None => Ok(environment),
    }
}

fn asked(config: &Value) -> Result<Environment, Error> {
    let Some(entries) = config.get("envs").filter(|entries| !entries.is_null()) else {
        return Ok(Environment::new());
    };
    let malformed = || Error::Unknown("the runtime's record has envs of an unknown format".into());
    entries
        .as_array()
        .ok_or_else(malformed)?
        .iter()
        .map(|entry| {
            let key = entry
                .get("key")
                .and_then(Value::as_str)
                .ok_or_else(malformed)?;
            match entry.get("value") {
                None => Ok((key.to_owned(), String::new())),
                Some(value) => Ok((
                    key.to_owned(),
                    value.as_str().ok_or_else(malformed)?.to_owned(),
                )),
            }
        })
        .collect()
}

fn started(
    process: &Value,
    container: &Container,
    hostname: Option<&str>,
) -> Result<Environment, Error> {
    let malformed =
        || Error::Unknown("the runtime's OCI spec has an environment of an unknown format".into());
    let Some(lines) = process.get("env").filter(|lines| !lines.is_null()) else {
        return Ok(Environment::new());
    };
    let lines: Vec<(&str, &str)> = lines
        .as_array()
        .ok_or_else(malformed)?
        .iter()
        .map(|line| {
            line.as_str()
                .and_then(|line| line.split_once('='))
                .ok_or_else(malformed)
        })
        .collect::<Result<_, _>>()?;
    let all: BTreeMap<&str, &str> = lines.iter().copied().collect();
    let declared: BTreeSet<&str> = container
        .env
        .iter()
        .flatten()
        .map(|entry| entry.name.as_str())
        .collect();
    let is_given = |name: &str| {
        declared.contains(name) || is_service_variable(name, |host| all.contains_key(host))
    };
    let mut given: BTreeSet<&str> = all.keys().copied().filter(|name| is_given(name)).collect();
    if container.env_from.as_ref().is_none_or(Vec::is_empty) {
        return Ok(all
            .iter()
            .filter(|(name, _)| given.contains(*name))
            .map(own)
            .collect());
    }
    let last = lines
        .iter()
        .rposition(|(name, _)| !declared.contains(name) && is_given(name));
    let (Some(first), Some(last)) = (lines.iter().position(|(name, _)| *name == "HOSTNAME"), last)
    else {
        return Err(Error::Unknown(
            "the variables of envFrom cannot be distinguished from those of the image".into(),
        ));
    };
    given.extend(
        lines
            .iter()
            .take(last)
            .skip(first + 1)
            .map(|(name, _)| *name),
    );
    // what comes before was set by the runtime, unless envFrom changed it in place
    let defaults = [("HOSTNAME", hostname), ("TERM", Some("xterm"))];
    for (name, default) in defaults {
        if all
            .get(name)
            .is_some_and(|value| default.is_some_and(|default| *value != default))
        {
            given.insert(name);
        }
    }
    Ok(all
        .iter()
        .filter(|(name, _)| given.contains(*name))
        .map(own)
        .collect())
}

fn own((name, value): (&&str, &&str)) -> (String, String) {
    ((*name).to_owned(), (*value).to_owned())
}

/// Whether this is `X_SERVICE_…` or `X_PORT…` of a Service whose `X_SERVICE_HOST` exists
/// (pkg/kubelet/envvars).
fn is_service_variable(name: &str, has: impl Fn(&str) -> bool) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
        .iter()
        .any(|mark| {
            name.match_indices(mark).any(|(at, _)| {
                name.get(..at)
                    .is_some_and(|x| has(&format!("{x}_SERVICE_HOST")))
            })
        })
}

/// The variables of Services in all of a pod's containers, derived from this one: what it was given
/// beyond what it declares.
///
/// `None` if they cannot be derived, because `envFrom` or a declared name may have added or hidden
/// one.
pub fn services(container: &Container, captured: &Environment) -> Option<Environment> {
    let declared: BTreeSet<&str> = container
        .env
        .iter()
        .flatten()
        .map(|entry| entry.name.as_str())
        .collect();
    let may_hide = |name: &&str| {
        ["_SERVICE_", "_PORT"]
            .iter()
            .any(|mark| name.contains(mark))
    };
    if container
        .env_from
        .as_ref()
        .is_some_and(|sources| !sources.is_empty())
        || declared.iter().any(may_hide)
    {
        return None;
    }
    let rest = captured
        .iter()
        .filter(|(name, _)| !declared.contains(name.as_str()));
    let rest: Environment = rest
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    rest.keys()
        .all(|name| is_service_variable(name, |host| rest.contains_key(host)))
        .then_some(rest)
}

/// The variables that the kubelet gave to a container without a record, if everything that it
/// declares is known: `value`s and these `fields` of the pod, by path. Follows
/// `makeEnvironmentVariables` in pkg/kubelet/kubelet_pods.go step by step.
pub fn computed(
    container: &Container,
    fields: &Environment,
    addresses: &Addresses,
    services: &Environment,
) -> Option<Environment> {
    if container
        .env_from
        .as_ref()
        .is_some_and(|sources| !sources.is_empty())
    {
        return None;
    }
    let mut result = Environment::new();
    for entry in container.env.iter().flatten() {
        let EnvVar {
            name,
            value,
            value_from,
        } = entry;
        let value = match (value.as_deref().unwrap_or_default(), value_from) {
            (
                "",
                Some(EnvVarSource {
                    field_ref: Some(field),
                    ..
                }),
            ) => {
                let known = fields.get(&field.field_path)?;
                if is_address(field) {
                    addresses.of(field).to_owned()
                } else {
                    known.clone()
                }
            }
            ("", Some(_)) => return None,
            (value, _) => {
                let of = |name: &str| {
                    result
                        .get(name)
                        .or_else(|| services.get(name))
                        .map(String::as_str)
                };
                let long = pieces(value)
                    .iter()
                    .fold(0, |long: usize, piece| match piece {
                        Piece::Text(text) => long.saturating_add(text.len()),
                        Piece::Reference(name) => {
                            long.saturating_add(of(name).map_or(name.len() + 3, str::len))
                        }
                    });
                // no process can have been started with such a value
                if long > LONGEST {
                    return None;
                }
                expand(value, of)
            }
        };
        result.insert(name.clone(), value);
    }
    for (name, value) in services {
        result.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Some(result)
}

/// How an entry of `env` gets its value.
enum Source<'a> {
    Value(&'a str),
    Address(&'a ObjectFieldSelector),
    Other { optional: bool },
}

/// A part of a variable's value, as far as it is known when some entry is processed.
#[derive(Clone)]
enum Part {
    Text(String),
    /// The address to which this entry of `env` refers.
    Address(usize),
    /// Unknown text, without the address.
    Unknown,
    /// Unknown text, which may contain the address.
    Unsure,
}

struct Reading<'a> {
    declared: &'a [EnvVar],
    sources: Vec<Source<'a>>,
    captured: &'a Environment,
    has_env_from: bool,
    /// What each entry with a `value` was expanded to, in the declared order.
    expanded: Vec<Vec<Part>>,
}

impl<'a> Reading<'a> {
    fn new(container: &'a Container, captured: &'a Environment, host_network: bool) -> Self {
        let declared = container.env.as_deref().unwrap_or_default();
        let mut reading = Self {
            declared,
            sources: declared
                .iter()
                .map(|entry| source(entry, host_network))
                .collect(),
            captured,
            has_env_from: container
                .env_from
                .as_ref()
                .is_some_and(|sources| !sources.is_empty()),
            expanded: Vec::new(),
        };
        for at in 0..declared.len() {
            let parts = reading.parts(at);
            reading.expanded.push(parts);
        }
        reading
    }

    fn parts(&self, at: usize) -> Vec<Part> {
        let Some(Source::Value(value)) = self.sources.get(at) else {
            return Vec::new();
        };
        let mut parts = Vec::new();
        let mut long = 0_usize;
        for piece in pieces(value) {
            let more = match piece {
                Piece::Text(text) => vec![Part::Text(text)],
                Piece::Reference(name) => self.at(&name, at),
            };
            long += more
                .iter()
                .map(|part| {
                    if let Part::Text(text) = part {
                        text.len()
                    } else {
                        1
                    }
                })
                .sum::<usize>();
            if long > LONGEST {
                return vec![Part::Unsure];
            }
            parts.extend(more);
        }
        parts
    }

    /// The value of `$(name)` when the entry at `turn` was expanded.
    fn at(&self, name: &str, turn: usize) -> Vec<Part> {
        let is_declared_later = self
            .declared
            .iter()
            .skip(turn)
            .any(|entry| entry.name == name);
        let undefined = || vec![Part::Text(format!("$({name})"))];
        // nothing declared later changed it, so it was what the process got
        let as_captured = || match self.captured.get(name) {
            Some(value) => vec![Part::Text(value.clone())],
            None => undefined(),
        };
        let before = self
            .declared
            .iter()
            .take(turn)
            .rposition(|entry| entry.name == name);
        let Some((before, source)) = before.and_then(|at| Some((at, self.sources.get(at)?))) else {
            let may_be_given = self.has_env_from
                || is_service_variable(name, |host| self.captured.contains_key(host));
            return match (is_declared_later, may_be_given) {
                (false, _) => as_captured(),
                (true, false) => undefined(),
                (true, true) => vec![Part::Unknown],
            };
        };
        match source {
            Source::Address(_) => vec![Part::Address(before)],
            Source::Value(_) => self.expanded.get(before).cloned().unwrap_or_default(),
            Source::Other { optional: true } if self.depends_on_address_before(name, before) => {
                vec![Part::Unsure]
            }
            Source::Other { .. } if is_declared_later => vec![Part::Unknown],
            Source::Other { .. } => as_captured(),
        }
    }

    fn depends_on_address_before(&self, name: &str, turn: usize) -> bool {
        (0..turn).any(|at| {
            self.declared
                .get(at)
                .is_some_and(|entry| entry.name == name)
                && self.depends_on_address(at)
        })
    }

    fn depends_on_address(&self, at: usize) -> bool {
        matches!(self.sources.get(at), Some(Source::Address(_)))
            || self.expanded.get(at).is_some_and(|parts| {
                parts
                    .iter()
                    .any(|part| matches!(part, Part::Address(_) | Part::Unsure))
            })
    }
}

fn source(entry: &EnvVar, host_network: bool) -> Source<'_> {
    let EnvVar {
        name: _,
        value,
        value_from,
    } = entry;
    match (value.as_deref().unwrap_or_default(), value_from) {
        ("", Some(from)) => {
            let EnvVarSource {
                config_map_key_ref,
                field_ref,
                file_key_ref,
                resource_field_ref: _,
                secret_key_ref,
            } = from;
            let optional = [
                config_map_key_ref.as_ref().and_then(
                    |ConfigMapKeySelector {
                         key: _,
                         name: _,
                         optional,
                     }| *optional,
                ),
                secret_key_ref.as_ref().and_then(
                    |SecretKeySelector {
                         key: _,
                         name: _,
                         optional,
                     }| *optional,
                ),
                file_key_ref.as_ref().and_then(
                    |FileKeySelector {
                         key: _,
                         optional,
                         path: _,
                         volume_name: _,
                     }| *optional,
                ),
            ];
            match field_ref {
                Some(field) if !host_network && is_address(field) => Source::Address(field),
                _ => Source::Other {
                    optional: optional.contains(&Some(true)),
                },
            }
        }
        (value, _) => Source::Value(value),
    }
}

fn is_address(field: &ObjectFieldSelector) -> bool {
    let ObjectFieldSelector {
        api_version: _,
        field_path,
    } = field;
    matches!(field_path.as_str(), "status.podIP" | "status.podIPs")
}

/// The addresses of a pod, as a `fieldRef` gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// `status.podIP`.
    pub one: String,
    /// `status.podIPs`, separated by commas.
    pub all: String,
}

impl Addresses {
    fn of(&self, field: &ObjectFieldSelector) -> &str {
        if field.field_path == "status.podIPs" {
            &self.all
        } else {
            &self.one
        }
    }
}

/// The `env` of a twin's container. First what the parent's container got, sorted by name, so that
/// a restart of the parent changes nothing. Then what depends on the pod's address, in the declared
/// order, so that every remaining `$(X)` finds its X. `addresses` are the parent's.
pub fn render(
    container: &Container,
    captured: &Environment,
    host_network: bool,
    addresses: &Addresses,
) -> Result<Vec<EnvVar>, Error> {
    let reading = Reading::new(container, captured, host_network);
    let last: BTreeMap<&str, usize> = reading
        .declared
        .iter()
        .enumerate()
        .map(|(at, entry)| (entry.name.as_str(), at))
        .collect();
    let mut kept: BTreeMap<usize, EnvVar> = BTreeMap::new();
    let mut literals: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in captured {
        let Some(&at) = last.get(name.as_str()) else {
            literals.insert(name, value);
            continue;
        };
        if matches!(
            reading.sources.get(at),
            Some(Source::Other { optional: true })
        ) && reading.depends_on_address_before(name, at)
        {
            return Err(unsure(name));
        }
        if reading.depends_on_address(at) {
            keep(&reading, at, value, addresses, &mut kept)?;
        } else {
            literals.insert(name, value);
        }
    }
    for (name, &at) in &last {
        let may_be_absent = matches!(
            reading.sources.get(at),
            Some(Source::Other { optional: true })
        );
        if !may_be_absent && !captured.contains_key(*name) {
            return Err(Error::Unknown(format!(
                "variable {name:?} is declared but not in the runtime's record"
            )));
        }
    }
    let referred: BTreeSet<String> = kept.values().map(|entry| entry.name.clone()).collect();
    let literal = |(name, value): (&&str, &&str)| EnvVar {
        name: (*name).to_owned(),
        value: Some(escape(value)),
        value_from: None,
    };
    let (late, early): (Vec<_>, Vec<_>) = literals
        .iter()
        .partition(|(name, _)| referred.contains(**name));
    let env: Vec<EnvVar> = early
        .into_iter()
        .map(literal)
        .chain(kept.into_values())
        .chain(late.into_iter().map(literal))
        .collect();
    check(&env, captured, addresses, &last, &reading)?;
    Ok(env)
}

fn unsure(name: &str) -> Error {
    Error::Unknown(format!(
        "it is unclear whether variable {name:?} depends on the pod's address"
    ))
}

/// Keeps the entry at `at` as a reference, and the entries of the addresses that it refers to.
fn keep(
    reading: &Reading<'_>,
    at: usize,
    value: &str,
    addresses: &Addresses,
    kept: &mut BTreeMap<usize, EnvVar>,
) -> Result<(), Error> {
    let Some(entry) = reading.declared.get(at) else {
        return Ok(());
    };
    if let Some(Source::Address(_)) = reading.sources.get(at) {
        kept.insert(at, entry.clone());
        return Ok(());
    }
    let parts = reading
        .expanded
        .get(at)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Text(part) => text.push_str(&escape(part)),
            Part::Address(origin) => {
                let Some(origin_entry) = reading.declared.get(*origin) else {
                    continue;
                };
                let _ = write!(text, "$({})", origin_entry.name);
                kept.insert(*origin, origin_entry.clone());
            }
            Part::Unsure => return Err(unsure(&entry.name)),
            Part::Unknown => {
                let known = |parts: &[Part]| known(reading, parts, addresses);
                let (before, after) = (
                    parts.get(..index).and_then(known),
                    parts.get(index + 1..).and_then(known),
                );
                let middle = before.zip(after).and_then(|(before, after)| {
                    value
                        .strip_prefix(before.as_str())
                        .and_then(|rest| rest.strip_suffix(after.as_str()))
                });
                let Some(middle) = middle else {
                    return Err(Error::Unknown(format!(
                        "variable {:?} mixes the pod's address with a value that was overridden later",
                        entry.name
                    )));
                };
                text.push_str(&escape(middle));
            }
        }
    }
    kept.insert(
        at,
        EnvVar {
            name: entry.name.clone(),
            value: Some(text),
            value_from: None,
        },
    );
    Ok(())
}

/// What these parts were in the parent; `None` if one of them is not known.
fn known(reading: &Reading<'_>, parts: &[Part], addresses: &Addresses) -> Option<String> {
    parts.iter().try_fold(String::new(), |mut text, part| {
        match part {
            Part::Text(part) => text.push_str(part),
            Part::Address(at) => match reading.sources.get(*at) {
                Some(Source::Address(field)) => text.push_str(addresses.of(field)),
                _ => return None,
            },
            Part::Unknown | Part::Unsure => return None,
        }
        Some(text)
    })
}

/// Applies the kubelet's steps to the twin's `env` with the parent's address: the result must be
/// what ran.
fn check(
    env: &[EnvVar],
    captured: &Environment,
    addresses: &Addresses,
    last: &BTreeMap<&str, usize>,
    reading: &Reading<'_>,
) -> Result<(), Error> {
    let mut result: BTreeMap<&str, String> = BTreeMap::new();
    for entry in env {
        let value = match source(entry, false) {
            Source::Value(value) => expand(value, |name| result.get(name).map(String::as_str)),
            Source::Address(field) => addresses.of(field).to_owned(),
            Source::Other { .. } => String::new(),
        };
        result.insert(&entry.name, value);
    }
    let wrong = captured.iter().find(|(name, value)| {
        // the kubelet chooses the order of several addresses; an entry that is nothing but a
        // reference to them needs no check
        let is_bare = last
            .get(name.as_str())
            .is_some_and(|at| matches!(reading.sources.get(*at), Some(Source::Address(_))));
        !is_bare && result.get(name.as_str()) != Some(value)
    });
    match wrong {
        Some((name, _)) => Err(Error::Unknown(format!(
            "variable {name:?} depends on the pod's address in a way that its declaration does not explain"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
