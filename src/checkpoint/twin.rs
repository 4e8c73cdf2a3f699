//! From a checkpoint to its twin: the static pod with a UID of its own, and its unpacked volumes.
//!
//! A twin's UID is new at each activation: a kubelet never retries a static pod that it rejected,
//! and cannot start a pod again under the UID of one that it is still stopping
//! (pkg/kubelet/pod_workers.go).

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::checkpoint::encoding;
use crate::checkpoint::format::{Entry, NodeCheckpoint, Volume};
use crate::files::write;
use crate::node::selinux;
use crate::pod::id::PodId;

/// Namespace of the derived UIDs.
const UID_SPACE: Uuid = Uuid::from_u128(0x8a1d_9a4e_6d7f_5f0e_9a51_c7a1_43b0_2d11);

/// A static pod ready to be linked.
#[derive(Clone, Debug, PartialEq)]
pub struct Twin {
    /// The twin's UID.
    pub uid: String,
    /// The manifest, with UID and paths filled in. It is written as JSON, which a YAML 1.1 parser
    /// cannot misread.
    pub manifest: Value,
}

/// Why a volume could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path that leaves the volume or goes through a link.
    #[error("volume entry {0:?} does not stay in its volume")]
    Path(String),
    /// An invalid mode or content.
    #[error("volume entry {0:?} has an invalid mode or content")]
    Content(String),
    /// The file system reported an error.
    #[error("cannot unpack {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// A file could not be labelled for SELinux.
    #[error("cannot give {} a label that containers may read", .0.display())]
    Label(PathBuf, #[source] io::Error),
    /// A directory could not be created or removed.
    #[error(transparent)]
    Write(#[from] write::Error),
}

/// The twin of a checkpoint of this pod. `nonce` is different for each activation; `run_dir` is a
/// host path.
pub fn make(checkpoint: &NodeCheckpoint, pod: &PodId, nonce: &str, run_dir: &Path) -> Twin {
    let name = format!("{}/{}/{nonce}", checkpoint.parent.uid, checkpoint.digest);
    let uid = Uuid::new_v5(&UID_SPACE, name.as_bytes()).to_string();
    let mut manifest = checkpoint.manifest.clone();
    if let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("uid".into(), json!(uid));
    }
    let base = volumes_dir(run_dir, pod, &uid);
    let volumes = manifest
        .pointer_mut("/spec/volumes")
        .and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        let name = volume
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if checkpoint.volumes.contains_key(&name)
            && let Some(path) = volume.pointer_mut("/hostPath/path")
        {
            *path = json!(base.join(name));
        }
    }
    Twin { uid, manifest }
}

/// Directory of the volumes of one twin: `<run dir>/volumes/<namespace>_<pod>/<twin uid>`.
pub fn volumes_dir(run_dir: &Path, pod: &PodId, uid: &str) -> PathBuf {
    run_dir.join("volumes").join(pod.file_form()).join(uid)
}

/// Unpacks the volumes of a checkpoint into a directory that does not exist yet. Owners are those
/// of the parent's files, which needs CAP_CHOWN. `labelled`: SELinux is in force on the host. After an error the caller removes the directory,
/// to which nothing refers yet.
pub fn unpack(checkpoint: &NodeCheckpoint, directory: &Path, labelled: bool) -> Result<(), Error> {
    write::directory(directory)?;
    for (name, volume) in &checkpoint.volumes {
        if !is_plain(name) {
            return Err(Error::Path(name.clone()));
        }
        unpack_volume(volume, &directory.join(name), labelled)?;
    }
    Ok(())
}

