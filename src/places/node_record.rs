//! `node.yaml` in the store: what the supervisor must know of its node and of the API server while that does not answer.

use std::fs;
use std::time::SystemTime;

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

/// What the supervisor must know of the node, recorded by the agent while the API server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRecord {
    /// [`crate::checkpoint::format::API_VERSION`].
    pub api_version: String,
    /// `NodeRecord`.
    pub kind: String,
    /// Name of the node object.
    pub node_name: String,
    /// UID of the node object: another one means another node, whatever its name.
    pub node_uid: String,
    /// UID of the node object now, where it is not the one above: nothing is removed until it has been this for an hour, and
    /// nothing of the node before it is activated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_uid: Option<String>,
    /// What the kubelet may give to pods, by the node object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<Amounts>,
    /// API servers, as the kubelet's own kubeconfig names them.
    pub servers: Vec<ServerRecord>,
}

impl NodeRecord {
    /// UID of the node object as the API server last named it, if it ever did.
    pub fn current_uid(&self) -> Option<&str> {
        self.current_uid.as_deref().or(Some(self.node_uid.as_str())).filter(|uid| !uid.is_empty())
    }
}

/// One API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerRecord {
    /// For example `https://10.0.0.1:6443`.
    pub url: String,
    /// PEM.
    pub ca: String,
    /// Name that its certificate must have, when it is not the one in the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_name: Option<String>,
    /// HTTP proxy on the way to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

impl From<ServerRecord> for Server {
    fn from(ServerRecord { url, ca, tls_name, proxy }: ServerRecord) -> Self {
        Self { url, ca, tls_name, proxy }
    }
}

impl From<Server> for ServerRecord {
    fn from(Server { url, ca, tls_name, proxy }: Server) -> Self {
        Self { url, ca, tls_name, proxy }
    }
}

impl Store {
    /// What the agent recorded of the node; `None`: nothing yet.
    pub fn node(&self) -> Result<Option<NodeRecord>, Error> {
        let path = self.directory().join(NODE_RECORD);
        let read = Directory::open(self.directory()).and_then(|directory| directory.file(NODE_RECORD, LONGEST));
        match read {
            Ok(bytes) => serde_yaml::from_slice(&bytes).map(Some).map_err(|source| Error::Syntax(path, source)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// When that record was last changed: only to be compared with itself.
    pub fn node_changed(&self) -> Option<SystemTime> {
        fs::metadata(self.directory().join(NODE_RECORD)).and_then(|metadata| metadata.modified()).ok()
    }

    /// Records what the supervisor must know, if it is not what is recorded. Says whether it wrote.
    pub fn put_node(&self, record: &NodeRecord) -> Result<bool, Error> {
        write::settle(self.directory())?;
        if let Ok(Some(known)) = self.node()
            && known == *record
        {
            return Ok(false);
        }
        let text = serde_yaml::to_string(record).map_err(|source| Error::Serialize(NODE_RECORD.to_owned(), source))?;
        write::file(&self.directory().join(NODE_RECORD), text.as_bytes(), 0o600)?;
        Ok(true)
    }
}
