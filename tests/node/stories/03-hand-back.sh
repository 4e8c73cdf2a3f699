#!/bin/bash
# API back, no activation delay: parents serve, no trace, nothing rejected, no mirror pod; the outage is in the metrics.
# on containerd1
. "$(dirname "$0")/../lib.sh"

healthy
settings ACTIVATION_DELAY=0s
remember
for _ in $(seq "${REPEAT:-1}"); do
  cp "$here/pods/floor.yaml" "$manifests/"
  outage refused
  reboot
  back_up
  wait_for 10 "the supervisor to count its activations" is_counted supervisor 'activations_total{result="Activated"}' 3
  is_counted supervisor outages_total 1; is_counted supervisor 'checkpoints{phase="Active"}' 3
  boot_figures "activation delay 0s"
  rm "$manifests/floor.yaml"
  hand_back
  for part in supervisor agent; do
    wait_for 30 "the $part to be well" is_well $part
    wait_for 30 "the $part to tell of the takeover" is_counted $part takeover_seconds_count 3
    for series in 'activations_total{result="Activated"}' activation_seconds_count overlap_seconds_count; do
      wait_for 10 "the $part to tell $series" is_counted $part "$series" 3
    done
    is_counted $part outages_total 1; is_counted $part api_contact 1
  done
  is_counted agent supervisor_up 1; is_counted agent 'recoverable{reason="Recoverable"}' 3
done
settings ACTIVATION_DELAY-
