#!/bin/bash
# Reboot while the API server refuses connections: every marked pod serves again with what it had before; others stay down.
# both: capture, return and handover are the base of all others
. "$(dirname "$0")/../lib.sh"

healthy
for _ in $(seq "${REPEAT:-1}"); do
  remember                    # each return creates the parents' volumes again
  cp "$here/pods/floor.yaml" "$manifests/"
  outage refused
  reboot
  back_up
  compare_twins
  boot_figures "defaults"
  running default/idle && fail "an unmarked pod came back"
  rm "$manifests/floor.yaml"
  took=$(slowest "$booted")
  hand_back
  recording refused
  cell "API server refuses, node rebooted" "silent: activated after 3 s, handed over" "all serve $took s after boot; unserved at the handover: $(unserved "$ended")"
done
figure "resident memory, supervisor" "$(memory supervisor)"
figure "resident memory, agent" "$(memory agent)"
