//! What a failing disk does to the writer: each call of each operation of the store fails with each
//! error, once or from then on. The old generation stays usable, the error names step and path,
//! nothing is left behind, and the next attempt succeeds.

use std::cell::Cell;
use std::error::Error as _;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::io::Errno;

use crate::checkpoint::format::{API_VERSION, NodeCheckpoint};
use crate::checkpoint::keys::KeyFiles;
use crate::checkpoint::testing;
use crate::files::disk::{Call, Let, watch};
use crate::files::write::{self, TEMPORARY};
use crate::node::host::HostRoot;
use crate::places::node_record::NodeRecord;
use crate::places::store::{Error, Put, Store};
use crate::pod::id::id;

const ERRORS: [Errno; 5] = [
    Errno::NOSPC,
    Errno::IO,
    Errno::ROFS,
    Errno::DQUOT,
    Errno::MFILE,
];
const POD: &str = "shop_till";

/// An operation of the store, in a certain state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// The agent starts for the first time.
    Create,
    /// The agent starts with an existing directory that other users may read.
    Private,
    /// The agent starts after a crash that left something half created, something half removed and
    /// something empty.
    Clean,
    /// The first capture of a pod.
    First,
    /// The third capture, which makes the first superfluous.
    Third,
    /// A capture that makes a damaged generation superfluous.
    Repair,
    /// The node's record is written for the first time.
    Record,
    /// The node's record has changed.
    Change,
    /// The pod is gone.
    Remove,
    /// A key is given, and checkpoints in clear text are sealed.
    Seal,
}

const TASKS: [Task; 10] = [
    Task::Create,
    Task::Private,
    Task::Clean,
    Task::First,
    Task::Third,
    Task::Repair,
    Task::Record,
    Task::Change,
    Task::Remove,
    Task::Seal,
];

fn value(text: &str) -> NodeCheckpoint {
    let mut made = testing::checkpoint("shop", "till");
    made.manifest["spec"]["containers"][0]["args"] = serde_json::json!([text]);
    made.with_digest()
}

fn record(name: &str) -> NodeRecord {
    NodeRecord {
        api_version: API_VERSION.into(),
        kind: "NodeRecord".into(),
        node_name: name.into(),
        node_uid: "uid-1".into(),
        current_uid: None,
        allocatable: None,
        servers: Vec::new(),
    }
}

/// The visible state of a store: numbers and arguments of the good generations, how many of them
/// are in clear text, how many are bad, and the node's name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    good: Vec<(u64, String)>,
    clear: usize,
    bad: usize,
    /// Whether the directory is inaccessible to others.
    private: bool,
    node: Option<String>,
}

impl Seen {
    fn of(store: &Store) -> Self {
        let found = store.find(&id(POD)).unwrap();
        let argument = |made: &NodeCheckpoint| {
            made.manifest["spec"]["containers"][0]["args"][0]
                .as_str()
                .map(Into::into)
        };
        Self {
            good: found
                .good
                .iter()
                .map(|good| (good.number, argument(&good.checkpoint).unwrap()))
                .collect(),
            clear: found
                .good
                .iter()
                .filter(|good| good.sealed.is_none())
                .count(),
            bad: found.bad.len(),
            private: fs::metadata(store.directory())
                .is_ok_and(|metadata| metadata.permissions().mode() & 0o7777 == 0o700),
            node: store.node().unwrap().map(|node| node.node_name),
        }
    }
}

impl Task {
    /// A store in the state before the operation.
    fn prepare(self, directory: &Path) -> Store {
        let store = Store::new(directory.join("state"));
        match self {
            Self::Create => return store,
            Self::Private => {
                fs::DirBuilder::new()
                    .mode(0o755)
                    .create(store.directory())
                    .unwrap();
                fs::set_permissions(store.directory(), Permissions::from_mode(0o755)).unwrap();
                return store;
            }
            _ => {}
        }
        store.create().unwrap();
        let before: &[&str] = match self {
            Self::First | Self::Record | Self::Create | Self::Private => &[],
            _ => &["one", "two"],
        };
        for text in before {
            store.put(&value(text)).unwrap();
        }
        if self != Self::Record {
            store.put_node(&record("old")).unwrap();
        }
        let checkpoints = directory.join("state/checkpoints");
        if self == Self::Repair {
            let newest = store.newest(&id(POD)).unwrap().0.unwrap().path;
            fs::write(
                &newest,
                fs::read_to_string(&newest).unwrap().replace("two", "twa"),
            )
            .unwrap();
        }
        if self == Self::Clean {
            fs::write(
                checkpoints.join(POD).join(format!("{TEMPORARY}1-1")),
                "torn",
            )
            .unwrap();
            fs::write(directory.join(format!("state/{TEMPORARY}1-2")), "torn").unwrap();
            let removed = checkpoints.join(format!("{TEMPORARY}1-3"));
            fs::DirBuilder::new().mode(0o700).create(&removed).unwrap();
            fs::write(removed.join("0000000001.yaml"), "removed").unwrap();
            fs::DirBuilder::new()
                .mode(0o700)
                .create(checkpoints.join("shop_empty"))
                .unwrap();
        }
        if self == Self::Seal {
            let key = directory.join("key");
            fs::write(&key, "0123456789abcdef".repeat(4)).unwrap();
            fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
            return store.with_keys(KeyFiles::new(HostRoot::new("/"), vec![key]));
        }
        store
    }

