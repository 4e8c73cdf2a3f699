//! Directories as the kubelet writes them, and as an attacker would.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use super::*;

use crate::checkpoint::encoding;

const NOW: &str = "..2026_11_20_08_00_00.123456789";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A Secret's volume with `items` in a directory and `fsGroup`, as the kubelet's atomic writer
/// makes it.
fn secret() -> TempDir {
    let volume = tempfile::tempdir().unwrap();
    let root = volume.path();
    fs::create_dir_all(root.join(NOW).join("web")).unwrap();
    fs::write(root.join(NOW).join("web/key.pem"), b"key\0\xff\n").unwrap();
    fs::write(root.join(NOW).join("empty"), b"").unwrap();
    symlink(NOW, root.join(DATA)).unwrap();
    symlink("..data/web", root.join("web")).unwrap();
    symlink("..data/empty", root.join("empty")).unwrap();
    if is_root() {
        chown(root.join(NOW).join("web/key.pem"), Some(1000), Some(2000)).unwrap();
        lchown(root.join("web"), Some(1001), Some(2001)).unwrap();
        chown(root, Some(0), Some(2000)).unwrap();
    }
    set_mode(&root.join(NOW).join("web/key.pem"), 0o440);
    set_mode(&root.join(NOW).join("web"), 0o2755);
    set_mode(&root.join(NOW).join("empty"), 0o1644);
    set_mode(&root.join(NOW), 0o755);
    set_mode(root, 0o3777);
    volume
}

fn copied(directory: &Path) -> Result<Vec<Entry>, Error> {
    copy(directory, &mut Budget::default()).map(|(volume, _)| volume.entries)
}

fn paths(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.path.as_str()).collect()
}

#[test]
fn a_volume_is_copied_whole_with_its_links_modes_and_owners() {
    let volume = secret();
    let entries = copied(volume.path()).unwrap();
    let now = |rest: &str| format!("{NOW}{rest}");
    let wanted = [
        "",
        &now(""),
        &now("/empty"),
        &now("/web"),
        &now("/web/key.pem"),
        "..data",
        "empty",
        "web",
    ];
    assert_eq!(paths(&entries), wanted);
    let modes: Vec<&str> = entries.iter().map(|entry| entry.mode.as_str()).collect();
    assert_eq!(
        modes,
        [
            "3777", "0755", "1644", "2755", "0440", "0777", "0777", "0777"
        ]
    );
    assert_eq!(
        entries[4]
            .data
            .as_deref()
            .map(|data| encoding::decode(data).unwrap()),
        Some(b"key\0\xff\n".to_vec())
    );
    assert_eq!(
        entries[2].data.as_deref(),
        Some(""),
        "an empty file is a file"
    );
    assert_eq!(entries[5].link.as_deref(), Some(NOW));
    assert_eq!(entries[7].link.as_deref(), Some("..data/web"));
    assert!(entries[3].data.is_none() && entries[3].link.is_none());
    if is_root() {
        let owners = [0, 4, 7].map(|at| (entries[at].uid, entries[at].gid));
        assert_eq!(owners, [(0, 2000), (1000, 2000), (1001, 2001)]);
    }
}

#[test]
fn what_was_copied_unpacks_to_the_same() {
    let volume = secret();
    let (copy, _) = copy(volume.path(), &mut Budget::default()).unwrap();
    let mut checkpoint = crate::checkpoint::testing::checkpoint("shop", "till");
    checkpoint.volumes = [("credentials".to_owned(), copy.clone())].into();
    let target = tempfile::tempdir().unwrap();
    let directory = target.path().join("volumes");
    crate::checkpoint::twin::unpack(&checkpoint, &directory, false).unwrap();
    assert_eq!(
        copied(&directory.join("credentials")).unwrap(),
        copy.entries
    );
}

#[test]
fn a_directory_that_is_being_written_or_was_left_behind_is_not_copied() {
    let volume = secret();
    for stale in ["..2026_11_20_08_00_01.1", "..data_tmp_dir"] {
        fs::create_dir(volume.path().join(stale)).unwrap();
        fs::write(volume.path().join(stale).join("half"), "half").unwrap();
    }
    symlink("..2026_11_20_08_00_01.1", volume.path().join("..data_tmp")).unwrap();
    assert!(
        paths(&copied(volume.path()).unwrap())
            .iter()
            .all(|path| !path.contains("half") && !path.contains("tmp"))
    );
}

#[test]
fn a_volume_without_the_kubelets_layout_is_copied_as_it_is() {
    let volume = tempfile::tempdir().unwrap();
    fs::create_dir_all(volume.path().join("..a/..b")).unwrap();
    fs::write(volume.path().join("..a/..b/c"), "c").unwrap();
    assert_eq!(
        paths(&copied(volume.path()).unwrap()),
        ["", "..a", "..a/..b", "..a/..b/c"]
    );
}

