#!/bin/bash
# Risks of the node are shown in normal operation: on its PodCheckpoints, as Events on the Node, by the command line, in metrics.
# on containerd1
# once: the risks are the kubelet's and the API's
. "$(dirname "$0")/../lib.sh"

fit() { # STATUS REASON: of the node, as each of its pods shows it
  local shown; shown=$(kubectl get podcheckpoints -A -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="NodeFit")].status} {.status.conditions[?(@.type=="NodeFit")].reason}{"\n"}{end}' | sort -u)
  [ "$shown" = "$1 $2" ] || { echo "NodeFit is $shown"; return 1; }
}
message() { kubectl get podcheckpoints -A -o jsonpath='{.items[0].status.conditions[?(@.type=="NodeFit")].message}'; }
beside_node() { kubectl -n default get events --field-selector "involvedObject.kind=Node,involvedObject.name=$name" -o custom-columns=R:.reason --no-headers | grep -x "$1"; }
told() { # RISK: everywhere
  wait_for 60 "$1 to be shown at the pods" fit False "$1"
  wait_for 20 "$1 beside the node" beside_node "$1"
  wait_for 20 "$1 in status" sh -c "nsenter --target $(<"$dir/node.pid") --all -- pod-checkpointer status | grep '^Risk: *$1: '"
  wait_for 20 "$1 in figures" is_counted agent "node_risk{risk=\"$1\"}" 1
  say "$1: $(message)"
}

healthy
kubectl delete --raw /api/v1/namespaces/default/events >/dev/null   # of earlier looks
wait_for 60 "nothing to be in the way" fit True Fit
# its kubelet knows the API server by name alone, which makes things slow and not impossible
message | grep '^note: ServerNamedByDNS: the API server is api.site.test ' >/dev/null || fail "not reported: $(message)"

# the kubelet's certificate is one of 30 days
settings PLANNED_OUTAGE=2160h RETENTION=2s
told KubeletCertificateExpires
kubectl get podcheckpoints -n shop "${web:=$(basename "$(app_pod web)")}" -o jsonpath='{.status.warnings}' | grep KubeletCertificateExpires >/dev/null ||
  fail "not among the warnings of a pod that was captured since"
settings PLANNED_OUTAGE-
wait_for 60 "nothing to be in the way again" fit True Fit

# the cluster's DNS server is a pod of this node that would not come back
kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: names, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  dnsPolicy: Default
  terminationGracePeriodSeconds: 1
  tolerations: [{operator: Exists}]
  containers: [{name: app, image: "localhost/witness:1", args: [serve]}]
YAML
told NetworkNotCheckpointed
message | grep 'kube-system/names (DNS)' >/dev/null || fail "not named: $(message)"
kubectl -n kube-system annotate pod names podcheckpointer.io/checkpoint=true podcheckpointer.io/start-group=30 >/dev/null
wait_for 60 "that to be over when it has a checkpoint" fit True Fit
kubectl -n kube-system delete pod names >/dev/null
wait_for 150 "its checkpoint to go" not checkpoint kube-system/names

# no room in the store; the node is looked at every ten minutes, and when an agent starts
on_node sh -ec 'mkdir /run/whole; cp -a /var/lib/pod-checkpointer/. /run/whole/
  mount -t tmpfs -o mode=700,size=8m tmpfs /var/lib/pod-checkpointer; cp -a /run/whole/. /var/lib/pod-checkpointer/; rm -rf /run/whole'
kill_part agent
told StoreFull
on_node umount --lazy /var/lib/pod-checkpointer    # the agent has its lock there
kill_part agent
wait_for 90 "nothing to be in the way again" fit True Fit

# the kubelet is about to remove images, and that of an init container is not in use
image localhost/once:1 /once once="$dir/bin/witness"   # another name, or it would be the same image
kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: prepared, namespace: edge, annotations: {podcheckpointer.io/checkpoint: "true"}}
spec:
  terminationGracePeriodSeconds: 1
  tolerations: [{operator: Exists}]
  initContainers: [{name: once, image: "localhost/once:1", args: [write, /dev/null, x]}]
  containers: [{name: app, image: "localhost/witness:1", args: [serve]}]
YAML
wait_for 60 "a checkpoint of it" checkpoint edge/prepared
used=$((100 - $(on_node df --output=avail,size /var/lib/containerd | awk 'NR == 2 {printf "%d", $1 * 100 / $2}')))
cp "$disk/var/lib/kubelet/config.yaml" "$work/config.yaml"
sed -i "s/^imageGCHigh.*/imageGCHighThresholdPercent: $((used + 2))\nimageGCLowThresholdPercent: $((used + 1))/" "$disk/var/lib/kubelet/config.yaml"
kubelet_stop; kubelet_start
wait_for 60 "the node to be Ready" node_ready
kill_part agent
told ImagesAtRisk
message | grep 'localhost/once:1' >/dev/null || fail "not named: $(message)"
cp "$work/config.yaml" "$disk/var/lib/kubelet/config.yaml"
kubelet_stop; kubelet_start
kubectl -n edge delete pod prepared >/dev/null
wait_for 150 "its checkpoint to go" not checkpoint edge/prepared
settings RETENTION-
wait_for 90 "nothing to be in the way in the end" fit True Fit
healthy
