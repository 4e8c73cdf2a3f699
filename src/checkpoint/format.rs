//! The checkpoint file: one complete pod with a digest, in clear text or sealed. `docs/store.md`
//! describes it for other programs.
//!
//! Canonical content: the whole document in clear text without `digest`, as JSON with object keys
//! in byte order, no white space, and no more escapes in strings than RFC 8259 demands. The digest
//! of a file in clear text is `sha256:` and the SHA-256 of that in lower-case hex. The digest of a
//! sealed file is `hmac-sha256:` and the HMAC with a key derived from the sealing key.
//!
//! The last line is a comment with the SHA-256 of all bytes above it, so that damage is detected
//! before anything is parsed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::checkpoint::encoding::hex;
use crate::checkpoint::keys::Keys;
use crate::checkpoint::seal::{self, Key, Sealed};
use crate::files::yaml;
use crate::names;
use crate::pod::id::{self, PodId};
use crate::reasons::Warning;

/// Version of the format that this program writes.
pub const API_VERSION: &str = names::API_VERSION;
/// Kind of a checkpoint file.
pub const KIND: &str = "NodeCheckpoint";
/// The largest file in bytes that is read. The kubelet's own limit for a manifest is 10 MiB
/// (pkg/kubelet/config/common.go), and the volumes of a pod come from objects of up to 1 MiB.
pub const MAX_SIZE: u64 = 64 << 20;

/// Name and version of this program, for what it writes.
pub const WRITTEN_BY: &str = concat!("pod-checkpointer ", env!("CARGO_PKG_VERSION"));
/// Start of the last line.
const CHECKSUM: &str = "# sha256 of the lines above: ";
/// The fields of a checkpoint that are sealed.
const CONTENT: [&str; 3] = ["images", "manifest", "volumes"];

/// One generation of one pod's checkpoint. Its content is wiped from memory when it is dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeCheckpoint {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// Digest over the canonical content, `sha256:<hex>`.
    pub digest: String,
    /// Name and version of the program that wrote the checkpoint.
    pub written_by: String,
    /// When the pod was captured.
    pub captured: Captured,
    /// The pod that was captured.
    pub parent: Parent,
    /// How the owner wants it activated and handed back.
    pub policy: Policy,
    /// Images that ran, by container name, or by `volume <name>` for image volumes.
    pub images: BTreeMap<String, Image>,
    /// What the owner should know about the recoverable pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub warnings: Vec<Warning>,
    /// The static pod. Until it is activated, its UID is the nil UUID, which is also part of the
    /// paths of its unpacked volumes.
    pub manifest: serde_json::Value,
    /// Contents of the captured volumes, by volume name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
}

/// When a checkpoint was captured: as boot and uptime, for comparisons, and as wall-clock time, for
/// people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Captured {
    /// Wall-clock time, RFC 3339: for people, never used for decisions.
    pub wall: String,
    /// `/proc/sys/kernel/random/boot_id` of the boot in which the pod was captured.
    pub boot_id: String,
    /// Time since that boot, in seconds (`CLOCK_BOOTTIME`).
    pub uptime_seconds: u64,
}

/// The captured pod's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parent {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// Resource version of the object that was captured.
    pub resource_version: String,
    /// The pod's controller, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// UID of the Node that the pod ran on: a checkpoint of another node is not activated. Absent
    /// if the UID was not yet known at the capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_uid: Option<String>,
}

/// The controller of a parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    /// Kind of the controller, for example `DaemonSet`.
    pub kind: String,
    /// Name of the controller.
    pub name: String,
    /// UID of the controller.
    pub uid: String,
}

/// How a returning parent takes over from its twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// Both may run side by side until the parent is Ready.
    Overlap,
    /// The twin is stopped when the parent is about to start.
    Switch,
}