#[test]
fn a_swap_is_seen_by_the_stamp_and_so_is_another_directory_of_the_same_name() {
    let volume = secret();
    let (_, before) = copy(volume.path(), &mut Budget::default()).unwrap();
    assert_eq!(stamp(volume.path()).unwrap(), before);
    fs::remove_file(volume.path().join(DATA)).unwrap();
    symlink("..later", volume.path().join(DATA)).unwrap();
    assert_ne!(stamp(volume.path()).unwrap(), before);

    let outer = tempfile::tempdir().unwrap();
    let place = outer.path().join("volume");
    fs::create_dir(&place).unwrap();
    let before = stamp(&place).unwrap();
    fs::rename(&place, outer.path().join("old")).unwrap();
    fs::create_dir(&place).unwrap();
    assert_ne!(stamp(&place).unwrap(), before);
}

#[test]
fn what_vanished_is_gone_and_not_an_error_of_the_pod() {
    let outer = tempfile::tempdir().unwrap();
    assert!(matches!(
        copied(&outer.path().join("not-there")),
        Err(Error::Gone)
    ));
    fs::write(outer.path().join("file"), "").unwrap();
    assert!(matches!(
        copied(&outer.path().join("file")),
        Err(Error::Gone)
    ));
    symlink("/", outer.path().join("link")).unwrap();
    assert!(
        matches!(copied(&outer.path().join("link")), Err(Error::Gone)),
        "a volume's directory is no link"
    );
}

#[test]
fn links_that_leave_the_volume_are_refused() {
    for (directory, target, leaves) in [
        ("", "/etc/shadow", true),
        ("", "..", true),
        ("", "../x", true),
        ("", "a/../../x", true),
        ("", "a/../x", false),
        ("", ".", false),
        ("", "nowhere", false),
        ("a/b", "../../x", false),
        ("a/b", "../../../x", true),
        ("a/b", "./c/../../../x", false),
    ] {
        let volume = tempfile::tempdir().unwrap();
        fs::create_dir_all(volume.path().join(directory)).unwrap();
        symlink(target, volume.path().join(directory).join("link")).unwrap();
        let result = copied(volume.path());
        assert_eq!(
            matches!(result, Err(Error::Foreign { .. })),
            leaves,
            "{directory}/link -> {target}: {result:?}"
        );
    }
}

#[test]
fn sockets_and_fifos_are_refused_without_being_opened() {
    let volume = tempfile::tempdir().unwrap();
    let _socket = UnixListener::bind(volume.path().join("socket")).unwrap();
    assert!(matches!(
        copied(volume.path()),
        Err(Error::Foreign {
            what: "a socket",
            ..
        })
    ));

    let volume = tempfile::tempdir().unwrap();
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, volume.path().join("fifo"), FileType::Fifo, mode, 0).unwrap();
    let Err(Error::Foreign { path, what }) = copied(volume.path()) else {
        panic!("a FIFO was copied")
    };
    assert_eq!((path.as_str(), what), ("fifo", "a FIFO"));
}

#[test]
fn a_device_is_refused() {
    let volume = tempfile::tempdir().unwrap();
    let device = rustix::fs::makedev(1, 3);
    let mode = Mode::from_raw_mode(0o600);
    // not every container may create one
    if rustix::fs::mknodat(
        CWD,
        volume.path().join("null"),
        FileType::CharacterDevice,
        mode,
        device,
    )
    .is_ok()
    {
        assert!(matches!(copied(volume.path()), Err(Error::Foreign { .. })));
    }
}

#[test]
fn names_that_are_not_text_are_refused() {
    let volume = tempfile::tempdir().unwrap();
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    fs::write(volume.path().join(name), "").unwrap();
    assert!(matches!(
        copied(volume.path()),
        Err(Error::Foreign {
            what: "not named in UTF-8",
            ..
        })
    ));
}

#[test]
fn the_budget_is_for_all_volumes_together() {
    let volume = tempfile::tempdir().unwrap();
    fs::write(volume.path().join("five"), "12345").unwrap();
    let mut budget = Budget {
        bytes: 10,
        entries: 100,
    };
    copy(volume.path(), &mut budget).unwrap();
    copy(volume.path(), &mut budget).unwrap();
    assert!(matches!(
        copy(volume.path(), &mut budget),
        Err(Error::TooLarge)
    ));
    let mut budget = Budget {
        bytes: 100,
        entries: 3,
    };
    copy(volume.path(), &mut budget).unwrap();
    assert!(matches!(
        copy(volume.path(), &mut budget),
        Err(Error::TooLarge)
    ));
}

