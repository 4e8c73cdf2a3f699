//! Everything that must hold before a checkpoint is activated. The supervisor checks it before it
//! links a twin, and a drill before it reports that a pod recovers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::checkpoint::NodeCheckpoint;
use crate::checkpoint::format::Parent;
use crate::node::host::HostRoot;
use crate::node::runtime::{self, Runtime};
use crate::node::{images, kubelet};
use crate::places::ages::Ages;
use crate::places::manifests::{Link, ManifestDir};
use crate::places::node_record::NodeRecord;
use crate::places::store::{self, Generation, Store};
use crate::pod::room::{Demand, Room};
use crate::reasons::Blocked;
use crate::supervisor::core::Refused;
use crate::supervisor::core::facts::Key;
use crate::text::chain;

/// What a checkpoint is checked against.
#[derive(Debug)]
pub struct Preconditions<'a> {
    /// Time since boot.
    pub now: Duration,
    /// Id of this boot.
    pub boot_id: &'a str,
    /// The host's files.
    pub root: &'a HostRoot,
    /// The checkpoints.
    pub store: &'a Store,
    /// Where twins are linked.
    pub manifests: &'a ManifestDir,
    /// Why the run directory cannot hold clear text; `None`: it can.
    pub not_memory: Option<&'a str>,
    /// The runtime that must have the images.
    pub runtime: &'a Runtime,
    /// The kubelet that must allow their use.
    pub settings: &'a kubelet::Settings,
    /// The kubelet's directory, a host path.
    pub kubelet_dir: &'a Path,
    /// Name of this node.
    pub node_name: &'a str,
    /// What the agent recorded about the node; `None`: nothing yet.
    pub record: Option<&'a NodeRecord>,
    /// The pods that the kubelet has from the API server.
    pub api_pods: ApiPods<'a>,
}

/// The pods that the kubelet has from the API server.
#[derive(Clone, Copy, Debug)]
pub enum ApiPods<'a> {
    /// None: it has not reached the API server since it started.
    None,
    /// It has some, which take this; `None`: how much is not known.
    Take(Option<&'a Demand>),
}

/// What earlier checks of this pass found: many pods share an image, and each query is a call to
/// the runtime; and each twin leaves less room for the next.
#[derive(Debug, Default)]
pub struct Findings {
    images: BTreeMap<String, Image>,
    /// What the agent recorded of the age of checkpoints; `None`: not needed yet.
    ages: Option<Ages>,
    /// The runtime does not answer for images: it is not asked again in the same pass.
    runtime_fails: Option<String>,
    room: Option<Room>,
}

impl Findings {
    /// Counts a twin that was linked and takes this.
    pub fn take(&mut self, demand: &Demand) {
        if let Some(room) = &mut self.room {
            room.taken.add(demand);
        }
    }
}

/// Whether an image can be used on this node.
#[derive(Clone, Copy, Debug)]
enum Image {
    Usable,
    Absent,
    NeedsPullSecret,
}

/// A checkpoint that can be activated.
#[derive(Debug)]
pub struct Checked {
    /// Its newest usable generation.
    pub generation: Generation,
    /// The resources and ports that its twin takes.
    pub demand: Demand,
}

