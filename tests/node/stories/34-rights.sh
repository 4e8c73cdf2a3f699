#!/bin/bash
# An agent's token may write only objects of its own node; settings that cannot work are refused.
# on containerd2
# once: rights are the API server's
. "$(dirname "$0")/../lib.sh"

# with_token TOKEN COMMAND…: kubectl with only this token
with_token() {
  local token=$1; shift
  cat >"$work/agent.conf" <<YAML
apiVersion: v1
kind: Config
$(grep '^clusters:' "$dir/pki/admin.conf")
users: [{name: me, user: {token: $token}}]
contexts: [{name: site, context: {cluster: site, user: me}}]
current-context: site
YAML
  kubectl --kubeconfig "$work/agent.conf" "$@"
}
token_of() { # POD: a token as the kubelet gets it for this pod
  kubectl -n pod-checkpointer create token pod-checkpointer --bound-object-kind Pod --bound-object-name "$1" \
    --bound-object-uid "$(kubectl -n pod-checkpointer get pod "$1" -o jsonpath='{.metadata.uid}')"
}
agent_on() { # NODE
  kubectl -n pod-checkpointer get pods -l app.kubernetes.io/component=agent --field-selector "spec.nodeName=$1" -o name | sed 's#^pod/##' | grep .
}
object() { # NAME NODE: a file with such a PodCheckpoint
  echo "{apiVersion: podcheckpointer.io/v1alpha1, kind: PodCheckpoint, metadata: {name: $1, namespace: shop}, spec: {nodeName: $2, podUID: u1}}" >"$work/$1.yaml"
  echo "$work/$1.yaml"
}
set_phase() { # TOKEN NAME PHASE: as the agent does it, which may patch the status and not get it
  curl -sS --fail-with-body --cacert "$dir/pki/ca.crt" -H "Authorization: Bearer $1" -H 'Content-Type: application/merge-patch+json' -X PATCH \
    -d "{\"status\": {\"phase\": \"$3\"}}" "https://$api_ip:6443/apis/podcheckpointer.io/v1alpha1/namespaces/shop/podcheckpoints/$2/status"
}
may() { "$@" >"$work/last" 2>&1 || fail "not allowed: ${*:3}: $(<"$work/last")"; }
must_not() { # SAYS COMMAND…
  local says=$1; shift
  not "$@" >"$work/last" 2>&1 || fail "allowed: ${*:3}"
  grep -q "$says" "$work/last" || fail "${*:3} is refused with: $(<"$work/last")"
}

healthy
kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Node
metadata: {name: node-9}
status: {capacity: {cpu: "4", memory: 4Gi, pods: "10"}, allocatable: {cpu: "4", memory: 4Gi, pods: "10"}}
YAML
wait_for 30 "an agent for another node" agent_on node-9
ours=$(token_of "$(agent_on $name)") theirs=$(token_of "$(agent_on node-9)")
unbound=$(kubectl -n pod-checkpointer create token pod-checkpointer)
own='may write only the PodCheckpoints of its own node'

# its own
may with_token "$ours" create -f "$(object mine $name)"
may set_phase "$ours" mine Inactive
may with_token "$ours" apply --server-side -f "$(object mine $name)"
# objects of another node: not to create, change, take over, give away or delete
may with_token "$theirs" create -f "$(object other node-9)"
must_not "$own: the token is of node $name, the object of node node-9" with_token "$ours" create -f "$(object third node-9)"
must_not "$own" with_token "$ours" apply --server-side -f "$(object third node-9)"
must_not "$own" set_phase "$ours" other Active
must_not 'the node of a PodCheckpoint cannot change' with_token "$ours" -n shop patch podcheckpoint other --type merge -p "{\"spec\": {\"nodeName\": \"$name\"}}"
must_not 'the node of a PodCheckpoint cannot change' with_token "$ours" -n shop patch podcheckpoint mine --type merge -p '{"spec": {"nodeName": "node-9"}}'
must_not 'the pod of a PodCheckpoint cannot change' kubectl -n shop patch podcheckpoint mine --type merge -p '{"spec": {"podUID": "u2"}}'
must_not 'at least 1 chars long' kubectl apply -f "$(object nobodys '""')"
must_not "$own" with_token "$ours" -n shop delete podcheckpoint other
must_not "$own" with_token "$theirs" -n shop delete podcheckpoint mine
must_not "$own: the token is of no node" with_token "$unbound" -n shop delete podcheckpoint mine
may with_token "$ours" -n shop delete podcheckpoint mine
# no Secrets, no pods
for what in "get secrets -A" "-n shop get secret web-tls" "get configmaps -A" "get nodes" "-n shop delete pod --all" \
  "-n shop delete podcheckpoints --all" "-n shop run x --image localhost/witness:1" "-n pod-checkpointer create token pod-checkpointer" \
  "label node $name a=b" "-n shop exec deploy/web -- /witness" "get validatingadmissionpolicies" "get namespaces"; do
  # shellcheck disable=SC2086
  must_not 'orbidden\|may write only' with_token "$ours" $what
done
may with_token "$ours" get pods -A
# other clients are not affected
kubectl -n shop label podcheckpoint other a=b >/dev/null
say "an agent's token writes its own node's PodCheckpoints and nothing else"

# settings of the whole cluster: each bad value is refused with what to write instead
python3 - "$here/../fixtures/podcheckpointers.yaml" "$work/settings" <<'PY'
import json, os, sys, yaml
cases = yaml.safe_load(open(sys.argv[1]))
os.makedirs(sys.argv[2], exist_ok=True)
for kind in ("good", "bad"):
    for at, case in enumerate(cases[kind]):
        spec = case if kind == "good" else case["spec"]
        name = "default" if kind == "good" else case.get("name", "default")
        made = {"apiVersion": "podcheckpointer.io/v1alpha1", "kind": "PodCheckpointer", "metadata": {"name": name}, "spec": spec}
        with open(f"{sys.argv[2]}/{kind}-{at:03}.json", "w") as file:
            json.dump(made, file)
        if kind == "bad":
            with open(f"{sys.argv[2]}/{kind}-{at:03}.says", "w") as file:
                file.write(case["says"])
PY
judged() { kubectl create --raw "/apis/podcheckpointer.io/v1alpha1/podcheckpointers?dryRun=All&fieldValidation=Warn" -f "$1" 2>&1; }
for file in "$work"/settings/good-*.json; do
  judged "$file" >"$work/last" || fail "refused: $(<"$file"): $(<"$work/last")"
done
for file in "$work"/settings/bad-*.json; do
  not judged "$file" >"$work/last" || fail "taken: $(<"$file")"
  grep -qF "$(<"${file%.json}.says")" "$work/last" || fail "$(<"$file") is refused with: $(<"$work/last")"
done
say "$(find "$work/settings" -name 'good-*.json' | wc -l) settings are taken, $(find "$work/settings" -name 'bad-*.json' | wc -l) are refused with a hint"
for field in podcheckpointer.spec.select.matchLabels podcheckpoint.status.markedBy; do
  kubectl explain "$field" >"$work/last" && grep -q DESCRIPTION "$work/last" || fail "kubectl explain $field: $(<"$work/last")"
done

# its node is deleted: its token belongs to no pod any more
kubectl delete node node-9 >/dev/null
is_nobody() { with_token "$theirs" get pods -A >"$work/answer" 2>&1 && return 1; grep 'must be logged in' "$work/answer"; }
wait_for 150 "the token of a deleted node's agent to be refused" is_nobody
kubectl -n shop delete podcheckpoint other >/dev/null
