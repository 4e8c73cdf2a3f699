#!/bin/bash
# A namespace's label and a selector mark pods, an opt-out wins, and what marked a pod is shown.
# on containerd2
# once: marks are the API's
. "$(dirname "$0")/../lib.sh"

healthy
new_namespace outpost
kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: kiosk, namespace: outpost}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: app, image: "localhost/witness:1", args: [serve]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: loner, namespace: outpost, labels: {app: kiosk}, annotations: {podcheckpointer.io/checkpoint: "false"}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: app, image: "localhost/witness:1", args: [serve]}]}
YAML
cat >"$work/settings.yaml" <<YAML
apiVersion: podcheckpointer.io/v1alpha1
kind: PodCheckpointer
metadata: {name: default}
spec: {namespaceSelector: {matchLabels: {site: edge}}, select: [{matchLabels: {app: kiosk}}], retention: 2s}
YAML
pod-checkpointer manifests --skip-crds -f "$work/settings.yaml" --image localhost/pod-checkpointer:dev | kubectl apply -f - >/dev/null
wait_for 90 "the agent to be replaced" kubectl -n pod-checkpointer rollout status --timeout=1s daemonset/pod-checkpointer
wait_for 60 "the pods of the namespace" kubectl -n outpost wait --for=condition=Ready --timeout=1s pod --all
wait_for 30 "every pod to be recoverable" recoverable
not checkpoint outpost/kiosk || fail "nothing marks it"

marked_by() { # WHAT: in the API and on the node
  [ "$(kubectl -n outpost get podcheckpoint kiosk -o jsonpath='{.status.markedBy}')" = "$1" ] || return 1
  checkpointer show outpost/kiosk | grep -x "markedBy: $1" && checkpointer status | grep "kiosk.*$1"
}
kubectl label namespace outpost site=edge >/dev/null
wait_for 30 "its namespace to mark it" marked_by "namespace selector site=edge"
told() { kubectl -n outpost get events --field-selector involvedObject.name=kiosk -o custom-columns=R:.reason --no-headers | grep -x Captured; }
wait_for 10 "an Event" told
kubectl label namespace outpost site=centre --overwrite >/dev/null
wait_for 30 "its checkpoint to go with the label" not checkpoint outpost/kiosk
kubectl -n outpost label pod kiosk app=kiosk >/dev/null
wait_for 30 "a selector to mark it" marked_by "selector app=kiosk"
kubectl label namespace outpost site=edge --overwrite >/dev/null
kubectl -n outpost annotate pod kiosk podcheckpointer.io/checkpoint=false >/dev/null
wait_for 30 "the opt-out to win" not checkpoint outpost/kiosk
not checkpoint outpost/loner || fail "it was opted out from the start"

kubectl delete namespace outpost >/dev/null
kubectl apply -k "$here/deploy" >/dev/null
wait_for 90 "the agent to be replaced" kubectl -n pod-checkpointer rollout status --timeout=1s daemonset/pod-checkpointer
healthy
