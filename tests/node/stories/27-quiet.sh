#!/bin/bash
# What the supervisor costs: memory, processor time and wake-ups, in normal operation and in an outage.
# long
. "$(dirname "$0")/../lib.sh"

watch=${WATCH:-20}
usage() { # processor time in ns, and how often it was woken
  local pid; pid=$(pgrep -f '^[^ ]*pod-checkpointer supervisor' | head -1)
  echo "$(cat "/proc/$pid"/task/*/schedstat | awk '{n += $1} END {printf "%.0f", n}') $(awk '/^voluntary_ctxt/ {n += $2} END {print n}' "/proc/$pid"/task/*/status)"
}
cost() { # MOMENT CLIENT-CALL: what it takes for this long
  local before; before=$(usage)
  stays "$watch" "$1" "$2" >/dev/null
  echo "$before $(usage)" | awk -v w="$watch" '{printf "%.3f %.1f", ($3 - $1) / w / 1e7, ($4 - $2) / w}' >"$work/cost"
  figure "processor time of the supervisor, $1" "$(awk '{print $1}' "$work/cost") % of a core"
  figure "wake-ups of the supervisor, $1" "$(awk '{print $2}' "$work/cost") per second"
  figure "resident memory of the supervisor, $1" "$(memory supervisor)"
}

healthy; remember
cost "while all is quiet" pods_as_before
outage blackhole
cost "API server silent, nothing active" nothing_active
outage_end
wait_for 60 "the API server" api_wait 1
for kind in refused blackhole; do
  outage $kind
  reboot
  back_up 100
  cost "three twins active, API server $kind" served_lately
  hand_back quiet
done
