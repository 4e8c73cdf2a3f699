#!/bin/bash
# etcd, API server and controllers are marked pods of this node, all down at once: it boots alone, and they come back.
# long
# self-hosted
. "$(dirname "$0")/../lib.sh"

rounds=${REPEAT:-${LONG:+20}}; rounds=${rounds:-2}
mkdir -p "$work"
probe_start etcd="http://$node_ip:2379/health" api="https://$node_ip:6443/livez" controllers="https://$node_ip:10257/healthz"
image localhost/kube:1 /kube kube="$dir/bin/kube"
pki=$disk/etc/kubernetes/pki
cp "$dir"/pki/controller-manager.{crt,key} "$pki/"
kubeconfig "$pki/controller-manager.conf" controller-manager $node_ip /pki
start_on_node etcd etcd --data-dir /var/lib/etcd --listen-client-urls http://$node_ip:2379 --advertise-client-urls http://$node_ip:2379 \
  --listen-peer-urls http://127.0.0.1:2380
first_control_plane
kubectl -n kube-system create secret generic control-plane --from-file="$pki" >/dev/null
kubectl apply -f "$here/pods/whole-control-plane.yaml" >/dev/null
parts="etcd kube-apiserver kube-controller-manager"
made() { local p; for p in $parts; do observe containers | grep " $(app_pod $p) " >/dev/null || return 1; done; }
wait_for 60 "every container" made
stop controller-manager                          # its lock and port are free now, and so are the others'
on_node pkill -KILL -x kube-apiserver; on_node pkill -KILL -x etcd
wait_for 120 "the control plane in the cluster" api_wait 1
wait_for 150 "its pods to be ready" all_ready    # their containers may have found the ports taken more than once
deploy
wait_for 90 "every pod to be ready" all_ready
for p in $parts; do wait_for 90 "a checkpoint of $p" checkpoint "$(app_pod $p)"; done
wait_for 60 "the supervisor" supervisor_runs
wait_for 60 "the supervisor's mirror pod" supervisor_shown
pods_now >"$work/pods"
kubectl delete events -A --all >/dev/null
restarts() { kubectl -n kube-system get pods -o jsonpath='{range .items[*]}{.status.containerStatuses[0].restartCount}{"\n"}{end}' | awk '{n += $1} END {print n}'; }
declare -A pod; for p in $parts; do pod[$p]=$(app_pod $p); done
before=$(restarts)
moment() { awk -v b="$booted" -v f="$1" 'BEGIN {printf "%.0f", b + f * 1000}'; }
parents_run() { local p; for p in $parts; do running "${pod[$p]}" || return 1; done; api_wait 1; }
active_all() { local p; for p in $parts; do is_active "${pod[$p]}" || return 1; done; }

rm -f "$work/rounds"
for round in $(seq "$rounds"); do
  reboot
  wait_for 180 "the API server to answer" first api "$booted"
  wait_for 240 "the controllers to answer" first controllers "$booted"
  etcd_first=$(first etcd "$booted") api_first=$(first api "$booted") controllers_first=$(first controllers "$booted")
  wait_for 240 "every parent to run" parents_run
  parents=$(since "$booted")
  wait_for 180 "no trace of the twins" no_trace
  wait_for 90 "every pod to be ready" all_ready
  gap=$(gaps api "$(moment "$api_first")")
  good=$(gaps api "$booted" | sed 's/.*\[+\(.*\) s: \(.*\) s\]$/\1 \2/' | awk '{printf "%.2f", $1 + $2}')
  echo "$etcd_first $api_first $controllers_first $parents ${gap%% *} $good" | tee -a "$work/rounds"
  say "round $round: etcd ${etcd_first} s, API server ${api_first} s, controllers ${controllers_first} s after boot; parents after $parents s; API unserved since its first answer: $gap s"
  : >"$work/probe.log"
done
wait_for 60 "kubectl get pods -A to show what it showed before" pods_as_before
never_failed
column() { awk -v c="$1" '{print $c}' "$work/rounds" | middle; }
figure "boot to etcd serving" "$(column 1) s"
figure "boot to the API server's first answer" "$(column 2) s"
figure "boot to the controllers' first answer" "$(column 3) s"
figure "boot to the API server answering for good" "$(column 6) s"
figure "boot to every parent running" "$(column 4) s"
figure "API server unserved since its first answer" "$(column 5) s"
figure "restarts of all parents, a boot being one for each" "$(( $(restarts) - before )) in $rounds boots of 3 pods and more"
cell "whole control plane (etcd, API server, controllers) in marked pods, node rebooted alone" "etcd, API server, controllers come back in this order and are handed over, no trace" \
  "so, $rounds times; API server answers $(column 2) s after boot, for good after $(column 6) s, all parents run after $(column 4) s; unserved in between $(column 5) s"
