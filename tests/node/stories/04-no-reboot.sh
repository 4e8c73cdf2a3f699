#!/bin/bash
# API gone, node not rebooted: nothing is activated; a killed container is the kubelet's to restart.
# on containerd2
. "$(dirname "$0")/../lib.sh"

healthy; remember
for kind in refused blackhole; do
  outage $kind
  stays "${WAIT:-20}" "nothing is active" nothing_active
  before=$(observe pid "$proxy" proxy)
  crash "$proxy" proxy
  restarted() { local p; p=$(observe pid "$proxy" proxy) && [ "$p" != "$before" ]; }
  wait_for 60 "the kubelet to restart the killed container" restarted
  stays 5 "nothing is active" nothing_active
  cell "API server gone ($kind), node not rebooted, a container killed" "nothing is activated, the kubelet restarts it" "nothing activated in $(( ${WAIT:-20} + 5 )) s, restarted by the kubelet"
  outage_end
  wait_for 60 "the API server" api_wait 1
done
hand_back quiet
