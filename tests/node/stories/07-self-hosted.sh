#!/bin/bash
# The API server is a marked pod of this node, which boots alone: the control plane comes back.
# on containerd1
# self-hosted
. "$(dirname "$0")/../lib.sh"

mkdir -p "$work"
probe_start api="https://$node_ip:6443/readyz"
image localhost/kube:1 /kube kube="$dir/bin/kube"
cp "$here/pods/etcd.yaml" "$manifests/"
wait_for 60 "etcd" running "kube-system/etcd-$name"
first_control_plane
kubectl -n kube-system create secret generic kube-apiserver --from-file="$disk/etc/kubernetes/pki" >/dev/null
kubectl apply -f "$here/pods/control-plane.yaml" >/dev/null
wait_for 60 "the API server's pod" app_pod kube-apiserver
api=$(app_pod kube-apiserver)
container_made() { observe containers | grep " $api " >/dev/null; }
wait_for 60 "the API server's container" container_made
on_node pkill -KILL -x kube-apiserver            # its port is free now: the pod's next attempt gets it
wait_for 120 "the API server in the cluster" api_wait 1
deploy
wait_for 90 "a checkpoint of the API server" checkpoint "$api"
wait_for 60 "its pod to be ready" all_ready
wait_for 60 "the supervisor" supervisor_runs
wait_for 240 "the supervisor's mirror pod" supervisor_shown
# a kubelet tries a mirror pod that failed, because no server was there yet, only at its next resync: 60 to 90 s later
wait_for 240 "etcd's mirror pod" sh -c "kubectl -n kube-system get pod etcd-$name --no-headers | grep ' 1/1 *Running '"
pods_now >"$work/pods"
kubectl delete events -A --all >/dev/null
restarts() { kubectl -n kube-system get pod "${api#*/}" -o jsonpath='{.status.containerStatuses[0].restartCount}'; }
before=$(restarts)

for n in 1 2 3; do
  reboot
  wait_for 60 "the twin" is_active "$api"
  wait_for 60 "the API server to answer" first api "$booted"
  parent_again() { running "$api" && api_wait 1; }
  wait_for 180 "the parent to run" parent_again
  wait_for 180 "no trace of the twin" no_trace
  wait_for 60 "every pod to be ready" all_ready
  figure "boot $n to first answer" "$(first api "$booted") s"
  figure "boot $n, unserved since the first answer" "$(gaps api "$(awk -v b="$booted" -v f="$(first api "$booted")" 'BEGIN{printf "%.0f", b + f * 1000}')") s"
done
wait_for 60 "kubectl get pods -A to show what it showed before" pods_as_before
# one restart a boot is the reboot's; an API server takes seconds to end, so its parent may find the port taken twice
figure "restarts of the parent in three boots" "$(( $(restarts) - before ))"
[ "$(restarts)" -le $((before + 9)) ] || fail "the parent was restarted $(( $(restarts) - before )) times in three boots"
never_failed