#[test]
fn a_sparse_giant_is_too_large_and_is_not_read_to_its_end() {
    let volume = tempfile::tempdir().unwrap();
    fs::File::create(volume.path().join("giant"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert!(matches!(copied(volume.path()), Err(Error::TooLarge)));
}

#[test]
fn a_tree_without_end_ends() {
    let volume = tempfile::tempdir().unwrap();
    fs::create_dir_all(volume.path().join("d/".repeat(DEEPEST + 2))).unwrap();
    assert!(matches!(
        copied(volume.path()),
        Err(Error::Foreign {
            what: "nested too deeply",
            ..
        })
    ));
}

#[test]
fn ten_thousand_files_are_copied_and_more_than_may_be_are_refused_without_reading_them() {
    let volume = tempfile::tempdir().unwrap();
    (0..10_000).for_each(|n| fs::write(volume.path().join(format!("{n}")), "x").unwrap());
    assert_eq!(copied(volume.path()).unwrap().len(), 10_001);
    // one more file than all volumes may have together, as links to one
    (10_000..=MOST_ENTRIES).for_each(|n| symlink("0", volume.path().join(format!("{n}"))).unwrap());
    let mut budget = Budget::default();
    assert!(matches!(
        copy(volume.path(), &mut budget),
        Err(Error::TooLarge)
    ));
    assert_eq!(budget.bytes, MOST_BYTES, "nothing was read");
}

#[test]
fn names_of_every_legal_character_and_of_the_longest_length_are_copied() {
    let volume = tempfile::tempdir().unwrap();
    let legal: String = ('a'..='z')
        .chain('A'..='Z')
        .chain('0'..='9')
        .chain("-._".chars())
        .collect();
    let long = "k".repeat(253);
    for name in [
        legal.as_str(),
        &long,
        ".hidden",
        "...",
        "-",
        "_",
        "con",
        "a.b_c-d",
    ] {
        fs::write(volume.path().join(name), name).unwrap();
    }
    let entries = copied(volume.path()).unwrap();
    for entry in &entries[1..] {
        assert_eq!(
            encoding::decode(entry.data.as_deref().unwrap()).unwrap(),
            entry.path.as_bytes()
        );
    }
    assert_eq!(entries.len(), 9);
}

#[test]
fn a_file_that_grows_while_it_is_copied_is_read_no_further_than_may_be() {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    let volume = tempfile::tempdir().unwrap();
    let path = volume.path().join("log");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            let (more, mut written) = (vec![0; 1 << 16], 1_u64 << 20);
            while !done.load(Ordering::Relaxed) && written < 4 * MOST_BYTES {
                written += file.write(&more).unwrap() as u64;
            }
        });
        for _ in 0..3 {
            match copied(volume.path()) {
                Ok(entries) => {
                    let long = encoding::decode(entries[1].data.as_deref().unwrap())
                        .unwrap()
                        .len() as u64;
                    assert!(long <= MOST_BYTES, "{long}");
                }
                Err(error) => assert!(matches!(error, Error::TooLarge), "{error}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_is_mounted_into_a_volume_is_not_followed() {
    // the only file system that is mounted below another one wherever tests run
    let error = open_inside(
        &open_root(Path::new("/")).unwrap(),
        "proc",
        OFlags::DIRECTORY,
    )
    .unwrap_err();
    let error = failed("proc", error);
    assert!(
        matches!(
            error,
            Error::Foreign {
                what: "mounted over",
                ..
            }
        ),
        "{error}"
    );
}

/// The kubelet swaps `..data` all the time; a copy is of one state or of none.
#[test]
fn a_copy_is_never_of_two_states() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let volume = tempfile::tempdir().unwrap();
    let root = volume.path().to_owned();
    let publish = |number: u32| {
        let name = format!("..{number}");
        fs::create_dir(root.join(&name)).unwrap();
        for key in ["a", "b", "c"] {
            fs::write(root.join(&name).join(key), number.to_string()).unwrap();
        }
        symlink(&name, root.join("..data_tmp")).unwrap();
        let old = fs::read_link(root.join(DATA)).ok();
        fs::rename(root.join("..data_tmp"), root.join(DATA)).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(root.join(old)).unwrap();
        }
    };
    publish(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut good = 0;
            while good == 0 || !done.load(Ordering::Relaxed) {
                let entries = match copied(volume.path()) {
                    Ok(entries) => entries,
                    Err(Error::Gone) => continue,
                    Err(error) => panic!("{error}"),
                };
                let values: Vec<_> = entries
                    .iter()
                    .filter_map(|entry| entry.data.as_deref())
                    .collect();
                assert_eq!(values.len(), 3, "{entries:?}");
                assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
                good += 1;
            }
        });
        (1..500).for_each(publish);
        done.store(true, Ordering::Relaxed);
    });
}
