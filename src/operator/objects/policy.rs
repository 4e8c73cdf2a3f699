//! The admission policy that limits each agent to its own node.
//!
//! A role cannot tell nodes apart, and the API server's NodeRestriction plugin knows only kubelets.
//! So the policy reads the name of the node from the agent's token, where it has been since v1.30
//! for the token of every pod.

use serde_json::json;

use crate::names::INSTALLATION;
use crate::operator::objects::{Object, labels};

pub(super) fn policy() -> Object {
    let own = "variables.node != '' && variables.before == variables.node && variables.after == variables.node";
    Object {
        why: "Limits each agent to the PodCheckpoints of its own node, even if its token is stolen.",
        value: json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": INSTALLATION, "labels": labels()},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["podcheckpointer.io"],
                    "apiVersions": ["*"],
                    "resources": ["podcheckpoints", "podcheckpoints/status"],
                    "operations": ["CREATE", "UPDATE", "DELETE"],
                }]},
                "matchConditions": [{
                    "name": "agents",
                    "expression":
                        format!("request.userInfo.username == 'system:serviceaccount:{INSTALLATION}:{INSTALLATION}'"),
                }],
                "variables": [
                    {
                        "name": "node",
                        "expression":
                            "request.userInfo.extra[?'authentication.kubernetes.io/node-name'][0].orValue('')",
                    },
                    {
                        "name": "after",
                        "expression": "(request.operation == 'DELETE' ? oldObject : object).spec.nodeName",
                    },
                    {
                        "name": "before",
                        "expression": "(request.operation == 'CREATE' ? object : oldObject).spec.nodeName",
                    },
                ],
                "validations": [{
                    "expression": own,
                    "messageExpression":
                        "'an agent may write only the PodCheckpoints of its own node: the token is of ' + \
                         (variables.node == '' ? 'no node' : 'node ' + variables.node) + ', the object of node ' + \
                         variables.before",
                }],
            },
        }),
    }
}

pub(super) fn policy_binding() -> Object {
    Object {
        why: "Puts the policy in force.",
        value: json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": INSTALLATION, "labels": labels()},
            "spec": {"policyName": INSTALLATION, "validationActions": ["Deny"]},
        }),
    }
}
