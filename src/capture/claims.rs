//! Where the volume of a PersistentVolumeClaim is on this node, found from what ran: no permission
//! to read PersistentVolumes is needed.
//!
//! The runtime's record has the host path of each mount. Below the kubelet's directory of the pod,
//! it is a volume mounted there by a plugin, whose name is the directory's. Of these, only a
//! `local` volume is a directory of the node itself: the kubelet bind-mounts it
//! (pkg/volume/local/local.go, `SetUpAt`), and the host's mount table says from where. Any other
//! path belongs to a `hostPath` volume, which the kubelet passes on unchanged
//! (pkg/volume/hostpath/host_path.go, `SetUp`).
//!
//! A twin mounts the directory as a `hostPath`. The kubelet applies neither `fsGroup` nor an
//! SELinux label to that (`Managed` and `SELinuxRelabel` are false), which is right: when the
//! volume was first mounted, the kubelet changed owner and mode on the disk and the runtime changed
//! the labels, and both survive a reboot. A twin needs the group, which `fsGroup` still gives to
//! the process, and the same SELinux label, which it has if the pod names a level. Without a level
//! the runtime chooses new categories for each sandbox, while a `local` volume keeps the former
//! ones.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, PodSpec, VolumeMount};
use serde_json::Value;

use super::{Error, Sources};
use crate::node::mounts::{self, Mount};
use crate::pod::names::is_name;

/// Where a claim's volume is on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A host path.
    pub path: String,
    /// The type of a `hostPath`: `Directory`, `File`, …
    pub kind: &'static str,
    /// Whether it was read-only for the parent, whatever its mounts say.
    pub read_only: bool,
}

/// A mount of a container, from the runtime's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Path in the container.
    pub container_path: String,
    /// Path on the host; empty for an image.
    pub host_path: String,
    /// ID of the mounted image, as requested by the kubelet. Only containerd reports it.
    pub image: Option<String>,
}

/// The mounts of a container, from the `info` of its verbose status: containerd has
/// `config.mounts`, CRI-O only the OCI spec.
pub fn bound(info: &Value) -> Vec<Bound> {
    let list = |pointer: &str| {
        info.pointer(pointer)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    };
    let text = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if info.get("config").is_some_and(Value::is_object) {
        let image =
            |mount: &Value| Some(text(mount, "/image/image")).filter(|image| !image.is_empty());
        return list("/config/mounts")
            .iter()
            .map(|mount| Bound {
                container_path: text(mount, "/container_path"),
                host_path: text(mount, "/host_path"),
                image: image(mount),
            })
            .collect();
    }
    list("/runtimeSpec/mounts")
        .iter()
        .map(|mount| Bound {
            container_path: text(mount, "/destination"),
            host_path: text(mount, "/source"),
            image: None,
        })
        .collect()
}

/// The mounts of a volume in the containers that ran, each with the mount that the runtime made.
pub fn of_volume<'a>(
    spec: &'a PodSpec,
    volume: &str,
    bound: &'a BTreeMap<String, Vec<Bound>>,
) -> Vec<(&'a VolumeMount, &'a Bound)> {
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let mut found = Vec::new();
    for container in containers {
        for mount in container
            .volume_mounts
            .iter()
            .flatten()
            .filter(|mount| mount.name == volume)
        {
            let of_container = bound.get(&container.name).into_iter().flatten();
            let same = |it: &&Bound| is_same_path(&it.container_path, &mount.mount_path);
            found.extend(of_container.filter(same).map(|bound| (mount, bound)));
        }
    }
    found
}

/// Whether two container paths are the same: a runtime may normalize a path, and the kubelet makes
/// a relative one absolute.
fn is_same_path(one: &str, other: &str) -> bool {
    let clean = |path: &str| Path::new("/").join(path).components().collect::<PathBuf>();
    clean(one) == clean(other)
}

/// What the host path of a mount says about its volume.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    /// Mounted by a plugin of the kubelet: the plugin's directory and the volume's name.
    Plugin(String, String),
    /// A subpath of the volume with this name, bind-mounted by the kubelet
    /// (pkg/volume/util/subpath).
    Part(String),
    /// Any other path on the host.
    Host(String),
}

/// `<kubelet dir>/pods/<uid>/volumes/<plugin>/<volume>…`,
/// `…/volume-subpaths/<volume>/<container>/<index>`, or neither. CRI-O reports a path with symbolic
/// links resolved, so the kubelet's directory may have another name there.
fn origin(host_path: &str, uid: &str) -> Origin {
    let pod = format!("/pods/{uid}/");
    let parts: Vec<&str> = host_path
        .split_once(&pod)
        .map(|(_, rest)| rest.split('/').collect())
        .unwrap_or_default();
    match parts.as_slice() {
        ["volumes", plugin, volume, ..] => {
            Origin::Plugin((*plugin).to_owned(), (*volume).to_owned())
        }
        ["volume-subpaths", volume, ..] => Origin::Part((*volume).to_owned()),
        _ => Origin::Host(host_path.to_owned()),
    }
}

