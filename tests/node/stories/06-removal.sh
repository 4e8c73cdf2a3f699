#!/bin/bash
# The checkpoint of a deleted or replaced pod is removed; none is removed while the API server is silent or lists nothing.
# on containerd2
. "$(dirname "$0")/../lib.sh"

healthy; remember
settings RETENTION=2s
old=$web
kubectl -n shop rollout restart deployment/web >/dev/null
replaced() { [ "$(app_pod web)" != "$old" ] && checkpoint "$(app_pod web)" && not checkpoint "$old"; }
wait_for 90 "the new pod's checkpoint instead of the old one's" replaced
kubectl -n edge delete pod radio --wait=false >/dev/null
wait_for 60 "the deleted pod's checkpoint to go" not checkpoint "$radio"
kubectl apply -f "$here/pods/marked.yaml" >/dev/null
healthy; remember

kept() { for n in web proxy radio; do checkpoint "${!n}" || return 1; done; }
outage blackhole
stays 15 "every checkpoint is there" kept
cell "API server silent" "no checkpoint is removed" "none in 15 s"
outage_end

# an API server without any objects, as after a restore of the wrong etcd data. The kubelet is stopped, because it would
# end every pod, including the agent
kubelet_stop
stop apiserver
ETCD_PREFIX=/empty api_start
wait_for 60 "the empty API server" api_wait 1
stays 20 "every checkpoint is there" kept
cell "an API server that knows no pod and no node" "no checkpoint is removed" "none in 20 s"
stop apiserver
api_start
kubelet_start
wait_for 60 "the API server" api_wait 1
wait_for 120 "every pod to be ready" pods_ready
kept
settings RETENTION-
