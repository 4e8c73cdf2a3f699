//! The kubelet's directory of static pod manifests: where it is, and which files of this program
//! are in it.
//!
//! ```text
//! pod-checkpointer_<namespace>_<pod>.yaml -> <run dir>/active/…          a twin
//! pod-checkpointer-drill_<namespace>_<pod>.yaml -> <run dir>/drill/…     a rehearsal
//! pod-checkpointer-supervisor.yaml                                       the supervisor, a regular file
//! ```
//! Links contain host paths, which may be other paths for this process. So a link is recognized by
//! its text, not by where it leads.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::files::{write, yaml};
use crate::names::{DRILL, DRILL_LINK_PREFIX, LINK_PREFIX, SUPERVISOR};
use crate::node::kubelet;
use crate::places::run::{self, RunDir};
use crate::pod::id::PodId;
use crate::pod::room::Demand;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubelet runs no static pods.
    #[error(
        "the kubelet has no staticPodPath, so it starts no static pods: set one, or give --manifest-dir"
    )]
    NoStaticPods,
    /// The directory does not exist.
    #[error("the kubelet's manifest directory {} does not exist: create it, or give --manifest-dir", .0.display())]
    NoDirectory(PathBuf),
    /// The directory cannot be read.
    #[error("cannot read the kubelet's manifest directory {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
}

/// The kubelet's directory of static pods, a host path: the `given` one, else the one in the
/// kubelet's `settings`. Without settings (`None`), kubeadm's directory is assumed.
pub fn find(given: Option<&Path>, settings: Option<&kubelet::Settings>) -> Result<PathBuf, Error> {
    match (given, settings) {
        (Some(given), _) => Ok(given.to_owned()),
        (None, Some(settings)) => settings.static_pod_path.clone().ok_or(Error::NoStaticPods),
        (None, None) => Ok(PathBuf::from(kubelet::MANIFEST_DIR)),
    }
}

/// What exists under the name of a twin's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing.
    None,
    /// A twin's link.
    Ours,
    /// Something that this program did not create.
    Foreign,
}

/// A twin's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The parent.
    pub key: PodId,
    /// Path of the link, a real path.
    pub path: PathBuf,
    /// Target of the link, a host path.
    pub target: PathBuf,
}

/// The content of the directory.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Links of twins, by key.
    pub links: Vec<Linked>,
    /// Links of rehearsals.
    pub rehearsals: Vec<PathBuf>,
    /// Whether the supervisor's manifest exists.
    pub supervisor: bool,
    /// Files with a name of this program that it did not create; they are never touched.
    pub foreign: Vec<PathBuf>,
    /// Unfinished files, left by a crash or still being written.
    pub leftovers: Vec<PathBuf>,
    /// Other files that the kubelet reads, which are manifests of other static pods.
    pub others: Vec<PathBuf>,
}

/// The kubelet's directory of static pod manifests.
#[derive(Clone, Debug)]
pub struct ManifestDir {
    path: PathBuf,
    run: RunDir,
}

impl ManifestDir {
    /// The directory at this real path, whose links lead to this run directory. Reads nothing yet.
    pub fn new(path: impl Into<PathBuf>, run: RunDir) -> Self {
        Self {
            path: path.into(),
            run,
        }
    }

    /// Real path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run directory that links lead to.
    pub fn run(&self) -> &RunDir {
        &self.run
    }

    /// Path of a twin's link.
    pub fn link_path(&self, key: &PodId) -> PathBuf {
        self.path
            .join(format!("{LINK_PREFIX}{}.yaml", key.file_form()))
    }

    /// Path of a rehearsal's link.
    pub fn rehearsal_path(&self, key: &PodId) -> PathBuf {
        self.path
            .join(format!("{DRILL_LINK_PREFIX}{}.yaml", key.file_form()))
    }

    /// Target of a rehearsal's link, a host path.
    pub fn rehearsal_target(&self, key: &PodId) -> PathBuf {
        self.run
            .host_path()
            .join(DRILL)
            .join(key.file_form())
            .join("pod.yaml")
    }

    /// Path of the supervisor's manifest.
    pub fn supervisor_path(&self) -> PathBuf {
        self.path.join(format!("{SUPERVISOR}.yaml"))
    }

