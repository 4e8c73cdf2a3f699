#!/bin/bash
# Contact comes and goes at a fixed rate, from five times a second to once a minute; the pods are always served.
# long
. "$(dirname "$0")/../lib.sh"

case $runtime in containerd2) beats=0.2 ;; *) beats=2 ;; esac
[ -z "${LONG:-}" ] || beats="0.2 0.5 2 10 30 60"
guarded
for seconds in ${BEATS:-$beats}; do
  outage blackhole
  reboot
  back_up 100
  from=$(now)
  lasts=$(awk -v s="$seconds" 'BEGIN {print int(s * 4 > 20 ? s * 4 : 20)}')
  flaps=0
  while (( $(now) - from < lasts * 1000 )); do
    outage_end; sleep "$seconds"
    outage blackhole; sleep "$seconds"
    flaps=$((flaps + 1))
  done
  hand_back quiet
  cell "contact comes and goes every $seconds s, after a reboot" "served all along, no parent rejected" \
    "$flaps times; unserved: $(unserved "$from")"
done
unharmed
