//! The host's mount table: mountinfo (proc_pid_mountinfo(5)).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::node::host::HostRoot;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `<major>:<minor>` of the file system.
    pub device: String,
    /// The directory or file within the file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Options of this mount only: `ro`, `noexec` …
    pub options: BTreeSet<String>,
    /// Type of the file system: `ext4`, `selinuxfs` …; `None` if the line is cut off.
    pub kind: Option<OsString>,
}

/// The mounts of the host, in the order of mounting.
///
/// If the root is seen through a process, these are the mounts of that process; for `/`, those of
/// this process; for a root that was mounted into the container, those of the host's first process.
pub fn read(root: &HostRoot) -> io::Result<Vec<Mount>> {
    let text = std::fs::read(file(root.path()))?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect())
}

fn file(root: &Path) -> PathBuf {
    if root == Path::new("/") {
        return "/proc/self/mountinfo".into();
    }
    // `/proc/<pid>/root`
    match root
        .parent()
        .filter(|process| process.starts_with("/proc") && root.ends_with("root"))
    {
        Some(process) => process.join("mountinfo"),
        None => root.join("proc/1/mountinfo"),
    }
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let options = std::str::from_utf8(fields.next()?)
        .ok()?
        .split(',')
        .map(str::to_owned)
        .collect();
    // after optional fields and a separator
    let kind = fields.skip_while(|field| *field != b"-").nth(1);
    Some(Mount {
        device,
        root,
        point,
        options,
        kind: kind.map(|kind| OsString::from_vec(kind.to_vec())),
    })
}

/// Decodes spaces, tabs, newlines and backslashes, which are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes).into()
}

/// The visible mount at this path: the last one, if there are several.
pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

/// Other paths to what this mount shows, through other mounts of the same file system, beginning
/// with those of its whole tree.
pub fn others<'a>(mounts: &'a [Mount], of: &Mount) -> Vec<(PathBuf, &'a Mount)> {
    let mut paths: Vec<_> = mounts
        .iter()
        .filter(|mount| mount.device == of.device && mount.point != of.point)
        .filter_map(|mount| {
            Some((
                below(&mount.point, of.root.strip_prefix(&mount.root).ok()?),
                mount,
            ))
        })
        .collect();
    paths.sort_by_key(|(_, mount)| mount.root.as_os_str().len());
    paths
}

fn below(point: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        point.to_owned()
    } else {
        point.join(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 8:16 / /mnt/disk\\040one rw,nosuid - xfs /dev/sdb rw
41 22 8:1 /srv/data /export rw - ext4 /dev/sda1 rw
50 22 8:16 /pv/a\\134b /var/lib/kubelet/pv rw,noexec - xfs /dev/sdb rw
51 22 8:1 /srv/data/x /var/lib/kubelet/other ro - ext4 /dev/sda1 rw
torn
";

    fn table() -> Vec<Mount> {
        TABLE
            .as_bytes()
            .split(|byte| *byte == b'\n')
            .filter_map(parse)
            .collect()
    }

    #[test]
    fn a_table_is_parsed_with_its_escapes_and_without_torn_lines() {
        let table = table();
        assert_eq!(table.len(), 5);
        assert_eq!(
            (table[1].point.as_path(), table[1].device.as_str()),
            (Path::new("/mnt/disk one"), "8:16")
        );
        assert_eq!(table[3].root, Path::new("/pv/a\\b"));
        assert_eq!(table[0].kind.as_deref(), Some("ext4".as_ref()));
        assert!(table[3].options.contains("noexec") && table[4].options.contains("ro"));
    }

    #[test]
    fn other_paths_of_a_mount_are_found_beginning_with_the_whole_file_system() {
        let table = table();
        let paths = |point: &str| {
            let of = at(&table, Path::new(point)).unwrap();
            others(&table, of)
                .into_iter()
                .map(|(path, _)| path)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            paths("/var/lib/kubelet/pv"),
            [Path::new("/mnt/disk one/pv/a\\b")]
        );
        assert_eq!(
            paths("/var/lib/kubelet/other"),
            [Path::new("/srv/data/x"), Path::new("/export/x")]
        );
        assert!(at(&table, Path::new("/none")).is_none());
    }

    #[test]
    fn the_last_mount_at_a_path_is_the_visible_one() {
        let mut table = table();
        let mut over = table[0].clone();
        over.device = "0:40".into();
        over.point = "/export".into();
        table.push(over);
        assert_eq!(at(&table, Path::new("/export")).unwrap().device, "0:40");
    }

    #[test]
    fn the_table_is_that_of_the_process_through_which_the_host_is_seen() {
        assert_eq!(file(Path::new("/")), Path::new("/proc/self/mountinfo"));
        assert_eq!(
            file(Path::new("/proc/4711/root")),
            Path::new("/proc/4711/mountinfo")
        );
        assert_eq!(
            file(Path::new("/host")),
            Path::new("/host/proc/1/mountinfo")
        );
        let mounts = read(&HostRoot::new("/")).unwrap();
        assert!(at(&mounts, Path::new("/proc")).is_some());
    }
}
