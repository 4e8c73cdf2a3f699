//! Prints the JSON schema of a checkpoint file, `docs/checkpoint.schema.json`; a test compares the two.

fn main() {
    print!("{}", pod_checkpointer::checkpoint::format::schema());
}
