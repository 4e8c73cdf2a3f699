//! The marked pods of a model's node.

use crate::checkpoint::Policy;
use crate::supervisor::core::facts::Key;

/// A marked pod, as far as the kubelet treats it differently from others.
#[derive(Clone)]
pub(super) struct Marked {
    pub(super) key: Key,
    pub(super) policy: Policy,
    /// The kubelet rejects the parent while it owns the twin: a host port, or too little room for
    /// both.
    pub(super) excludes: bool,
    /// From SIGTERM to the end of its process, in milliseconds.
    pub(super) ends_in: u64,
    /// It is the node's only API server.
    pub(super) is_api_server: bool,
}

impl Marked {
    fn new(name: &str, start_group: i32) -> Self {
        let policy = Policy {
            start_group,
            grace_seconds: 10,
            ..Policy::default()
        };
        Self {
            key: Key::new("shop", name).unwrap(),
            policy,
            excludes: false,
            ends_in: 100,
            is_api_server: false,
        }
    }

    fn on_host_network(mut self) -> Self {
        self.policy.host_network = true;
        self
    }

    fn excluding(mut self) -> Self {
        self.policy.host_port = true;
        self.excludes = true;
        self
    }

    fn slow_to_end(mut self) -> Self {
        self.ends_in = 3_000;
        self
    }

    fn slow_to_start(mut self) -> Self {
        self.policy.slow_start = true;
        self
    }

    fn stateful(mut self) -> Self {
        self.policy.stateful = true;
        self
    }
}

pub(super) fn ordinary() -> Vec<Marked> {
    vec![
        Marked::new("network", 10).on_host_network(),
        Marked::new("radio", 20)
            .on_host_network()
            .slow_to_end()
            .slow_to_start(),
        Marked::new("web", 50),
        Marked::new("proxy", 50).excluding().slow_to_end(),
        Marked::new("store", 60).stateful(),
    ]
}

pub(super) fn self_hosted() -> Vec<Marked> {
    let api = Marked {
        is_api_server: true,
        ..Marked::new("api", 10).on_host_network()
    };
    vec![
        api,
        Marked::new("proxy", 50).excluding(),
        Marked::new("radio", 50).on_host_network(),
    ]
}
