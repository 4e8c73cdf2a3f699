//! Measures what the store costs: bytes and time of captures, verification and sealing. Prints the
//! table of `docs/store.md`:
//!
//! ```sh
//! cargo run --release --example store-figures [DIRECTORY ON THE DISK TO BE MEASURED]
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pod_checkpointer::checkpoint::encoding::encode;
use pod_checkpointer::checkpoint::keys::KeyFiles;
use pod_checkpointer::checkpoint::{
    Captured, Entry, Image, NodeCheckpoint, Parent, Policy, Volume,
};
use pod_checkpointer::node::host::HostRoot;
use pod_checkpointer::places::store::{Put, Store};
use serde_json::json;

/// The kubelet renews a token that is valid for an hour after four fifths of that time
/// (pkg/kubelet/token/token_manager.go).
const RENEWALS_A_DAY: u64 = 24 * 60 / 48;
const TIMES: u32 = 21;

fn main() -> Result<(), Box<dyn Error>> {
    let below = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(below)?;
    let key = directory.path().join("key");
    fs::write(&key, (0..32_u8).collect::<Vec<_>>())?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let keys = KeyFiles::new(HostRoot::new("/"), vec![key]);
    let open = |name: &str| -> Result<Store, Box<dyn Error>> {
        let store = Store::new(directory.path().join(name));
        store.create()?;
        Ok(store)
    };
    println!("| what | in clear | sealed |\n| --- | --- | --- |");
    for (what, size) in [
        ("a pod with a token and a CA", 3 << 10),
        ("a pod with 1 MiB of Secrets", 1 << 20),
    ] {
        let clear = capture(&open(&format!("clear-{size}"))?, size)?;
        let sealed = capture(
            &open(&format!("sealed-{size}"))?.with_keys(keys.clone()),
            size,
        )?;
        row(
            &format!("{what}: bytes of a generation"),
            clear.bytes,
            sealed.bytes,
        );
        row(
            &format!("{what}: stored (median of {TIMES}, with its fsyncs)"),
            time(clear.put),
            time(sealed.put),
        );
        row(
            &format!("{what}: stored again, nothing new"),
            time(clear.again),
            time(sealed.again),
        );
        row(
            &format!("{what}: read and verified"),
            time(clear.read),
            time(sealed.read),
        );
        if size < 1 << 20 {
            let day = |bytes: u64| format!("{:.1} MB", mega(110 * RENEWALS_A_DAY * bytes));
            row(
                "110 pods, a day of renewed tokens: bytes written",
                day(clear.bytes),
                day(sealed.bytes),
            );
        }
    }
    let mut verified = Vec::new();
    for store in [open("many")?, open("many-sealed")?.with_keys(keys)] {
        for number in 0..500 {
            store.put(&checkpoint(&format!("pod-{number}"), 3 << 10, 0))?;
        }
        let before = written()?;
        for number in 0..110 {
            store.put(&checkpoint(&format!("pod-{number}"), 3 << 10, 0))?;
        }
        let quiet = written()? - before;
        let begin = Instant::now();
        let good = store
            .keys()?
            .iter()
            .map(|key| store.find(key).map(|found| found.good.len()))
            .sum::<Result<usize, _>>()?;
        verified.push((good, begin.elapsed(), quiet));
    }
    if let [(_, clear, quiet), (_, sealed, sealed_quiet)] = verified.as_slice() {
        row("500 checkpoints verified", time(*clear), time(*sealed));
        row(
            "110 pods captured again, nothing new: bytes written",
            quiet,
            sealed_quiet,
        );
    }
    println!("\nmost memory in use at any time: {}", peak()?);
    Ok(())
}

fn row(what: &str, clear: impl std::fmt::Display, sealed: impl std::fmt::Display) {
    println!("| {what} | {clear} | {sealed} |");
}

fn time(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[allow(clippy::cast_precision_loss)] // only for display
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

struct Figures {
    bytes: u64,
    put: Duration,
    again: Duration,
    read: Duration,
}

fn capture(store: &Store, size: usize) -> Result<Figures, Box<dyn Error>> {
    let (mut puts, mut reads, mut agains, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for time in 0..TIMES {
        let made = checkpoint("till", size, time);
        let begin = Instant::now();
        if let Put::Written(_, size) = store.put(&made)? {
            bytes = size;
        }
        puts.push(begin.elapsed());
        let begin = Instant::now();
        store.put(&made)?;
        agains.push(begin.elapsed());
        let begin = Instant::now();
        store
            .newest(&"shop_till".parse()?)?
            .0
            .ok_or("what was stored is not there")?;
        reads.push(begin.elapsed());
    }
    Ok(Figures {
        bytes,
        put: median(puts),
        again: median(agains),
        read: median(reads),
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Bytes that this process has written to file systems, according to the kernel.
fn written() -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/io")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))
        .ok_or("no write_bytes")?;
    Ok(line.parse()?)
}

fn peak() -> Result<String, Box<dyn Error>> {
    let text = fs::read_to_string(Path::new("/proc/self/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM")?;
    Ok(line.trim().to_owned())
}

/// A pod with one container, twenty variables and a volume of this many bytes.
fn checkpoint(name: &str, size: usize, time: u32) -> NodeCheckpoint {
    let entry = |path: &str, data: Option<&[u8]>| Entry {
        path: path.into(),
        mode: "0755".into(),
        uid: 0,
        gid: 0,
        data: data.map(encode),
        link: None,
    };
    let data: Vec<u8> = (0..size)
        .map(|at| u8::try_from((at * at / 7) % 251).unwrap_or_default())
        .collect();
    let environment: Vec<_> = (0..20)
        .map(|number| json!({"name": format!("VARIABLE_{number}"), "value": format!("value {number} of capture {time}")}))
        .collect();
    let parent = Parent {
        namespace: "shop".into(),
        name: name.into(),
        uid: "11111111-1111-4111-8111-111111111111".into(),
        resource_version: "42".into(),
        owner: None,
        node_uid: None,
    };
    let captured = Captured {
        wall: "2026-11-21T10:00:00Z".into(),
        boot_id: "boot".into(),
        uptime_seconds: 100,
    };
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name},
        "spec": {"containers": [{"name": "app", "image": "shop/till:1", "args": ["serve"], "env": environment,
            "volumeMounts": [{"name": "keys", "mountPath": "/keys", "readOnly": true}]}]},
    });
    let mut checkpoint = NodeCheckpoint::new(parent, captured, Policy::default(), manifest);
    checkpoint.images = BTreeMap::from([(
        "app".into(),
        Image {
            name: "shop/till:1".into(),
            id: "sha256:aa".into(),
        },
    )]);
    checkpoint.volumes = BTreeMap::from([(
        "keys".into(),
        Volume {
            entries: vec![entry("", None), entry("key", Some(&data))],
        },
    )]);
    checkpoint.with_digest()
}
