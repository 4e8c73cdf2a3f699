#!/bin/bash
# An API server that takes connections and never answers, one whose answers come after five seconds, one whose etcd hangs.
# long
. "$(dirname "$0")/../lib.sh"

guarded
kinds="mute slow${LONG:+ no-etcd}"
for kind in ${KINDS:-$kinds}; do
  remember                    # each return creates the parents' volumes again
  outage "$kind"
  reboot
  # without etcd the API server still lists pods from its cache: the kubelet owns what it gets from there, and its start
  # waits for tokens
  [ "$kind" = no-etcd ] || back_up 120
  since=$(now)
  case $kind in
  mute)
    fault="API server finishes TLS and never answers" expected="silent: activated after 3 s, and kept"
    stays "${WAIT:-20}" "what was activated is served" served_lately ;;
  slow)
    fault="API server answers everything after 5 s" expected="silent: activated after 3 s, handed over when the kubelet has its pods"
    wait_for 120 "every parent to serve, by late answers" parents_serve ;;
  no-etcd)
    fault="API server's etcd hangs: no answer, then 500" expected="activated until the kubelet gets its pods from the API server's cache; no twin beside those, which wait for their tokens"
    stays "${WAIT:-120}" "nobody is refused and nobody is there twice" harmless ;;
  esac
  seen="not all serve before etcd is back"
  if all_served "$booted" >/dev/null; then seen="all serve $(slowest "$booted") s after boot"; fi
  seen="$seen; unserved in $(since "$since") s after that: $(unserved "$since" "$(now)")"
  hand_back quiet
  cell "$fault, node rebooted" "$expected" "$seen; at the handover: $(unserved "$ended")"
done
unharmed
