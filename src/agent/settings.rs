//! What an agent is started with.

use crate::agent::error::Error;
use crate::args::{AgentArguments, HostArguments, LogFormat};
use crate::node::host::HostRoot;

/// Settings of the agent: its flags, and what was learned from them before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host's files. The paths of the flags are paths on the host.
    pub root: HostRoot,
    /// Name of this node.
    pub node_name: String,
    /// The flags.
    pub arguments: AgentArguments,
    /// How log lines look, for the supervisor's too.
    pub log_format: LogFormat,
}

impl Settings {
    /// From flags and environment. An error if they do not name the node, or if the host's files
    /// cannot be reached.
    pub fn new(arguments: AgentArguments, log_format: LogFormat) -> Result<Self, Error> {
        let node_name = arguments.node.node_name()?;
        let root = arguments.node.host.root().map_err(Error::Host)?;
        Ok(Self {
            root,
            node_name,
            arguments,
            log_format,
        })
    }

    /// Where things are on the node.
    pub(crate) fn host(&self) -> &HostArguments {
        &self.arguments.node.host
    }
}