fn unpack_volume(volume: &Volume, root: &Path, labelled: bool) -> Result<(), Error> {
    let mut directories: Vec<&str> = Vec::new();
    for entry in &volume.entries {
        let path = place(entry, root, &directories)?;
        let failed = |error: io::Error| Error::Io(path.clone(), error);
        match (&entry.data, &entry.link) {
            (Some(data), None) => {
                let bytes =
                    encoding::decode(data).map_err(|_| Error::Content(entry.path.clone()))?;
                let mut file = File::create_new(&path).map_err(failed)?;
                file.write_all(&bytes).map_err(failed)?;
            }
            (None, Some(target)) => symlink(target, &path).map_err(failed)?,
            (None, None) => {
                fs::create_dir(&path).map_err(failed)?;
                directories.push(&entry.path);
            }
            (Some(_), Some(_)) => return Err(Error::Content(entry.path.clone())),
        }
        if labelled {
            selinux::label(&path).map_err(|error| Error::Label(path.clone(), error))?;
        }
    }
    // modes last and from the inside out, so that a directory without write permission can be
    // filled; owner before mode, because changing the owner would clear a file's set-group-id bit
    for entry in volume.entries.iter().rev() {
        let path = place(entry, root, &directories)?;
        let failed = |error: io::Error| Error::Io(path.clone(), error);
        lchown(&path, Some(entry.uid), Some(entry.gid)).map_err(failed)?;
        if entry.link.is_none() {
            let mode = u32::from_str_radix(&entry.mode, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777);
            let mode = mode.ok_or_else(|| Error::Content(entry.path.clone()))?;
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)?;
        }
    }
    Ok(())
}

/// The path of an entry, if its parent is a directory that this volume created: no entry is written
/// through a link.
fn place(entry: &Entry, root: &Path, directories: &[&str]) -> Result<PathBuf, Error> {
    if entry.path.is_empty() {
        return Ok(root.to_owned());
    }
    let parent = entry.path.rsplit_once('/').map_or("", |(parent, _)| parent);
    if !is_plain(&entry.path) || !directories.contains(&parent) {
        return Err(Error::Path(entry.path.clone()));
    }
    Ok(root.join(&entry.path))
}

/// Whether a path is relative and contains only ordinary names.
fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\0')
        && !path.ends_with('/')
        && !path.contains("//")
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        && path.split('/').all(|part| part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::testing::checkpoint;

    #[test]
    fn a_twin_has_its_own_uid_at_each_activation_and_finds_its_volumes() {
        let checkpoint = checkpoint("shop", "till");
        let one = make(
            &checkpoint,
            &checkpoint.pod().unwrap(),
            "boot/1",
            Path::new("/run/pod-checkpointer"),
        );
        let two = make(
            &checkpoint,
            &checkpoint.pod().unwrap(),
            "boot/2",
            Path::new("/run/pod-checkpointer"),
        );
        assert_ne!(one.uid, two.uid);
        assert_eq!(
            one,
            make(
                &checkpoint,
                &checkpoint.pod().unwrap(),
                "boot/1",
                Path::new("/run/pod-checkpointer")
            )
        );
        assert_eq!(one.manifest["metadata"]["uid"], json!(one.uid));
        let path = format!(
            "/run/pod-checkpointer/volumes/shop_till/{}/credentials",
            one.uid
        );
        assert_eq!(
            one.manifest["spec"]["volumes"][0]["hostPath"]["path"],
            json!(path)
        );
    }

    #[test]
    fn files_come_back_with_content_mode_and_links() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("twin");
        unpack(&checkpoint("shop", "till"), &target, false).unwrap();
        let volume = target.join("credentials");
        assert_eq!(
            fs::read(volume.join("password")).unwrap(),
            b"s3cret\n\0\xff"
        );
        assert_eq!(
            fs::read_link(volume.join("..data")).unwrap(),
            Path::new("..2026_11_21")
        );
        let mode = |path: &str| {
            fs::symlink_metadata(volume.join(path))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777
        };
        assert_eq!(mode("..2026_11_21/password"), 0o440);
        assert_eq!(mode(""), 0o755);
        assert_eq!(
            fs::metadata(&target).unwrap().permissions().mode() & 0o7777,
            0o700
        );
    }

    #[test]
    fn no_entry_is_written_outside_its_volume() {
        for path in [
            "../x",
            "/etc/x",
            "a/../../x",
            "..data/x",
            "a//b",
            "a/",
            "./a",
            "x\0y",
            "missing/x",
        ] {
            let directory = tempfile::tempdir().unwrap();
            let mut made = checkpoint("shop", "till");
            let volume = made.volumes.get_mut("credentials").unwrap();
            volume.entries[3].link = Some(directory.path().to_str().unwrap().to_owned());
            volume.entries[4].path = path.into();
            volume.entries[4].link = None;
            volume.entries[4].data = Some(encoding::encode(b"out"));
            let error = unpack(&made, &directory.path().join("twin"), false).unwrap_err();
            assert!(matches!(error, Error::Path(_)), "{path}: {error}");
            assert!(!directory.path().join("x").exists());
        }
    }
}
