//! The only way to read and write files: trusted reads ([`mod@read`], [`yaml`]), durable writes
//! ([`mod@write`], whose system calls are in `disk`), and locks ([`lock`]).

pub(crate) mod disk;
pub mod lock;
pub mod read;
pub mod write;
pub mod yaml;

/// Whether nothing has this name. No file can have one that is too long (`ENAMETOOLONG`).
pub(crate) fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidFilename
    )
}
