//! The command line: `status`, `show`, `verify`, `export`, `import`, `uninstall` look at the node's files alone, so they
//! answer when nothing else does, and only `uninstall`, `import` and `verify --repair` change any; `render` and `crd` need no
//! node at all, unless `render` is told so; `drill` needs one that is well.

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

/// What a command that did its work came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, or yes.
    Yes,
    /// It was asked something, and the answer is no.
    No,
}

/// `crd`: prints the custom resource definitions, or writes one file each.
pub fn crd(arguments: &CrdArguments) -> anyhow::Result<Answer> {
    let definitions = api::definitions().context("cannot write the resource definitions as YAML")?;
    let Some(directory) = &arguments.directory else {
        let texts: Vec<&str> = definitions.iter().map(|(_, text)| text.as_str()).collect();
        return print(&texts.join("---\n"));
    };
    for (name, text) in &definitions {
        // a plain file for a repository, readable by all
        write::file(&directory.join(name), text.as_bytes(), 0o644)?;
    }
    Ok(Answer::Yes)
}

/// Prints an answer for programs, or the text for people.
fn answer<T: Serialize>(output: Output, value: &T, table: impl FnOnce() -> String) -> anyhow::Result<Answer> {
    match output {
        Output::Table => print(&table()),
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(value)?)),
        Output::Yaml => print(&serde_yaml::to_string(value)?),
    }
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<Answer> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write the answer"),
        _ => Ok(Answer::Yes),
    }
}
