//! The checkpoint file: one pod, complete, with a digest.
//!
//! Canonical content: the whole document without `digest`, as JSON with object keys in byte order, no white space, and
//! strings escaped as RFC 8259 demands and no further. The digest is `sha256:` and the SHA-256 of that, in lower-case hex.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::names::Warning;

/// Version of the format that this program writes.
pub const API_VERSION: &str = "podcheckpointer.io/v1alpha1";
/// Kind of a checkpoint file.
pub const KIND: &str = "NodeCheckpoint";
/// More than this is not read: the kubelet's own limit for a manifest is 10 MiB (pkg/kubelet/config/common.go), and the
/// volumes of a pod come from objects of 1 MiB.
pub const MAX_SIZE: u64 = 64 << 20;

/// One generation of one pod's checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeCheckpoint {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// Digest over the canonical content, `sha256:<hex>`.
    pub digest: String,
    /// Version of the program that wrote it.
    pub written_by: String,
    /// When it was captured.
    pub captured: Captured,
    /// The pod that was captured.
    pub parent: Parent,
    /// How the owner wants it activated and handed back.
    pub policy: Policy,
    /// Images that ran, by container name.
    pub images: BTreeMap<String, Image>,
    /// What the owner should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub warnings: Vec<Warning>,
    /// The static pod. Its UID and the paths of the unpacked volumes are those of the nil UUID until it is activated.
    pub manifest: serde_json::Value,
    /// Content of the captured volumes, by volume name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
}

/// When a checkpoint was captured, on clocks that can be compared after a reboot and on one that a person reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Captured {
    /// Wall clock, RFC 3339: for people, never for decisions.
    pub wall: String,
    /// `/proc/sys/kernel/random/boot_id` of the boot it was captured in.
    pub boot_id: String,
    /// Time since that boot, in seconds (`CLOCK_BOOTTIME`).
    pub uptime_seconds: u64,
}

/// The captured pod's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parent {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Resource version of the object that was captured.
    pub resource_version: String,
    /// Its controller, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// The controller of a parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    /// For example `DaemonSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
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

/// What the owner's annotations and the pod's nature say about activation and hand-over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // facts of a pod, each by itself
pub struct Policy {
    /// Activation order, lowest first.
    pub start_group: i32,
    /// Not activated when captured longer ago, in seconds of uptime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
    /// The owner's annotation; `None`: by the pod's nature, see [`Policy::handover`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// The pod uses the node's network.
    pub host_network: bool,
    /// The pod has a port of the node forwarded to it.
    pub host_port: bool,
    /// A StatefulSet owns it.
    pub stateful: bool,
    /// More than a moment lies between its sandbox and its first main container: init containers run, or the kubelet
    /// reads Secrets or ConfigMaps for the environment, perhaps from an API server that is this pod's own twin.
    pub slow_start: bool,
    /// Seconds that its containers get to stop.
    pub grace_seconds: u64,
}

impl Policy {
    /// How to hand over, given whether the runtime refuses a second mapping of a host port (CRI-O does).
    pub fn handover(&self, exclusive_host_ports: bool) -> Handover {
        if self.stateful || self.host_network {
            return if self.stateful { Handover::Switch } else { self.handover.unwrap_or(Handover::Switch) };
        }
        let nature = if self.host_port && exclusive_host_ports { Handover::Switch } else { Handover::Overlap };
        self.handover.unwrap_or(nature)
    }

    /// How long a container gets to stop.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }
}

/// An image as a container ran it, or as a volume had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// As the twin names it: the pod's own name, or another where that means something else by now.
    pub name: String,
    /// As the runtime resolved it: an image id or a digest.
    pub id: String,
}

/// The content of one volume: entries in path order, parents before what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// The volume's own directory is the entry with the empty path.
    pub entries: Vec<Entry>,
}

/// One file, directory or link of a volume: a file has `data`, a link has `link`, a directory has neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Relative to the volume, separated by `/`; empty for the volume's own directory.
    pub path: String,
    /// Permission bits, with set-group-id and sticky, in octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// A regular file's bytes, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// A symbolic link's target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// Bytes as they stand in a checkpoint.
pub fn encode(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Bytes from what stands in a checkpoint.
pub fn decode(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    base64::engine::general_purpose::STANDARD.decode(text)
}

/// Why bytes are not a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not YAML of this shape.
    #[error("not a checkpoint")]
    Syntax(#[source] serde_yaml::Error),
    /// Of a version that this program does not read.
    #[error("written in format {found:?} by {by}; this program reads {API_VERSION}")]
    Version {
        /// The version it names.
        found: String,
        /// The program that it names.
        by: String,
    },
    /// The content is not what was written.
    #[error("digest is {found}, its content has {computed}")]
    Digest {
        /// The digest in the file.
        found: String,
        /// The digest of its content.
        computed: String,
    },
}

impl NodeCheckpoint {
    /// Computes the digest of the content, whatever the `digest` field says.
    pub fn compute_digest(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.remove("digest");
        }
        sha256(value.to_string().as_bytes())
    }

    /// Digest of what a twin would be made of: equal means that a capture found nothing new.
    pub fn content_digest(&self) -> String {
        let mut parent = self.parent.clone();
        parent.resource_version.clear();
        let content = serde_json::json!({
            "parent": parent, "policy": self.policy, "images": self.images, "warnings": self.warnings,
            "manifest": self.manifest, "volumes": self.volumes,
        });
        sha256(content.to_string().as_bytes())
    }

    /// Fills in the digest.
    #[must_use]
    pub fn with_digest(mut self) -> Self {
        self.digest = self.compute_digest();
        self
    }

    /// The file's bytes.
    pub fn to_yaml(&self) -> Result<Vec<u8>, serde_yaml::Error> {
        serde_yaml::to_string(self).map(String::into_bytes)
    }

    /// Reads and verifies a file's bytes.
    pub fn from_yaml(bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Header {
            api_version: String,
            #[serde(default)]
            kind: String,
            #[serde(default)]
            written_by: String,
        }
        let header: Header = serde_yaml::from_slice(bytes).map_err(Error::Syntax)?;
        if header.api_version != API_VERSION || header.kind != KIND {
            let found = format!("{} {}", header.api_version, header.kind);
            return Err(Error::Version { found, by: header.written_by });
        }
        let checkpoint: Self = serde_yaml::from_slice(bytes).map_err(Error::Syntax)?;
        let computed = checkpoint.compute_digest();
        if computed != checkpoint.digest {
            return Err(Error::Digest { found: checkpoint.digest, computed });
        }
        Ok(checkpoint)
    }

    /// `<namespace>_<name>` of the parent: neither part can hold the separator.
    pub fn key(&self) -> String {
        format!("{}_{}", self.parent.namespace, self.parent.name)
    }
}

/// `sha256:<hex>` of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::from("sha256:"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
