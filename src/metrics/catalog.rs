//! Every metric: its name, its kind, who serves it, its labels, and when to alert. `docs/metrics.md` is generated from it.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows, until its part or its node starts again.
    Counter,
    /// Durations, in [`crate::places::reports::Times::BOUNDS`].
    Histogram,
}

/// Who serves a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The agent.
    Agent,
    /// The supervisor.
    Supervisor,
    /// The supervisor, and the agent from the supervisor's record.
    Both,
    /// The operator.
    Operator,
    /// Each its own.
    Each,
}

macro_rules! metrics {
    ($($variant:ident: $kind:ident of $of:ident $(by $label:literal)*, $name:literal, $help:literal, $alert:literal;)*) => {
        /// What is told in figures; `docs/metrics.md` is made of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)] // each explains itself by its help
        pub enum Metric { $($variant,)* }

        impl Metric {
            /// Every metric, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => concat!("pod_checkpointer_", $name),)* }
            }

            /// How it behaves.
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// Who serves it.
            pub fn of(self) -> Of {
                match self { $(Self::$variant => Of::$of,)* }
            }

            /// Its labels.
            pub fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label,)*],)* }
            }

            /// What it tells, one sentence.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            /// When somebody should look; empty: of itself never.
            pub fn alert(self) -> &'static str {
                match self { $(Self::$variant => $alert,)* }
            }
        }
    };
}

metrics! {
    BuildInfo: Gauge of Each by "version" by "part", "build_info",
        "Always 1; which program serves this, and as which part.", "";
    Checkpoints: Gauge of Both by "phase", "checkpoints",
        "Checkpoints on this node, by phase.",
        "`{phase=\"Blocked\"} > 0`: should be active and cannot; `{phase=\"Released\"} > 0` for 10 minutes: a hand-over hangs";
    Recoverable: Gauge of Agent by "reason", "recoverable",
        "Marked pods, by the first reason why they would not come back on this node; Recoverable: they would.",
        "`{reason!=\"Recoverable\"} > 0` for 15 minutes";
    CheckpointAge: Gauge of Agent, "checkpoint_age_seconds",
        "Age of the oldest of the newest checkpoints of all pods; an unchanged pod is not captured again.", "";
    Captures: Counter of Agent by "result", "captures_total",
        "Captures of pods, by what they came to.", "`increase(…{result=\"Failed\"}[15m]) > 3`";
    CaptureTime: Histogram of Agent, "capture_seconds",
        "Time from the begin of a capture to a durable checkpoint.", "";
    StoreErrors: Counter of Agent by "kind", "store_errors_total",
        "Errors of the directory with the checkpoints, by kind.", "`increase(…[15m]) > 0`";
    DamagedFiles: Counter of Agent, "damaged_files_total",
        "Damaged checkpoint files that were found and set aside.", "`increase(…[1d]) > 0`: the disk forgets what it was told";
    SupervisorUp: Gauge of Agent, "supervisor_up",
        "1 while the supervisor of this node runs, else 0.", "`== 0` for 5 minutes: nothing would bring a pod back";
    Problems: Gauge of Both by "part", "problems",
        "What a part cannot learn or do now; its log and `pod-checkpointer status` say what.", "`> 0` for 15 minutes";
    NodeRisk: Gauge of Agent by "risk", "node_risk",
        "1 while this is so of the node and would keep its pods from coming back, or make that slow; else 0.",
        "`{risk!~\"CannotUnstick|ServerNamedByDNS\"} > 0` for 15 minutes";
    ApiContact: Gauge of Both, "api_contact",
        "1 while the API server answers the supervisor, else 0.", "";
    ApiSilence: Gauge of Both, "api_silence_seconds",
        "Time since the API server last answered the supervisor; 0 while it answers.", "`> 600`, where such an outage is not usual";
    Outages: Counter of Both, "outages_total",
        "Outages since boot in which a pod was activated.", "";
    Activations: Counter of Both by "result", "activations_total",
        "Attempts since boot to start a pod without the API server, by what they came to.",
        "`increase(…[15m]) > 0` for a result other than Activated, Renewed and TakenBack";
    ActivationTime: Histogram of Both, "activation_seconds",
        "Time from the decision to activate a pod to all its containers running.", "";
    TakeoverTime: Histogram of Both, "takeover_seconds",
        "Time from the first sign of the API server to the pod itself running again.", "";
    OverlapTime: Histogram of Both, "overlap_seconds",
        "Time that a pod and its stand-in ran side by side at the hand-over.", "";
    KubeletUnstuck: Counter of Both, "kubelet_unstuck_total",
        "Times since boot that a kubelet waited for the API server and its waiting connections were closed.", "";
    PassAge: Gauge of Supervisor, "pass_age_seconds",
        "Time since the supervisor last looked at its node; up to a minute while all is well.", "`> 120`: it hangs";
    OperatorLeads: Gauge of Operator, "operator_leads",
        "1 while this operator holds the Lease and acts, else 0.", "`sum(…) != 1` for 5 minutes: nobody acts";
    OperatorCondition: Gauge of Operator by "type", "operator_condition",
        "1 while this condition of the PodCheckpointer is True, else 0.",
        "`{type=\"Applied\"} == 0` for 15 minutes: the condition's message says why";
    OperatorNodes: Gauge of Operator by "state", "operator_nodes",
        "Nodes that should have an agent, whose agent is ready, and whose agent has the settings of now.", "";
    OperatorCheckpoints: Gauge of Operator by "state", "operator_checkpoints",
        "PodCheckpoints of all nodes: all of them, those that would come back, and those whose pod is stood in for.", "";
    OperatorApplies: Counter of Operator by "result", "operator_applies_total",
        "Times that all objects of the PodCheckpointer were applied, by what that came to.", "";
    OperatorRepairs: Counter of Operator by "kind", "operator_repairs_total",
        "Times that an object of this kind was not as it was applied, and was applied again.",
        "`increase(…[1h]) > 10`: somebody else wants it otherwise";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_alerts_ask_for_metrics_that_there_are() {
        let rules = include_str!("../../examples/metrics/rules.yaml");
        let words = rules.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let asked: Vec<&str> = words.filter(|word| word.starts_with("pod_checkpointer_")).collect();
        assert!(asked.len() > 5, "{asked:?}");
        for name in asked {
            assert!(Metric::ALL.iter().any(|metric| metric.name() == name), "{name}");
        }
    }

    #[test]
    fn every_metric_has_a_name_by_the_conventions_and_says_what_it_is() {
        for metric in Metric::ALL {
            let (name, help) = (metric.name(), metric.help());
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind() == Kind::Counter, "{name}");
            assert!(metric.kind() != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(help.ends_with('.') && help.len() > 20 && !help.contains("  "), "{name}: {help:?}");
            assert!(!metric.alert().contains("  ") && !metric.alert().ends_with('.'), "{name}");
        }
    }
}
