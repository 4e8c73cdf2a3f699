//! Settings of the program's own process.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Disables core dumps, and access to this process's memory by other processes of the same user
/// (prctl(2), `PR_SET_DUMPABLE`). The process's files in `/proc` then belong to root, as they do
/// anyway where this program runs.
pub fn keep_to_itself() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;

    #[test]
    fn there_is_no_core_dump_and_the_process_can_still_read_its_own_files() {
        keep_to_itself().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        std::fs::read_link("/proc/self/ns/mnt").unwrap();
        std::fs::read_dir("/proc/self/fd").unwrap();
    }
}
