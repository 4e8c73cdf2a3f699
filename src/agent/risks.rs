//! What on the node itself would prevent or slow down the recovery of its pods: checked while all
//! is well, because during an outage it is too late. What cannot be learned is not a risk; that it
//! cannot be learned is reported as a problem.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::agent::network::Support;
use crate::agent::settings::Settings;
use crate::agent::surroundings::{self, Surroundings};
use crate::node::host::HostRoot;
use crate::node::runtime::{Runtime, State};
use crate::node::{certificate, kubelet, resolve, selinux};
use crate::places::store::Store;
use crate::pod::id::PodId;
use crate::reasons::Risk;
use crate::text::first_of;

/// The risks, worst first, each with what was observed.
pub(crate) type Risks = BTreeMap<Risk, String>;

/// Less free space than this counts as none: twice the size of the largest possible checkpoint.
const LEAST_SPACE: u64 = 16 << 20;
/// Fewer free inodes than this count as none.
const LEAST_INODES: u64 = 16;
/// Warn this many percentage points before the kubelet begins to remove images.
const MARGIN: u64 = 3;
/// Names in a message.
const NAMED: usize = 5;

/// Result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// The risk exists.
    Found(String),
    /// The risk does not exist.
    Nothing,
    /// Not known, or between the two thresholds: the earlier result stays.
    Open,
}

impl From<Option<String>> for Finding {
    fn from(seen: Option<String>) -> Self {
        seen.map_or(Self::Nothing, Self::Found)
    }
}

/// The risks that files, file systems and the runtime of the node show. `before` is the result of
/// the last check.
pub(crate) async fn of_node(
    settings: &Settings,
    surroundings: &Surroundings,
    store: &Store,
    before: &Risks,
) -> Risks {
    let root = &settings.root;
    let mut risks = Risks::new();
    let mut add = |risk, look: Finding| {
        let known = before.get(&risk).cloned();
        let seen = match look {
            Finding::Found(seen) => Some(seen),
            Finding::Nothing => None,
            Finding::Open => known,
        };
        risks.extend(seen.map(|seen| (risk, seen)));
    };
    add(
        Risk::NoStaticPodDirectory,
        no_static_pods(settings, surroundings).into(),
    );
    add(
        Risk::CannotLabel,
        cannot_label(root, &settings.host().run_dir),
    );
    add(Risk::StoreFull, full(store.directory()));
    let kubeconfig = surroundings.kubelet.kubeconfig.as_deref();
    let expiry = kubeconfig.and_then(|file| certificate::expiry(root, file));
    add(
        Risk::KubeletCertificateExpires,
        expiry
            .and_then(|expiry| expires(expiry, Timestamp::now(), settings.arguments.planned_outage))
            .into(),
    );
    let images = images(root, &surroundings.runtime, &surroundings.kubelet, store)
        .await
        .unwrap_or(Finding::Open);
    // the list of unused images changes from one moment to the next
    let is_known = before.contains_key(&Risk::ImagesAtRisk) && matches!(images, Finding::Found(_));
    add(
        Risk::ImagesAtRisk,
        if is_known { Finding::Open } else { images },
    );
    let servers = store
        .node()
        .ok()
        .flatten()
        .map(|record| record.servers)
        .unwrap_or_default();
    add(
        Risk::ServerNamedByDNS,
        by_name(root, servers.iter().map(|server| server.url.as_str())).into(),
    );
    risks
}

/// Whether a twin's files cannot be labelled though the host's SELinux demands it. `run_dir` is a
/// host path.
fn cannot_label(root: &HostRoot, run_dir: &Path) -> Finding {
    match selinux::is_in_force(root) {
        Ok(true) => {}
        Ok(false) => return Finding::Nothing,
        Err(_) => return Finding::Open,
    }
    let tried = root
        .resolve(run_dir)
        .and_then(|real| selinux::try_label(&real));
    match tried {
        Ok(()) => Finding::Nothing,
        // there is no run directory yet
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Finding::Open,
        Err(error) => Finding::Found(format!(
            "SELinux is in force, and files in {} cannot be labelled: {error}",
            run_dir.display()
        )),
    }
}

/// Which pods run the network but have no checkpoint, although captured pods need them.
/// `works_offline`: the network plugin works without its pods.
pub(crate) fn of_network(
    lacking: &BTreeSet<(Support, &str)>,
    works_offline: bool,
) -> Option<String> {
    let named: Vec<String> = lacking
        .iter()
        .filter(|(support, _)| *support != Support::Plugin || !works_offline)
        .map(|(support, name)| format!("{name} ({})", support.as_str()))
        .collect();
    let text = || {
        format!(
            "not captured, but needed by captured pods: {}",
            first_of(&named, NAMED)
        )
    };
    (!named.is_empty()).then(text)
}

/// Pods whose checkpoints are damaged, in words.
pub(crate) fn of_damage(keys: &BTreeSet<PodId>) -> Option<String> {
    let named: Vec<String> = keys.iter().take(NAMED).map(ToString::to_string).collect();
    (!named.is_empty()).then(|| {
        format!(
            "checkpoints of {} pods are damaged, such as {}",
            keys.len(),
            named.join(", ")
        )
    })
}

