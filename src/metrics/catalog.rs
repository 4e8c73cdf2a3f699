//! Every metric: its name, its kind, which part serves it, its labels, and when to alert.
//! `docs/metrics.md` is generated from it.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows, until its part or its node restarts.
    Counter,
    /// Durations, in the buckets of [`crate::places::reports::Times::BOUNDS`].
    Histogram,
}

/// Which part serves a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The agent.
    Agent,
    /// The supervisor.
    Supervisor,
    /// The supervisor, and the agent, which reads the supervisor's report.
    Both,
    /// The operator.
    Operator,
    /// Each part, about itself.
    Each,
}

macro_rules! metrics {
    ($($variant:ident: $kind:ident of $of:ident $(by $label:literal)*, $name:literal, $help:literal, $alert:literal;)*) => {
        /// A metric that the program exports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)] // its help says what each one is
        pub enum Metric { $($variant,)* }

        impl Metric {
            /// Every metric, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name, with the prefix of the program.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => concat!("pod_checkpointer_", $name),)* }
            }

            /// Gauge, counter or histogram.
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// Which part serves it.
            pub fn of(self) -> Of {
                match self { $(Self::$variant => Of::$of,)* }
            }

            /// The names of its labels.
            pub fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label,)*],)* }
            }

            /// What it measures, in one sentence.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            /// When to alert; empty: never on its own.
            pub fn alert(self) -> &'static str {
                match self { $(Self::$variant => $alert,)* }
            }
        }
    };
}

metrics! {
    BuildInfo: Gauge of Each by "version" by "part", "build_info",
        "Always 1; the labels name the version of the program and the part.", "";
    Checkpoints: Gauge of Both by "phase", "checkpoints",
        "Checkpoints on this node, by phase.",
        "`{phase=\"Blocked\"} > 0`: should be active but cannot be; `{phase=\"Released\"} > 0` for 10 minutes: a hand-over is stuck";
    Recoverable: Gauge of Agent by "reason", "recoverable",
        "Marked pods, by the first reason why they would not come back on this node, or Recoverable if they would.",
        "`{reason!=\"Recoverable\"} > 0` for 15 minutes";
    CheckpointAge: Gauge of Agent, "checkpoint_age_seconds",
        "Time since the oldest of the pods' newest checkpoints was captured; an unchanged pod is not captured again.", "";
    Captures: Counter of Agent by "result", "captures_total",
        "Captures of pods, by result.", "`increase(…{result=\"Failed\"}[15m]) > 3`";
    CaptureTime: Histogram of Agent, "capture_seconds",
        "Time from the start of a capture until its checkpoint is durable.", "";
    StoreErrors: Counter of Agent by "kind", "store_errors_total",
        "Errors when reading or writing the checkpoints on disk, by kind.", "`increase(…[15m]) > 0`";
    DamagedFiles: Counter of Agent, "damaged_files_total",
        "Damaged checkpoint files that were found and set aside.", "`increase(…[1d]) > 0`: the disk loses data";
    SupervisorUp: Gauge of Agent, "supervisor_up",
        "1 while the supervisor of this node runs, else 0.", "`== 0` for 5 minutes: no pod would be brought back";
    Problems: Gauge of Both by "part", "problems",
        "Number of things a part currently cannot find out or do; its log and `pod-checkpointer status` list them.", "`> 0` for 15 minutes";
    NodeRisk: Gauge of Agent by "risk", "node_risk",
        "1 while the node has this risk, which would keep its pods from coming back or slow them down; else 0.",
        "`{risk!~\"CannotUnstick|ServerNamedByDNS\"} > 0` for 15 minutes";
    ApiContact: Gauge of Both, "api_contact",
        "1 while the API server answers the supervisor, else 0.", "";
    ApiSilence: Gauge of Both, "api_silence_seconds",
        "Time since the API server last answered the supervisor; 0 while it answers.", "`> 600`, if such outages are unusual for the node";
    Outages: Counter of Both, "outages_total",
        "Outages since boot in which at least one pod was activated.", "";
    Activations: Counter of Both by "result", "activations_total",
        "Attempts since boot to start a pod without the API server, by result.",
        "`increase(…[15m]) > 0` for a result other than Activated, Renewed and TakenBack";
    ActivationTime: Histogram of Both, "activation_seconds",
        "Time from the decision to activate a pod until all its containers run.", "";
    TakeoverTime: Histogram of Both, "takeover_seconds",
        "Time from the first answer of the API server until the pod itself runs again.", "";
    OverlapTime: Histogram of Both, "overlap_seconds",
        "Time for which a pod and its twin both ran during the hand-over.", "";
    KubeletUnstuck: Counter of Both, "kubelet_unstuck_total",
        "Times since boot that the connections of a kubelet that waited for the API server were closed.", "";
    PassAge: Gauge of Supervisor, "pass_age_seconds",
        "Time since the supervisor last checked its node; up to a minute while all is well.", "`> 120`: it hangs";
    OperatorLeads: Gauge of Operator, "operator_leads",
        "1 while this operator holds the Lease and acts, else 0.", "`sum(…) != 1` for 5 minutes: no operator acts";
    OperatorCondition: Gauge of Operator by "type", "operator_condition",
        "1 while this condition of the PodCheckpointer is True, else 0.",
        "`{type=\"Applied\"} == 0` for 15 minutes: the condition's message says why";
    OperatorNodes: Gauge of Operator by "state", "operator_nodes",
        "Nodes that should have an agent, whose agent is ready, and whose agent has the current settings.", "";
    OperatorCheckpoints: Gauge of Operator by "state", "operator_checkpoints",
        "PodCheckpoints of all nodes: all, those whose pod would come back, and those whose twin runs in place of the pod.", "";
    OperatorApplies: Counter of Operator by "result", "operator_applies_total",
        "Times that all objects of the PodCheckpointer were applied, by result.", "";
    OperatorRepairs: Counter of Operator by "kind", "operator_repairs_total",
        "Times that an object of this kind had been changed or deleted and was applied again.",
        "`increase(…[1h]) > 10`: another program keeps changing it";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_alerts_use_metrics_that_exist() {
        let rules = include_str!("../../examples/metrics/rules.yaml");
        let words = rules.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let asked: Vec<&str> = words
            .filter(|word| word.starts_with("pod_checkpointer_"))
            .collect();
        assert!(asked.len() > 5, "{asked:?}");
        for name in asked {
            assert!(
                Metric::ALL.iter().any(|metric| metric.name() == name),
                "{name}"
            );
        }
    }

    #[test]
    fn every_metric_is_named_by_the_conventions_and_says_what_it_measures() {
        for metric in Metric::ALL {
            let (name, help) = (metric.name(), metric.help());
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
            assert_eq!(
                name.ends_with("_total"),
                metric.kind() == Kind::Counter,
                "{name}"
            );
            assert!(
                metric.kind() != Kind::Histogram || name.ends_with("_seconds"),
                "{name}"
            );
            assert!(
                help.ends_with('.') && help.len() > 20 && !help.contains("  "),
                "{name}: {help:?}"
            );
            assert!(
                !metric.alert().contains("  ") && !metric.alert().ends_with('.'),
                "{name}"
            );
        }
    }
}
