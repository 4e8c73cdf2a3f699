//! Containers: main, init and sidecar containers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule,
    ContainerRestartRuleOnExitCodes, EnvVar, ExecAction, GRPCAction, HTTPGetAction, HTTPHeader,
    Lifecycle, LifecycleHandler, Probe, SleepAction, TCPSocketAction, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Mapping, keep, security};
use crate::capture::environment;
use crate::names;
use crate::reasons::Refusal;

/// Which list a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `containers`.
    Main,
    /// `initContainers`, including sidecars.
    Init,
}

/// What the mapping of a container must know about its pod.
pub(super) struct Setting {
    pub(super) host_network: bool,
    /// The parent's grace period, if the twin's is longer because a container is held.
    pub(super) grace_of_parent: Option<i64>,
    /// Volumes that were read-only for the parent, whatever its mounts say.
    pub(super) read_only: BTreeSet<String>,
}

/// Whether a main container gets a hook that keeps it alive.
pub(super) fn is_held(container: &Container) -> bool {
    container
        .lifecycle
        .as_ref()
        .is_none_or(|lifecycle| lifecycle.pre_stop.is_none())
}

impl Mapping<'_> {
    pub(super) fn container(
        &mut self,
        container: &Container,
        role: Role,
        setting: &Setting,
    ) -> Container {
        let Container {
            args,
            command,
            env,
            env_from: _,
            image,
            image_pull_policy: _,
            lifecycle,
            liveness_probe,
            name,
            ports,
            readiness_probe,
            resize_policy,
            resources,
            restart_policy,
            restart_policy_rules,
            security_context,
            startup_probe,
            stdin,
            stdin_once,
            termination_message_path,
            termination_message_policy,
            tty,
            volume_devices,
            volume_mounts,
            working_dir,
        } = container;
        let list = if role == Role::Main {
            "containers"
        } else {
            "initContainers"
        };
        for device in volume_devices.iter().flatten() {
            let detail = format!("spec.{list}[{name}].volumeDevices[{}]", device.name);
            self.refuse(Refusal::PersistentVolume, detail);
        }
        let numbers = Numbers {
            ports: ports
                .as_deref()
                .filter(|_| setting.host_network)
                .unwrap_or_default(),
        };
        let is_held = role == Role::Main && is_held(container);
        let grace = match setting.grace_of_parent {
            Some(_) if is_held => Some(1),
            Some(grace) => Some(grace.max(1)),
            None => None,
        };
        let probe = |probe: &Option<Probe>, ends: bool| {
            probe.as_ref().map(|probe| {
                let mut twin = self::probe(probe, env.as_deref().unwrap_or_default(), &numbers);
                if ends && (is_held || twin.termination_grace_period_seconds.is_none()) {
                    twin.termination_grace_period_seconds =
                        grace.or(twin.termination_grace_period_seconds);
                }
                twin
            })
        };
        Container {
            args: args.clone(),
            command: command.clone(),
            env: self.live.environments.get(name).cloned(),
            env_from: None,
            image: self.live.images.get(name).or(image.as_ref()).cloned(),
            image_pull_policy: Some("IfNotPresent".into()),
            lifecycle: hooks(lifecycle.as_ref(), is_held, &numbers),
            liveness_probe: probe(liveness_probe, true),
            name: name.clone(),
            // on the host network each would count as a host port, and the kubelet would reject the
            // returning parent
            ports: ports
                .as_ref()
                .filter(|_| !setting.host_network)
                .map(|list| list.iter().map(port).collect()),
            readiness_probe: probe(readiness_probe, false),
            // a twin is never resized, and kubelets up to 1.34 refuse a policy on a sidecar of a
            // static pod, because they validate it without the options of the feature gates
            // (pkg/kubelet/config/common.go, `PodValidationOptions{}`)
            resize_policy: resize_policy
                .as_ref()
                .filter(|_| role == Role::Main)
                .map(|list| {
                    let policy = |it: &ContainerResizePolicy| {
                        keep!(
                            it,
                            ContainerResizePolicy {
                                resource_name,
                                restart_policy
                            }
                        )
                    };
                    list.iter().map(policy).collect()
                }),
            resources: self
                .enacted
                .get(name)
                .cloned()
                .or_else(|| resources.clone())
                .map(|it| self.resources(&it, &format!("spec.{list}[{name}].resources"))),
            restart_policy: restart_policy.clone(),
            restart_policy_rules: restart_policy_rules
                .as_ref()
                .map(|list| list.iter().map(rule).collect()),
            security_context: security_context.as_ref().map(security::of_container),
            startup_probe: probe(startup_probe, true),
            stdin: *stdin,
            stdin_once: *stdin_once,
            termination_message_path: termination_message_path.clone(),
            termination_message_policy: termination_message_policy.clone(),
            tty: *tty,
            volume_devices: None,
            volume_mounts: volume_mounts.as_ref().map(|list| {
                list.iter()
                    .map(|it| mount(it, &setting.read_only))
                    .collect()
            }),
            working_dir: working_dir.clone(),
        }
    }
}

