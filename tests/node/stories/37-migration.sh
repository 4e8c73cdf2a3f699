#!/bin/bash
# Bootkube's checkpointer was here: its marks work, it is not brought back itself, and its files are removed once they are not needed.
# long
. "$(dirname "$0")/../lib.sh"

old=$disk/etc/kubernetes
healthy
image localhost/bootkube:1 /checkpoint checkpoint="$dir/bin/witness"
kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: scheduler, namespace: edge, annotations: {checkpointer.alpha.coreos.com/checkpoint: "true"}}
spec:
  terminationGracePeriodSeconds: 1
  tolerations: [{operator: Exists}]
  containers: [{name: app, image: "localhost/witness:1", args: [serve]}]
---
# as bootkube's manifest has it, with another program in it
apiVersion: v1
kind: Pod
metadata: {name: pod-checkpointer-x, namespace: edge, annotations: {checkpointer.alpha.coreos.com/checkpoint: "true"}}
spec:
  terminationGracePeriodSeconds: 1
  tolerations: [{operator: Exists}]
  hostNetwork: true
  containers:
  - name: pod-checkpointer
    image: localhost/bootkube:1
    command: [/checkpoint]
    args: [pause]
    volumeMounts: [{name: etc-kubernetes, mountPath: /etc/kubernetes}]
  volumes:
  - {name: etc-kubernetes, hostPath: {path: /etc/kubernetes}}
YAML
mkdir -p "$old"/{inactive-manifests,checkpoint-secrets/edge/scheduler/token}
echo "a token" >"$old/checkpoint-secrets/edge/scheduler/token/token"
cat >"$old/inactive-manifests/edge-scheduler.json" <<JSON
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "scheduler", "namespace": "edge",
 "annotations": {"checkpointer.alpha.coreos.com/checkpoint-of": "scheduler"}}, "spec": {"containers": []}}
JSON
wait_for 60 "the pod with the old mark" checkpoint edge/scheduler
wait_for 60 "the old checkpointer" running edge/pod-checkpointer-x
kill_part agent                                  # the node is looked at when one starts
says() { checkpointer status | grep "^Problem: *bootkube's checkpointer left .*$1"; }
wait_for 60 "its leftovers to be named, and why they stay" says 'still runs here as edge/pod-checkpointer-x'
not checkpoint edge/pod-checkpointer-x || fail "the old checkpointer has a checkpoint like its pods"

remember
outage refused
reboot; back_up
wait_for 60 "the twin of the pod with the old mark" running "$(twin_of edge/scheduler)"
not running "$(twin_of edge/pod-checkpointer-x)" || fail "the old checkpointer came back"
[ -e "$old/inactive-manifests/edge-scheduler.json" ] || fail "removed while the API server is away"
hand_back quiet

kubectl -n edge delete pod pod-checkpointer-x >/dev/null
deleted=$(now)
wait_for 700 "the leftovers to have nobody" says 'no longer needed'
from=$(now)
gone() { ! ls -d "$old"/{inactive-manifests,checkpoint-secrets} 2>/dev/null; }
wait_for 1300 "the leftovers to go" gone
say "gone $(since "$deleted") s after the old checkpointer"
(( $(now) - from > 590000 )) || fail "removed $(since "$from") s after it was last needed"
unnamed() { local status; status=$(checkpointer status) && not grep "bootkube's" <<<"$status"; }
wait_for 30 "it to be named no more" unnamed
checkpoint edge/scheduler >/dev/null || fail "this program's checkpoint is gone, too"
kubectl -n edge delete pod scheduler >/dev/null
wait_for 150 "its checkpoint to go" not checkpoint edge/scheduler
healthy
