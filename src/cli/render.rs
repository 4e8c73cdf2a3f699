//! `render`: checks from their manifests whether pods will come back, before they run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Serialize;
use serde_json::Value;

use crate::args::{Output, RenderArguments};
use crate::capture::Reason;
use crate::capture::changes::{Change, What};
use crate::capture::offline::{self, Rendered, Subject};
use crate::cli::input::{self, Document};
use crate::cli::table::columns;
use crate::cli::{Answer, print, yaml};
use crate::reasons::{Refusal, Warning};
use crate::text::chain;

/// The node's name if none is given.
const NODE: &str = "node";

/// Everything that `render` reports, as `-o json` writes it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// One item per pod.
    pub items: Vec<Item>,
    /// Objects that create no pods.
    pub skipped: Vec<Skipped>,
    /// Files and documents that could not be read.
    pub errors: Vec<Failed>,
}

/// One pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// File and document that it comes from.
    pub source: String,
    /// Kind of the object.
    pub kind: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Name of the pod; `xxxxx` stands for a part that is generated when it is created.
    pub pod: String,
    /// Whether the pod can come back.
    pub recoverable: bool,
    /// Whether the pod is marked by its annotation.
    pub marked: bool,
    /// Why the pod cannot come back.
    pub reasons: Vec<Explained<Refusal>>,
    /// What its owner should know even if it can.
    pub warnings: Vec<Explained<Warning>>,
    /// What is unknown until the pod runs, and other remarks.
    pub notes: Vec<String>,
    /// How the manifest differs from the pod.
    pub changes: Vec<Change>,
    /// The manifest that would be linked.
    pub manifest: Option<Value>,
}

/// A reason or a warning with its explanation and advice.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained<T> {
    /// The reason or warning.
    pub reason: T,
    /// What the reason is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What it means.
    pub explanation: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

impl Explained<Refusal> {
    fn refusal(reason: Reason) -> Self {
        let Reason { refusal, detail } = reason;
        Self {
            reason: refusal,
            detail,
            explanation: refusal.explanation(),
            advice: refusal.advice(),
        }
    }
}

impl Explained<Warning> {
    fn warning(warning: Warning) -> Self {
        Self {
            reason: warning,
            detail: String::new(),
            explanation: warning.explanation(),
            advice: warning.advice(),
        }
    }
}

/// An object that creates no pods.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// File and document that it comes from.
    pub source: String,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
}

/// A file or document that could not be read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// File and document.
    pub source: String,
    /// The error, without any content.
    pub message: String,
}

/// The node for which pods are rendered.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Namespace of objects that do not name one.
    pub namespace: &'a str,
    /// Run directory of the nodes.
    pub run_dir: &'a Path,
    /// Name of a node; only its length matters.
    pub node_name: &'a str,
}

impl Report {
    /// Adds the documents of one file.
    pub fn add(&mut self, file: &str, documents: Vec<Document>, place: Place<'_>) {
        let is_only = documents.len() == 1;
        for Document { number, content } in documents {
            let source = if is_only {
                file.to_owned()
            } else {
                format!("{file}#{number}")
            };
            let object = match content {
                Ok(object) => object,
                Err(error) => {
                    self.errors.push(Failed {
                        source,
                        message: chain(&error),
                    });
                    continue;
                }
            };
            for subject in offline::subjects(&object, place.namespace) {
                match subject {
                    Ok(Subject::Pod(candidate)) => {
                        let rendered = offline::render(&candidate, place.run_dir, place.node_name);
                        self.items
                            .push(Item::new(source.clone(), &candidate, rendered));
                    }
                    Ok(Subject::Other(kind, name)) => self.skipped.push(Skipped {
                        source: source.clone(),
                        kind,
                        name,
                    }),
                    Err(error) => self.errors.push(Failed {
                        source: source.clone(),
                        message: error.to_string(),
                    }),
                }
            }
        }
    }