/// What the owner's annotations and the pod's spec say about activation and hand-over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // independent facts about a pod
pub struct Policy {
    /// Order of activation, lowest first.
    pub start_group: i32,
    /// Age in seconds of uptime from which the checkpoint is no longer activated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
    /// What the owner's annotation asks for. If absent, the pod's spec decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// The pod uses the node's network.
    pub host_network: bool,
    /// The pod has a host port.
    pub host_port: bool,
    /// A StatefulSet owns it.
    pub stateful: bool,
    /// The first main container may start long after the sandbox: init containers run, or the
    /// kubelet reads Secrets or ConfigMaps for the environment, perhaps from an API server that is
    /// this pod's own twin.
    pub slow_start: bool,
    /// Seconds that the pod's containers get to stop.
    pub grace_seconds: u64,
}

impl Default for Policy {
    /// That of a pod of which nothing special is known: no annotations, on the pod network, of no
    /// StatefulSet, with Kubernetes' own grace.
    fn default() -> Self {
        Self {
            start_group: names::DEFAULT_START_GROUP,
            max_age_seconds: None,
            handover: None,
            host_network: false,
            host_port: false,
            stateful: false,
            slow_start: false,
            grace_seconds: 30,
        }
    }
}

impl Policy {
    /// How to hand over: what the annotation asks for, else what suits the pod.
    /// `exclusive_host_ports` says whether the runtime refuses a second mapping of a host port, as
    /// CRI-O does.
    pub fn handover(&self, exclusive_host_ports: bool) -> Handover {
        if self.stateful || self.host_network {
            return if self.stateful {
                Handover::Switch
            } else {
                self.handover.unwrap_or(Handover::Switch)
            };
        }
        let default = if self.host_port && exclusive_host_ports {
            Handover::Switch
        } else {
            Handover::Overlap
        };
        self.handover.unwrap_or(default)
    }

    /// How long the pod's containers get to stop.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }
}

/// An image that a container ran or that was mounted as a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Name that the twin uses: the one from the pod, or another if that now refers to another
    /// image.
    pub name: String,
    /// ID or digest to which the runtime resolved it.
    pub id: String,
}

/// The contents of one volume: entries in the order of their paths, directories before what is in
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// The volume's own directory is the entry with the empty path.
    pub entries: Vec<Entry>,
}

/// One file, directory or link of a volume: a file has `data`, a link has `link`, a directory has
/// neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Path relative to the volume, separated by `/`; empty for the volume's own directory.
    pub path: String,
    /// Permission bits, including set-group-id and sticky bit, in octal.
    pub mode: String,
    /// UID of the owner.
    pub uid: u32,
    /// GID of the group.
    pub gid: u32,
    /// A regular file's bytes, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// A symbolic link's target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// What can be read of a sealed file without its key. It is not authenticated then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SealedCheckpoint {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// Digest over the canonical content, `hmac-sha256:<hex>`.
    pub digest: String,
    /// Name and version of the program that wrote the checkpoint.
    pub written_by: String,
    /// When the pod was captured.
    pub captured: Captured,
    /// The pod that was captured.
    pub parent: Parent,
    /// How the owner wants it activated and handed back.
    pub policy: Policy,
    /// What the owner should know about the recoverable pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub warnings: Vec<Warning>,
    /// `images`, `manifest` and `volumes`, encrypted.
    pub sealed: Sealed,
}

/// A checkpoint file.
#[derive(JsonSchema)]
#[schemars(rename = "CheckpointFile", untagged)]
#[allow(dead_code)]
pub enum File {
    /// A checkpoint in clear text.
    Clear(Box<NodeCheckpoint>),
    /// A checkpoint with encrypted content.
    Sealed(Box<SealedCheckpoint>),
}

