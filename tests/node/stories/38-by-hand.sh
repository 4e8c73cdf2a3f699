#!/bin/bash
# What people do to an installation: an admission webhook refuses it or is dead, the namespace or a definition is deleted.
# on containerd1
# once: the operator knows no runtime
# long
. "$(dirname "$0")/../lib.sh"

kept() { # every checkpoint, and the supervisor's process
  local n; for n in "$web" "$proxy" "$radio"; do checkpoint "$n" >/dev/null || { echo "no checkpoint of $n"; return 1; }; done
  [ "$(pid_of supervisor | head -1)" = "$supervisor" ] || { echo "the supervisor is another process"; return 1; }
}

healthy
uninstall
operator_up
install() {
  ask_for_agents
  wait_for 120 "the agents to be ready" settled
  protected
}
install
for n in web proxy radio; do declare "$n=$(app_pod $n)"; done
supervisor=$(pid_of supervisor | head -1)

say "an admission webhook that says no, and one that is dead"
start webhook python3 "$here/webhook.py" "$dir/pki" 9443 "not before Monday"
kubectl apply -f - >/dev/null <<YAML
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: gate}
webhooks:
- name: gate.site.test
  clientConfig: {url: "https://127.0.0.1:9443/", caBundle: "$(base64 -w0 <"$dir/pki/ca.crt")"}
  rules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [daemonsets]}]
  failurePolicy: Fail
  sideEffects: None
  timeoutSeconds: 2
  admissionReviewVersions: [v1]
YAML
refused() { not kubectl -n pod-checkpointer patch daemonset pod-checkpointer --dry-run=server --type merge -p '{"metadata": {"annotations": {"a": "b"}}}'; }
wait_for 30 "the webhook to be in force" refused
set_spec '{"maxAge": "48h"}'
wait_for 30 "the refusal to be shown" says Applied reason Refused
kubectl get podcheckpointers default -o yaml | grep 'not before Monday' >/dev/null || fail "not what the webhook said"
kept || fail "something that ran was lost"
stop webhook
set_spec '{"maxAge": "47h"}'
wait_for 60 "that nobody answers to be shown" says Applied reason ApplyFailed
kubectl get podcheckpointers default -o yaml | grep 'failed calling webhook' >/dev/null || fail "not what the server said"
kept || fail "something that ran was lost"
kubectl delete validatingwebhookconfiguration gate >/dev/null
set_spec '{"maxAge": null}'
wait_for 120 "the operator to go on" settled
supervisor=$(pid_of supervisor | head -1)

say "a PodMonitor, where the Prometheus Operator is, and no longer when it is not asked for"
kubectl apply -f - >/dev/null <<YAML
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: PodMonitor, plural: podmonitors}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
YAML
kubectl wait --for=condition=Established --timeout=30s crd podmonitors.monitoring.coreos.com >/dev/null
set_spec '{"metrics": {"podMonitor": true}}'
wait_for 60 "the PodMonitor" kubectl -n pod-checkpointer get podmonitors.monitoring.coreos.com pod-checkpointer
set_spec '{"metrics": null}'
wait_for 60 "it to go" absent -n pod-checkpointer podmonitors.monitoring.coreos.com pod-checkpointer
kubectl delete crd podmonitors.monitoring.coreos.com --timeout=60s >/dev/null
wait_for 120 "the operator to go on" settled

say "the namespace is deleted by hand, with everything in it"
lost=''
kubectl delete namespace pod-checkpointer --wait=false >/dev/null
uid=$(kubectl get namespace pod-checkpointer -o jsonpath='{.metadata.uid}')
another() { local now; now=$(kubectl get namespace pod-checkpointer -o jsonpath='{.metadata.uid}'); [ -n "$now" ] && [ "$now" != "$uid" ]; }
made_again() { kept || lost=1; another; }
wait_for 180 "the operator to make it again" made_again
back_again() { kept || lost=1; settled; }
wait_for 180 "the agents to be back" back_again
[ -z "$lost" ] || fail "a checkpoint or the supervisor was not kept"
wait_for 60 "every pod to be recoverable" recoverable

say "the definition of PodCheckpoints is deleted, with all of them"
kubectl delete crd podcheckpoints.podcheckpointer.io --timeout=60s >/dev/null
stays 5 "the checkpoints and the supervisor" kept
kubectl apply -k "$here/../../crds" >/dev/null
wait_for 330 "every PodCheckpoint to be written again" recoverable
kept || fail "something was lost with the definition"

say "the definition of the PodCheckpointer is deleted: it is removed like the resource itself"
kubectl delete crd podcheckpointers.podcheckpointer.io --timeout=300s >/dev/null
wait_for 60 "the agent to end" not pid_of agent
not pid_of supervisor || fail "the supervisor still runs"
wait_for 30 "the node's directories to be as before" as_before
wait_for 90 "the namespace to go" absent namespace pod-checkpointer
for n in $web $proxy $radio; do running "$n" || fail "$n was disturbed"; done

say "and all of it again"
kubectl apply -k "$here/../../crds" >/dev/null
from=$(now)
install
say "installed again after $(since "$from") s"

say "the operator goes first: what runs goes on, and the rest is removed by hand"
kubectl delete namespace pod-checkpointer-operator --timeout=120s >/dev/null
wait_for 60 "the checkpoints" checkpoint "$web"
kubectl patch podcheckpointers default --type json -p '[{"op": "remove", "path": "/metadata/finalizers"}]' >/dev/null
kubectl delete podcheckpointers default --timeout=30s >/dev/null
kubectl delete -k "$here/deploy" --ignore-not-found >/dev/null
kubectl delete -f "$work/operator.yaml" --ignore-not-found >/dev/null
wait_for 60 "the agent to end" not pid_of agent
checkpointer uninstall >/dev/null
wait_for 60 "the supervisor to end" not pid_of supervisor
wait_for 30 "the node's directories to be as before" as_before
rm "$dir/before"                                 # deploys again
healthy
