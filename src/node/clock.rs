//! Clocks on which decisions may be based: the time since boot and the ID of the boot. Wall-clock
//! time is for people only.

use std::time::Duration;
use std::{fs, io};

use crate::node::host::HostRoot;

/// Time since boot, including suspension (`CLOCK_BOOTTIME`).
pub fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
}

/// ID of this boot (random(4), `/proc/sys/kernel/random/boot_id`): the same in every container of
/// the node.
pub fn boot_id(_root: &HostRoot) -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