/// A risk in words: what was observed, and what to do.
pub(crate) fn message(risk: Risk, seen: &str) -> String {
    format!("{seen} ({})", risk.advice())
}

fn no_static_pods(settings: &Settings, surroundings: &Surroundings) -> Option<String> {
    if !surroundings.is_known && settings.host().manifest_dir.is_none() {
        return None;
    }
    match surroundings::manifest_dir(settings, surroundings) {
        Err(_) => Some("the kubelet's configuration has no staticPodPath".into()),
        Ok(directory) => match settings
            .root
            .resolve(&directory)
            .and_then(std::fs::metadata)
        {
            Ok(found) if found.is_dir() => None,
            Ok(_) => Some(format!("{} is not a directory", directory.display())),
            Err(error) => Some(format!("{}: {error}", directory.display())),
        },
    }
}

fn full(directory: &Path) -> Finding {
    let Ok(found) = rustix::fs::statvfs(directory) else {
        return Finding::Open;
    };
    let space = found.f_bavail.saturating_mul(found.f_frsize);
    // some file systems count none
    let inodes = if found.f_files > 0 {
        found.f_favail
    } else {
        u64::MAX
    };
    room(space, inodes)
}

/// Without figures that change: the text is written to every PodCheckpoint of the node.
fn room(space: u64, inodes: u64) -> Finding {
    if space < LEAST_SPACE {
        return Finding::Found(format!(
            "less than {} MiB are free for checkpoints",
            LEAST_SPACE >> 20
        ));
    }
    if inodes < LEAST_INODES {
        return Finding::Found(format!(
            "fewer than {LEAST_INODES} inodes are free for checkpoints"
        ));
    }
    if space < LEAST_SPACE * 2 || inodes < LEAST_INODES * 2 {
        Finding::Open
    } else {
        Finding::Nothing
    }
}

fn expires(expiry: Timestamp, now: Timestamp, outage: Duration) -> Option<String> {
    let left = expiry.duration_since(now);
    if left <= SignedDuration::ZERO {
        return Some(format!(
            "the kubelet's client certificate has expired at {expiry}"
        ));
    }
    let outage = SignedDuration::try_from(outage).unwrap_or(SignedDuration::MAX);
    (left < outage).then(|| {
        let days = outage.as_hours() / 24;
        let planned = if days > 0 { format!("{days} days") } else { format!("{} minutes", outage.as_mins()) };
        format!("the kubelet's client certificate expires at {expiry}, within {planned}, the longest planned outage")
    })
}

fn by_name<'a>(root: &HostRoot, servers: impl Iterator<Item = &'a str>) -> Option<String> {
    let uris: Vec<http::Uri> = servers.filter_map(|url| url.parse().ok()).collect();
    let hosts: Vec<&str> = uris.iter().filter_map(http::Uri::host).collect();
    let is_known = |host: &&str| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<std::net::IpAddr>().is_ok() || resolve::is_in_hosts(root, bare)
    };
    // one that needs no name server is enough
    let first = hosts.first()?;
    (!hosts.iter().any(is_known)).then(|| format!("the API server is {first}"))
}

/// The images that checkpoints need and no running container uses, where the kubelet is about to
/// clean up. `None`: the runtime or the file system does not report it.
async fn images(
    root: &HostRoot,
    runtime: &Runtime,
    kubelet: &kubelet::Settings,
    store: &Store,
) -> Option<Finding> {
    let Some(high) = kubelet.images_may_fill().map(u64::from) else {
        return Some(Finding::Nothing);
    };
    let directory = runtime.image_directory().await.ok()??;
    let used = used_percent(&root.resolve(&directory).ok()?)?;
    if used.saturating_add(MARGIN) < high {
        return Some(if used.saturating_add(MARGIN * 2) < high {
            Finding::Nothing
        } else {
            Finding::Open
        });
    }
    // images of terminated containers are removed under disk pressure (pkg/kubelet/eviction)
    let containers = runtime.containers().await.ok()?;
    let running = containers
        .iter()
        .filter(|container| container.state == State::Running);
    let in_use: BTreeSet<String> = running
        .map(|container| container.image_id.clone())
        .collect();
    let store = store.clone();
    // every checkpoint is read
    let idle = tokio::task::spawn_blocking(move || idle(&store, &in_use))
        .await
        .ok()??;
    let named: Vec<&str> = idle.iter().take(NAMED).map(String::as_str).collect();
    let text = (!named.is_empty()).then(|| {
        format!(
            "the file system of the images is nearly {high}% full or more, where the kubelet starts to remove unused images, and \
             no running container uses {}",
            named.join(", ")
        )
    });
    Some(text.into())
}

