#!/bin/bash
# Reboot with volumes left on disk: API black-holed, name server dead, load balancer hung.
# once (the minute of waiting is the kubelet's, whatever the runtime)
. "$(dirname "$0")/../lib.sh"

supervisor=$manifests/pod-checkpointer-supervisor.yaml
for kind in blackhole dead-dns hang; do
  healthy; remember           # each return makes the parents' volumes anew
  # the kubelet alone: the pods' volumes of before the power cut are what it waits for
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
  hand_back quiet
done