/// Ports of a container by name, for a pod whose twin has no named ports.
struct Numbers<'a> {
    ports: &'a [ContainerPort],
}

impl Numbers<'_> {
    /// The port's number, found as the kubelet does it (pkg/probe, `ResolveContainerPort`). An
    /// unknown name stays as it is: the parent's probe failed as well.
    fn of(&self, port: &IntOrString) -> IntOrString {
        let IntOrString::String(name) = port else {
            return port.clone();
        };
        let found = self
            .ports
            .iter()
            .find(|port| port.name.as_deref() == Some(name));
        found.map_or_else(
            || port.clone(),
            |port| IntOrString::Int(port.container_port),
        )
    }
}

fn port(port: &ContainerPort) -> ContainerPort {
    keep!(
        port,
        ContainerPort {
            container_port,
            host_ip,
            host_port,
            name,
            protocol
        }
    )
}

fn rule(rule: &ContainerRestartRule) -> ContainerRestartRule {
    let ContainerRestartRule { action, exit_codes } = rule;
    let codes = exit_codes
        .as_ref()
        .map(|codes| keep!(codes, ContainerRestartRuleOnExitCodes { operator, values }));
    ContainerRestartRule {
        action: action.clone(),
        exit_codes: codes,
    }
}

/// A Secret or ConfigMap is read-only whatever its mount says (pkg/kubelet/kubelet_pods.go,
/// `mustMountRO`), and so is a claim with `readOnly`; a host path is not. `subPath` is kept: the
/// kubelet follows the links of a volume inside it (pkg/volume/util/subpath), and expands
/// `subPathExpr` with the container's environment, which is the parent's.
fn mount(mount: &VolumeMount, forced: &BTreeSet<String>) -> VolumeMount {
    let VolumeMount {
        mount_path,
        mount_propagation,
        name,
        read_only,
        recursive_read_only,
        sub_path,
        sub_path_expr,
    } = mount;
    VolumeMount {
        mount_path: mount_path.clone(),
        mount_propagation: mount_propagation.clone(),
        name: name.clone(),
        read_only: if forced.contains(name) {
            Some(true)
        } else {
            *read_only
        },
        recursive_read_only: recursive_read_only.clone(),
        sub_path: sub_path.clone(),
        sub_path_expr: sub_path_expr.clone(),
    }
}

