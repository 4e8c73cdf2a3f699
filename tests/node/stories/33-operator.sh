#!/bin/bash
# The operator installs everything, repairs it, shows what is wrong, upgrades, is taken over from, and removes everything.
# on containerd2
# once: the operator knows no runtime
. "$(dirname "$0")/../lib.sh"

supervisor_pid() { pid_of supervisor | head -1; }
operators() { # NUMBER of them are ready
  [ "$(kubectl -n pod-checkpointer-operator get deployment pod-checkpointer-operator -o jsonpath='{.status.readyReplicas}')" = "$1" ]
}
holder() { kubectl -n pod-checkpointer-operator get lease pod-checkpointer-operator -o jsonpath='{.spec.holderIdentity}'; }

healthy
say "off with the plain installation"
uninstall

say "the operator alone changes nothing"
operator_up
wait_for 90 "the operator" operators 1
absent -n pod-checkpointer daemonset pod-checkpointer || fail "there is a DaemonSet without a PodCheckpointer"

from=$(now)
ask_for_agents
wait_for 90 "every object to be applied" says Applied status True
wait_for 90 "the agents to be ready" is_ready
protected
counted() { # as many as there are, and none active
  local total; total=$(kubectl get podcheckpoints -A --no-headers | wc -l)
  shown checkpoints.total "$total" && shown checkpoints.active 0 && [ "$total" -ge 3 ]
}
wait_for 15 "the checkpoints to be counted" counted
shown nodes.desired 1 && shown nodes.ready 1 && shown nodes.upgraded 1
shown image localhost/pod-checkpointer:dev
say "a PodCheckpointer became recoverable pods in $(since "$from") s"
promtool check rules "$here/../../examples/metrics/rules.yaml" >&2
wait_for 15 "the operator to be well" is_well operator
for series in leads 'condition{type="Applied"}' 'condition{type="Ready"}' 'nodes{state="ready"}' 'checkpoints{state="recoverable"}'; do
  is_counted operator "operator_$series" 1
done
for n in web proxy radio; do declare "$n=$(app_pod $n)"; done
all_kept() { # a generation of each, and the same supervisor
  local n; for n in "$web" "$proxy" "$radio"; do checkpoint "$n" >/dev/null || { echo "no checkpoint of $n"; return 1; }; done
  [ "$(supervisor_pid)" = "$supervisor" ] || { echo "the supervisor is another process"; return 1; }
}
supervisor=$(supervisor_pid)

say "what is changed or deleted by hand is repaired"
kubectl -n pod-checkpointer delete daemonset pod-checkpointer >/dev/null
kubectl patch clusterrole pod-checkpointer --type json -p '[{"op": "add", "path": "/rules/0/resources/-", "value": "secrets"}]' >/dev/null
kubectl -n pod-checkpointer delete service pod-checkpointer >/dev/null
kubectl delete validatingadmissionpolicybinding pod-checkpointer >/dev/null
repaired() {
  kubectl -n pod-checkpointer get daemonset,service pod-checkpointer && kubectl get validatingadmissionpolicybinding pod-checkpointer &&
    not grep secrets <(kubectl get clusterrole pod-checkpointer -o yaml)
}
wait_for 20 "everything to be repaired" repaired
is_counted operator 'operator_repairs_total{kind="DaemonSet"}' 1
wait_for 90 "the agents to be ready again" is_ready
all_kept || fail "not kept while the agents were away"

say "a setting that does not work is shown, and what recovers goes on"
set_spec '{"image": "localhost/absent:1"}'
wait_for 60 "that to be shown" says Ready status False
shown image localhost/absent:1
stays 10 "the checkpoints and the supervisor" all_kept
set_spec '{"image": null}'
wait_for 90 "the agents to be ready again" settled

say "so is what an admission policy refuses"
kubectl apply -f - >/dev/null <<YAML
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: nothing-new}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [daemonsets]}]}
  matchConditions: [{name: operator, expression: "request.userInfo.username.endsWith(':pod-checkpointer-operator')"}]
  validations: [{expression: "false", message: "nothing new before Monday"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: nothing-new}
spec: {policyName: nothing-new, validationActions: [Deny]}
YAML
refuses() { not kubectl -n pod-checkpointer patch daemonset pod-checkpointer --as system:serviceaccount:x:pod-checkpointer-operator \
  --as-group system:masters --dry-run=server --type merge -p '{"metadata": {"annotations": {"a": "b"}}}'; }
wait_for 30 "the policy to be in force" refuses
set_spec '{"maxAge": "48h"}'
wait_for 30 "the refusal to be shown" says Applied reason Refused
kubectl get podcheckpointers default -o yaml | grep 'nothing new before Monday' >/dev/null || fail "not what the server said"
all_kept || fail "something that ran was lost"
kubectl delete validatingadmissionpolicybinding,validatingadmissionpolicy nothing-new >/dev/null
wait_for 90 "the operator to try again" settled

say "of two operators one acts, and the other takes over when that is killed"
kubectl -n pod-checkpointer-operator scale deployment pod-checkpointer-operator --replicas 2 >/dev/null
wait_for 60 "the second operator" operators 2
leader=$(holder)
[ -n "$leader" ] || fail "no operator holds the Lease"
from=$(now)
crash "pod-checkpointer-operator/${leader%_*}" operator
taken_over() { local now; now=$(holder); [ -n "$now" ] && [ "$now" != "$leader" ]; }
wait_for 40 "the Lease to be taken over" taken_over
say "another operator leads after $(since "$from") s"

say "an upgrade leaves the checkpoints and the supervisor where they are"
set_spec '{"maxAge": "72h"}'
lost=''
upgraded() { all_kept || lost=1; settled; }
wait_for 120 "the new settings to be in force" upgraded
[ -z "$lost" ] || fail "a checkpoint or the supervisor was not kept during the upgrade"
kubectl -n pod-checkpointer get daemonset pod-checkpointer -o yaml | grep -- --max-age=72h >/dev/null

say "removed with its PodCheckpointer"
from=$(now)
kubectl delete podcheckpointers default --wait=false >/dev/null
wait_for 240 "the PodCheckpointer to go" absent podcheckpointers default
say "everything is removed after $(since "$from") s"
for kind in clusterrole clusterrolebinding validatingadmissionpolicy validatingadmissionpolicybinding; do
  absent $kind pod-checkpointer || fail "left: $kind"
done
absent podcheckpoints -A || fail "left in the API"
wait_for 60 "the agent to end" not pid_of agent
not pid_of supervisor || fail "the supervisor still runs"
wait_for 30 "the node's directories to be as before" as_before
wait_for 90 "the namespace to go" absent namespace pod-checkpointer
for n in $web $proxy $radio; do running "$n" || fail "$n was disturbed"; done
kubectl delete -f "$work/operator.yaml" >/dev/null
wait_for 60 "the operator to go" absent namespace pod-checkpointer-operator
rm "$dir/before"                                 # deploys again
healthy