    fn run(self, store: &Store) -> Result<(), Error> {
        match self {
            Self::Create | Self::Private => store.create(),
            Self::Clean => store.clean(),
            Self::First | Self::Third | Self::Repair => store.put(&value("new")).map(drop),
            Self::Record | Self::Change => store.put_node(&record("new")).map(drop),
            Self::Remove => store.remove(&id(POD)),
            Self::Seal => store.tidy()?.failed.into_iter().next().map_or(Ok(()), Err),
        }
    }

    /// Whether the state that an operation left is allowed, whether it succeeded or not. `before`
    /// and `after` are the states of a store in which it was not tried, and in which nothing
    /// failed.
    fn is_right(seen: &Seen, before: &Seen, after: &Seen) -> bool {
        let node = seen.node == before.node || seen.node == after.node;
        // old ones may stay along with the new one until the next attempt
        let both = !after.good.is_empty()
            && seen.good.starts_with(&after.good)
            && seen
                .good
                .iter()
                .all(|good| before.good.contains(good) || after.good.contains(good));
        node && seen.bad <= before.bad
            && (seen.good == before.good || seen.good == after.good || both)
    }

    /// Whether the operation succeeded, as if nothing had failed. A repair may have taken two
    /// attempts, with one generation each.
    fn is_done(self, seen: &Seen, after: &Seen) -> bool {
        let newest = |seen: &Seen| seen.good.first().map(|(_, text)| text.clone());
        seen == after
            || self == Self::Repair
                && (newest(seen), seen.good.len(), seen.bad)
                    == (newest(after), after.good.len(), after.bad)
    }
}

/// Makes `times` calls fail, beginning with `first`. Returns how many calls there were.
fn with_fault<T>(
    first: usize,
    times: usize,
    fault: Let,
    run: impl FnOnce() -> T,
) -> (T, Vec<(&'static str, PathBuf)>) {
    let calls = Rc::new(std::cell::RefCell::new(Vec::new()));
    let (seen, count) = (Rc::clone(&calls), Cell::new(0));
    let watcher = move |call: &Call<'_>| {
        seen.borrow_mut().push(name(call));
        count.set(count.get() + 1);
        if (first..first.saturating_add(times)).contains(&(count.get() - 1)) {
            fault
        } else {
            Let::Pass
        }
    };
    let result = watch(watcher, run);
    (result, calls.take())
}

fn name(call: &Call<'_>) -> (&'static str, PathBuf) {
    match *call {
        Call::Space(path) => ("space", path.into()),
        Call::Create(path, _) => ("create", path.into()),
        Call::Reserve(path, _) => ("reserve", path.into()),
        Call::Write(path, _) => ("write", path.into()),
        Call::Chmod(path, _) => ("chmod", path.into()),
        Call::Sync(path) => ("fsync", path.into()),
        Call::Rename(from, _) => ("rename", from.into()),
        Call::Link(path) => ("link", path.into()),
        Call::Unlink(path) => ("unlink", path.into()),
        Call::Mkdir(path, _) => ("mkdir", path.into()),
        Call::Rmdir(path) => ("rmdir", path.into()),
        Call::OpenDirectory(path) => ("open", path.into()),
        Call::SyncDirectory(path) => ("fsync directory", path.into()),
    }
}

fn leftovers(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(TEMPORARY)
        {
            found.push(path);
        } else if path.is_dir() {
            found.extend(leftovers(&path));
        }
    }
    found
}

fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// The states before and after an operation, and the calls that it makes.
fn healthy(task: Task) -> (Seen, Seen, Vec<(&'static str, PathBuf)>) {
    let directory = memory();
    let store = task.prepare(directory.path());
    let before = Seen::of(&store);
    let (result, calls) = with_fault(0, 0, Let::Pass, || task.run(&store));
    result.unwrap();
    (before, Seen::of(&store), calls)
}

/// An error must name the step and the path.
fn assert_clear(error: &Error, directory: &Path, errno: Errno, context: &str) {
    let (text, cause) = (
        error.to_string(),
        error.source().map(ToString::to_string).unwrap_or_default(),
    );
    assert!(
        text.starts_with("cannot ") && text.contains(directory.to_str().unwrap()),
        "{context}: {text}"
    );
    assert_eq!(
        cause,
        std::io::Error::from(errno).to_string(),
        "{context}: {text}"
    );
}

#[test]
fn each_call_may_fail_once_with_any_error_and_nothing_is_lost_or_left() {
    let mut faults = 0;
    for task in TASKS {
        let (before, after, calls) = healthy(task);
        assert!(!calls.is_empty());
        for (number, (call, _)) in calls.iter().enumerate() {
            for errno in ERRORS {
                let context = format!("{task:?}, call {number} ({call}), {errno:?}");
                let directory = memory();
                let store = task.prepare(directory.path());
                let (result, _) = with_fault(number, 1, Let::Fail(errno), || task.run(&store));
                faults += 1;
                let error = result.expect_err(&context);
                assert_clear(&error, directory.path(), errno, &context);
                let is_full = matches!(errno, Errno::NOSPC | Errno::DQUOT);
                assert_eq!(error.reason() == "StoreFull", is_full, "{context}: {error}");
                let seen = Seen::of(&store);
                assert!(
                    Task::is_right(&seen, &before, &after),
                    "{context}: {before:?} became {seen:?}"
                );
                // what was being removed, or was still to be removed, stays until the next attempt
                if !matches!(task, Task::Clean | Task::Remove) {
                    assert_eq!(leftovers(directory.path()), [] as [PathBuf; 0], "{context}");
                }
                task.run(&store)
                    .unwrap_or_else(|error| panic!("{context}: again: {error}"));
                assert!(
                    task.is_done(&Seen::of(&store), &after),
                    "{context}: again: {:?}",
                    Seen::of(&store)
                );
                store.create().and_then(|()| store.clean()).unwrap();
                assert_eq!(
                    leftovers(directory.path()),
                    [] as [PathBuf; 0],
                    "{context}: after a start"
                );
                assert!(
                    task.is_done(&Seen::of(&store), &after),
                    "{context}: after a start: {:?}",
                    Seen::of(&store)
                );
            }
        }
    }
    let _ = writeln!(
        std::io::stderr(),
        "faults: {faults} single ones, every call of {} tasks",
        TASKS.len()
    );
}

#[test]
fn a_disk_that_fails_for_good_leaves_what_was_there_and_the_next_start_on_a_healed_one_removes_the_rest()
 {
    let mut faults = 0;
    for task in TASKS {
        let (before, after, calls) = healthy(task);
        for (number, (call, _)) in calls.iter().enumerate() {
            for errno in ERRORS {
                let context = format!("{task:?}, from call {number} ({call}) on, {errno:?}");
                let directory = memory();
                let store = task.prepare(directory.path());
                // a second attempt on the failing disk must not take for durable what the first one
                // left
                let ((first, second), _) = with_fault(number, usize::MAX, Let::Fail(errno), || {
                    (task.run(&store), task.run(&store))
                });
                faults += 1;
                assert_clear(
                    &first.expect_err(&context),
                    directory.path(),
                    errno,
                    &context,
                );
                // if only superfluous files remain to be removed, that fails again
                assert_clear(
                    &second.expect_err(&context),
                    directory.path(),
                    errno,
                    &format!("{context}: second"),
                );
                let seen = Seen::of(&store);
                assert!(
                    Task::is_right(&seen, &before, &after),
                    "{context}: {before:?} became {seen:?}"
                );
                store.create().and_then(|()| store.clean()).unwrap();
                assert_eq!(
                    leftovers(directory.path()),
                    [] as [PathBuf; 0],
                    "{context}: after a start"
                );
                task.run(&store)
                    .unwrap_or_else(|error| panic!("{context}: again: {error}"));
                assert!(
                    task.is_done(&Seen::of(&store), &after),
                    "{context}: again: {:?}",
                    Seen::of(&store)
                );
            }
        }
    }
    let _ = writeln!(
        std::io::stderr(),
        "faults: {faults} lasting ones, every call of {} tasks",
        TASKS.len()
    );
}

#[test]
fn an_interrupted_call_is_made_again() {
    for task in TASKS {
        let (_, after, calls) = healthy(task);
        for (number, (call, _)) in calls.iter().enumerate() {
            let directory = memory();
            let store = task.prepare(directory.path());
            let (result, _) = with_fault(number, 3, Let::Fail(Errno::INTR), || task.run(&store));
            result.unwrap_or_else(|error| panic!("{task:?}, {call}: {error}"));
            assert_eq!(Seen::of(&store), after, "{task:?}, {call}");
            assert_eq!(
                leftovers(directory.path()),
                [] as [PathBuf; 0],
                "{task:?}, {call}"
            );
        }
    }
}

#[test]
fn a_short_write_goes_on_where_it_stopped() {
    for length in [1, 2, 511, 512, 513] {
        let directory = memory();
        let store = Task::Third.prepare(directory.path());
        let (result, calls) = with_fault(0, usize::MAX, Let::Short(length), || {
            Task::Third.run(&store)
        });
        result.unwrap();
        let size = usize::try_from(store.newest(&id(POD)).unwrap().0.unwrap().size).unwrap();
        let writes = calls.iter().filter(|(call, _)| *call == "write").count();
        assert_eq!(writes, size.div_ceil(length), "{length} bytes at once");
    }
}

#[test]
fn a_write_of_nothing_is_an_error_and_no_endless_loop() {
    let directory = memory();
    let store = Task::Third.prepare(directory.path());
    let (before, ..) = healthy(Task::Third);
    let (result, _) = with_fault(0, usize::MAX, Let::Short(0), || Task::Third.run(&store));
    let error = result.unwrap_err();
    assert!(error.to_string().starts_with("cannot write "), "{error}");
    assert_eq!(Seen::of(&store), before);
    assert_eq!(leftovers(directory.path()), [] as [PathBuf; 0]);
}

#[test]
fn a_file_system_that_cannot_reserve_is_written_to_all_the_same() {
    for errno in [Errno::OPNOTSUPP, Errno::NOSYS] {
        let (_, after, calls) = healthy(Task::Third);
        let reserve = calls
            .iter()
            .position(|(call, _)| *call == "reserve")
            .unwrap();
        let directory = memory();
        let store = Task::Third.prepare(directory.path());
        with_fault(reserve, 1, Let::Fail(errno), || Task::Third.run(&store))
            .0
            .unwrap();
        assert_eq!(Seen::of(&store), after);
    }
}

#[test]
fn what_was_renamed_but_not_synced_is_not_called_unchanged() {
    let (_, _, calls) = healthy(Task::Third);
    let sync = calls
        .iter()
        .position(|(call, _)| *call == "fsync directory")
        .unwrap();
    let directory = memory();
    let store = Task::Third.prepare(directory.path());
    with_fault(sync, 1, Let::Fail(Errno::IO), || Task::Third.run(&store))
        .0
        .unwrap_err();
    let (result, calls) = with_fault(0, 0, Let::Pass, || store.put(&value("new")));
    assert!(matches!(result, Ok(Put::Unchanged(3))), "{result:?}");
    assert!(
        calls
            .iter()
            .any(|(call, path)| *call == "fsync directory" && path.ends_with(POD)),
        "{calls:?}"
    );
    let (_, calls) = with_fault(0, 0, Let::Pass, || store.put(&value("new")));
    assert!(
        !calls.iter().any(|(call, _)| *call == "fsync directory"),
        "once is enough: {calls:?}"
    );
}

#[test]
fn a_capture_costs_three_fsyncs_and_one_that_found_nothing_new_no_call_at_all() {
    let count = |calls: &[(&str, PathBuf)]| {
        calls
            .iter()
            .filter(|(call, _)| call.starts_with("fsync"))
            .count()
    };
    assert_eq!(count(&healthy(Task::Third).2), 3);
    let directory = memory();
    let store = Task::Third.prepare(directory.path());
    let (result, calls) = with_fault(0, 0, Let::Pass, || store.put(&value("two")));
    assert_eq!(result.unwrap(), Put::Unchanged(2));
    assert_eq!(calls, []);
}

#[test]
fn a_link_that_cannot_be_put_leaves_the_old_one_and_nothing_else() {
    for (number, errno) in (0..2).flat_map(|number| ERRORS.map(|errno| (number, errno))) {
        let directory = memory();
        let path = directory.path().join("link");
        write::link(Path::new("/old"), &path).unwrap();
        let (result, calls) = with_fault(number, 1, Let::Fail(errno), || {
            write::link(Path::new("/new"), &path)
        });
        let error = result.unwrap_err();
        assert!(
            error
                .to_string()
                .contains(directory.path().to_str().unwrap()),
            "{error}: {calls:?}"
        );
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/old"));
        assert_eq!(leftovers(directory.path()), [] as [PathBuf; 0]);
        write::link(Path::new("/new"), &path).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/new"));
    }
}
