//! Prints the JSON schema of a checkpoint file. A test compares it with
//! `docs/checkpoint.schema.json`.

fn main() {
    print!("{}", pod_checkpointer::checkpoint::format::schema());
}
