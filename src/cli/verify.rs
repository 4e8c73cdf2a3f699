//! `verify`: checks that all files of the program on this node are intact, and that there are no
//! others among them. With `--repair`, damaged files are set aside and leftovers of a crash are
//! removed; files of other programs always stay.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::args::VerifyArguments;
use crate::checkpoint::format;
use crate::cli::table::{columns, size};
use crate::cli::{Answer, answer};
use crate::files::read;
use crate::files::write::{self, TEMPORARY};
use crate::names::{AGENT_LOCK, AGES, CHECKPOINTS, NODE_RECORD};
use crate::places::Places;
use crate::places::store::{self, Error};
use crate::pod::id::PodId;
use crate::reasons::Blocked;
use crate::text::chain;

/// What `verify` found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    good: Vec<Good>,
    /// Damaged files that were set aside and do no harm.
    aside: Vec<String>,
    /// What `--repair` did, in words.
    repaired: Vec<String>,
    bad: Vec<Bad>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Good {
    pod: String,
    generation: u64,
    size_bytes: u64,
    /// ID of the key that it is sealed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    file: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Bad {
    /// `Damaged`, `Version`, `KeyMissing`, `KeyWrong`, `Key`, `Foreign`, `Leftover`, `NoneLeft`,
    /// `Permissions`, `Link`, `Unreadable`.
    kind: &'static str,
    file: String,
    message: String,
}

impl Found {
    fn add(&mut self, kind: &'static str, file: &Path, message: impl Into<String>) {
        self.bad.push(Bad {
            kind,
            file: file.display().to_string(),
            message: message.into(),
        });
    }
}

/// What `--repair` may change.
struct Repair {
    /// The agent's lock. Without it the agent runs, and an unfinished file may be one that it is
    /// writing.
    lock: Option<File>,
}

/// Runs `verify`.
pub fn verify(arguments: &VerifyArguments) -> anyhow::Result<Answer> {
    let VerifyArguments { look, repair } = arguments;
    let node = Places::find(&look.host)?;
    let mut found = Found::default();
    let repair = (*repair && node.store.directory().exists()).then(|| Repair {
        lock: node.store.lock("agent.lock").ok(),
    });
    for path in &look.host.key_files {
        let keys =
            crate::checkpoint::keys::KeyFiles::new(node.root().clone(), vec![path.clone()]).load();
        for error in keys.errors() {
            found.add("Key", path, chain(error));
        }
    }
    verify_store(&node, repair.as_ref(), &mut found);
    verify_links(&node, repair.as_ref(), &mut found)?;
    let shown = |file: &str| node.shown(Path::new(file)).display().to_string();
    found
        .good
        .iter_mut()
        .for_each(|good| good.file = shown(&good.file));
    found
        .aside
        .iter_mut()
        .for_each(|aside| *aside = shown(aside));
    found
        .bad
        .iter_mut()
        .for_each(|bad| bad.file = shown(&bad.file));
    answer(look.output, &found, || text(&found))?;
    Ok(if found.bad.is_empty() {
        Answer::Yes
    } else {
        Answer::No
    })
}

fn verify_store(node: &Places, repair: Option<&Repair>, found: &mut Found) {
    let directory = node.store.directory();
    if !directory.exists() {
        return;
    }
    let checkpoints = directory.join(CHECKPOINTS);
    verify_directory(directory, found);
    verify_directory(&checkpoints, found);
    for (path, name) in list(directory, found) {
        match name.as_str() {
            AGENT_LOCK | CHECKPOINTS => {}
            NODE_RECORD => {
                if let Err(error) = node.store.node() {
                    found.add("Damaged", &path, chain(&error));
                }
            }
            AGES => {
                if let Err(error) = node.store.ages() {
                    found.add("Damaged", &path, chain(&error));
                }
            }
            _ => stranger(node, repair, &path, &name, found),
        }
    }
    let mut keys = Vec::new();
    for (path, name) in list(&checkpoints, found) {
        match name.parse::<PodId>() {
            Ok(pod) if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) => {
                verify_directory(&path, found);
                keys.push(pod);
            }
            _ => stranger(node, repair, &path, &name, found),
        }
    }
    for key in keys {
        match node.store.find(&key) {
            Ok(generations) => verify_pod(node, repair, &key, generations, found),
            Err(error) => found.add(
                "Unreadable",
                &checkpoints.join(key.file_form()),
                chain(&error),
            ),
        }
    }
}

fn verify_pod(
    node: &Places,
    repair: Option<&Repair>,
    key: &PodId,
    mut generations: store::Found,
    found: &mut Found,
) {
    for good in &generations.good {
        found.good.push(Good {
            pod: key.to_string(),
            generation: good.number,
            size_bytes: good.size,
            sealed: good.sealed.clone(),
            file: good.path.display().to_string(),
        });
    }
    let directory = node
        .store
        .directory()
        .join(CHECKPOINTS)
        .join(key.file_form());
    let mut is_explained = false;
    for error in &generations.bad {
        if let (Some(_), Some(path)) = (repair, error.damaged()) {
            match store::set_aside(path) {
                Ok(aside) => {
                    found.repaired.push(format!(
                        "set aside as {}: {}",
                        node.shown(&aside).display(),
                        chain(error)
                    ));
                    generations.aside.push((0, aside));
                }
                Err(error) => found.add("Damaged", path, chain(&error)),
            }
            continue;
        }
        is_explained = true;
        let (kind, path) = kind_of(error, &directory);
        found.add(kind, path, chain(error));
    }
    found.aside.extend(
        generations
            .aside
            .iter()
            .map(|(_, path)| path.display().to_string()),
    );
    for path in &generations.other {
        stranger(
            node,
            repair,
            path,
            &path.file_name().unwrap_or_default().to_string_lossy(),
            found,
        );
    }
    for path in &generations.surplus {
        leftover(
            node,
            repair,
            path,
            "superseded by newer generations; the agent removes it",
            found,
        );
    }
    if generations.good.is_empty() && !is_explained {
        let message = "no valid generation of this pod is left; the pod is captured again once the API server answers";
        found.add("NoneLeft", &directory, message);
    }
}