fn probe(probe: &Probe, env: &[EnvVar], numbers: &Numbers<'_>) -> Probe {
    let Probe {
        exec,
        failure_threshold,
        grpc,
        http_get,
        initial_delay_seconds,
        period_seconds,
        success_threshold,
        tcp_socket,
        termination_grace_period_seconds,
        timeout_seconds,
    } = probe;
    Probe {
        exec: exec.as_ref().map(|exec| static_command(exec, env)),
        failure_threshold: *failure_threshold,
        grpc: grpc
            .as_ref()
            .map(|it| keep!(it, GRPCAction { port, service })),
        http_get: http_get.as_ref().map(|it| http(it, numbers)),
        initial_delay_seconds: *initial_delay_seconds,
        period_seconds: *period_seconds,
        success_threshold: *success_threshold,
        tcp_socket: tcp_socket.as_ref().map(|it| tcp(it, numbers)),
        termination_grace_period_seconds: *termination_grace_period_seconds,
        timeout_seconds: *timeout_seconds,
    }
}

/// The kubelet expands a probe's command only with what `env` declares literally: a `value` as
/// written, an empty string for a `valueFrom`, and nothing of `envFrom`
/// (pkg/kubelet/container/helpers.go, `ExpandContainerCommandOnlyStatic`). The twin's declarations
/// differ, so the command is expanded here.
fn static_command(exec: &ExecAction, env: &[EnvVar]) -> ExecAction {
    let ExecAction { command } = exec;
    let declared: BTreeMap<&str, &str> = env
        .iter()
        .map(|entry| {
            (
                entry.name.as_str(),
                entry.value.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    let concrete = |word: &String| {
        environment::escape(&environment::expand(word, |name| {
            declared.get(name).copied()
        }))
    };
    ExecAction {
        command: command
            .as_ref()
            .map(|words| words.iter().map(concrete).collect()),
    }
}

fn http(action: &HTTPGetAction, numbers: &Numbers<'_>) -> HTTPGetAction {
    let HTTPGetAction {
        host,
        http_headers,
        path,
        port,
        scheme,
    } = action;
    let header = |it: &HTTPHeader| keep!(it, HTTPHeader { name, value });
    HTTPGetAction {
        host: host.clone(),
        http_headers: http_headers
            .as_ref()
            .map(|list| list.iter().map(header).collect()),
        path: path.clone(),
        port: numbers.of(port),
        scheme: scheme.clone(),
    }
}

fn tcp(action: &TCPSocketAction, numbers: &Numbers<'_>) -> TCPSocketAction {
    let TCPSocketAction { host, port } = action;
    TCPSocketAction {
        host: host.clone(),
        port: numbers.of(port),
    }
}

fn hooks(lifecycle: Option<&Lifecycle>, is_held: bool, numbers: &Numbers<'_>) -> Option<Lifecycle> {
    let empty = Lifecycle::default();
    let Lifecycle {
        post_start,
        pre_stop,
        stop_signal,
    } = lifecycle.unwrap_or(&empty);
    let hold = LifecycleHandler {
        sleep: Some(SleepAction {
            seconds: names::HOLD_SECONDS,
        }),
        ..LifecycleHandler::default()
    };
    let twin = Lifecycle {
        post_start: post_start.as_ref().map(|it| hook(it, numbers)),
        pre_stop: if is_held {
            Some(hold)
        } else {
            pre_stop.as_ref().map(|it| hook(it, numbers))
        },
        // the API has it only if the cluster knows the feature gate; without it the kubelet uses
        // the image's signal
        stop_signal: stop_signal.clone(),
    };
    (twin != empty).then_some(twin)
}

/// Copies a hook. Its command is not expanded at all (pkg/kubelet/lifecycle/handlers.go).
fn hook(handler: &LifecycleHandler, numbers: &Numbers<'_>) -> LifecycleHandler {
    let LifecycleHandler {
        exec,
        http_get,
        sleep,
        tcp_socket,
    } = handler;
    LifecycleHandler {
        exec: exec.as_ref().map(|it| keep!(it, ExecAction { command })),
        http_get: http_get.as_ref().map(|it| http(it, numbers)),
        sleep: sleep.as_ref().map(|it| keep!(it, SleepAction { seconds })),
        tcp_socket: tcp_socket.as_ref().map(|it| tcp(it, numbers)),
    }
}