/// By volume: where each claim of the pod leads, or why it cannot come back.
pub fn look_up(
    pod: &Pod,
    bound: &BTreeMap<String, Vec<Bound>>,
    sources: &Sources<'_>,
) -> Result<BTreeMap<String, Result<Place, String>>, Error> {
    let (Some(spec), Some(uid)) = (&pod.spec, &pod.metadata.uid) else {
        return Ok(BTreeMap::new());
    };
    let context = spec
        .security_context
        .as_ref()
        .and_then(|context| context.se_linux_options.as_ref());
    let node = Node {
        sources,
        volumes: sources.kubelet_dir.join("pods").join(uid).join("volumes"),
        has_level: context
            .and_then(|options| options.level.as_ref())
            .is_some_and(|level| !level.is_empty()),
    };
    let claims = spec
        .volumes
        .iter()
        .flatten()
        .filter(|volume| volume.persistent_volume_claim.is_some());
    claims
        .map(|volume| {
            let mounts = of_volume(spec, &volume.name, bound);
            Ok((volume.name.clone(), node.place(&mounts, uid)?))
        })
        .collect()
}

/// The kubelet's directory for `local` volumes, within that of a pod's volumes.
const LOCAL: &str = "kubernetes.io~local-volume";
/// A file that exists if the kernel labels files with SELinux.
const SELINUX: &str = "/sys/fs/selinux/enforce";

struct Node<'a> {
    sources: &'a Sources<'a>,
    /// Host path of the kubelet's directory of the pod's volumes.
    volumes: PathBuf,
    /// Whether the pod names its SELinux level.
    has_level: bool,
}

impl Node<'_> {
    fn place(
        &self,
        mounts: &[(&VolumeMount, &Bound)],
        uid: &str,
    ) -> Result<Result<Place, String>, Error> {
        let is_part = |mount: &VolumeMount| {
            [&mount.sub_path, &mount.sub_path_expr]
                .into_iter()
                .flatten()
                .any(|path| !path.is_empty())
        };
        let mut part = None;
        for (mount, bound) in mounts {
            match origin(&bound.host_path, uid) {
                Origin::Plugin(plugin, volume) if plugin == LOCAL => return self.local(&volume),
                Origin::Plugin(plugin, _) => {
                    return Ok(Err(format!(
                        "its volume is mounted by {plugin}, not a directory of the node"
                    )));
                }
                Origin::Part(volume) => part = Some(volume),
                Origin::Host(path) if is_part(mount) || path.is_empty() => {}
                Origin::Host(path) => return self.existing(path, false),
            }
        }
        let Some(volume) = part else {
            return Ok(Err(
                "no container that ran mounts it, so its path is unknown".into(),
            ));
        };
        // the subpath's name says which volume it belongs to
        if is_name(&volume) {
            let is_there = |plugin: &Path| exists(self.sources, &plugin.join(&volume));
            if is_there(&self.volumes.join(LOCAL))? {
                return self.local(&volume);
            }
        }
        Ok(Err(
            "only a subPath of it is mounted, so its own path is unknown".into(),
        ))
    }

    /// The directory that the kubelet bind-mounted to its own directory of the pod.
    fn local(&self, volume: &str) -> Result<Result<Place, String>, Error> {
        let failed = |doing: &str| {
            let doing = doing.to_owned();
            move |source| Error::Io { doing, source }
        };
        let Sources {
            root, kubelet_dir, ..
        } = self.sources;
        if !self.has_level && exists(self.sources, Path::new(SELINUX))? {
            return Ok(Err(format!(
                "local volume {volume} has an SELinux label; set a level in the pod's seLinuxOptions, so that its twin gets the same label"
            )));
        }
        let seen = self.volumes.join(LOCAL).join(volume);
        // the table has the host's paths, without symbolic links
        let real = |path: &Path| -> io::Result<PathBuf> {
            let path = root.resolve(path)?;
            Ok(Path::new("/").join(path.strip_prefix(root.path()).unwrap_or(&path)))
        };
        let point = real(&seen).map_err(failed("look up a local volume"))?;
        let kubelet = real(kubelet_dir).map_err(failed("look up the kubelet's directory"))?;
        let table = mounts::read(root).map_err(failed("read the host's mounts"))?;
        let Some(mount) = mounts::at(&table, &point) else {
            return Ok(Err(format!(
                "local volume {volume} is not in the host's mount table"
            )));
        };
        let identity = |path: &Path| {
            let metadata = std::fs::metadata(root.resolve(path)?)?;
            io::Result::Ok((metadata.dev(), metadata.ino()))
        };
        let wanted = identity(&seen).map_err(failed("examine a local volume"))?;
        // mounts below the kubelet's own directory exist only while the kubelet mounts them
        let found = mounts::others(&table, mount).into_iter().find(|(path, _)| {
            !path.starts_with(&kubelet) && identity(path).is_ok_and(|it| it == wanted)
        });
        let Some((path, of)) = found else {
            return Ok(Err(format!(
                "local volume {volume} is on a device that only the kubelet mounts"
            )));
        };
        if let Some(option) = stricter(mount, of) {
            return Ok(Err(format!(
                "local volume {volume} is mounted {option}, which a hostPath cannot be"
            )));
        }
        let Some(path) = path.to_str() else {
            return Ok(Err("its path is not UTF-8 text".into()));
        };
        self.existing(path.to_owned(), mount.options.contains("ro"))
    }

    fn existing(&self, path: String, read_only: bool) -> Result<Result<Place, String>, Error> {
        // the kubelet refuses these (pkg/apis/core/validation, `validatePathNoBacksteps`)
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Ok(Err("its path is not absolute".into()));
        }
        let kind = match self.sources.root.host_path_type(&path) {
            Ok(Some(kind)) => kind,
            Ok(None) => return Ok(Err(format!("{path} is neither a directory nor a file"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err(format!("{path} is not on the node")));
            }
            Err(source) => {
                return Err(Error::Io {
                    doing: format!("look up {path}"),
                    source,
                });
            }
        };
        Ok(Ok(Place {
            path,
            kind,
            read_only,
        }))
    }
}

