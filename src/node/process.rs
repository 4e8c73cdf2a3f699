//! The program's own process.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Switches core dumps off, and with them the look into our memory by others of our user (prctl(2), `PR_SET_DUMPABLE`). What
/// is ours in `/proc` belongs to root then, as it does anyway where this program runs.
pub fn keep_to_itself() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;

    #[test]
    fn there_is_no_core_dump_and_we_still_read_what_is_ours() {
        keep_to_itself().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        std::fs::read_link("/proc/self/ns/mnt").unwrap();
        std::fs::read_dir("/proc/self/fd").unwrap();
    }
}