    /// What exists under the name of a twin's link.
    pub fn link(&self, key: &PodId) -> Link {
        let path = self.link_path(key);
        match fs::symlink_metadata(&path) {
            Err(_) => Link::None,
            Ok(_)
                if fs::read_link(&path).is_ok_and(|target| target == self.run.link_target(key)) =>
            {
                Link::Ours
            }
            Ok(_) => Link::Foreign,
        }
    }

    /// The pods whose twins are linked. Reads no file.
    pub fn linked(&self) -> Result<BTreeSet<PodId>, Error> {
        let failed = |source| self.unreadable(source);
        let mut linked = BTreeSet::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let key = name.to_str().and_then(|name| key_of(name, LINK_PREFIX));
            linked.extend(key.filter(|key| self.link(key) == Link::Ours));
        }
        Ok(linked)
    }

    /// The error of a directory that cannot be read.
    fn unreadable(&self, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::NotFound => Error::NoDirectory(self.path.clone()),
            _ => Error::Read(self.path.clone(), source),
        }
    }

    /// Reads the whole directory.
    pub fn read(&self) -> Result<Manifests, Error> {
        let failed = |source| self.unreadable(source);
        let mut found = Manifests::default();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, name) = (
                entry.path(),
                entry.file_name().to_string_lossy().into_owned(),
            );
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let target = fs::read_link(&path).ok();
            if name == format!("{SUPERVISOR}.yaml") {
                let is_ours =
                    !kind.is_symlink() && fs::read(&path).is_ok_and(|text| is_supervisor(&text));
                if is_ours {
                    found.supervisor = true;
                } else {
                    found.foreign.push(path);
                }
            } else if name.starts_with(write::TEMPORARY) {
                if !kind.is_dir() {
                    found.leftovers.push(path);
                }
            } else if name.starts_with(LINK_PREFIX) {
                match (key_of(&name, LINK_PREFIX), target) {
                    (Some(key), Some(target)) if target == self.run.link_target(&key) => {
                        found.links.push(Linked { key, path, target });
                    }
                    _ => found.foreign.push(path),
                }
            } else if name.starts_with(DRILL_LINK_PREFIX) {
                let expected =
                    key_of(&name, DRILL_LINK_PREFIX).map(|key| self.rehearsal_target(&key));
                if target.is_some() && target == expected {
                    found.rehearsals.push(path);
                } else {
                    found.foreign.push(path);
                }
            } else if !name.starts_with('.') && kind.is_file() {
                found.others.push(path);
            }
        }
        found.links.sort_by(|one, other| one.key.cmp(&other.key));
        found.foreign.sort();
        Ok(found)
    }

    /// Resources and ports that the static pods in the directory take, including twins but not the
    /// twin of `except`. A file that the kubelet cannot use takes nothing.
    pub fn taken(&self, except: &PodId) -> Result<Demand, Error> {
        let found = self.read()?;
        let twins = found
            .links
            .iter()
            .filter(|link| link.key != *except)
            .map(|link| self.run.active(&link.key));
        let supervisor = found.supervisor.then(|| self.supervisor_path());
        // for the kubelet, a file with a name of this program is a pod like any other
        let foreign = found
            .foreign
            .into_iter()
            .filter(|path| !path.is_symlink() && path.is_file());
        let mut taken = Demand::default();
        for path in twins.chain(supervisor).chain(foreign).chain(found.others) {
            let mut bytes = Vec::new();
            let Ok(file) = fs::File::open(&path) else {
                continue;
            };
            if file.take(run::MOST_BYTES).read_to_end(&mut bytes).is_ok()
                && let Ok(manifest) = yaml::parse(&bytes)
                && let Some(spec) = manifest.get("spec")
            {
                taken.add(&Demand::of(spec));
            }
        }
        Ok(taken)
    }
}

/// The pod of a link with this name; `None`: it is the name of no such link.
fn key_of(name: &str, prefix: &str) -> Option<PodId> {
    name.strip_prefix(prefix)?
        .strip_suffix(".yaml")?
        .parse()
        .ok()
}

/// Whether this is a manifest of the supervisor, of any version.
pub fn is_supervisor(text: &[u8]) -> bool {
    let pod: Value = serde_yaml::from_slice(text).unwrap_or_default();
    pod.pointer("/metadata/name").and_then(Value::as_str) == Some(SUPERVISOR)
}

