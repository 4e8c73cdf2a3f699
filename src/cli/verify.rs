//! `verify`: is everything on this node that is ours whole, and is nothing else there?

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;

use crate::args::LookArguments;
use crate::checkpoint::store::{Error, check_key};
use crate::checkpoint::write::TEMPORARY;
use crate::cli::node::Node;
use crate::cli::table::{columns, size};
use crate::cli::{Answer, answer};
use crate::report::chain;

/// What `verify` found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    good: Vec<Good>,
    bad: Vec<Bad>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Good {
    pod: String,
    generation: u64,
    size_bytes: u64,
    file: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Bad {
    /// `Damaged`, `Foreign`, `Leftover`, `Permissions`, `Link`, `Unreadable`.
    kind: &'static str,
    file: String,
    message: String,
}

impl Found {
    fn add(&mut self, kind: &'static str, file: &Path, message: impl Into<String>) {
        self.bad.push(Bad { kind, file: file.display().to_string(), message: message.into() });
    }
}

/// Runs `verify`.
pub fn verify(arguments: &LookArguments) -> anyhow::Result<Answer> {
    let node = Node::find(&arguments.host)?;
    let mut found = Found::default();
    verify_store(&node, &mut found)?;
    verify_links(&node, &mut found)?;
    let shown = |file: &str| node.shown(Path::new(file)).display().to_string();
    found.good.iter_mut().for_each(|good| good.file = shown(&good.file));
    found.bad.iter_mut().for_each(|bad| bad.file = shown(&bad.file));
    answer(arguments.output, &found, || text(&found))?;
    Ok(if found.bad.is_empty() { Answer::Yes } else { Answer::No })
}

fn verify_store(node: &Node, found: &mut Found) -> anyhow::Result<()> {
    let directory = node.store.directory();
    if !directory.exists() {
        return Ok(());
    }
    let checkpoints = directory.join("checkpoints");
    verify_directory(directory, found);
    verify_directory(&checkpoints, found);
    for (path, name) in list(directory, found) {
        match name.as_str() {
            "agent.lock" | "checkpoints" => {}
            "node.yaml" => {
                if let Err(error) = node.store.node() {
                    found.add("Damaged", &path, chain(&error));
                }
            }
            _ => stranger(&path, &name, found),
        }
    }
    for (path, name) in list(&checkpoints, found) {
        if check_key(&name).is_err() || !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            stranger(&path, &name, found);
        } else {
            verify_directory(&path, found);
        }
    }
    for key in node.store.keys()? {
        if !fs::symlink_metadata(checkpoints.join(&key)).is_ok_and(|metadata| metadata.is_dir()) {
            continue;
        }
        let generations = node.store.find(&key)?;
        for good in &generations.good {
            found.good.push(Good {
                pod: key.replace('_', "/"),
                generation: good.number,
                size_bytes: good.size,
                file: good.path.display().to_string(),
            });
        }
        for error in &generations.bad {
            match error {
                Error::Damaged(path, _) | Error::Syntax(path, _) => found.add("Damaged", path, chain(error)),
                Error::Foreign { path, .. } => found.add("Foreign", path, chain(error)),
                Error::Read(path, _) => found.add("Unreadable", path, chain(error)),
                error => found.add("Unreadable", &checkpoints.join(&key), chain(error)),
            }
        }
        for path in &generations.other {
            stranger(path, &path.file_name().unwrap_or_default().to_string_lossy(), found);
        }
    }
    Ok(())
}

fn verify_links(node: &Node, found: &mut Found) -> anyhow::Result<()> {
    let manifests = node.manifests()?;
    for link in &manifests.links {
        if !node.run.active(&link.key).is_file() {
            let target = link.target.display();
            found.add("Link", &link.path, format!("points to {target}, which is not there; the supervisor removes it"));
        }
    }
    for path in &manifests.foreign {
        found.add("Foreign", path, "has a name of ours and is not ours; nothing of ours touches it");
    }
    for path in &manifests.leftovers {
        found.add("Leftover", path, "an unfinished file; it does no harm");
    }
    Ok(())
}

fn verify_directory(path: &Path, found: &mut Found) {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_dir() => found.add("Foreign", path, "is not a directory"),
        Ok(metadata) => {
            let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
            if owner != rustix::process::geteuid().as_raw() || mode & 0o077 != 0 {
                found.add("Permissions", path, format!("owner {owner} and mode {mode:04o}, not ours and 0700"));
            }
        }
        Err(error) => found.add("Unreadable", path, error.to_string()),
    }
}

fn stranger(path: &Path, name: &str, found: &mut Found) {
    if name.starts_with(TEMPORARY) {
        found.add("Leftover", path, "an unfinished file; the agent removes it when it starts");
    } else {
        found.add("Foreign", path, "does not belong here");
    }
}

fn list(directory: &Path, found: &mut Found) -> Vec<(std::path::PathBuf, String)> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                found.add("Unreadable", directory, error.to_string());
            }
            return Vec::new();
        }
    };
    let mut names: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

fn text(found: &Found) -> String {
    let mut rows = Vec::new();
    for Good { pod, generation, size_bytes, file } in &found.good {
        rows.push(vec!["ok".into(), file.clone(), format!("{pod}, generation {generation}, {}", size(*size_bytes))]);
    }
    for Bad { kind, file, message } in &found.bad {
        rows.push(vec![(*kind).to_owned(), file.clone(), message.clone()]);
    }
    format!("{}{} good, {} wrong\n", columns(&rows), found.good.len(), found.bad.len())
}
