#!/bin/bash
# Contact flaps: it answers for a second every five seconds, ten times.
# on containerd2
. "$(dirname "$0")/../lib.sh"

healthy; remember
outage blackhole
reboot
back_up 100
served_from=$(now)
for _ in $(seq 10); do
  outage_end; sleep 1
  outage blackhole; sleep 4
done
wait_for 60 "every marked pod to be served" served_now
for n in $served; do figure "unserved while contact flaps, $n" "$(gaps "$n" "$served_from") s"; done
to=$(now)
hand_back
cell "contact comes for a second every five, ten times, after a reboot" "served all along" "unserved: $(unserved "$served_from" "$to")"
