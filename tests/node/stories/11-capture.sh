#!/bin/bash
# How soon a Ready pod, and a changed ConfigMap, are durable; pods that vanish while they are captured; other readers.
# on containerd1
. "$(dirname "$0")/../lib.sh"

healthy
settings RETENTION=2s
probe_pod() { # NAME
  cat <<YAML
{apiVersion: v1, kind: Pod, metadata: {name: $1, namespace: edge, annotations: {podcheckpointer.io/checkpoint: "true"}},
 spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: localhost/witness:1, args: [serve]}]}}
YAML
}
delays=()
for i in $(seq 10); do
  probe_pod "quick-$i" | kubectl apply -f - >/dev/null
  kubectl -n edge wait --for=condition=Ready --timeout=60s pod "quick-$i" >/dev/null
  ready=$(now)
  wait_for 20 "the checkpoint of quick-$i" checkpoint "edge/quick-$i"
  durable=$(stat -c %.3Y "$(checkpoint "edge/quick-$i" | tail -1)" | tr -d .)
  delays+=($((durable - ready)))
done
figure "Ready to durable, ms, smallest to largest" "$(printf '%s\n' "${delays[@]}" | sort -n | xargs)"
kubectl -n edge delete pod quick-{1..10} --wait=false >/dev/null

# the kubelet swaps ..data when it syncs the pod: an annotation makes it
web=$(app_pod web)
volume=$disk/var/lib/kubelet/pods/$(kubectl -n shop get pod "${web#*/}" -o jsonpath='{.metadata.uid}')/volumes/kubernetes.io~configmap/conf
old=$(readlink "$volume/..data")
kubectl -n shop patch configmap web -p '{"data": {"changed": "changed-by-story"}}' >/dev/null
kubectl -n shop annotate --overwrite pod "${web#*/}" touched="$(now)" >/dev/null
swapped() { [ "$(readlink "$volume/..data")" != "$old" ]; }
wait_for 150 "the kubelet to update the volume" swapped
seen=$(now)
in_store() { grep -q "$(printf changed-by-story | base64)" "$store/checkpoints/${web/\//_}/"*.yaml; }
wait_for 30 "the change to be in the store" in_store
figure "changed ConfigMap in the volume to durable" "$(since "$seen") s"
kubectl -n shop patch configmap web --type=json -p '[{"op": "remove", "path": "/data/changed"}]' >/dev/null

# gone before, while and after they are captured
for i in $(seq 6); do probe_pod "gone-$i" | kubectl apply -f - >/dev/null; done
for i in $(seq 6); do
  kubectl -n edge delete pod "gone-$i" --grace-period=0 --force >/dev/null 2>&1
  sleep 0.2                                       # so that each is caught at another point
done
only_current() { [ "$(find "$store/checkpoints" -mindepth 1 -maxdepth 1 | wc -l)" = 3 ]; }
wait_for 90 "the checkpoints of the deleted pods to go" only_current
checkpointer verify || fail "verify finds damage"
settings RETENTION-

# shellcheck disable=SC2016
# what docs/store.md tells other programs about the digest: it is right for each file, and wrong for one that was changed
sed -n '/^```python/,/^```/{//!p}' "$here/../../docs/store.md" >"$work/digest.py"
digest_is_right() { /usr/bin/python3 "$work/digest.py" "$1" 2>"$work/last"; }
for file in "$store"/checkpoints/*/*.yaml; do digest_is_right "$file" || fail "$file: $(cat "$work/last")"; done
sed 's/uptimeSeconds: /&1/' "$file" >"$work/changed.yaml"
not digest_is_right "$work/changed.yaml" || fail "a changed checkpoint passes for whole"
grep -q AssertionError "$work/last" || fail "the digest is not what is noticed: $(cat "$work/last")"