fn kind_of<'a>(error: &'a Error, directory: &'a Path) -> (&'static str, &'a Path) {
    match error {
        Error::Unusable(path, source) => match (&**source, error.blocked()) {
            (format::Error::Version { .. }, _) => ("Version", path),
            (_, reason @ (Blocked::KeyMissing | Blocked::KeyWrong)) => (reason.as_str(), path),
            _ => ("Damaged", path),
        },
        Error::Syntax(path, _) => ("Damaged", path),
        Error::Foreign { path, .. } | Error::Read(read::Error::Untrusted { path, .. }) => {
            ("Foreign", path)
        }
        Error::Read(read::Error::Io(path, _)) => ("Unreadable", path),
        _ => ("Unreadable", directory),
    }
}

fn verify_links(node: &Places, repair: Option<&Repair>, found: &mut Found) -> anyhow::Result<()> {
    let manifests = node.manifests()?;
    for link in &manifests.links {
        if !node.run.active(&link.key).is_file() {
            let target = link.target.display();
            if repair.is_some() {
                remove(node, &link.path, "a link to nothing", found);
            } else {
                let message =
                    format!("points to {target}, which does not exist; the supervisor removes it");
                found.add("Link", &link.path, message);
            }
        }
    }
    for path in &manifests.foreign {
        found.add(
            "Foreign",
            path,
            "has a name of pod-checkpointer but does not belong to it, and is never touched; move it elsewhere",
        );
    }
    for path in &manifests.leftovers {
        leftover(
            node,
            repair,
            path,
            "an unfinished file, which does no harm",
            found,
        );
    }
    Ok(())
}

fn verify_directory(path: &Path, found: &mut Found) {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_dir() => found.add("Foreign", path, "is not a directory"),
        Ok(metadata) => {
            let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
            if owner != rustix::process::geteuid().as_raw() || mode & 0o077 != 0 {
                found.add(
                    "Permissions",
                    path,
                    format!(
                        "owner {owner} and mode {mode:04o}: it must belong to this process's user and have mode 0700"
                    ),
                );
            }
        }
        Err(error) => found.add("Unreadable", path, error.to_string()),
    }
}

fn stranger(node: &Places, repair: Option<&Repair>, path: &Path, name: &str, found: &mut Found) {
    if name.starts_with(TEMPORARY) {
        leftover(
            node,
            repair,
            path,
            "an unfinished file; the agent removes it",
            found,
        );
    } else {
        found.add("Foreign", path, "does not belong to pod-checkpointer");
    }
}

/// A file of the program that is no longer needed. It is removed only while no agent can be using
/// it.
fn leftover(node: &Places, repair: Option<&Repair>, path: &Path, what: &str, found: &mut Found) {
    match repair {
        Some(Repair { lock: Some(_) }) => remove(node, path, "a leftover", found),
        Some(Repair { lock: None }) => {
            found.add(
                "Leftover",
                path,
                format!("{what}; not removed here, because the agent runs"),
            );
        }
        None => found.add("Leftover", path, what),
    }
}

fn remove(node: &Places, path: &Path, what: &str, found: &mut Found) {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_directory {
        write::remove_tree(path)
    } else {
        write::remove(path)
    };
    match removed {
        Ok(()) => found
            .repaired
            .push(format!("removed {}: {what}", node.shown(path).display())),
        Err(error) => found.add("Leftover", path, chain(&error)),
    }
}

fn list(directory: &Path, found: &mut Found) -> Vec<(PathBuf, String)> {
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
        .map(|entry| {
            (
                entry.path(),
                entry.file_name().to_string_lossy().into_owned(),
            )
        })
        .collect();
    names.sort();
    names
}

fn text(found: &Found) -> String {
    let Found {
        good,
        aside,
        repaired,
        bad,
    } = found;
    let mut rows = Vec::new();
    for Good {
        pod,
        generation,
        size_bytes,
        sealed,
        file,
    } in good
    {
        let sealed = sealed
            .as_ref()
            .map(|key| format!(", sealed with key {key}"))
            .unwrap_or_default();
        let what = format!(
            "{pod}, generation {generation}, {}{sealed}",
            size(*size_bytes)
        );
        rows.push(vec!["ok".into(), file.clone(), what]);
    }
    let damaged = "damaged and set aside; removed once there is a newer generation";
    rows.extend(
        aside
            .iter()
            .map(|file| vec!["aside".into(), file.clone(), damaged.into()]),
    );
    for Bad {
        kind,
        file,
        message,
    } in bad
    {
        rows.push(vec![(*kind).to_owned(), file.clone(), message.clone()]);
    }
    let mut text = repaired.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    format!(
        "{text}{}{} good, {} wrong\n",
        columns(&rows),
        good.len(),
        bad.len()
    )
}
