//! Lines on standard output and standard error that never stop the work they are about.
//!
//! The macros of the standard library panic when the other end of a pipe is closed, as in
//! `pod-checkpointer uninstall | head -1`. A command would then leave its work half done.

use std::fmt::Arguments;
use std::io::{self, Write as _};

/// Writes a line about finished work to standard output. A reader that is gone, or a full disk, is
/// not an error: the work is done nevertheless.
pub fn say(line: Arguments<'_>) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// The same to standard error, for problems and progress.
pub fn note(line: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