/// Images of the newest checkpoints that are none of these.
fn idle(store: &Store, in_use: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    let mut idle = BTreeSet::new();
    for key in store.keys().ok()? {
        let Ok((Some(newest), _)) = store.newest(&key) else {
            continue;
        };
        let needed = newest.checkpoint.images.values();
        idle.extend(
            needed
                .filter(|image| !in_use.contains(&image.id))
                .map(|image| image.name.clone()),
        );
    }
    Some(idle)
}

/// How full a file system is, as the kubelet counts it.
fn used_percent(directory: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    let free = found
        .f_bavail
        .saturating_mul(100)
        .checked_div(found.f_blocks)?;
    Some(100_u64.saturating_sub(free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_a_risk_when_it_ends_within_the_outage_that_is_planned_for() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let after = |hours: i64| now.checked_add(SignedDuration::from_hours(hours)).unwrap();
        let week = Duration::from_hours(7 * 24);
        assert_eq!(expires(after(7 * 24 + 1), now, week), None);
        assert!(
            expires(after(7 * 24 - 1), now, week)
                .unwrap()
                .contains("within 7 days")
        );
        assert!(
            expires(after(1), now, Duration::from_hours(2))
                .unwrap()
                .contains("within 120 minutes")
        );
        assert!(
            expires(after(-1), now, Duration::ZERO)
                .unwrap()
                .contains("has expired")
        );
    }

    #[test]
    fn files_that_cannot_be_labelled_are_a_risk_where_selinux_is_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let path = |below: &str| directory.path().join(below);
        let root = HostRoot::new(directory.path());
        let look = || cannot_label(&root, Path::new("/run/none"));
        assert_eq!(look(), Finding::Open, "not known");
        std::fs::create_dir_all(path("proc/1")).unwrap();
        std::fs::create_dir_all(path("sys/fs/selinux")).unwrap();
        std::fs::write(path("sys/fs/selinux/enforce"), "1").unwrap();
        std::fs::write(path("proc/1/mountinfo"), "").unwrap();
        assert_eq!(look(), Finding::Nothing);
        let table = "30 22 0:21 / /sys/fs/selinux rw - selinuxfs selinuxfs rw\n";
        std::fs::write(path("proc/1/mountinfo"), table).unwrap();
        assert_eq!(look(), Finding::Open, "no run directory yet");
        // a file instead of a directory: nothing in it can be labelled
        std::fs::write(path("run"), "").unwrap();
        assert!(matches!(
            cannot_label(&root, Path::new("/run")),
            Finding::Found(_)
        ));
    }

    #[test]
    fn a_server_that_only_a_name_server_knows_is_a_risk() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::fs::write(directory.path().join("etc/hosts"), "10.0.0.1 api.here\n").unwrap();
        let root = HostRoot::new(directory.path());
        let seen = |urls: &[&str]| by_name(&root, urls.iter().copied());
        assert_eq!(
            seen(&["https://api.there:6443"]).unwrap(),
            "the API server is api.there"
        );
        assert_eq!(seen(&["https://api.here:6443"]), None, "in /etc/hosts");
        assert_eq!(seen(&["https://10.0.0.1:6443"]), None);
        assert_eq!(seen(&["https://[fd00::1]:6443"]), None);
        assert_eq!(
            seen(&["https://api.there:6443", "https://10.0.0.1:6443"]),
            None,
            "one that needs no name is enough"
        );
        assert_eq!(seen(&[]), None, "not known");
    }

    #[test]
    fn network_pods_are_named_and_a_plugin_that_needs_no_pod_is_not() {
        let lacking = BTreeSet::from([
            (Support::Plugin, "kube-system/flannel"),
            (Support::Names, "kube-system/dns"),
        ]);
        let text = of_network(&lacking, false).unwrap();
        assert!(
            text.contains("kube-system/flannel (network plugin), kube-system/dns (DNS)"),
            "{text}"
        );
        assert!(!of_network(&lacking, true).unwrap().contains("flannel"));
        assert_eq!(
            of_network(&BTreeSet::from([(Support::Plugin, "x_y")]), true),
            None
        );
        let names: Vec<String> = (0..9).map(|at| format!("dns_{at}")).collect();
        let many = names
            .iter()
            .map(|name| (Support::Names, name.as_str()))
            .collect();
        assert!(of_network(&many, false).unwrap().ends_with(" and 4 more"));
    }

    #[test]
    fn a_file_system_with_room_is_no_risk() {
        assert_eq!(full(Path::new("/dev/shm")), Finding::Nothing);
        assert_eq!(full(Path::new("/not/there")), Finding::Open, "not known");
        assert!(matches!(room(LEAST_SPACE - 1, 1000), Finding::Found(_)));
        assert!(matches!(
            room(LEAST_SPACE * 9, LEAST_INODES - 1),
            Finding::Found(_)
        ));
        assert_eq!(
            room(LEAST_SPACE, 1000),
            Finding::Open,
            "what was said stays, so that it does not come and go"
        );
        assert_eq!(room(LEAST_SPACE * 2, LEAST_INODES * 2), Finding::Nothing);
        assert!(used_percent(Path::new("/dev/shm")).unwrap() <= 100);
    }
}
