//! What the supervisor does to the node: links, unpacked files, and stops through the runtime. Decides nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::checkpoint::{NodeCheckpoint, twin};
use crate::files::{write, yaml};
use crate::names::{LINK_PREFIX, SUPERVISOR};
use crate::node::host::HostRoot;
use crate::node::runtime::{self, Runtime, State};
use crate::node::{images, kubelet};
use crate::places;
use crate::places::run::{self, RunDir};
use crate::places::store::{self, Generation, Store};
use crate::pod::id::PodId;
use crate::pod::room::Demand;
use crate::reasons::Blocked;
use crate::supervisor::observe::{Lists, is_twin_of};
use crate::text::chain;

/// Why an activation could not be prepared, with the thing it is about.
#[derive(Debug)]
pub struct Refused {
    /// The reason.
    pub reason: Blocked,
    /// In words, with the chain of causes.
    pub message: String,
}

impl Refused {
    /// For this reason, in these words.
    pub fn new(reason: Blocked, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    fn chain(reason: Blocked, error: &dyn std::error::Error) -> Self {
        Self { reason, message: chain(error) }
    }
}

/// What a checkpoint is checked against before it is activated.
#[derive(Debug)]
pub struct Preconditions<'a> {
    /// Time since boot.
    pub now: Duration,
    /// Which boot.
    pub boot_id: &'a str,
    /// The runtime that must have the images.
    pub runtime: &'a Runtime,
    /// The kubelet that must let them be used.
    pub settings: &'a kubelet::Settings,
    /// Its directory, a host path.
    pub kubelet_dir: &'a Path,
    /// The host's files.
    pub root: &'a HostRoot,
}

/// What was found out of images in one pass: many pods share one, and each question is a call to the runtime.
#[derive(Debug, Default)]
pub struct Images(BTreeMap<String, Image>);

/// What an image is good for on this node.
#[derive(Clone, Copy, Debug)]
enum Image {
    Usable,
    Absent,
    NeedsPullSecret,
}

impl Images {
    /// Asks, once a name, whether the kubelet can use an image without its registry.
    async fn ask(&mut self, name: &str, against: &Preconditions<'_>) -> Result<Image, runtime::Error> {
        if let Some(known) = self.0.get(name) {
            return Ok(*known);
        }
        let Preconditions { runtime, settings, kubelet_dir, root, .. } = *against;
        let image = match runtime.image(name).await? {
            None => Image::Absent,
            Some(id) => match images::is_usable_without_secret(root, kubelet_dir, settings, name, &id) {
                Ok(true) => Image::Usable,
                Ok(false) => Image::NeedsPullSecret,
                // a record that cannot be read makes the kubelet pull; we let it try rather than refuse for it
                Err(error) => {
                    tracing::warn!(image = name, %error, "cannot read the kubelet's pull records");
                    Image::Usable
                }
            },
        };
        self.0.insert(name.to_owned(), image);
        Ok(image)
    }
}

/// The files that the supervisor works on.
#[derive(Clone, Debug)]
pub struct Hands {
    /// Checkpoints.
    pub store: Store,
    /// What is in force.
    pub run: RunDir,
    /// The kubelet's directory of static pod manifests, a real path.
    pub manifest_dir: PathBuf,
    /// Files must be labelled for SELinux.
    pub selinux: bool,
}

/// What has the name of one of our links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing.
    None,
    /// Our link.
    Ours,
    /// Something of somebody else's.
    Foreign,
}

impl Hands {
    /// Path of the link of a pod.
    pub fn link_path(&self, key: &PodId) -> PathBuf {
        self.manifest_dir.join(format!("{LINK_PREFIX}{}.yaml", key.file_form()))
    }

    /// What is at the place of a pod's link.
    pub fn link(&self, key: &PodId) -> Link {
        let path = self.link_path(key);
        match fs::symlink_metadata(&path) {
            Err(_) => Link::None,
            Ok(metadata)
                if metadata.is_symlink() && fs::read_link(&path).is_ok_and(|to| to == self.run.link_target(key)) =>
            {
                Link::Ours
            }
            Ok(_) => Link::Foreign,
        }
    }

