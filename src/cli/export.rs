//! `export`: all checkpoints of this node in one file.

use std::io::Write as _;

use anyhow::{Context as _, anyhow, bail};

use crate::args::ExportArguments;
use crate::cli::Answer;
use crate::console;
use crate::files::write;
use crate::places::Places;
use crate::places::store::KEPT;
use crate::places::transfer::{self, Generations};
use crate::text::chain;

/// Runs `export`. The answer is no if a pod had to be left out.
pub fn export(arguments: &ExportArguments) -> anyhow::Result<Answer> {
    let ExportArguments { host, file, plain } = arguments;
    let node = Places::find(host)?;
    let keys = node.store.keys_given().load();
    let key = keys.sealing().map_err(|error| anyhow!(chain(error)))?;
    if key.is_none() && !plain {
        bail!(
            "the file would contain Secrets in clear text: give a key with --key-file, or --plain to allow that"
        );
    }
    let mut all = Generations::new();
    let mut answer = Answer::Yes;
    for pod in node.store.keys()? {
        let found = match node.store.find(&pod) {
            Ok(found) => found,
            Err(error) => {
                console::note(format_args!(
                    "pod-checkpointer: left out: {pod}: {}",
                    chain(&error)
                ));
                answer = Answer::No;
                continue;
            }
        };
        for error in &found.bad {
            console::note(format_args!("pod-checkpointer: left out: {}", chain(error)));
        }
        if found.good.is_empty() {
            console::note(format_args!(
                "pod-checkpointer: left out: {pod} has no valid generation"
            ));
            answer = Answer::No;
            continue;
        }
        let newest = found.good.into_iter().take(KEPT).rev();
        all.insert(
            pod,
            newest
                .map(|generation| (generation.number, generation.checkpoint))
                .collect(),
        );
    }
    let name = node
        .store
        .node()
        .ok()
        .flatten()
        .map(|record| record.node_name)
        .unwrap_or_default();
    let bytes = transfer::write(&all, &name, key.filter(|_| !plain)).context("cannot export")?;
    if file.as_os_str() == "-" {
        let mut out = std::io::stdout().lock();
        out.write_all(&bytes)
            .and_then(|()| out.flush())
            .context("cannot write to standard output")?;
    } else {
        // absolute, because the file may be given without a directory
        write::file(&std::path::absolute(file)?, &bytes, 0o600)?;
    }
    let generations: usize = all.values().map(Vec::len).sum();
    let sealed = key.filter(|_| !plain).map_or_else(
        || "in clear text".to_owned(),
        |key| format!("sealed with key {}", key.id()),
    );
    console::note(format_args!(
        "exported {generations} generations of {} pods, {sealed}",
        all.len()
    ));
    Ok(answer)
}
