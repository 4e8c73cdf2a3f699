#!/bin/bash
# The installation is removed while the node is cut off: it continues to serve, hands over when it is back, and is cleaned an hour later.
# on containerd1
# once: the operator knows no runtime
# long
. "$(dirname "$0")/../lib.sh"

healthy
uninstall

# the operator is on another node, which is not cut off
operator_up
kubectl -n pod-checkpointer-operator scale deployment pod-checkpointer-operator --replicas 0 >/dev/null
wait_for 60 "no operator on the node" not pid_of operator
start operator pod-checkpointer operator --kubeconfig "$KUBECONFIG" --image localhost/pod-checkpointer:dev --metrics-address off
ask_for_agents
wait_for 120 "the agents to be ready" settled
protected
remember

outage blackhole
reboot; back_up
is_unready() { kubectl get node "$name" --no-headers | grep NotReady; }
wait_for 120 "the cluster to see that the node is away" is_unready
kubectl delete podcheckpointers default --wait=false >/dev/null
serves() { served_lately || return 1; for n in "$web" "$proxy" "$radio"; do is_active "$n" && checkpoint "$n" >/dev/null || { echo "$n is not active"; return 1; }; done; }
removed() { serves || fail "the node that is cut off does not serve: $(serves)"; absent podcheckpointers default; }
wait_for 240 "the removal, which does not wait for the node" removed
absent -n pod-checkpointer daemonset pod-checkpointer || fail "the DaemonSet is left"
stays 20 "the node serves on" serves
# again, without the cluster
reboot; back_up
wait_for 10 "its pods" serves

ended=$(now)
outage_end
wait_for 60 "the API server to answer" api_wait 1
wait_for 150 "every parent to serve" parents_serve
wait_for 180 "no trace of the twins" no_trace
wait_for 120 "the agent of before to end" not pid_of agent
never_failed
say "handed over; now an hour passes"
early() { pid_of supervisor >/dev/null || fail "the supervisor left $(since "$ended") s after the outage"; }
stays 3400 "the supervisor is there" early
wait_for 600 "the supervisor to leave" not pid_of supervisor
say "left $(since "$ended") s after the outage"
wait_for 30 "the node's directories to be as before" as_before
for n in $web $proxy $radio; do running "$n" || fail "$n was disturbed"; done
cell "everything is removed while a node is cut off" "it serves on, hands over when it is back, and is as before an hour later" \
  "left $(since "$ended") s after the outage"

stop operator
kubectl delete -f "$work/operator.yaml" >/dev/null
rm "$dir/before"                                 # deploys again
healthy
