//! The store: what is kept, what is set aside, what is removed, and what is never trusted.

use super::*;
use crate::checkpoint::keys::KeyFiles;
use crate::checkpoint::testing::checkpoint;
use crate::node::host::HostRoot;
use crate::places::node_record::NodeRecord;
use crate::pod::id::id;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    store.create().unwrap();
    (directory, store)
}

fn value(text: &str) -> NodeCheckpoint {
    let mut made = checkpoint("shop", "till");
    made.manifest["spec"]["containers"][0]["args"] = serde_json::json!([text]);
    made.with_digest()
}

fn argument(generation: &Generation) -> &serde_json::Value {
    &generation.checkpoint.manifest["spec"]["containers"][0]["args"][0]
}

#[test]
fn two_generations_are_kept_and_the_newest_is_read() {
    let (_directory, store) = store();
    for text in ["one", "two", "three"] {
        store.put(&value(text)).unwrap();
    }
    let found = store.find(&id("shop_till")).unwrap();
    assert_eq!(
        found.good.iter().map(argument).collect::<Vec<_>>(),
        ["three", "two"]
    );
    assert!(found.bad.is_empty());
    assert_eq!(
        argument(&store.newest(&id("shop_till")).unwrap().0.unwrap()),
        "three"
    );
}

#[test]
fn of_a_pod_whose_name_no_file_can_have_there_is_nothing_and_nothing_is_written() {
    let (_directory, store) = store();
    let long = PodId::new("shop", &"a".repeat(253)).unwrap();
    store.put(&value("one")).unwrap();
    assert!(store.newest(&long).unwrap().0.is_none());
    store.remove(&long).unwrap();
    assert!(
        store
            .put(&checkpoint("shop", long.name()).with_digest())
            .is_err()
    );
    assert_eq!(store.keys().unwrap(), [id("shop_till")]);
}

#[test]
fn what_did_not_change_is_not_written() {
    let (_directory, store) = store();
    assert!(matches!(
        store.put(&value("same")).unwrap(),
        Put::Written(1, _)
    ));
    let mut later = value("same");
    later.captured.uptime_seconds += 100;
    assert_eq!(store.put(&later.with_digest()).unwrap(), Put::Unchanged(1));
}

#[test]
fn a_damaged_generation_is_skipped_never_hides_the_older_one_and_goes_when_a_good_newer_one_is_there()
 {
    let (_directory, store) = store();
    store.put(&value("one")).unwrap();
    store.put(&value("two")).unwrap();
    let newest = store.find(&id("shop_till")).unwrap().good.remove(0).path;
    let text = fs::read_to_string(&newest).unwrap().replace("two", "twa");
    fs::write(&newest, text).unwrap();
    let (good, bad) = store.newest(&id("shop_till")).unwrap();
    assert_eq!(argument(&good.unwrap()), "one");
    assert!(
        bad[0].to_string().contains(newest.to_str().unwrap()),
        "{}",
        bad[0]
    );
    // also when nothing has changed: two good ones are kept, whatever happened to them
    assert!(matches!(
        store.put(&value("one")).unwrap(),
        Put::Written(3, _)
    ));
    let found = store.find(&id("shop_till")).unwrap();
    assert_eq!(
        found.good.iter().map(argument).collect::<Vec<_>>(),
        ["one", "one"]
    );
    assert_eq!(
        found.good[0].number, 3,
        "the number of a damaged generation is not used again"
    );
    assert!(found.bad.is_empty());
}