/// Why bytes are not a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part of the file is missing or has changed.
    #[error("the checksum in its last line is missing or does not match the lines above")]
    Checksum,
    /// The file is not YAML as this program writes it.
    #[error("not a checkpoint")]
    Yaml(#[from] yaml::Error),
    /// The fields are missing, unknown or of the wrong type. The text does not quote them, because
    /// they may be secret.
    #[error("not a checkpoint: its fields are not those of {API_VERSION} {KIND}")]
    Shape,
    /// The file has a format that this program does not read.
    #[error("written in format {found:?} by {by:?}; this program reads only {API_VERSION} {KIND}")]
    Version {
        /// Version and kind named in the file.
        found: String,
        /// Program named in the file.
        by: String,
    },
    /// The content does not match its digest.
    #[error("its digest is {found:?}, but that of its content is {computed}")]
    Digest {
        /// The digest in the file.
        found: String,
        /// The digest of its content.
        computed: String,
    },
    /// The file is sealed, and no key was given, or none could be read.
    #[error("sealed with key {}, but no usable key was given", .header.sealed.key)]
    KeyMissing {
        /// What the file says in clear text.
        header: Box<SealedCheckpoint>,
    },
    /// The file is sealed with a key that was not given.
    #[error("sealed with key {}, which was not given", .header.sealed.key)]
    KeyWrong {
        /// What the file says in clear text.
        header: Box<SealedCheckpoint>,
    },
    /// The key does not open the file.
    #[error("cannot be opened with the key that it is sealed with")]
    Seal(#[from] seal::Error),
    /// The file would be longer, or have more parts, than this program reads.
    #[error("a checkpoint of {0} bytes is too large; at most {MAX_SIZE} bytes are read")]
    TooLarge(usize),
    /// The checkpoint cannot be written as YAML.
    #[error("cannot be written as YAML")]
    Serialize(#[source] serde_yaml::Error),
}

impl Error {
    /// What a sealed file says in clear text, if only its key is missing.
    pub fn header(&self) -> Option<&SealedCheckpoint> {
        match self {
            Self::KeyMissing { header } | Self::KeyWrong { header } => Some(header),
            _ => None,
        }
    }
}

/// A format that is read, and how a document of it is converted to the current format.
struct Format {
    version: &'static str,
    upgrade: fn(Value) -> Value,
}

/// The current format and the one before it; the first format has no predecessor. A file is
/// verified as it was written, and then upgraded.
const FORMATS: &[Format] = &[Format {
    version: API_VERSION,
    upgrade: |document| document,
}];

impl Drop for NodeCheckpoint {
    fn drop(&mut self) {
        wipe(&mut self.manifest);
        let entries = self
            .volumes
            .values_mut()
            .flat_map(|volume| &mut volume.entries);
        entries
            .filter_map(|entry| entry.data.as_mut())
            .for_each(Zeroize::zeroize);
    }
}

impl NodeCheckpoint {
    /// A checkpoint of this pod, written by this program, with this manifest of its twin. Images,
    /// warnings and volumes are empty, and so is the digest: [`NodeCheckpoint::with_digest`] comes
    /// last.
    pub fn new(parent: Parent, captured: Captured, policy: Policy, manifest: Value) -> Self {
        Self {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            digest: String::new(),
            written_by: WRITTEN_BY.into(),
            captured,
            parent,
            policy,
            images: BTreeMap::new(),
            warnings: Vec::new(),
            manifest,
            volumes: BTreeMap::new(),
        }
    }

    /// Computes the digest of the content, whatever the `digest` field says.
    pub fn compute_digest(&self) -> String {
        let document = self.document();
        digest(&document, None)
    }

    /// Digest of everything that a twin is made from: if it is the same, a capture found no change.
    /// It is only compared, never written anywhere.
    pub fn content_digest(&self) -> String {
        let mut document = self.document();
        if let Some(fields) = document.0.as_object_mut() {
            fields.retain(|name, _| {
                [
                    "parent", "policy", "images", "warnings", "manifest", "volumes",
                ]
                .contains(&name.as_str())
            });
        }
        if let Some(version) = document.0.pointer_mut("/parent/resourceVersion") {
            *version = Value::Null;
        }
        digest(&document, None)
    }

    /// Sets the digest to that of the content.
    #[must_use]
    pub fn with_digest(mut self) -> Self {
        self.digest = self.compute_digest();
        self
    }

    /// The bytes of a file in clear text.
    pub fn to_yaml(&self) -> Result<Vec<u8>, Error> {
        self.write(None)
    }

    /// The bytes of a file, sealed if there is a key. The digest is recomputed.
    pub fn write(&self, key: Option<&Key>) -> Result<Vec<u8>, Error> {
        let mut document = self.document();
        let digest = digest(&document, key);
        let body = if let Some(key) = key {
            let mut header = document.0.take();
            let mut content = Wiped(Value::Object(serde_json::Map::new()));
            if let (Some(header), Some(content)) =
                (header.as_object_mut(), content.0.as_object_mut())
            {
                content.extend(CONTENT.iter().filter_map(|name| header.remove_entry(*name)));
                header.insert("digest".into(), digest.into());
            }
            let plain = Zeroizing::new(content.0.to_string().into_bytes());
            let sealed: SealedCheckpoint =
                serde_json::from_value(key.seal(header, &plain)?).map_err(|_| Error::Shape)?;
            Zeroizing::new(serde_yaml::to_string(&sealed).map_err(Error::Serialize)?)
        } else {
            let mut clear = self.clone();
            clear.digest = digest;
            Zeroizing::new(serde_yaml::to_string(&clear).map_err(Error::Serialize)?)
        };
        let mut bytes = Vec::with_capacity(body.len() + CHECKSUM.len() + 65);
        bytes.extend_from_slice(body.as_bytes());
        let _ = writeln!(bytes, "{CHECKSUM}{}", hex(&Sha256::digest(body.as_bytes())));
        if bytes.len() as u64 > MAX_SIZE || yaml::check(&bytes).is_err() {
            return Err(Error::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// Parses and verifies the bytes of a file in clear text.
    pub fn from_yaml(bytes: &[u8]) -> Result<Self, Error> {
        Self::read(bytes, &Keys::default())
    }

    /// Parses and verifies the bytes of a file, which is opened with one of these keys if it is
    /// sealed. The digest stays the file's.
    pub fn read(bytes: &[u8], keys: &Keys) -> Result<Self, Error> {
        Self::open(bytes, keys).map(|(checkpoint, _)| checkpoint)
    }

    /// Like [`NodeCheckpoint::read`], and returns the ID of the key if the file is sealed.
    pub fn open(bytes: &[u8], keys: &Keys) -> Result<(Self, Option<String>), Error> {
        Self::open_formats(bytes, keys, FORMATS)
    }

    fn open_formats(
        bytes: &[u8],
        keys: &Keys,
        formats: &[Format],
    ) -> Result<(Self, Option<String>), Error> {
        let Some(body) = body(bytes) else {
            // a file of another format is reported as such; one with the checksum line of this
            // format is damaged
            let last = bytes
                .trim_ascii_end()
                .rsplit(|byte| *byte == b'\n')
                .next()
                .unwrap_or_default();
            let is_ours = last.starts_with(CHECKSUM.as_bytes());
            let document = if is_ours {
                None
            } else {
                yaml::parse(bytes).ok().map(Wiped)
            };
            let other = document.and_then(|document| format_of(&document.0, formats).err());
            return Err(other
                .filter(|error| matches!(error, Error::Version { .. }))
                .unwrap_or(Error::Checksum));
        };
        Self::from_document(Wiped(yaml::parse(body)?), keys, formats)
    }

    /// Verifies a document from an export.
    pub fn from_value(document: Value) -> Result<Self, Error> {
        Self::from_document(Wiped(document), &Keys::default(), FORMATS)
            .map(|(checkpoint, _)| checkpoint)
    }

    fn from_document(
        mut document: Wiped,
        keys: &Keys,
        formats: &[Format],
    ) -> Result<(Self, Option<String>), Error> {
        let format = format_of(&document.0, formats)?;
        let key = unseal(&mut document, keys)?;
        let (computed, found) = (digest(&document, key), text(&document.0, "digest"));
        if computed != found {
            return Err(Error::Digest {
                found: short(found),
                computed,
            });
        }
        let upgraded = (format.upgrade)(document.0.take());
        let checkpoint = serde_json::from_value(upgraded).map_err(|_| Error::Shape)?;
        Ok((checkpoint, key.map(|key| key.id().to_owned())))
    }

    /// The pod that it is a checkpoint of; an error where the names in it cannot be a pod's.
    pub fn pod(&self) -> Result<PodId, id::Invalid> {
        PodId::new(&self.parent.namespace, &self.parent.name)
    }

    /// Whether it is a checkpoint of this pod.
    pub fn is_of(&self, pod: &PodId) -> bool {
        pod.is(&self.parent.namespace, &self.parent.name)
    }

    /// The names in it for people, whatever they are.
    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.parent.namespace, self.parent.name)
    }

    fn document(&self) -> Wiped {
        Wiped(serde_json::to_value(self).unwrap_or_default())
    }
}

/// A text from a file, cut to the length of a line, for an error.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

fn text<'a>(document: &'a Value, name: &str) -> &'a str {
    document
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The format that a document names, if this program reads it.
fn format_of<'a>(document: &Value, formats: &'a [Format]) -> Result<&'a Format, Error> {
    let (version, kind) = (text(document, "apiVersion"), text(document, "kind"));
    let format = formats
        .iter()
        .find(|format| format.version == version && kind == KIND);
    format.ok_or_else(|| {
        if version.is_empty() || kind.is_empty() || version == API_VERSION {
            Error::Shape
        } else {
            Error::Version {
                found: short(&format!("{version} {kind}")),
                by: short(text(document, "writtenBy")),
            }
        }
    })
}

