//! What the containers of agent, supervisor and operator have in common.

use serde_json::{Value, json};

/// A container's `securityContext` for user 0 with these capabilities and no others. The container
/// is not privileged, and its root file system is read-only.
pub fn root_security_context(capabilities: &[&str]) -> Value {
    json!({
        "privileged": false,
        "runAsUser": 0,
        "runAsGroup": 0,
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"], "add": capabilities},
    })
}

/// A pod's `securityContext` that lets its containers reach the node's files through
/// `/proc/<pid>/root`.
pub fn host_security_context() -> Value {
    json!({
        // the runtime's default profile allows what is needed: openat2, netlink sockets, reading
        // /proc
        "seccompProfile": {"type": "RuntimeDefault"},
        // AppArmor's default profile denies ptrace, and with it every access through
        // /proc/<pid>/root
        "appArmorProfile": {"type": "Unconfined"},
        // the type of containers that manage their host
        "seLinuxOptions": {"type": "spc_t"},
    })
}

/// An environment variable with the value of a field of the pod (downward API), such as
/// `spec.nodeName`.
pub fn field_variable(name: &str, field_path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field_path}}})
}

/// `--name=value` as an element of a container's `args`, see [`escaped`].
pub fn flag(name: &str, value: &str) -> String {
    escaped(&format!("--{name}={value}"))
}

/// An argument as an element of a container's `args`. The kubelet replaces `$(NAME)` there by a
/// variable's value and `$$` by a dollar sign (third_party/forked/golang/expansion), so each dollar
/// sign is doubled.
pub fn escaped(argument: &str) -> String {
    argument.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_gives_a_flag_the_value_that_was_meant() {
        assert_eq!(
            flag("key-file", "/etc/$(HOME)/key$"),
            "--key-file=/etc/$$(HOME)/key$$"
        );
    }
}