    /// The report in this format: the text for standard output, and remarks for people.
    pub fn texts(&self, output: Output, explain: bool) -> serde_json::Result<(String, String)> {
        Ok(match output {
            // the document contains the remarks
            Output::Json => (
                format!("{}\n", serde_json::to_string_pretty(self)?),
                String::new(),
            ),
            Output::Yaml => (manifests(self, explain), remarks(self)),
            Output::Table => (table(self, explain), failures(self)),
        })
    }

    /// The report on the bytes of one file; for fuzzing.
    pub fn of(bytes: &[u8]) -> Self {
        let place = Place {
            namespace: "default",
            run_dir: Path::new(crate::names::RUN_DIR),
            node_name: NODE,
        };
        let mut report = Self::default();
        match input::parse(bytes) {
            Ok(documents) => report.add("-", documents, place),
            Err(error) => report.errors.push(Failed {
                source: "-".into(),
                message: chain(&error),
            }),
        }
        report
    }
}

impl Item {
    fn new(source: String, candidate: &offline::Candidate, rendered: Rendered) -> Self {
        let offline::Candidate {
            kind,
            namespace,
            name,
            pod,
            ..
        } = candidate;
        let Rendered {
            reasons,
            warnings,
            notes,
            manifest,
            changes,
        } = rendered;
        Self {
            source,
            kind: kind.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            pod: pod
                .pointer("/metadata/name")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            recoverable: reasons.is_empty(),
            marked: candidate.is_marked(),
            reasons: reasons.into_iter().map(Explained::refusal).collect(),
            warnings: warnings.into_iter().map(Explained::warning).collect(),
            notes,
            changes,
            manifest,
        }
    }

    /// The verdict of a capture on a running pod.
    pub(super) fn live(
        pod: &Value,
        reasons: Vec<Reason>,
        warnings: Vec<Warning>,
        manifest: Option<Value>,
    ) -> Self {
        let field = |name: &str| {
            let value = pod
                .pointer(&format!("/metadata/{name}"))
                .and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        Self {
            source: "the API server".into(),
            kind: "Pod".into(),
            namespace: field("namespace"),
            name: field("name"),
            pod: field("name"),
            recoverable: reasons.is_empty(),
            marked: crate::pod::mark::is_marked(pod),
            reasons: reasons.into_iter().map(Explained::refusal).collect(),
            warnings: warnings.into_iter().map(Explained::warning).collect(),
            notes: Vec::new(),
            changes: Vec::new(),
            manifest,
        }
    }
}

/// Runs `render` on files.
pub fn render(arguments: &RenderArguments) -> anyhow::Result<Answer> {
    let node_name = arguments.node.node_name.as_deref().unwrap_or(NODE);
    let place = Place {
        namespace: &arguments.namespace,
        run_dir: &arguments.node.host.run_dir,
        node_name,
    };
    let mut report = Report::default();
    let failed = |path: &Path, error: &input::Error| Failed {
        source: shown(path),
        message: chain(error),
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for path in &arguments.filename {
        match input::files(path, arguments.recursive) {
            Ok(found) => files.extend(found),
            Err((path, error)) => report.errors.push(failed(&path, &error)),
        }
    }
    for file in &files {
        match input::read(file) {
            Ok(documents) => report.add(&shown(file), documents, place),
            Err(error) => report.errors.push(failed(file, &error)),
        }
    }
    print_report(arguments, &report)
}

fn shown(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".into()
    } else {
        path.display().to_string()
    }
}

/// Prints the report: the requested output to standard output, remarks for people to standard
/// error.
pub(super) fn print_report(arguments: &RenderArguments, report: &Report) -> anyhow::Result<Answer> {
    let (output, error) = report.texts(arguments.output, arguments.explain)?;
    // as with standard output, a reader may be gone
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), error.as_bytes());
    print(&output)?;
    let failed = report.errors.len();
    if failed > 0 {
        bail!("{failed} objects or files could not be read");
    }
    if report.items.is_empty() {
        bail!("the input contains neither a pod nor a workload that creates pods");
    }
    Ok(if report.items.iter().all(|item| item.recoverable) {
        Answer::Yes
    } else {
        Answer::No
    })
}