/// An option that the volume's own mount has and the file system's does not. `ro` is left out,
/// because a volume mount can be read-only.
fn stricter<'a>(own: &'a Mount, other: &'a Mount) -> Option<&'a str> {
    const STRICT: [&str; 4] = ["noexec", "nosuid", "nodev", "nosymfollow"];
    own.options
        .difference(&other.options)
        .map(String::as_str)
        .find(|option| STRICT.contains(option))
}

fn exists(sources: &Sources<'_>, path: &Path) -> Result<bool, Error> {
    match sources
        .root
        .resolve(path)
        .and_then(std::fs::symlink_metadata)
    {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Io {
            doing: format!("look up {}", path.display()),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const UID: &str = "2f1e6d1c-6a3a-4f0e-9f6b-0a6b7c8d9e0f";

    #[test]
    fn the_host_path_of_a_mount_says_which_volume_it_belongs_to() {
        let plugin = |plugin: &str, volume: &str| Origin::Plugin(plugin.into(), volume.into());
        let pod = format!("/var/lib/kubelet/pods/{UID}");
        for (path, wanted) in [
            (
                format!("{pod}/volumes/kubernetes.io~local-volume/pv-1"),
                plugin(LOCAL, "pv-1"),
            ),
            (
                format!("{pod}/volumes/kubernetes.io~csi/pv-1/mount"),
                plugin("kubernetes.io~csi", "pv-1"),
            ),
            (
                format!("/data/k/pods/{UID}/volumes/kubernetes.io~nfs/pv-1"),
                plugin("kubernetes.io~nfs", "pv-1"),
            ),
            (
                format!("{pod}/volume-subpaths/pv-1/app/0"),
                Origin::Part("pv-1".into()),
            ),
            ("/srv/data".into(), Origin::Host("/srv/data".into())),
            (
                "/var/lib/kubelet/x".into(),
                Origin::Host("/var/lib/kubelet/x".into()),
            ),
            (
                "/var/lib/kubelet/pods/another/volumes/a/b".into(),
                Origin::Host("/var/lib/kubelet/pods/another/volumes/a/b".into()),
            ),
        ] {
            assert_eq!(origin(&path, UID), wanted, "{path}");
        }
    }

    #[test]
    fn the_mounts_of_both_runtimes_are_read() {
        let wanted = |image: Option<&str>| {
            [Bound {
                container_path: "/data".into(),
                host_path: "/srv".into(),
                image: image.map(str::to_owned),
            }]
        };
        let containerd = json!({"config": {"mounts": [
            {"container_path": "/data", "host_path": "/srv", "image": {"image": "sha256:1"}},
        ]}, "runtimeSpec": {"mounts": [{"destination": "/proc", "source": "proc"}]}});
        assert_eq!(bound(&containerd), wanted(Some("sha256:1")));
        assert_eq!(
            bound(
                &json!({"runtimeSpec": {"mounts": [{"destination": "/data", "source": "/srv"}]}})
            ),
            wanted(None)
        );
        for info in [
            json!(null),
            json!({"config": {"mounts": "x"}}),
            json!({"config": {}}),
        ] {
            assert_eq!(bound(&info), []);
        }
    }

    #[test]
    fn paths_are_the_same_however_they_are_written() {
        for (one, other, same) in [
            ("/data", "/data/", true),
            ("/data", "data", true),
            ("/a//b", "/a/b", true),
            ("/a/./b", "/a/b", true),
            ("/a", "/ab", false),
        ] {
            assert_eq!(is_same_path(one, other), same, "{one} {other}");
        }
    }
}
