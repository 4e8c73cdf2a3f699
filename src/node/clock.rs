//! Clocks on which decisions may be based: the time since boot and the ID of the boot. Wall-clock
//! time is for people only.

use std::time::Duration;
use std::{fs, io};

/// Time since boot, including suspension (`CLOCK_BOOTTIME`).
pub fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        now.tv_sec.try_into().unwrap_or_default(),
        now.tv_nsec.try_into().unwrap_or_default(),
    )
}

/// A time in whole milliseconds, as files in the run directory have it.
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// ID of this boot (random(4), `/proc/sys/kernel/random/boot_id`): the same in every container of
/// the node.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}
