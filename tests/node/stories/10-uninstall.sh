#!/bin/bash
# Uninstall: the node's directories are as they were before.
. "$(dirname "$0")/../lib.sh"

healthy
kubectl delete -k "$here/deploy" --ignore-not-found >/dev/null
wait_for 60 "the agent to end" not pid_of agent
checkpointer uninstall
wait_for 60 "the supervisor to end" not pid_of supervisor
as_before() { diff "$dir/before" <(traces); }
wait_for 30 "the node's directories to be as before" as_before
for n in web proxy radio; do running "$(app_pod $n)" || fail "$n was disturbed"; done
rm "$dir/before"                                 # the next story deploys again
