#!/bin/bash
# The kubelet refuses a parent at its return: its twin serves until the owner has replaced the pod.
# on containerd1
# once: the refusal is the kubelet's
. "$(dirname "$0")/../lib.sh"

healthy; remember
kubectl label node "$name" shelf=left >/dev/null
kubectl apply -f "$here/pods/picky.yaml" >/dev/null
wait_for 60 "picky's checkpoint" checkpoint edge/picky
picky=edge/picky

outage blackhole                                  # between node and site; people still reach the API server
reboot
wait_for 60 "picky's twin to run" running "$(twin_of $picky)"
does_not_stay_up() { # crashing, so that the kubelet waits longer and longer before it restarts it
  crash "$(twin_of $picky)" picky 2>/dev/null || true
  checkpointer status | grep -E 'picky .*NotRunning'
}
wait_for 120 "the status to say that the twin does not stay up" does_not_stay_up
wait_for 90 "the twin to run again" running "$(twin_of $picky)"

kubectl label node "$name" shelf- >/dev/null
ended=$(now)
outage_end
refused() { kubectl -n edge get pod picky -o jsonpath='{.status.phase} {.status.message}' | grep '^Failed Pod was rejected'; }
wait_for 120 "the kubelet to refuse picky" refused
stands_in() { is_active $picky && running "$(twin_of $picky)"; }
wait_for 150 "picky's twin to stand in" stands_in
took=$(since "$ended")
told() { kubectl -n edge get podcheckpoint picky -o jsonpath='{.status.conditions[?(@.type=="Active")]}' | grep '"RejectedAtReturn".*"True"'; }
wait_for 60 "the condition to say RejectedAtReturn" told
event() { kubectl -n edge get events --no-headers -o custom-columns=R:.reason,O:.involvedObject.name,M:.message | grep '^RejectedAtReturn *picky .*delete the pod and create it again'; }
wait_for 60 "the Event that says what to do" event
checkpointer status | grep -E 'picky .*RejectedAtReturn' >/dev/null || fail "status does not show it: $(checkpointer status)"
wait_for 150 "every other parent to serve" parents_serve

kill_part supervisor
stays 10 "the twin stands in, whoever supervises it" running "$(twin_of $picky)"
reboot
wait_for 180 "the twin to stand in after a reboot with the API server there" stands_in

cell "the kubelet refuses a bare parent at its return: the node lost a label" \
  "its twin stands in until the owner has replaced the pod, through a restart of the supervisor and a reboot" \
  "it stands in $took s after the API server is back"

kubectl label node "$name" shelf=left >/dev/null
kubectl -n edge delete pod picky --grace-period=1 >/dev/null
kubectl apply -f "$here/pods/picky.yaml" >/dev/null
wait_for 120 "the new pod to run" running $picky
wait_for 180 "no trace of the twin" no_trace
wait_for 60 "every pod to be ready" pods_ready

kubectl -n edge delete pod picky >/dev/null
wait_for 150 "its checkpoint to go" not checkpoint $picky
kubectl label node "$name" shelf- >/dev/null
kubectl delete --raw /api/v1/namespaces/edge/events >/dev/null   # of a rejection on purpose; one by one would take minutes
