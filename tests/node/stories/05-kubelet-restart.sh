#!/bin/bash
# Kubelet restarted without an API server: no twin while the parent runs; once the parent is killed, its twin starts.
# on containerd1
. "$(dirname "$0")/../lib.sh"

healthy; remember
outage refused
kubelet_stop; kubelet_start
wait_for 30 "the kubelet to own its static pods again" sh -c "'$here/node.sh' observe owned | grep -q supervisor"
stays "${WAIT:-20}" "nothing is active" nothing_active
killed=$(now)
crash "$proxy" proxy
wait_for 60 "the twin of the killed pod" is_active "$proxy"
for n in proxy proxy-port; do
  wait_for 60 "$n to be served again" all_served "$(( $(now) - 700 ))" $n
  figure "parent killed to twin serving, $n" "$(gaps $n "$killed") s"
done
for other in "$web" "$radio"; do is_active "$other" && fail "$other is active beside its running parent"; done
hand_back
cell "kubelet restarted without an API server" "nothing beside a running parent" "nothing activated in ${WAIT:-20} s"
cell "a parent killed that no kubelet owns" "its twin, and no other's" "unserved until its twin serves: $(gaps proxy "$killed" "$ended" | awk '{print $1}') s"
