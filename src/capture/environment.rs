//! What a container was given as environment, and how a twin's manifest says the same.
//!
//! Pure. The kubelet collects a container's environment in a Go map (pkg/kubelet/kubelet_pods.go,
//! `makeEnvironmentVariables`): names are unique, the last word counts, the order is another one at every start, and an
//! `$(X)` in a `value` means what X was when that entry's turn came. So the runtime's record is a set of names with values,
//! and it says all there is to say, but for values that hang on the pod's address: those must mean the new address. They
//! stay references; everything else becomes a literal. In the end the kubelet's own steps are done on what was written, and
//! the result is compared with what ran.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, Container, EnvVar, EnvVarSource, FileKeySelector, ObjectFieldSelector, SecretKeySelector,
};
use serde_json::Value;

use crate::reasons::Refusal;

/// What a container's process was given by the kubelet, by name. Values of Secrets are among it: nothing prints it.
pub type Environment = BTreeMap<String, String>;

/// Longer than any single string that Linux gives to a process (`MAX_ARG_STRLEN`).
const LONGEST: usize = 128 << 10;

/// Why an environment cannot be written down. Names variables, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The runtime's record does not tell.
    #[error("{0}")]
    Unknown(String),
    /// A value that a manifest cannot hold.
    #[error("variable {0:?} is not UTF-8 text")]
    NotText(String),
}

impl Error {
    /// The reason to refuse the pod for.
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
            // An operator that begins nothing stands for itself, with the character after it.
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

/// Expands `$(X)` as the kubelet does; what has no value is left as it stands.
pub fn expand<'a>(input: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    pieces(input).into_iter().fold(String::new(), |mut out, piece| {
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

/// The text that expands to this one, whatever variables there are.
pub fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

/// What the kubelet gave to a container, from the `info` of its verbose status.
///
/// containerd keeps what it was asked for, `config.envs`. CRI-O has only the OCI spec: its defaults (PATH, TERM, HOSTNAME,
/// `default_env`), then the kubelet's, then the image's own (server/container_create.go, `mergeEnvs`; a name that is there
/// already is changed in place). The kubelet's end with the service variables, so what `envFrom` brought is found between.
pub fn captured(info: &Value, container: &Container, hostname: Option<&str>) -> Result<Environment, Error> {
    let environment = if let Some(config) = info.get("config").filter(|config| config.is_object()) {
        asked(config)?
    } else if let Some(process) = info.pointer("/runtimeSpec/process") {
        started(process, container, hostname)?
    } else {
        return Err(Error::Unknown("the runtime's record has neither config nor runtimeSpec".into()));
    };
    // A record in JSON has U+FFFD where a byte was not UTF-8 (Go's encoding/json).
    match environment.iter().find(|(_, value)| value.contains(['\0', '\u{fffd}'])) {
        Some((name, _)) => Err(Error::NotText(name.clone())),
        None => Ok(environment),
    }
}

fn asked(config: &Value) -> Result<Environment, Error> {
    let Some(entries) = config.get("envs").filter(|entries| !entries.is_null()) else { return Ok(Environment::new()) };
    let malformed = || Error::Unknown("the runtime's record has envs of an unknown shape".into());
    entries
        .as_array()
        .ok_or_else(malformed)?
        .iter()
        .map(|entry| {
            let key = entry.get("key").and_then(Value::as_str).ok_or_else(malformed)?;
            match entry.get("value") {
                None => Ok((key.to_owned(), String::new())),
                Some(value) => Ok((key.to_owned(), value.as_str().ok_or_else(malformed)?.to_owned())),
            }
        })
        .collect()
}

fn started(process: &Value, container: &Container, hostname: Option<&str>) -> Result<Environment, Error> {
    let malformed = || Error::Unknown("the runtime's OCI spec has an environment of an unknown shape".into());
    let Some(lines) = process.get("env").filter(|lines| !lines.is_null()) else { return Ok(Environment::new()) };
    let lines: Vec<(&str, &str)> = lines
        .as_array()
        .ok_or_else(malformed)?
        .iter()
        .map(|line| line.as_str().and_then(|line| line.split_once('=')).ok_or_else(malformed))
        .collect::<Result<_, _>>()?;
    let all: BTreeMap<&str, &str> = lines.iter().copied().collect();
    let declared: BTreeSet<&str> = container.env.iter().flatten().map(|entry| entry.name.as_str()).collect();
    let is_given = |name: &str| declared.contains(name) || is_service_variable(name, |host| all.contains_key(host));
    let mut given: BTreeSet<&str> = all.keys().copied().filter(|name| is_given(name)).collect();
    if container.env_from.as_ref().is_none_or(Vec::is_empty) {
        return Ok(all.iter().filter(|(name, _)| given.contains(*name)).map(own).collect());
    }
    let last = lines.iter().rposition(|(name, _)| !declared.contains(name) && is_given(name));
    let (Some(first), Some(last)) = (lines.iter().position(|(name, _)| *name == "HOSTNAME"), last) else {
        return Err(Error::Unknown("envFrom cannot be told apart from the image's own variables".into()));
    };
    given.extend(lines.iter().take(last).skip(first + 1).map(|(name, _)| *name));
    // What stands before was set by the runtime, unless envFrom changed it in place.
    let defaults = [("HOSTNAME", hostname), ("TERM", Some("xterm"))];
    for (name, default) in defaults {
        if all.get(name).is_some_and(|value| default.is_some_and(|default| *value != default)) {
            given.insert(name);
        }
    }
    Ok(all.iter().filter(|(name, _)| given.contains(*name)).map(own).collect())
}

fn own((name, value): (&&str, &&str)) -> (String, String) {
    ((*name).to_owned(), (*value).to_owned())
}

/// Is this `X_SERVICE_…` or `X_PORT…` of a service whose `X_SERVICE_HOST` is there (pkg/kubelet/envvars)?
fn is_service_variable(name: &str, has: impl Fn(&str) -> bool) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|mark| {
        name.match_indices(mark).any(|(at, _)| name.get(..at).is_some_and(|x| has(&format!("{x}_SERVICE_HOST"))))
    })
}