#[test]
fn links_fifos_and_files_that_others_can_write_are_not_read() {
    let (directory, store) = store();
    store.put(&value("one")).unwrap();
    let good = store.find(&id("shop_till")).unwrap().good.remove(0).path;
    let elsewhere = directory.path().join("elsewhere");
    fs::copy(&good, &elsewhere).unwrap();
    let pod = good.parent().unwrap();
    symlink(&elsewhere, pod.join("0000000002.yaml")).unwrap();
    let fifo = pod.join("0000000003.yaml");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fs::copy(&good, pod.join("0000000004.yaml")).unwrap();
    fs::set_permissions(
        pod.join("0000000004.yaml"),
        fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    fs::hard_link(&elsewhere, pod.join("0000000005.yaml")).unwrap();
    let found = store.find(&id("shop_till")).unwrap();
    assert_eq!(found.good.len(), 1);
    assert_eq!(found.bad.len(), 4);
    assert!(
        found
            .bad
            .iter()
            .all(|error| matches!(error, Error::Read(_))),
        "{:?}",
        found.bad
    );
}

#[test]
fn a_checkpoint_of_another_pod_is_not_taken_for_this_one() {
    let (_directory, store) = store();
    store.put(&value("one")).unwrap();
    let path = store.find(&id("shop_till")).unwrap().good.remove(0).path;
    let other = store.pod(&id("shop_other"));
    fs::create_dir(&other).unwrap();
    fs::copy(path, other.join("0000000001.yaml")).unwrap();
    assert!(store.newest(&id("shop_other")).unwrap().0.is_none());
}

#[test]
fn only_one_holds_a_lock() {
    let (_directory, store) = store();
    let held = store.lock("agent.lock").unwrap();
    assert!(matches!(
        store.lock("agent.lock"),
        Err(Error::Lock(lock::Error::Held(_)))
    ));
    drop(held);
    store.lock("agent.lock").unwrap();
}

#[test]
fn leftovers_of_a_crash_are_removed_and_foreign_files_stay() {
    let (_directory, store) = store();
    store.put(&value("one")).unwrap();
    let pod = store.pod(&id("shop_till"));
    fs::write(pod.join(format!("{}xyz", write::TEMPORARY)), "torn").unwrap();
    fs::write(pod.join("README"), "somebody's").unwrap();
    store.clean().unwrap();
    assert_eq!(
        store.find(&id("shop_till")).unwrap().other,
        [pod.join("README")]
    );
}

/// Two key files below a directory that is the host's root.
fn key_files(root: &Path, names: &[&str]) -> KeyFiles {
    for (byte, name) in ["one", "two", "three"].iter().enumerate() {
        let path = root.join(name);
        let text = format!("{:02x}{}", byte, "5a".repeat(31));
        if !path.exists() {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
    KeyFiles::new(
        HostRoot::new(root),
        names.iter().map(|name| Path::new("/").join(name)).collect(),
    )
}

#[test]
fn with_a_key_everything_is_sealed_and_what_did_not_change_is_not_written() {
    let (directory, store) = store();
    let sealed = store
        .clone()
        .with_keys(key_files(directory.path(), &["one"]));
    assert!(matches!(
        sealed.put(&value("secret-argument")).unwrap(),
        Put::Written(1, _)
    ));
    let path = sealed.newest(&id("shop_till")).unwrap().0.unwrap().path;
    let before = fs::read(&path).unwrap();
    assert!(!String::from_utf8_lossy(&before).contains("secret-argument"));
    assert_eq!(
        sealed.put(&value("secret-argument")).unwrap(),
        Put::Unchanged(1)
    );
    assert!(sealed.tidy().unwrap().is_nothing());
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        argument(&sealed.newest(&id("shop_till")).unwrap().0.unwrap()),
        "secret-argument"
    );
}

#[test]
fn a_missing_or_wrong_key_is_told_leaves_the_file_alone_and_nothing_is_written_in_clear() {
    let (directory, store) = store();
    let one = store
        .clone()
        .with_keys(key_files(directory.path(), &["one"]));
    one.put(&value("one")).unwrap();
    let path = one.newest(&id("shop_till")).unwrap().0.unwrap().path;
    let before = fs::read(&path).unwrap();
    let two = store
        .clone()
        .with_keys(key_files(directory.path(), &["two"]));
    let gone = store.clone().with_keys(KeyFiles::new(
        HostRoot::new(directory.path()),
        vec!["/none".into()],
    ));
    for (other, blocked) in [
        (&store, Blocked::KeyMissing),
        (&two, Blocked::KeyWrong),
        (&gone, Blocked::KeyMissing),
    ] {
        let (good, bad) = other.newest(&id("shop_till")).unwrap();
        assert!(good.is_none());
        assert_eq!((bad[0].blocked(), bad[0].damaged()), (blocked, None));
        assert_eq!(bad[0].header().unwrap().parent.name, "till");
        assert!(
            other.tidy().unwrap().is_nothing(),
            "not damaged, so not set aside"
        );
    }
    for other in [&store, &gone] {
        assert_eq!(other.put(&value("two")).unwrap_err().reason(), "KeyMissing");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    // one own key is enough to go on, and the file of the other key stays until there are two good
    // newer ones
    assert!(matches!(
        two.put(&value("two")).unwrap(),
        Put::Written(2, _)
    ));
    assert!(path.exists());
    two.put(&value("three")).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_rotation_seals_every_generation_anew_and_changes_nothing_else() {
    let (directory, store) = store();
    for text in ["one", "two"] {
        store.put(&value(text)).unwrap();
    }
    let ids = |store: &Store| {
        let found = store.find(&id("shop_till")).unwrap();
        assert_eq!(
            found.good.iter().map(argument).collect::<Vec<_>>(),
            ["two", "one"]
        );
        assert_eq!(
            found.good.iter().map(|it| it.number).collect::<Vec<_>>(),
            [2, 1]
        );
        found
            .good
            .into_iter()
            .map(|it| it.sealed)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&store), [None, None]);
    let one = store
        .clone()
        .with_keys(key_files(directory.path(), &["one"]));
    assert_eq!(one.tidy().unwrap().resealed, 2);
    let first = ids(&one);
    assert!(first[0].is_some() && first[0] == first[1]);
    let both = store
        .clone()
        .with_keys(key_files(directory.path(), &["two", "one"]));
    assert_eq!(ids(&both), first, "the old key opens");
    assert_eq!(both.tidy().unwrap().resealed, 2);
    let two = store
        .clone()
        .with_keys(key_files(directory.path(), &["two"]));
    assert_ne!(ids(&two), first, "the new one seals, and is enough");
    assert!(both.tidy().unwrap().is_nothing());
}

#[test]
fn a_damaged_file_is_set_aside_under_a_name_that_says_so_and_goes_when_a_newer_one_is_there() {
    let (_directory, store) = store();
    for text in ["one", "two"] {
        store.put(&value(text)).unwrap();
    }
    let newest = store.newest(&id("shop_till")).unwrap().0.unwrap().path;
    let torn = fs::read(&newest).unwrap();
    fs::write(&newest, &torn[..torn.len() / 2]).unwrap();
    let tidied = store.tidy().unwrap();
    let aside = newest.with_file_name("0000000002.yaml.damaged");
    assert_eq!(tidied.aside, [(id("shop_till"), aside.clone())]);
    assert_eq!(tidied.damaged.unwrap(), [id("shop_till")]);
    let found = store.find(&id("shop_till")).unwrap();
    assert_eq!(
        (found.good.len(), found.bad.len(), found.aside.len()),
        (1, 0, 1)
    );
    let again = store.tidy().unwrap();
    assert_eq!(
        (again.removed, again.damaged.unwrap().as_slice()),
        (vec![], &[id("shop_till")][..]),
        "none newer is there yet"
    );
    // also when nothing has changed, and never under the same number
    assert!(matches!(
        store.put(&value("one")).unwrap(),
        Put::Written(3, _)
    ));
    assert!(!aside.exists());
    assert_eq!(store.put(&value("one")).unwrap(), Put::Unchanged(3));
    let whole = store.tidy().unwrap();
    assert!(whole.is_nothing() && whole.damaged.unwrap().is_empty());
}

#[test]
fn what_a_crash_left_goes_and_what_is_not_ours_stays() {
    let (directory, store) = store();
    store.put(&value("one")).unwrap();
    let checkpoints = directory.path().join("checkpoints");
    let half = checkpoints.join(format!("{}shop_gone", write::TEMPORARY));
    fs::create_dir(&half).unwrap();
    fs::write(half.join("0000000001.yaml"), "x").unwrap();
    fs::create_dir(checkpoints.join("shop_empty")).unwrap();
    fs::create_dir(checkpoints.join("shop_notes")).unwrap();
    fs::write(checkpoints.join("shop_notes/notes"), "somebody's").unwrap();
    fs::write(checkpoints.join("README"), "somebody's").unwrap();
    fs::write(
        directory.path().join(format!("{}x", write::TEMPORARY)),
        "torn",
    )
    .unwrap();
    assert_eq!(store.tidy().unwrap().removed.len(), 3);
    assert!(store.tidy().unwrap().is_nothing());
    assert_eq!(store.keys().unwrap(), [id("shop_notes"), id("shop_till")]);
    assert!(checkpoints.join("shop_notes/notes").exists() && checkpoints.join("README").exists());
}

#[test]
fn a_name_that_cannot_be_read_or_removed_keeps_no_other_from_being_tidied() {
    let (directory, store) = store();
    let checkpoints = directory.path().join("checkpoints");
    fs::write(checkpoints.join("aaa_file"), "").unwrap();
    fs::create_dir(checkpoints.join("aab_open")).unwrap();
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(checkpoints.join("aab_open"), mode(0o777)).unwrap();
    store.put(&value("one")).unwrap();
    let torn = checkpoints
        .join("shop_till")
        .join(format!("{}x", write::TEMPORARY));
    fs::write(&torn, "").unwrap();
    let tidied = store.tidy().unwrap();
    assert_eq!(tidied.removed, [torn]);
    let failed: Vec<String> = tidied.failed.iter().map(ToString::to_string).collect();
    assert_eq!(failed.len(), 2, "each is named once: {failed:?}");
    assert!(failed[0].contains("aaa_file") && failed[1].contains("aab_open"));
    assert_eq!(tidied.damaged.unwrap(), []);

    // a directory cannot be unlinked
    let pod = checkpoints.join("shop_till");
    fs::create_dir_all(pod.join("directory/inner")).unwrap();
    fs::write(pod.join("file"), "").unwrap();
    let paths = [pod.join("directory"), pod.join("file")];
    let error = write::remove_each(&pod, &paths).unwrap_err();
    assert!(error.to_string().contains("directory"), "{error}");
    assert!(!pod.join("file").exists());
}

#[test]
fn the_record_of_the_node_is_not_written_while_the_store_is_tidied() {
    let (directory, store) = store();
    let record = NodeRecord {
        api_version: format::API_VERSION.into(),
        kind: "NodeRecord".into(),
        node_name: "node-1".into(),
        node_uid: "uid".into(),
        current_uid: None,
        allocatable: None,
        servers: Vec::new(),
    };
    let count = || fs::read_dir(directory.path()).unwrap().count();
    let before = count();
    let tidying = store.order.write().unwrap();
    let writer = std::thread::spawn({
        let store = store.clone();
        move || store.put_node(&record)
    });
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(count(), before, "its unfinished file would be removed");
    drop(tidying);
    assert!(writer.join().unwrap().unwrap());
}

#[test]
fn a_removal_takes_the_whole_pod_at_once() {
    let (directory, store) = store();
    store.put(&value("one")).unwrap();
    store.remove(&id("shop_till")).unwrap();
    store.remove(&id("shop_till")).unwrap();
    assert_eq!(
        fs::read_dir(directory.path().join("checkpoints"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn directories_that_are_links_or_that_others_may_write_to_are_not_read() {
    let (directory, store) = store();
    store.put(&value("one")).unwrap();
    let checkpoints = directory.path().join("checkpoints");
    symlink(
        checkpoints.join("shop_till"),
        checkpoints.join("shop_other"),
    )
    .unwrap();
    assert!(matches!(
        store.newest(&id("shop_other")),
        Err(Error::Read(read::Error::Untrusted { .. }))
    ));
    for open in [
        checkpoints.join("shop_till"),
        checkpoints.clone(),
        directory.path().to_owned(),
    ] {
        let before = fs::metadata(&open).unwrap().permissions();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = store.newest(&id("shop_till")).unwrap_err();
        assert!(
            matches!(&error, Error::Read(read::Error::Untrusted { path, .. }) if *path == open),
            "{error}"
        );
        fs::set_permissions(&open, before).unwrap();
    }
    assert!(store.newest(&id("shop_till")).unwrap().0.is_some());
}

#[test]
fn a_hundred_thousand_files_hide_no_good_one_and_are_not_all_told() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::new(directory.path());
    store.create().unwrap();
    store.put(&value("one")).unwrap();
    let pod = directory.path().join("checkpoints/shop_till");
    for number in 2..=100_000_u64 {
        let path = pod.join(file_name(number));
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .unwrap();
    }
    let found = store.find(&id("shop_till")).unwrap();
    assert_eq!(
        (found.good.len(), found.bad.len(), found.surplus.len()),
        (1, MOST_GENERATIONS, 99_999 - MOST_GENERATIONS)
    );
    let (newest, bad) = store.newest(&id("shop_till")).unwrap();
    assert_eq!((newest.unwrap().number, bad.len()), (1, MOST_GENERATIONS));
    // and it recovers by itself: two good generations later all of them are gone
    store.put(&value("two")).unwrap();
    store.put(&value("three")).unwrap();
    let names = fs::read_dir(&pod).unwrap().count();
    assert_eq!(names, 2);
}