/// Decrypts the sealed part of a document, if it has one, and puts its fields where a document in
/// clear text has them.
fn unseal<'a>(document: &mut Wiped, keys: &'a Keys) -> Result<Option<&'a Key>, Error> {
    if document.0.get("sealed").is_none() {
        return Ok(None);
    }
    let header: SealedCheckpoint =
        serde_json::from_value(document.0.clone()).map_err(|_| Error::Shape)?;
    let Some(key) = keys.find(&header.sealed.key) else {
        let header = Box::new(header);
        return Err(if keys.has_any() {
            Error::KeyWrong { header }
        } else {
            Error::KeyMissing { header }
        });
    };
    let content = key.open(&mut document.0)?;
    let mut content: Wiped = Wiped(serde_json::from_slice(&content).map_err(|_| Error::Shape)?);
    let (Some(fields), Some(content)) = (document.0.as_object_mut(), content.0.as_object_mut())
    else {
        return Err(Error::Shape);
    };
    fields.remove("sealed");
    for (name, value) in std::mem::take(content) {
        if !CONTENT.contains(&name.as_str()) || fields.insert(name, value).is_some() {
            return Err(Error::Shape);
        }
    }
    Ok(Some(key))
}

/// Digest of a document in clear text, whatever its `digest` field says.
pub(crate) fn digest(document: &Wiped, key: Option<&Key>) -> String {
    // keys of objects are in byte order: serde_json keeps them in a BTreeMap
    let write = |sink: &mut dyn std::io::Write| {
        let _ = match document.0.as_object() {
            Some(fields) => {
                let rest: BTreeMap<&String, &Value> = fields
                    .iter()
                    .filter(|(name, _)| *name != "digest")
                    .collect();
                serde_json::to_writer(sink, &rest)
            }
            None => serde_json::to_writer(sink, &document.0),
        };
    };
    if let Some(key) = key {
        return key.digest(write);
    }
    let mut hasher = Sha256::new();
    write(&mut Hashed(&mut hasher));
    format!("sha256:{}", hex(&hasher.finalize()))
}

struct Hashed<'a>(&'a mut Sha256);

impl std::io::Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The bytes above the last line, if that is the right checksum.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    let at = bytes.len().checked_sub(CHECKSUM.len() + 65)?;
    let (body, last) = bytes.split_at_checked(at)?;
    let expected = format!("{CHECKSUM}{}\n", hex(&Sha256::digest(body)));
    (last == expected.as_bytes() && body.ends_with(b"\n")).then_some(body)
}

/// A value whose strings are wiped from memory when it is dropped.
pub(crate) struct Wiped(pub(crate) Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Wipes every string of a value from memory.
pub fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The schema of a checkpoint file, as JSON.
pub fn schema() -> String {
    let schema = schemars::schema_for!(File);
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
