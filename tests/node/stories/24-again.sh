#!/bin/bash
# Outage after outage: a client watches every handover, and the last is like the first.
# long
. "$(dirname "$0")/../lib.sh"

rounds=${REPEAT:-${LONG:+100}}; rounds=${rounds:-3}
healthy
settings ACTIVATION_DELAY=0s
guarded
rm -f "$work/rounds"
for _ in $(seq "$rounds"); do
  outage refused
  reboot
  back_up
  boot=$(slowest "$booted")
  hand_back quiet
  harmless
  echo "$boot $parents_after $(for n in web proxy-port radio; do gaps $n "$ended" | awk '{print $1}'; done | xargs)" | tee -a "$work/rounds"
  : >"$work/probe.log"; guarded=$(now)           # it is read from the beginning each time
done
column() { awk -v c="$1" '{print $c}' "$work/rounds" | middle; }
cell "outage after outage, node rebooted each time, activation delay 0" "none rejected, none twice beyond overlap, nothing left over" \
  "so, $rounds times; boot to all serving $(column 1) s; unserved at the handover: own address $(column 3) s, host port $(column 4) s, host network $(column 5) s"
settings ACTIVATION_DELAY-
guarded=$(now); wait_for 30 "the client to have asked" served_now
unharmed