/// One line per remark.
fn remarks(report: &Report) -> String {
    let mut text = failures(report);
    for Skipped { source, kind, name } in &report.skipped {
        line(
            &mut text,
            &format!("{source}: {kind} {name}: skipped: it creates no pods"),
        );
    }
    for item in &report.items {
        let Item {
            source,
            kind,
            namespace,
            name,
            ..
        } = item;
        let about = format!("{source}: {kind} {namespace}/{name}");
        for Explained {
            reason,
            detail,
            explanation,
            advice,
        } in &item.reasons
        {
            line(
                &mut text,
                &format!(
                    "{about}: not recoverable: {reason}: {detail}: {explanation} What to do: {advice}"
                ),
            );
        }
        for Explained { reason, advice, .. } in &item.warnings {
            line(&mut text, &format!("{about}: warning: {reason}: {advice}"));
        }
        for note in &item.notes {
            line(&mut text, &format!("{about}: note: {note}"));
        }
    }
    text
}

fn failures(report: &Report) -> String {
    report
        .errors
        .iter()
        .fold(String::new(), |mut text, Failed { source, message }| {
            line(&mut text, &format!("{source}: error: {message}"));
            text
        })
}

/// Adds a single line, with control characters escaped, because names come from files.
fn line(text: &mut String, message: &str) {
    let plain = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.extend(message.chars().map(plain));
    text.push('\n');
}

fn manifests(report: &Report, explain: bool) -> String {
    let mut text = String::new();
    for item in &report.items {
        let Some(manifest) = &item.manifest else {
            continue;
        };
        text.push_str("---\n");
        let mut comment = String::new();
        line(
            &mut comment,
            &format!(
                "# {} {}/{} of {}",
                item.kind, item.namespace, item.name, item.source
            ),
        );
        text.push_str(&comment);
        if explain {
            text.push_str(&explained(item, "# "));
        }
        text.push_str(&yaml::text(manifest));
    }
    text
}

fn explained(item: &Item, margin: &str) -> String {
    let mut text = String::new();
    for Change {
        path,
        what,
        to,
        why,
        ..
    } in &item.changes
    {
        let value = match (what, to) {
            (What::Dropped, _) | (_, None) => String::new(),
            (_, Some(value)) => format!(" {}", short(value)),
        };
        line(
            &mut text,
            &format!("{margin}{path}: {}{value}: {why}", what.as_str()),
        );
    }
    text
}

fn short(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

fn table(report: &Report, explain: bool) -> String {
    let head = [
        "NAMESPACE",
        "NAME",
        "KIND",
        "RECOVERABLE",
        "MARKED",
        "REASON",
    ]
    .map(str::to_owned)
    .to_vec();
    let row = |item: &Item| {
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        let reasons: Vec<String> = item
            .reasons
            .iter()
            .map(|it| format!("{}: {}", it.reason, it.detail))
            .collect();
        let warnings = item
            .warnings
            .iter()
            .map(|it| it.reason.to_string())
            .collect::<Vec<_>>()
            .join(", ");
        let reason = if reasons.is_empty() {
            warnings
        } else {
            reasons.join("; ")
        };
        let cells = [
            &item.namespace,
            &item.name,
            &item.kind,
            &yes(item.recoverable),
            &yes(item.marked),
            &reason,
        ];
        cells
            .map(|cell| {
                let mut shown = String::new();
                line(&mut shown, cell);
                shown.trim_end().to_owned()
            })
            .to_vec()
    };
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(report.items.iter().map(row))
        .collect();
    let mut text = columns(&rows);
    if explain {
        for item in report.items.iter().filter(|item| !item.changes.is_empty()) {
            let _ = write!(
                text,
                "\n{} {}/{}\n{}",
                item.kind,
                item.namespace,
                item.name,
                explained(item, "  ")
            );
        }
    }
    text
}