    /// Keys of all links that look like ours.
    pub fn links(&self) -> io::Result<Vec<PodId>> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.manifest_dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let key = link_key(&name);
            keys.extend(key.filter(|key| self.link(key) == Link::Ours));
        }
        Ok(keys)
    }

    /// What the static pods in the kubelet's directory take, ours that are in force among them, but not `except`. A file
    /// that the kubelet cannot use takes nothing.
    pub fn taken(&self, except: &PodId) -> io::Result<Demand> {
        let mut taken = Demand::default();
        for entry in fs::read_dir(&self.manifest_dir)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let key = link_key(&name);
            // a link names a path of the host's, which is reached by another one from here
            let path = match key.filter(|key| self.link(key) == Link::Ours) {
                Some(key) if key == *except => continue,
                Some(key) => self.run.active(&key),
                None if name.starts_with('.') || !entry.file_type()?.is_file() => continue,
                None => path,
            };
            let mut bytes = Vec::new();
            let Ok(file) = fs::File::open(&path) else { continue };
            if file.take(run::MOST_BYTES).read_to_end(&mut bytes).is_ok()
                && let Ok(manifest) = yaml::parse(&bytes)
                && let Some(spec) = manifest.get("spec")
            {
                taken.add(&Demand::of(spec));
            }
        }
        Ok(taken)
    }

    /// Verifies a checkpoint's newest good generation and everything its twin needs of the node.
    pub async fn verify(
        &self,
        key: &PodId,
        against: &Preconditions<'_>,
        images: &mut Images,
    ) -> Result<Generation, Refused> {
        let newest = self.store.newest(key);
        let (generation, bad) = newest.map_err(|error| Refused::chain(Blocked::Damaged, &error))?;
        let Some(generation) = generation else {
            return Err(bad.first().map_or_else(
                || Refused::new(Blocked::Damaged, "no whole generation of it is in the store"),
                |error| self.unusable(error),
            ));
        };
        let checkpoint = &generation.checkpoint;
        if let Some(limit) = checkpoint.policy.max_age_seconds
            && age(checkpoint, against.boot_id, against.now) > Duration::from_secs(limit)
        {
            return Err(Refused::new(Blocked::Expired, format!("captured more than {limit} s of uptime ago")));
        }
        for (container, image) in &checkpoint.images {
            let name = &image.name;
            let found = images.ask(name, against).await;
            let (reason, what) = match found.map_err(|error| Refused::chain(Blocked::ImageAbsent, &error))? {
                Image::Usable => continue,
                Image::Absent => (Blocked::ImageAbsent, "is not on the node"),
                Image::NeedsPullSecret => (Blocked::ImageNeedsPullSecret, "needs its pull secret"),
            };
            return Err(Refused::new(reason, format!("image {name} of container {container} {what}")));
        }
        if self.link(key) == Link::Foreign {
            let message = format!("{} is not ours", self.link_path(key).display());
            return Err(Refused::new(Blocked::ForeignManifest, message));
        }
        Ok(generation)
    }

    /// Why the newest generation cannot be used; with what is wrong with the keys, if one is missing.
    fn unusable(&self, error: &store::Error) -> Refused {
        let mut refused = Refused::chain(error.blocked(), error);
        if error.header().is_some() {
            for problem in self.store.keys_given().load().errors() {
                refused.message = format!("{}; {}", refused.message, chain(problem));
            }
        }
        refused
    }

    /// Removes what a crash left in the kubelet's directory and in the run directory: links of ours to nothing, and what
    /// [`RunDir::sweep`] finds. An unfinished file may be one that the agent is writing, so it goes only if it was `seen`
    /// by the sweep before. Says what it saw and did not remove.
    pub fn sweep(&self, seen: &[PathBuf]) -> Result<Vec<PathBuf>, crate::places::run::Error> {
        let failed = |source| run::Error::Read(self.manifest_dir.clone(), source);
        let mut fresh = Vec::new();
        for entry in fs::read_dir(&self.manifest_dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let key = link_key(&name);
            let is_dangling = key.is_some_and(|key| self.link(&key) == Link::Ours && !self.run.active(&key).exists());
            let is_unfinished =
                name.starts_with(write::TEMPORARY) && !entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dangling || is_unfinished && seen.contains(&path) {
                tracing::info!(path = %path.display(), "removing what a crash left");
                write::remove(&path)?;
            } else if is_unfinished {
                fresh.push(path);
            }
        }
        self.run.sweep()?;
        Ok(fresh)
    }

    /// Unpacks and links a twin under a new UID, which is returned. What an earlier one left is removed first.
    pub fn activate(&self, checkpoint: &NodeCheckpoint, key: &PodId, nonce: &str) -> Result<String, Refused> {
        let made = twin::make(checkpoint, key, nonce, self.run.host_path());
        let volumes = twin::volumes_dir(self.run.path(), key, &made.uid);
        let result = self.put(checkpoint, key, &made, &volumes);
        if result.is_err() {
            let _ = write::remove_tree(&volumes);
        }
        result.map(|()| made.uid)
    }

    fn put(&self, checkpoint: &NodeCheckpoint, key: &PodId, made: &twin::Twin, volumes: &Path) -> Result<(), Refused> {
        let failed = |error: &dyn std::error::Error| Refused::chain(Blocked::WriteFailed, error);
        // an active manifest is never rewritten in place: the old link goes, then the new one comes
        if self.link(key) == Link::Ours {
            write::remove(&self.link_path(key)).map_err(|error| failed(&error))?;
        }
        twin::unpack(checkpoint, volumes, self.selinux).map_err(|error| failed(&error))?;
        write::file(&self.run.active(key), made.manifest.to_string().as_bytes(), 0o600)
            .map_err(|error| failed(&error))?;
        self.relink(key).map_err(|error| failed(&error))?;
        self.drop_other_volumes(key, &made.uid);
        Ok(())
    }

    /// Puts a fresh link over whatever link of ours is there: the kubelet sees the manifest now.
    pub fn relink(&self, key: &PodId) -> Result<(), write::Error> {
        write::link(&self.run.link_target(key), &self.link_path(key))
    }

    /// Removes the link, if it is ours.
    pub fn release(&self, key: &PodId) -> Result<(), write::Error> {
        if self.link(key) == Link::Ours { write::remove(&self.link_path(key)) } else { Ok(()) }
    }

    /// Deletes what was unpacked.
    pub fn forget(&self, key: &PodId) -> Result<(), crate::places::run::Error> {
        self.run.remove(key)
    }

    /// Unpacked files of UIDs before this one: no manifest names them any more.
    fn drop_other_volumes(&self, key: &PodId, uid: &str) {
        let directory = self.run.path().join("volumes").join(key.file_form());
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy() != uid
                && let Err(error) = write::remove_tree(&entry.path())
            {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot remove old unpacked files");
            }
        }
    }

    /// Removes everything of ours from the node, the supervisor's own manifest last.
    pub fn retire(&self) -> Result<(), write::Error> {
        for key in self.links().unwrap_or_default() {
            self.release(&key)?;
        }
        places::clear(self.store.directory(), self.run.path())?;
        write::remove(&self.manifest_dir.join(format!("{SUPERVISOR}.yaml")))
    }
}

