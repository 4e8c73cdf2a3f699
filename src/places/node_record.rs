//! `node.yaml` in the state directory: what the supervisor must know about its node and the API
//! server while that does not answer.

use std::sync::PoisonError;
use std::time::SystemTime;
use std::{fmt, fs};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::files::read::Directory;
use crate::files::write;
use crate::names::NODE_RECORD;
use crate::node::kubelet::Server;
use crate::places::store::{Error, Store};
use crate::pod::room::Amounts;

/// Longest record of the node, in bytes.
const LONGEST: u64 = 4 << 20;

/// What the supervisor must know about the node, recorded by the agent while the API server
/// answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRecord {
    /// [`crate::checkpoint::format::API_VERSION`].
    pub api_version: String,
    /// `NodeRecord`.
    pub kind: String,
    /// Name of the Node.
    pub node_name: String,
    /// UID of the Node: another UID means another node, whatever its name.
    pub node_uid: String,
    /// Current UID of the Node, if it differs from the one above. Nothing is removed until it has
    /// stayed the same for an hour, and no checkpoint of the former Node is activated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_uid: Option<String>,
    /// What the kubelet may allocate to pods, according to the Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<Amounts>,
    /// API servers, from the kubelet's kubeconfig.
    pub servers: Vec<ServerRecord>,
}

impl NodeRecord {
    /// UID of the Node as the API server last reported it, if it ever did.
    pub fn current_uid(&self) -> Option<&str> {
        self.current_uid
            .as_deref()
            .or(Some(self.node_uid.as_str()))
            .filter(|uid| !uid.is_empty())
    }
}

/// One API server. Its debug form shows no credential.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerRecord {
    /// Its URL, for example `https://10.0.0.1:6443`.
    pub url: String,
    /// Its CA certificates, in PEM.
    pub ca: String,
    /// Name that its certificate must have, if not the one in the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_name: Option<String>,
    /// URL of the HTTP proxy through which the kubelet reaches it; may contain a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

impl fmt::Debug for ServerRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Server::from(self.clone()).fmt(formatter)
    }
}

impl From<ServerRecord> for Server {
    fn from(
        ServerRecord {
            url,
            ca,
            tls_name,
            proxy,
        }: ServerRecord,
    ) -> Self {
        Self {
            url,
            ca,
            tls_name,
            proxy,
        }
    }
}

impl From<Server> for ServerRecord {
    fn from(
        Server {
            url,
            ca,
            tls_name,
            proxy,
        }: Server,
    ) -> Self {
        Self {
            url,
            ca,
            tls_name,
            proxy,
        }
    }
}

impl Store {
    /// The record of the node; `None` if there is none yet.
    pub fn node(&self) -> Result<Option<NodeRecord>, Error> {
        let path = self.directory().join(NODE_RECORD);
        let read = Directory::open(self.directory())
            .and_then(|directory| directory.file(NODE_RECORD, LONGEST));
        match read {
            Ok(bytes) => serde_yaml::from_slice(&bytes)
                .map(Some)
                .map_err(|source| Error::Syntax(path, source)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// When the file of the record was last changed; only useful to detect a change.
    pub fn node_changed(&self) -> Option<SystemTime> {
        fs::metadata(self.directory().join(NODE_RECORD))
            .and_then(|metadata| metadata.modified())
            .ok()
    }

    /// Writes the record if it differs from the existing one. Returns whether it did. Waits while
    /// the store is tidied.
    pub fn put_node(&self, record: &NodeRecord) -> Result<bool, Error> {
        // tidying would take its unfinished file for one that a crash left
        let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        write::settle(self.directory())?;
        if let Ok(Some(known)) = self.node()
            && known == *record
        {
            return Ok(false);
        }
        let text = serde_yaml::to_string(record)
            .map_err(|source| Error::Serialize(NODE_RECORD.to_owned(), source))?;
        write::file(&self.directory().join(NODE_RECORD), text.as_bytes(), 0o600)?;
        Ok(true)
    }
}