#[cfg(test)]
mod tests {
    use crate::pod::id::id;
    use std::os::unix::fs::symlink;

    use super::*;

    fn directory(root: &Path) -> ManifestDir {
        let path = root.join("manifests");
        fs::create_dir_all(&path).unwrap();
        fs::create_dir_all(root.join("run/active")).unwrap();
        ManifestDir::new(path, RunDir::new(root.join("run"), "/run/pod-checkpointer"))
    }

    #[test]
    fn the_directory_is_the_given_one_or_the_kubelets_and_kubeadms_only_if_the_kubelet_cannot_be_asked()
     {
        let of = |path: Option<&str>| kubelet::Settings {
            static_pod_path: path.map(PathBuf::from),
            ..kubelet::Settings::default()
        };
        let given = Some(Path::new("/given"));
        assert_eq!(find(given, None).unwrap(), Path::new("/given"));
        assert_eq!(find(given, Some(&of(None))).unwrap(), Path::new("/given"));
        assert_eq!(
            find(None, Some(&of(Some("/etc/static")))).unwrap(),
            Path::new("/etc/static")
        );
        assert_eq!(find(None, None).unwrap(), Path::new(kubelet::MANIFEST_DIR));
        assert!(matches!(
            find(None, Some(&of(None))),
            Err(Error::NoStaticPods)
        ));
    }

    #[test]
    fn files_are_classified_by_their_names_and_by_the_text_of_links() {
        let root = tempfile::tempdir().unwrap();
        let manifests = directory(root.path());
        assert_eq!(manifests.link(&id("shop_till")), Link::None);
        let at = |name: &str| manifests.path().join(name);
        symlink(
            "/run/pod-checkpointer/active/shop_till.yaml",
            manifests.link_path(&id("shop_till")),
        )
        .unwrap();
        symlink(
            manifests.rehearsal_target(&id("shop_till")),
            manifests.rehearsal_path(&id("shop_till")),
        )
        .unwrap();
        symlink("/somewhere/else", manifests.link_path(&id("shop_other"))).unwrap();
        symlink(
            "/somewhere/else",
            manifests.rehearsal_path(&id("shop_other")),
        )
        .unwrap();
        fs::write(manifests.link_path(&id("shop_third")), "another's").unwrap();
        fs::write(
            manifests.supervisor_path(),
            format!("metadata: {{name: {SUPERVISOR}}}"),
        )
        .unwrap();
        fs::write(at(&format!("{}1", write::TEMPORARY)), "").unwrap();
        fs::write(
            at("etcd.yaml"),
            "spec: {containers: [{resources: {requests: {cpu: 100m}}}]}",
        )
        .unwrap();
        fs::write(
            at(".hidden.yaml"),
            "spec: {containers: [{resources: {requests: {cpu: 100m}}}]}",
        )
        .unwrap();
        let found = manifests.read().unwrap();
        let keys: Vec<_> = found
            .links
            .iter()
            .map(|link| link.key.file_form())
            .collect();
        assert_eq!(keys, ["shop_till"]);
        assert_eq!(
            found.rehearsals,
            [manifests.rehearsal_path(&id("shop_till"))]
        );
        assert_eq!(
            (found.supervisor, found.foreign.len(), found.leftovers.len()),
            (true, 3, 1)
        );
        assert_eq!(found.others, [at("etcd.yaml")]);
        assert_eq!(manifests.link(&id("shop_till")), Link::Ours);
        assert_eq!(
            ["shop_other", "shop_third"].map(|key| manifests.link(&id(key))),
            [Link::Foreign; 2]
        );

        let twin = "spec: {containers: [{resources: {requests: {cpu: 10m}}}]}";
        fs::write(manifests.run().active(&id("shop_till")), twin).unwrap();
        assert_eq!(manifests.taken(&id("shop_none")).unwrap().requests.cpu, 110);
        assert_eq!(
            manifests.taken(&id("shop_till")).unwrap().requests.cpu,
            100,
            "all but its own"
        );
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let manifests = ManifestDir::new(
            root.path().join("none"),
            RunDir::new(root.path(), "/run/pod-checkpointer"),
        );
        assert!(matches!(manifests.read(), Err(Error::NoDirectory(_))));
    }
}