/// The pod that a link of this name would be of.
fn link_key(name: &str) -> Option<PodId> {
    name.strip_prefix(LINK_PREFIX)?.strip_suffix(".yaml")?.parse().ok()
}

/// How long ago a checkpoint was captured, as far as is certain: time the node was off counts for nothing, and after a
/// reboot only the time since counts. No wall clock is asked, so that one that lies neither expires nor revives anything.
fn age(checkpoint: &NodeCheckpoint, boot_id: &str, now: Duration) -> Duration {
    if checkpoint.captured.boot_id == boot_id {
        now.saturating_sub(Duration::from_secs(checkpoint.captured.uptime_seconds))
    } else {
        now
    }
}

/// A sandbox that is to be stopped, with its running containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    sandbox: String,
    ready: bool,
    containers: Vec<String>,
}

impl Target {
    /// Something of it runs.
    pub fn runs(&self) -> bool {
        self.ready || !self.containers.is_empty()
    }
}

/// The sandboxes of a pod's twins, whatever their UID.
pub fn twin_targets(lists: &Lists, key: &PodId) -> Vec<Target> {
    let (namespace, name) = (key.namespace(), key.name());
    targets(lists, |sandbox| is_twin_of(sandbox, namespace, name))
}

/// The sandboxes of a pod itself.
pub fn parent_targets(lists: &Lists, key: &PodId) -> Vec<Target> {
    let (namespace, name) = (key.namespace(), key.name());
    targets(lists, |sandbox| {
        sandbox.namespace == namespace && sandbox.name == name && !is_twin_of(sandbox, namespace, name)
    })
}

fn targets(lists: &Lists, belongs: impl Fn(&runtime::Sandbox) -> bool) -> Vec<Target> {
    let running = |sandbox: &runtime::Sandbox| {
        let containers = lists.containers.iter();
        let ours = containers.filter(|container| container.sandbox == sandbox.id && container.state == State::Running);
        ours.map(|container| container.id.clone()).collect()
    };
    let target = |sandbox: &runtime::Sandbox| Target {
        sandbox: sandbox.id.clone(),
        ready: sandbox.ready,
        containers: running(sandbox),
    };
    lists.sandboxes.iter().filter(|sandbox| belongs(sandbox)).map(target).collect()
}

