//! Writes the generated parts of `docs/` into the directory that is its argument: `cargo run --example docs -- docs`.

use std::path::Path;

use pod_checkpointer::cli::docs;

fn main() -> anyhow::Result<()> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "docs".into());
    for (name, text) in docs::files() {
        std::fs::write(Path::new(&directory).join(name), text)?;
    }
    Ok(())
}
