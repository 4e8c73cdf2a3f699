#!/bin/bash
# Not all pods fit with a static pod that was added meanwhile: it is left alone, and the marked pods of the highest priority go first.
# long
. "$(dirname "$0")/../lib.sh"

healthy
kubectl apply -f "$here/pods/wide.yaml" >/dev/null
for p in wide-high wide-low; do wait_for 60 "a checkpoint of $p" checkpoint edge/$p; done
millis() { awk '/m$/{print $1 + 0; next} {print $1 * 1000}'; }
remember
allocatable=$(kubectl get node "$name" -o jsonpath='{.status.allocatable.cpu}' | millis)
grep -q allocatable "$store/node.yaml" || fail "what the node can allocate is not recorded: $(<"$store/node.yaml")"
supervisor=$(kubectl -n pod-checkpointer get pod "pod-checkpointer-supervisor-$name" -o jsonpath='{.spec.containers[0].resources.requests.cpu}' | millis)

outage refused
power_off
cat >"$manifests/hog.yaml" <<YAML
apiVersion: v1
kind: Pod
metadata: {name: hog, namespace: default}
spec:
  containers:
  - {name: hog, image: "localhost/witness:1", args: [serve, --name, hog], resources: {requests: {cpu: $((allocatable - supervisor - 400))m}}}
YAML
booted=$(now); boot
wait_for 60 "wide-high's twin to run" running "$(twin_of edge/wide-high)"
wait_for 60 "the others, which request nothing, to serve" all_served "$booted"
no_room() { checkpointer status | grep -E 'wide-low .*NoRoom'; }
wait_for 30 "the status to say NoRoom of wide-low" no_room
stays 10 "wide-low is not given to the kubelet" not is_active edge/wide-low
! grep 'Attempting to evict pods' "$dir/log/kubelet.log" || fail "the kubelet looked for pods to end"
running "default/hog-$name" || fail "a foreign static pod was ended"
rm "$manifests/hog.yaml"
wait_for 120 "wide-low's twin, now that there is room" running "$(twin_of edge/wide-low)"
cell "a static pod of somebody else has taken the processors meanwhile, node rebooted" \
  "it is left alone; the highest priority goes first, the rest is Blocked (NoRoom), and tried again" \
  "so; all run when there is room"
hand_back quiet

kubectl -n edge delete pod wide-high wide-low >/dev/null
kubectl delete priorityclass wanted-more >/dev/null
for p in wide-high wide-low; do wait_for 150 "the checkpoint of $p to go" not checkpoint edge/$p; done
