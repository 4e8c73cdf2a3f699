//! `import`: puts what `export` wrote into this node's store. Everything is verified before
//! anything is written, and nothing newer is overwritten.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use zeroize::Zeroizing;

use crate::args::ImportArguments;
use crate::checkpoint::NodeCheckpoint;
use crate::checkpoint::keys::KeyFiles;
use crate::cli::Answer;
use crate::console;
use crate::places::Places;
use crate::places::store::{Found, Store};
use crate::places::transfer::{self, Generations};
use crate::text::chain;

/// Runs `import`.
pub fn import(arguments: &ImportArguments) -> anyhow::Result<Answer> {
    let ImportArguments { host, file, plain } = arguments;
    let node = Places::find(host)?;
    let keys = node.store.keys_given().load();
    keys.sealing().map_err(|error| anyhow!(chain(error)))?;
    let all = transfer::read(&contents(file)?, &keys)
        .with_context(|| format!("cannot import {}", file.display()))?;
    let store = if *plain {
        node.store.clone().with_keys(KeyFiles::default())
    } else {
        node.store.clone()
    };

    refuse(&node.store, &all)?;
    store.create()?;
    let _lock = store
        .lock("agent.lock")
        .context("cannot import while an agent runs on this node, which captures pods itself")?;
    // check again, now that no other process writes
    let wanted = refuse(&node.store, &all)?;
    let mut written = 0;
    for (key, generations) in &all {
        let here = node.store.find(key)?;
        let missing: Vec<(u64, &NodeCheckpoint)> = generations
            .iter()
            .filter(|(number, checkpoint)| !has(&here, *number, checkpoint))
            .map(|(number, checkpoint)| (*number, checkpoint))
            .collect();
        if !missing.is_empty() {
            written += store.adopt(key, &missing).with_context(|| {
                format!("only {written} of {wanted} generations were imported; fix this and import again")
            })?;
        }
    }
    console::say(format_args!(
        "imported {written} generations of {} pods",
        all.len()
    ));
    Ok(Answer::Yes)
}

/// Fails, before anything is written, if the store has a generation with other content that is as
/// new as one to be imported. Returns how many generations are to be imported.
fn refuse(store: &Store, all: &Generations) -> anyhow::Result<usize> {
    let mut newer = Vec::new();
    let mut wanted = 0;
    for (key, generations) in all {
        let here = store.find(key)?;
        let fresh: Vec<u64> = generations
            .iter()
            .filter(|(number, known)| !has(&here, *number, known))
            .map(|(number, _)| *number)
            .collect();
        wanted += fresh.len();
        let newest = here.newest_number();
        if fresh
            .iter()
            .any(|number| newest.is_some_and(|newest| newest >= *number))
        {
            newer.push(format!(
                "{key} (the store has generation {})",
                newest.unwrap_or_default()
            ));
        }
    }
    if !newer.is_empty() {
        bail!(
            "nothing was imported, because the store already has generations that are as new or newer, of {}",
            newer.join(", ")
        );
    }
    Ok(wanted)
}

fn has(here: &Found, number: u64, checkpoint: &NodeCheckpoint) -> bool {
    let same = |known: &NodeCheckpoint| known.content_digest() == checkpoint.content_digest();
    here.good
        .iter()
        .any(|generation| generation.number == number && same(&generation.checkpoint))
}

fn contents(file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let limit = transfer::MAX_SIZE.saturating_add(1);
    if file.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
    } else {
        let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        opened
            .take(limit)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok(bytes)
}
