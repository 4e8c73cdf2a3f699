#!/bin/bash
# Kubelet or runtime hang or are down: unknown is not absent, and nothing is activated until they answer.
# both: each runtime hangs and ends in its own way
. "$(dirname "$0")/../lib.sh"

healthy; remember
outage refused
reboot
wait_for 60 "the supervisor" supervisor_runs
on_node pkill -STOP -x kubelet
stays 8 "nothing is active while the kubelet hangs" nothing_active
on_node pkill -STOP -x containerd
on_node pkill -CONT -x kubelet
stays 8 "nothing is active while the runtime hangs" nothing_active
kubelet_stop
on_node pkill -CONT -x containerd
stays 8 "nothing is active without a kubelet" nothing_active
kubelet_start
wait_for 60 "every marked pod to serve" all_served "$(now)"
cell "kubelet hangs, runtime hangs, no kubelet, before anything is activated" "unknown is not absent: nothing is activated until they answer" "nothing activated in 3 times 8 s, all serve when they answer"
hand_back quiet

# on a healthy node, a command with wrong arguments says what is wrong, and ends
refuses() { # WORD COMMAND…
  local word=$1 status=0; shift
  timeout 20 nsenter --target "$(<"$dir/node.pid")" --all -- "$@" >"$work/refused" 2>&1 || status=$?
  case $status in 0 | 124) fail "accepted: $*" ;; esac
  grep -q -- "$word" "$work/refused" || fail "does not name $word: $* said $(tail -3 "$work/refused")"
}
refuses agent.lock pod-checkpointer agent --node-name "$name" --kubeconfig /etc/kubernetes/kubelet.conf --supervisor-image ""
refuses supervisor.lock pod-checkpointer supervisor --node-name "$name"
# a run directory on a disk: only reported; the supervisor continues, because a tmpfs may still be mounted there
timeout 5 nsenter --target "$(<"$dir/node.pid")" --all -- pod-checkpointer supervisor --node-name "$name" --run-dir /var/tmp/run \
  >"$work/disk" 2>&1 || true
grep -q "/var/tmp/run is not memory-backed" "$work/disk" || fail "does not name the run directory: $(cat "$work/disk")"
on_node rm -r /var/tmp/run
refuses --activation-dealy pod-checkpointer supervisor --activation-dealy 3s
healthy
