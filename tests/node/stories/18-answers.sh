#!/bin/bash
# An API server that refuses requests still answers: 401, 403 and 429 activate nothing; 500 does, after ten seconds.
# on containerd2
# once: the API server is what differs
. "$(dirname "$0")/../lib.sh"

guarded
outage 401
reboot
for code in 401 403 429; do
  outage $code
  wait_for 60 "the supervisor to hear it" contact_is Answering
  stays "${WAIT:-8}" "nothing is active" nothing_active
  cell "API server answers $code, node rebooted" "nothing is activated: an answer is contact" "nothing activated in ${WAIT:-8} s"
done
outage 500; from=$(now)
wait_for 60 "every marked pod to serve" all_served "$from"
cell "API server answers 500, node rebooted" "activated after 10 s of it" "all serve $(slowest "$from") s after the first 500"
stays "${WAIT:-8}" "what 500 activated is served while it says 500" served_lately
hand_back
cell "API server recovers from 500" "handed over" "parents serve; unserved: $(unserved "$ended")"
unharmed