/// The service variables of a pod's containers, as far as this one tells: what it was given beyond what it declares.
///
/// `None`: it does not tell, since `envFrom` or a declared name may have brought or hidden one.
pub fn services(container: &Container, captured: &Environment) -> Option<Environment> {
    let declared: BTreeSet<&str> = container.env.iter().flatten().map(|entry| entry.name.as_str()).collect();
    let may_hide = |name: &&str| ["_SERVICE_", "_PORT"].iter().any(|mark| name.contains(mark));
    if container.env_from.as_ref().is_some_and(|sources| !sources.is_empty()) || declared.iter().any(may_hide) {
        return None;
    }
    let rest = captured.iter().filter(|(name, _)| !declared.contains(name.as_str()));
    let rest: Environment = rest.map(|(name, value)| (name.clone(), value.clone())).collect();
    rest.keys().all(|name| is_service_variable(name, |host| rest.contains_key(host))).then_some(rest)
}

/// What the kubelet gave to a container of which no record is left, if everything that it declares is known: `value`s and
/// these `fields` of the pod, by path (pkg/kubelet/kubelet_pods.go, `makeEnvironmentVariables`, step by step).
pub fn computed(
    container: &Container,
    fields: &Environment,
    addresses: &Addresses,
    services: &Environment,
) -> Option<Environment> {
    if container.env_from.as_ref().is_some_and(|sources| !sources.is_empty()) {
        return None;
    }
    let mut result = Environment::new();
    for entry in container.env.iter().flatten() {
        let EnvVar { name, value, value_from } = entry;
        let value = match (value.as_deref().unwrap_or_default(), value_from) {
            ("", Some(EnvVarSource { field_ref: Some(field), .. })) => {
                let known = fields.get(&field.field_path)?;
                if is_address(field) { addresses.of(field).to_owned() } else { known.clone() }
            }
            ("", Some(_)) => return None,
            (value, _) => {
                let of = |name: &str| result.get(name).or_else(|| services.get(name)).map(String::as_str);
                let long = pieces(value).iter().fold(0, |long: usize, piece| match piece {
                    Piece::Text(text) => long.saturating_add(text.len()),
                    Piece::Reference(name) => long.saturating_add(of(name).map_or(name.len() + 3, str::len)),
                });
                // No process can have been started with it.
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

/// What is known of a variable at some entry's turn.
#[derive(Clone)]
enum Part {
    Text(String),
    /// The address that this entry of `env` stands for.
    Address(usize),
    /// Some text.
    Unknown,
    /// Some text, with the address in it or without.
    Unsure,
}

struct Reading<'a> {
    declared: &'a [EnvVar],
    sources: Vec<Source<'a>>,
    captured: &'a Environment,
    has_env_from: bool,
    /// What each entry with a `value` was expanded to, in declared order.
    expanded: Vec<Vec<Part>>,
}

impl<'a> Reading<'a> {
    fn new(container: &'a Container, captured: &'a Environment, host_network: bool) -> Self {
        let declared = container.env.as_deref().unwrap_or_default();
        let mut reading = Self {
            declared,
            sources: declared.iter().map(|entry| source(entry, host_network)).collect(),
            captured,
            has_env_from: container.env_from.as_ref().is_some_and(|sources| !sources.is_empty()),
            expanded: Vec::new(),
        };
        for at in 0..declared.len() {
            let parts = reading.parts(at);
            reading.expanded.push(parts);
        }
        reading
    }

    fn parts(&self, at: usize) -> Vec<Part> {
        let Some(Source::Value(value)) = self.sources.get(at) else { return Vec::new() };
        let mut parts = Vec::new();
        let mut long = 0_usize;
        for piece in pieces(value) {
            let more = match piece {
                Piece::Text(text) => vec![Part::Text(text)],
                Piece::Reference(name) => self.at(&name, at),
            };
            long += more.iter().map(|part| if let Part::Text(text) = part { text.len() } else { 1 }).sum::<usize>();
            if long > LONGEST {
                return vec![Part::Unsure];
            }
            parts.extend(more);
        }
        parts
    }

    /// What `$(name)` meant when the entry at `turn` was expanded.
    fn at(&self, name: &str, turn: usize) -> Vec<Part> {
        let is_declared_later = self.declared.iter().skip(turn).any(|entry| entry.name == name);
        let undefined = || vec![Part::Text(format!("$({name})"))];
        // Nothing declared later changed it, so what the process got is what it was.
        let as_captured = || match self.captured.get(name) {
            Some(value) => vec![Part::Text(value.clone())],
            None => undefined(),
        };
        let before = self.declared.iter().take(turn).rposition(|entry| entry.name == name);
        let Some((before, source)) = before.and_then(|at| Some((at, self.sources.get(at)?))) else {
            let may_be_given = self.has_env_from || is_service_variable(name, |host| self.captured.contains_key(host));
            return match (is_declared_later, may_be_given) {
                (false, _) => as_captured(),
                (true, false) => undefined(),
                (true, true) => vec![Part::Unknown],
            };
        };
        match source {
            Source::Address(_) => vec![Part::Address(before)],
            Source::Value(_) => self.expanded.get(before).cloned().unwrap_or_default(),
            Source::Other { optional: true } if self.hangs_on_address_before(name, before) => vec![Part::Unsure],
            Source::Other { .. } if is_declared_later => vec![Part::Unknown],
            Source::Other { .. } => as_captured(),
        }
    }

    fn hangs_on_address_before(&self, name: &str, turn: usize) -> bool {
        (0..turn).any(|at| self.declared.get(at).is_some_and(|entry| entry.name == name) && self.hangs_on_address(at))
    }

    fn hangs_on_address(&self, at: usize) -> bool {
        matches!(self.sources.get(at), Some(Source::Address(_)))
            || self
                .expanded
                .get(at)
                .is_some_and(|parts| parts.iter().any(|part| matches!(part, Part::Address(_) | Part::Unsure)))
    }
}

fn source(entry: &EnvVar, host_network: bool) -> Source<'_> {
    let EnvVar { name: _, value, value_from } = entry;
    match (value.as_deref().unwrap_or_default(), value_from) {
        ("", Some(from)) => {
            let EnvVarSource { config_map_key_ref, field_ref, file_key_ref, resource_field_ref: _, secret_key_ref } =
                from;
            let optional = [
                config_map_key_ref.as_ref().and_then(|ConfigMapKeySelector { key: _, name: _, optional }| *optional),
                secret_key_ref.as_ref().and_then(|SecretKeySelector { key: _, name: _, optional }| *optional),
                file_key_ref
                    .as_ref()
                    .and_then(|FileKeySelector { key: _, optional, path: _, volume_name: _ }| *optional),
            ];
            match field_ref {
                Some(field) if !host_network && is_address(field) => Source::Address(field),
                _ => Source::Other { optional: optional.contains(&Some(true)) },
            }
        }
        (value, _) => Source::Value(value),
    }
}

fn is_address(field: &ObjectFieldSelector) -> bool {
    let ObjectFieldSelector { api_version: _, field_path } = field;
    matches!(field_path.as_str(), "status.podIP" | "status.podIPs")
}

/// The address of a pod as a `fieldRef` gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// `status.podIP`.
    pub one: String,
    /// `status.podIPs`, separated by commas.
    pub all: String,
}

impl Addresses {
    fn of(&self, field: &ObjectFieldSelector) -> &str {
        if field.field_path == "status.podIPs" { &self.all } else { &self.one }
    }
}

/// The `env` of a twin's container: what the parent's container got, sorted by name, so that a restart of the parent is no
/// change; then what hangs on the pod's address, in the declared order, so that every `$(X)` that stays finds its X.
/// `addresses` are the parent's.
pub fn render(
    container: &Container,
    captured: &Environment,
    host_network: bool,
    addresses: &Addresses,
) -> Result<Vec<EnvVar>, Error> {
    let reading = Reading::new(container, captured, host_network);
    let last: BTreeMap<&str, usize> =
        reading.declared.iter().enumerate().map(|(at, entry)| (entry.name.as_str(), at)).collect();
    let mut kept: BTreeMap<usize, EnvVar> = BTreeMap::new();
    let mut literals: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in captured {
        let Some(&at) = last.get(name.as_str()) else {
            literals.insert(name, value);
            continue;
        };
        if matches!(reading.sources.get(at), Some(Source::Other { optional: true }))
            && reading.hangs_on_address_before(name, at)
        {
            return Err(unsure(name));
        }
        if reading.hangs_on_address(at) {
            keep(&reading, at, value, addresses, &mut kept)?;
        } else {
            literals.insert(name, value);
        }
    }
    for (name, &at) in &last {
        let may_be_absent = matches!(reading.sources.get(at), Some(Source::Other { optional: true }));
        if !may_be_absent && !captured.contains_key(*name) {
            return Err(Error::Unknown(format!("variable {name:?} is declared but not in the runtime's record")));
        }
    }
    let referred: BTreeSet<String> = kept.values().map(|entry| entry.name.clone()).collect();
    let literal = |(name, value): (&&str, &&str)| EnvVar {
        name: (*name).to_owned(),
        value: Some(escape(value)),
        value_from: None,
    };
    let (late, early): (Vec<_>, Vec<_>) = literals.iter().partition(|(name, _)| referred.contains(**name));
    let env: Vec<EnvVar> =
        early.into_iter().map(literal).chain(kept.into_values()).chain(late.into_iter().map(literal)).collect();
    check(&env, captured, addresses, &last, &reading)?;
    Ok(env)
}

fn unsure(name: &str) -> Error {
    Error::Unknown(format!("variable {name:?} may or may not hang on the pod's address"))
}

/// Keeps the entry at `at`, and the addresses that it refers to.
fn keep(
    reading: &Reading<'_>,
    at: usize,
    value: &str,
    addresses: &Addresses,
    kept: &mut BTreeMap<usize, EnvVar>,
) -> Result<(), Error> {
    let Some(entry) = reading.declared.get(at) else { return Ok(()) };
    if let Some(Source::Address(_)) = reading.sources.get(at) {
        kept.insert(at, entry.clone());
        return Ok(());
    }
    let parts = reading.expanded.get(at).map(Vec::as_slice).unwrap_or_default();
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Text(part) => text.push_str(&escape(part)),
            Part::Address(origin) => {
                let Some(origin_entry) = reading.declared.get(*origin) else { continue };
                let _ = write!(text, "$({})", origin_entry.name);
                kept.insert(*origin, origin_entry.clone());
            }
            Part::Unsure => return Err(unsure(&entry.name)),
            Part::Unknown => {
                let known = |parts: &[Part]| known(reading, parts, addresses);
                let (before, after) = (parts.get(..index).and_then(known), parts.get(index + 1..).and_then(known));
                let middle = before.zip(after).and_then(|(before, after)| {
                    value.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(after.as_str()))
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
    kept.insert(at, EnvVar { name: entry.name.clone(), value: Some(text), value_from: None });
    Ok(())
}

/// What these parts were in the parent; `None`: one of them is not known.
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

/// Does with the twin's `env` what the kubelet does, with the parent's address: the result must be what ran.
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
        // The order of several addresses is the kubelet's own business; an entry that only is one needs no proof.
        let is_bare =
            last.get(name.as_str()).is_some_and(|at| matches!(reading.sources.get(*at), Some(Source::Address(_))));
        !is_bare && result.get(name.as_str()) != Some(value)
    });
    match wrong {
        Some((name, _)) => Err(Error::Unknown(format!(
            "variable {name:?} hangs on the pod's address in a way that its declaration does not explain"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
