#!/bin/bash
# API back, no activation delay: parents serve, no trace, nothing rejected, no mirror pod.
. "$(dirname "$0")/../lib.sh"

healthy
settings ACTIVATION_DELAY=0s
remember
for _ in $(seq "${REPEAT:-1}"); do
  cp "$here/pods/floor.yaml" "$manifests/"
  outage refused
  reboot
  back_up
  boot_figures "activation delay 0s"
  rm "$manifests/floor.yaml"
  hand_back
done
settings ACTIVATION_DELAY-