/// Stops the containers of each sandbox, which get `grace` to end by themselves, then the sandbox. Without a grace the
/// sandbox goes at once, and the runtime ends what runs in it.
pub async fn stop(runtime: Runtime, targets: Vec<Target>, grace: Option<Duration>) -> Result<(), runtime::Error> {
    for target in targets {
        if let Some(grace) = grace {
            let stops = target.containers.iter().map(|container| runtime.stop_container(container, grace));
            for stopped in futures::future::join_all(stops).await {
                stopped?;
            }
        }
        if target.ready {
            runtime.stop_sandbox(&target.sandbox).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::testing::checkpoint;
    use crate::pod::id::id;
    use std::os::unix::fs::symlink;

    fn hands(directory: &Path) -> Hands {
        let manifest_dir = directory.join("manifests");
        fs::create_dir_all(&manifest_dir).unwrap();
        let run = RunDir::new(directory.join("run"), "/run/pod-checkpointer");
        fs::create_dir_all(directory.join("run/active")).unwrap();
        Hands { store: Store::new(directory.join("state")), run, manifest_dir, selinux: false }
    }

    #[test]
    fn a_twin_is_linked_released_and_forgotten_without_a_trace() {
        let directory = tempfile::tempdir().unwrap();
        let hands = hands(directory.path());
        let uid = hands.activate(&checkpoint("shop", "till"), &id("shop_till"), "boot/1").unwrap();
        assert_eq!(hands.link(&id("shop_till")), Link::Ours);
        assert_eq!(hands.links().unwrap(), [id("shop_till")]);
        assert!(directory.path().join(format!("run/volumes/shop_till/{uid}/credentials/password")).exists());
        hands.release(&id("shop_till")).unwrap();
        assert_eq!(hands.link(&id("shop_till")), Link::None);
        assert!(hands.run.active(&id("shop_till")).exists(), "the files stay while the twin runs");
        hands.forget(&id("shop_till")).unwrap();
        assert!(hands.run.keys().unwrap().is_empty());
        assert_eq!(fs::read_dir(&hands.manifest_dir).unwrap().count(), 0);
    }

    #[test]
    fn a_new_activation_leaves_nothing_of_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let hands = hands(directory.path());
        let one = hands.activate(&checkpoint("shop", "till"), &id("shop_till"), "boot/1").unwrap();
        let two = hands.activate(&checkpoint("shop", "till"), &id("shop_till"), "boot/2").unwrap();
        assert_ne!(one, two);
        let volumes = directory.path().join("run/volumes/shop_till");
        let names: Vec<_> = fs::read_dir(volumes).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [two.as_str()]);
    }

    #[test]
    fn files_of_others_in_the_kubelets_directory_are_never_touched() {
        let directory = tempfile::tempdir().unwrap();
        let hands = hands(directory.path());
        let path = hands.link_path(&id("shop_till"));
        fs::write(&path, "somebody's").unwrap();
        assert_eq!(hands.link(&id("shop_till")), Link::Foreign);
        hands.release(&id("shop_till")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
        fs::remove_file(&path).unwrap();
        symlink("/somewhere/else", &path).unwrap();
        assert_eq!(hands.link(&id("shop_till")), Link::Foreign);
        hands.release(&id("shop_till")).unwrap();
        assert!(path.is_symlink());
        assert!(hands.links().unwrap().is_empty());
    }

    #[test]
    fn retiring_leaves_the_node_as_it_was_and_what_is_not_ours() {
        let directory = tempfile::tempdir().unwrap();
        let hands = hands(directory.path());
        hands.store.create().unwrap();
        hands.store.put(&checkpoint("shop", "till")).unwrap();
        hands.activate(&checkpoint("shop", "till"), &id("shop_till"), "boot/1").unwrap();
        fs::write(hands.manifest_dir.join("pod-checkpointer-supervisor.yaml"), "{}").unwrap();
        fs::write(hands.manifest_dir.join("etcd.yaml"), "somebody's").unwrap();
        fs::write(hands.store.directory().join("notes"), "somebody's").unwrap();
        hands.retire().unwrap();
        let names = |path: &Path| {
            let entries = fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names(&hands.manifest_dir), ["etcd.yaml"]);
        assert_eq!(names(hands.store.directory()), ["notes"]);
        assert!(!hands.run.path().exists());
    }

    #[test]
    fn an_age_counts_only_time_that_is_certain() {
        let made = checkpoint("shop", "till");
        assert_eq!(age(&made, "boot-1", Duration::from_secs(160)), Duration::from_mins(1));
        assert_eq!(age(&made, "boot-2", Duration::from_secs(160)), Duration::from_secs(160));
    }
}
