#!/bin/bash
# Reboot with volumes left on disk: API black-holed, name server dead, load balancer hung.
# on containerd2
# once: the minute of waiting is the kubelet's
. "$(dirname "$0")/../lib.sh"

supervisor=$manifests/pod-checkpointer-supervisor.yaml
for kind in $(for _ in $(seq "${REPEAT:-1}"); do echo blackhole dead-dns hang; done); do
  healthy; remember           # each return creates the parents' volumes again
  # the kubelet alone: it waits for the pods' volumes from before the power cut
  cp "$here/pods/floor.yaml" "$manifests/"
  mv "$supervisor" "$work/"
  outage $kind
  reboot
  wait_for 100 "a static pod with a volume" first floor "$booted"
  alone="$(first floor "$booted") s for a static pod with a volume, kubelet left alone"
  power_off
  rm "$manifests/floor.yaml"; mv "$work/$(basename "$supervisor")" "$manifests/"
  reboot
  back_up 100
  boot_figures "$kind" "$alone"
  compare_twins
  took=$(slowest "$booted")
  hand_back quiet
  recording "$kind"
  case $kind in blackhole) what="API server black-holed" ;; dead-dns) what="name server dead" ;; hang) what="load balancer hangs (takes connections, no TLS)" ;; esac
  cell "$what, node rebooted, volumes left on disk" "silent: activated after 3 s, the kubelet unstuck, handed over" \
    "all serve $took s after boot ($alone); unserved at the handover: $(unserved "$ended")"
done