impl Preconditions<'_> {
    /// Checks everything; an error is the first thing that does not hold. Changes nothing.
    pub async fn check(&self, key: &Key, findings: &mut Findings) -> Result<Checked, Refused> {
        if let Some(why) = self.not_memory {
            return Err(Refused::new(Blocked::RunDirNotMemory, why));
        }
        let generation = self.newest(key)?;
        let checkpoint = &generation.checkpoint;
        self.check_age(&generation, findings)?;
        self.check_images(checkpoint, findings).await?;
        if self.manifests.link(key) == Link::Foreign {
            let path = self.manifests.link_path(key);
            return Err(Refused::new(
                Blocked::ForeignManifest,
                format!("{} was not created by this program", path.display()),
            ));
        }
        self.check_node(&checkpoint.parent)?;
        let demand = checkpoint
            .manifest
            .get("spec")
            .map(Demand::of)
            .unwrap_or_default();
        self.check_room(key, &demand, findings)?;
        Ok(Checked { generation, demand })
    }

    fn newest(&self, key: &Key) -> Result<Generation, Refused> {
        let newest = self.store.newest(key);
        let (generation, bad) =
            newest.map_err(|error| Refused::new(Blocked::Damaged, chain(&error)))?;
        generation.ok_or_else(|| match bad.first() {
            None => Refused::new(
                Blocked::Damaged,
                "the store has no complete generation of it",
            ),
            Some(error) => self.unusable(error),
        })
    }

    /// Why the newest generation cannot be used. If a key is missing, the message says what is
    /// wrong with the keys.
    fn unusable(&self, error: &store::Error) -> Refused {
        let mut refused = Refused::new(error.blocked(), chain(error));
        if error.header().is_some() {
            for problem in self.store.keys_given().load().errors() {
                refused.message = format!("{}; {}", refused.message, chain(problem));
            }
        }
        refused
    }

    fn check_age(&self, generation: &Generation, findings: &mut Findings) -> Result<(), Refused> {
        let Some(limit) = generation.checkpoint.policy.max_age_seconds else {
            return Ok(());
        };
        if self.age(generation, findings) <= Duration::from_secs(limit) {
            return Ok(());
        }
        let message = format!("not known to be current for more than {limit} s of uptime");
        Err(Refused::new(Blocked::Expired, message))
    }

    /// How long a checkpoint has not been known to be current, as far as is certain: as the agent
    /// recorded, else since its capture.
    fn age(&self, generation: &Generation, findings: &mut Findings) -> Duration {
        let uid = &generation.checkpoint.parent.uid;
        let ages = findings.ages.get_or_insert_with(|| {
            self.store.ages().unwrap_or_else(|error| {
                tracing::warn!("{}", chain(&error));
                Ages::default()
            })
        });
        ages.of(&generation.pod, uid, generation.number)
            .map_or_else(
                || age(&generation.checkpoint, self.boot_id, self.now),
                |age| age.at(self.boot_id, self.now),
            )
    }

    async fn check_images(
        &self,
        checkpoint: &NodeCheckpoint,
        findings: &mut Findings,
    ) -> Result<(), Refused> {
        for (container, image) in &checkpoint.images {
            let name = &image.name;
            if let Some(why) = &findings.runtime_fails {
                return Err(Refused::new(Blocked::ImageUnknown, why.clone()));
            }
            let (reason, what) = match self.image(name, findings).await.map_err(|error| {
                let why = chain(&error);
                findings.runtime_fails = Some(why.clone());
                Refused::new(Blocked::ImageUnknown, why)
            })? {
                Image::Usable => continue,
                Image::Absent => (Blocked::ImageAbsent, "is not on the node"),
                Image::NeedsPullSecret => (Blocked::ImageNeedsPullSecret, "needs its pull secret"),
            };
            return Err(Refused::new(
                reason,
                format!("image {name} of container {container} {what}"),
            ));
        }
        Ok(())
    }

    /// Whether the kubelet can use an image without its registry; queried once for each name.
    async fn image(&self, name: &str, findings: &mut Findings) -> Result<Image, runtime::Error> {
        if let Some(known) = findings.images.get(name) {
            return Ok(*known);
        }
        let image = match self.runtime.image(name).await? {
            None => Image::Absent,
            Some(id) => {
                match images::is_usable_without_secret(
                    self.root,
                    self.kubelet_dir,
                    self.settings,
                    name,
                    &id,
                ) {
                    Ok(true) => Image::Usable,
                    Ok(false) => Image::NeedsPullSecret,
                    // with an unreadable record the kubelet pulls: it may try, which is better
                    // than a refusal
                    Err(error) => {
                        tracing::warn!(image = name, %error, "cannot read the kubelet's pull records");
                        Image::Usable
                    }
                }
            }
        };
        findings.images.insert(name.to_owned(), image);
        Ok(image)
    }

    /// Refuses a checkpoint of another node. A node that was renamed, or deleted and created again,
    /// is another node.
    fn check_node(&self, parent: &Parent) -> Result<(), Refused> {
        let Some(record) = self.record else {
            return Ok(());
        };
        if !record.node_name.eq_ignore_ascii_case(self.node_name) {
            let message = format!(
                "captured on node {}, but this is {}",
                record.node_name, self.node_name
            );
            return Err(Refused::new(Blocked::OtherNode, message));
        }
        match (&parent.node_uid, record.current_uid()) {
            (Some(of), Some(now)) if of != now => {
                let message = format!(
                    "captured on node object {of}, but that of {} is now {now}",
                    self.node_name
                );
                Err(Refused::new(Blocked::OtherNode, message))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a twin that does not fit with the kubelet's pods: for a static pod the kubelet would
    /// end some of them.
    fn check_room(
        &self,
        key: &Key,
        demand: &Demand,
        findings: &mut Findings,
    ) -> Result<(), Refused> {
        // a twin that is linked again does not conflict with itself
        if findings.room.is_none() || self.manifests.link(key) == Link::Ours {
            let taken = self.manifests.taken(key);
            let cannot_tell =
                |error| Refused::new(Blocked::NoRoom, format!("cannot tell: {}", chain(&error)));
            let mut taken = taken.map_err(cannot_tell)?;
            if let ApiPods::Take(of_others) = self.api_pods {
                let Some(of_others) = of_others else {
                    let message = "the kubelet has pods from the API server, and it is not known what they take";
                    return Err(Refused::new(Blocked::NoRoom, message));
                };
                taken.add(of_others);
            }
            let allocatable = self.record.and_then(|record| record.allocatable);
            findings.room = Some(Room { allocatable, taken });
        }
        let lacks = findings.room.as_ref().and_then(|room| room.lacks(demand));
        lacks.map_or(Ok(()), |lacks| Err(Refused::new(Blocked::NoRoom, lacks)))
    }
}

/// How long ago a checkpoint was captured, as far as is certain; for one whose age the agent has not
/// recorded yet. Time during which the node was off does not count, and after a reboot only the time
/// since then counts. The wall clock is not used, so a wrong one neither expires nor revives a
/// checkpoint.
fn age(checkpoint: &NodeCheckpoint, boot_id: &str, now: Duration) -> Duration {
    if checkpoint.captured.boot_id == boot_id {
        now.saturating_sub(Duration::from_secs(checkpoint.captured.uptime_seconds))
    } else {
        now
    }
}

#[cfg(test)]
mod tests {
    use crate::pod::id::id;
    use serde_json::json;

    use super::*;
    use crate::checkpoint::testing::checkpoint;
    use crate::places::ages::Aging;
    use crate::places::run::RunDir;
    use crate::pod::room::Amounts;

    #[test]
    fn an_age_counts_only_time_that_is_certain() {
        let made = checkpoint("shop", "till");
        assert_eq!(
            age(&made, "boot-1", Duration::from_secs(160)),
            Duration::from_mins(1)
        );
        assert_eq!(
            age(&made, "boot-2", Duration::from_secs(160)),
            Duration::from_secs(160)
        );
    }

    /// Checks an otherwise valid checkpoint without images on a node with this record.
    fn check(
        record: Option<&NodeRecord>,
        api_pods: ApiPods<'_>,
        not_memory: Option<&str>,
    ) -> Option<Blocked> {
        let directory = tempfile::tempdir().unwrap();
        let manifests = directory.path().join("manifests");
        std::fs::create_dir_all(&manifests).unwrap();
        let manifests = ManifestDir::new(
            manifests,
            RunDir::new(directory.path().join("run"), "/run/pod-checkpointer"),
        );
        let store = Store::new(directory.path().join("state"));
        store.create().unwrap();
        let mut captured = checkpoint("shop", "till");
        captured.images.clear();
        captured.parent.node_uid = Some("uid-1".into());
        captured.manifest["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
        store.put(&captured.with_digest()).unwrap();
        let against = Preconditions {
            now: Duration::from_secs(160),
            boot_id: "boot-1",
            root: &HostRoot::new(directory.path()),
            store: &store,
            manifests: &manifests,
            not_memory,
            runtime: &Runtime::new(directory.path().join("none.sock"), Duration::from_secs(1)),
            settings: &kubelet::Settings::default(),
            kubelet_dir: Path::new("/var/lib/kubelet"),
            node_name: "Node-1",
            record,
            api_pods,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let checked = runtime.block_on(against.check(&id("shop_till"), &mut Findings::default()));
        checked.err().map(|refused| refused.reason)
    }

    fn record(name: &str, uid: &str, cores: u64) -> NodeRecord {
        NodeRecord {
            api_version: String::new(),
            kind: String::new(),
            node_name: name.into(),
            node_uid: uid.into(),
            current_uid: None,
            allocatable: Some(Amounts {
                cpu: cores * 1000,
                memory: 1 << 40,
                ephemeral_storage: 1 << 40,
                pods: 110,
            }),
            servers: Vec::new(),
        }
    }

    #[test]
    fn a_checkpoint_expires_when_it_was_last_known_to_be_current_too_long_ago_over_all_boots() {
        let hours = Duration::from_hours;
        let directory = tempfile::tempdir().unwrap();
        let manifests = directory.path().join("manifests");
        let run = RunDir::new(directory.path().join("run"), "/run/pod-checkpointer");
        let manifests = ManifestDir::new(manifests, run);
        let store = Store::new(directory.path().join("state"));
        store.create().unwrap();
        let mut made = checkpoint("shop", "till");
        made.policy.max_age_seconds = Some(72 * 3600);
        let made = made.with_digest();
        store.put(&made).unwrap();
        let runtime = Runtime::new(directory.path().join("none.sock"), Duration::from_secs(1));
        let expired = |boot_id: &str, now: Duration| {
            let against = Preconditions {
                now,
                boot_id,
                root: &HostRoot::new(directory.path()),
                store: &store,
                manifests: &manifests,
                not_memory: None,
                runtime: &runtime,
                settings: &kubelet::Settings::default(),
                kubelet_dir: Path::new("/var/lib/kubelet"),
                node_name: "node-1",
                record: None,
                api_pods: ApiPods::None,
            };
            let newest = store.newest(&id("shop_till")).unwrap().0.unwrap();
            against
                .check_age(&newest, &mut Findings::default())
                .is_err()
        };
        assert!(expired("boot-1", hours(73)), "captured at the start of it");
        let aging = |is_current| {
            [Aging {
                key: id("shop_till"),
                uid: made.parent.uid.clone(),
                generation: 1,
                max_age: hours(72),
                is_current,
            }]
        };
        store
            .renew_ages(&aging(true), "boot-1", hours(500))
            .unwrap();
        assert!(!expired("boot-1", hours(571)), "healthy and unchanged");
        assert!(expired("boot-1", hours(573)));
        store
            .renew_ages(&aging(false), "boot-1", hours(560))
            .unwrap();
        assert!(!expired("boot-2", hours(11)));
        assert!(expired("boot-2", hours(13)), "60 hours of the boot before");
    }

    #[test]
    fn a_checkpoint_of_another_node_is_refused() {
        assert_eq!(
            check(None, ApiPods::None, None),
            None,
            "nothing is recorded that it could contradict"
        );
        assert_eq!(
            check(Some(&record("node-1", "uid-1", 4)), ApiPods::None, None),
            None
        );
        assert_eq!(
            check(Some(&record("node-2", "uid-1", 4)), ApiPods::None, None),
            Some(Blocked::OtherNode)
        );
        assert_eq!(
            check(Some(&record("node-1", "uid-2", 4)), ApiPods::None, None),
            Some(Blocked::OtherNode)
        );
    }

    #[test]
    fn one_that_does_not_fit_is_refused() {
        let (small, large) = (record("node-1", "uid-1", 1), record("node-1", "uid-1", 4));
        assert_eq!(
            check(Some(&small), ApiPods::None, None),
            Some(Blocked::NoRoom)
        );
        let requests = Amounts {
            cpu: 3000,
            ..Amounts::default()
        };
        let others = Demand {
            requests,
            ports: Vec::new(),
        };
        assert_eq!(
            check(Some(&large), ApiPods::Take(Some(&others)), None),
            Some(Blocked::NoRoom)
        );
        assert_eq!(
            check(Some(&large), ApiPods::Take(None), None),
            Some(Blocked::NoRoom),
            "that is not known"
        );
    }

    #[test]
    fn without_memory_nothing_is_read() {
        assert_eq!(
            check(None, ApiPods::None, Some("a disk")),
            Some(Blocked::RunDirNotMemory)
        );
    }
}
