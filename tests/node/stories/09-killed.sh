#!/bin/bash
# Agent and supervisor killed at any moment: the outcome is the same.
# on containerd1
. "$(dirname "$0")/../lib.sh"

healthy
settings RETENTION=2s
# the agent, while it captures and removes
for i in 1 2 3; do
  kubectl -n shop rollout restart deployment/web >/dev/null
  kill_part agent
  new_captured() { kubectl -n shop rollout status --timeout=1s deployment/web && checkpoint "$(app_pod web)"; }
  wait_for 90 "a checkpoint of web after kill $i" new_captured
done
healthy; remember
only_current() { [ "$(find "$store/checkpoints" -mindepth 1 -maxdepth 1 | wc -l)" = 3 ]; }
wait_for 60 "no checkpoint but of the three pods" only_current
checkpointer verify || fail "verify finds damage"

# the supervisor: just after linking, while active, and in the moment of release
outage refused
reboot
some_link() { not nothing_active; }
wait_for 60 "the first link" some_link
kill_part supervisor
back_up 100
compare_twins
kill_part supervisor
stays 5 "every marked pod is served" served_now
wait_for 90 "the supervisor to be restarted" pid_of supervisor
outage_end
wait_for 60 "the release of web" not is_active "$web"
kill_part supervisor
hand_back
cell "supervisor killed just after linking, while active, and in the moment of release" "the next one goes on" "parents serve $parents_after s after the API server; unserved at the handover: $(unserved "$ended")"
settings RETENTION-
