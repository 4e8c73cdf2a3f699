//! The command line. `status`, `show`, `verify`, `export`, `import` and `uninstall` need nothing
//! but the node's files, so they work when nothing else does; only `uninstall`, `import` and
//! `verify --repair` change files. `render`, `crd` and `manifests` need no node at all, except for
//! `render --live`. `drill` needs a healthy node.

pub mod drill;
mod export;
mod import;
pub mod input;
mod live;
mod manifests;
pub mod render;
mod show;
mod status;
mod table;
mod uninstall;
mod verify;
pub mod yaml;

use std::io::Write as _;

use anyhow::Context as _;
use serde::Serialize;

use crate::api;
use crate::args::{CrdArguments, Output};
use crate::files::write;

pub use export::export;
pub use import::import;
pub use live::render_live;
pub use manifests::manifests;
pub use render::render;
pub use show::show;
pub use status::status;
pub use uninstall::uninstall;
pub use verify::verify;

/// The result of a command that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, or yes.
    Yes,
    /// The command answers a question, and the answer is no.
    No,
}

/// `crd`: prints the custom resource definitions, or writes one file each.
pub fn crd(arguments: &CrdArguments) -> anyhow::Result<Answer> {
    let definitions =
        api::definitions().context("cannot write the resource definitions as YAML")?;
    let Some(directory) = &arguments.directory else {
        let texts: Vec<&str> = definitions.iter().map(|(_, text)| text.as_str()).collect();
        return print(&texts.join("---\n"));
    };
    for (name, text) in &definitions {
        // an ordinary file for a repository, readable by everyone
        write::file(&directory.join(name), text.as_bytes(), 0o644)?;
    }
    Ok(Answer::Yes)
}

/// Prints an answer in the given format.
fn answer<T: Serialize>(
    output: Output,
    value: &T,
    table: impl FnOnce() -> String,
) -> anyhow::Result<Answer> {
    match output {
        Output::Table => print(&table()),
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(value)?)),
        Output::Yaml => print(&serde_yaml::to_string(value)?),
    }
}

/// Prints to standard output. A reader that closes it early (`| head`) is not an error.
fn print(text: &str) -> anyhow::Result<Answer> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(Answer::Yes),
    }
}
