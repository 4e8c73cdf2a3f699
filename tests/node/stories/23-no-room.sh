#!/bin/bash
# No room: run directory full, store full, supervisor out of memory. Whatever can be done is done, the rest once there is room.
# long
. "$(dirname "$0")/../lib.sh"

guarded
run=/run/pod-checkpointer
# memory: the file system that twins' files are unpacked to
outage refused
SMALL=$run=4160k reboot
said_so() { checkpointer status | grep "$1"; }
wait_for 60 "what does not fit to be blocked" said_so WriteFailed
wait_for 60 "what fits to be served all the same" all_served "$booted" radio
not all_served "$booted" web || fail "nothing was too large for it"
on_node mount -o remount,size=16m $run; from=$(now)
back_up 120
cell "run directory full (64 kB left), node rebooted" "what fits is activated, the rest is Blocked (WriteFailed), and tried again" \
  "radio serves $(first radio "$booted") s after boot, web is too large; all serve $(slowest "$from") s after there is room"
compare_twins

# the supervisor gets no further memory: the kernel kills it, and the kubelet restarts it
supervisor=$(pgrep -f '^[^ ]*pod-checkpointer supervisor' | head -1)
limit=$(while IFS=: read -r _ _ path; do
  for f in /sys/fs/cgroup/memory"$path"/memory.limit_in_bytes /sys/fs/cgroup"$path"/memory.max; do [ ! -e "$f" ] || echo "$f"; done
done <"/proc/$supervisor/cgroup" | sed -n 1p)
[ -n "$limit" ] || fail "the supervisor has no memory cgroup"
starve() { # its limit becomes what it uses now, and requests to it need more
  cat "${limit%/*}"/memory.{usage_in_bytes,current} 2>/dev/null >"$limit" || true
  # shellcheck disable=SC2016
  on_node bash -c 'for _ in $(seq 30); do exec {fd}<>/dev/tcp/127.0.0.1/9798 || break; printf "GET /metrics HTTP/1.1\r\n%08000d" 0 >&$fd; done' || true
  not kill -0 "$supervisor"
}
another() { local p; p=$(pgrep -f '^[^ ]*pod-checkpointer supervisor' | head -1) && [ "$p" != "$supervisor" ]; }
killed=$(now)
wait_for 60 "the kernel to kill the supervisor" starve
wait_for 60 "another to run" another
took=$(since "$killed")
stays 5 "every marked pod is served without it" served_lately
hand_back
cell "supervisor out of memory while active" "restarted by the kubelet, takes over what is there" \
  "another runs after $took s; unserved at the handover: $(unserved "$ended")"

# the store: a capture that finds no room leaves the last one
SMALL=/var/lib/pod-checkpointer=8m reboot
wait_for 60 "the API server" api_wait 1
wait_for 120 "every pod to be ready" pods_ready
wait_for 60 "the agent" sh -c "'$here/node.sh' on-node pgrep -f 'pod-checkpointer agent'"
on_node sh -c 'cat /dev/zero >/var/lib/pod-checkpointer/full 2>/dev/null || true'
kubectl -n shop annotate --overwrite pod "${web#*/}" touched="$(now)" >/dev/null
kubectl -n shop patch configmap web --type merge -p "{\"data\": {\"touched\": \"$(now)\"}}" >/dev/null
store_failed() { kubectl get podcheckpoints -A -o jsonpath='{.items[*].status.conditions[?(@.type=="Captured")].reason}' | grep StoreFull; }
wait_for 150 "a capture to fail, and the pod's condition to say so" store_failed
checkpointer verify >"$work/verify" || true      # it names the file that fills the disk
bad=$(awk '/checkpoints\// && $1 != "ok"' "$work/verify")
{ [ -z "$bad" ] && grep -q '^ok' "$work/verify"; } || fail "what was captured before is damaged: $bad"
on_node rm /var/lib/pod-checkpointer/full; from=$(now)
wait_for 150 "captures to work again" not store_failed
cell "disk of the store full" "capture fails and says StoreFull, the last good one stays whole, captured again later" \
  "so; captured again $(since "$from") s after there is room"
reboot                                           # the store from before
wait_for 60 "the API server" api_wait 1
wait_for 120 "every pod to be ready" pods_ready
wait_for 60 "every parent to serve" parents_serve
unharmed
