#!/bin/bash
# Twenty nodes with 500 marked pods: the agents' requests in normal operation, and after the API server was away.
# on containerd2
# once: the runtimes are stubs
# long
# The nodes are tests/fleet: real agents with stub kubelets and runtimes. The agents' requests are counted from the API server's
# audit log. NODES=20, PODS=25 of each, QUIET=300 and AWAY=90 seconds.
. "$(dirname "$0")/../lib.sh"

nodes=${NODES:-20} per_node=${PODS:-25} all=$((${NODES:-20} * ${PODS:-25}))
fleet=/mnt audit=$dir/log/audit.log   # short: what leads to a socket has 107 bytes

## the fleet
fleet_node() { printf 'fleet-%02d' "$1"; }
pods_of() { # NODE FIRST LAST: plain pods with a ConfigMap and a token, made for this node
  local node=$1 number
  for number in $(seq "$2" "$3"); do
    cat <<YAML
---
apiVersion: v1
kind: Pod
metadata:
  {name: $node-$number, namespace: fleet, labels: {app: till, number: "$number"}, annotations: {podcheckpointer.io/checkpoint: "true"}}
spec:
  nodeName: $node
  containers:
  - {name: till, image: "registry.example/till:v1", env: [{name: NUMBER, value: "$number"}],
     volumeMounts: [{name: prices, mountPath: /etc/prices}]}
  volumes: [{name: prices, configMap: {name: prices}}]
YAML
  done
}
each_node() { local at; for at in $(seq 0 $((nodes - 1))); do "$1" "$(fleet_node "$at")" "${@:2}"; done; }
agents_run() { # on every node, shown by the DaemonSet
  alive fleet || { tail -3 "$dir/log/fleet.log"; return 1; }
  local ready; ready=$(kubectl -n pod-checkpointer get daemonset pod-checkpointer -o jsonpath='{.status.numberReady}')
  [ "$ready" = $((nodes + 1)) ] || { echo "$ready agents"; return 1; }
}
pids() { awk 1 "$fleet"/*/agent.pid; }
processor() { local pid; for pid in $(pids); do cat "/proc/$pid"/task/*/schedstat; done | awk '{n += $1} END {printf "%.0f", n}'; } # in ns
resident() { local pid; for pid in $(pids); do awk '/^VmRSS/ {print $2 / 1024}' "/proc/$pid/status"; done; }                       # in MB
spread() { sort -n | awk -v f="$1" '{t[NR] = $1} END {printf f " (" f "–" f ")", t[int((NR + 1) / 2)], t[1], t[NR]}'; }              # FORMAT
agents_stay() { local pid; for pid in $(<"$work/agents"); do kill -0 "$pid" || return 1; done; }
# every pod of the fleet has its PodCheckpoint, of this very pod and Recoverable, and there is no other
all_recoverable() {
  local verdict='.status.conditions[?(@.type=="Recoverable")].status'
  kubectl -n fleet get pods --no-headers -o custom-columns=N:.metadata.name,U:.metadata.uid | awk '{print $1, $2, "True"}' | sort >"$work/fleet-pods"
  kubectl -n fleet get podcheckpoints --no-headers -o custom-columns="N:.metadata.name,U:.spec.podUID,R:$verdict" |
    awk '{print $1, $2, $3}' | sort >"$work/fleet-shown"
  [ "$(wc -l <"$work/fleet-pods")" = "$all" ] || { wc -l "$work/fleet-pods"; return 1; }
  diff "$work/fleet-pods" "$work/fleet-shown"
}

## the agents' requests
requests() { # SINCE UNTIL: of the agents, and the probes of the real node's supervisor
  "$here/../fleet/requests.py" "$audit" "$@" >"$work/asked"
  grep -v ' supervisor ' "$work/asked" >"$work/requests" || true
  grep ' supervisor ' "$work/asked" >"$work/probes" || true
}
server_used() { awk '{print ($14 + $15) * 10}' "/proc/$(<"$dir/apiserver.pid")/stat"; } # processor time of the API server, in ms
count() { awk -v v="^($1)\$" '$3 ~ v' "$work/requests" | wc -l; }                 # VERBS
writes='create|update|patch|delete|deletecollection'
by_kind() { awk '{n[$3 " " $4]++} END {for (k in n) print n[k], k}' "$work/requests" | sort -rn | paste -sd, | sed 's/,/, /g'; }
by_agent() { awk '{n[$2]++} END {for (k in n) print n[k]}' "$work/requests"; }
no_requests_but() { # SECONDS VERBS: for so long, as it looks now, agents ask for nothing else
  requests $(($(now) - $1 * 1000)) "$(now)"
  not grep -vE "^[0-9]+ [^ ]+ ($2) " "$work/requests"
}
all_watch() { # SINCE: every agent has a watch that goes on. One from where the server has forgotten ends at once, and a list follows
  requests "$1" "$(now)"
  local watching; watching=$(awk '$3 == "watch" && $4 == "pods" && $6 == "on" {print $2}' "$work/requests" | sort -u | wc -l)
  [ "$watching" = "$nodes" ] || { echo "$watching agents watch"; return 1; }
}

healthy
cargo build --quiet --locked --offline --example fleet --manifest-path "$here/../../Cargo.toml"
mount -t tmpfs -o mode=755 tmpfs "$fleet"      # the site's own: it ends with it
cat >"$work/audit.yaml" <<YAML
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["system:serviceaccount:pod-checkpointer:pod-checkpointer"]}
- {level: Metadata, users: ["system:anonymous"], nonResourceURLs: ["/livez"]}
YAML
api_more=(--audit-policy-file "$work/audit.yaml" --audit-log-path "$audit")
stop apiserver; outage_end
wait_for 60 "an API server that keeps an audit log" api_wait 1

# they come, and are captured
start fleet "${CARGO_TARGET_DIR:-$here/../../target}/debug/examples/fleet" --nodes "$nodes" --program "$PROGRAM" --kubeconfig "$KUBECONFIG" \
  --directory "$fleet"
wait_for 120 "an agent on every node" agents_run
new_namespace fleet
each_node pods_of 1 "$per_node" >"$work/fleet.yaml"
began=$(now)
kubectl create -f "$work/fleet.yaml" >/dev/null
created=$(since "$began")
wait_for 300 "$all PodCheckpoints to be recoverable" all_recoverable
figure "first of $all pods of $nodes nodes made to the last PodCheckpoint recoverable" "$(since "$began") s" "$created s to make the pods"
pids >"$work/agents"

# what people see
shown=$(kubectl get podcheckpoints -A --no-headers | awk '$1 == "fleet" && $4 == "True"' | wc -l)
[ "$shown" = "$all" ] || fail "kubectl get podcheckpoints -A shows $shown of the fleet as recoverable"

# a node's agent speaks for its node
agent_conf=$fleet/fleet-00/agent.conf
kubectl --kubeconfig "$agent_conf" -n fleet label podcheckpoint fleet-00-1 fleet=own >/dev/null
not kubectl --kubeconfig "$agent_conf" -n fleet label podcheckpoint fleet-01-1 fleet=foreign >"$work/last" 2>&1 ||
  fail "the agent of fleet-00 may write what is of fleet-01"
grep -q 'may write only the PodCheckpoints of its own node: the token is of node fleet-00, the object of node fleet-01' "$work/last" ||
  fail "refused with: $(<"$work/last")"

# nothing changes, nothing is asked
wait_for 120 "the agents to have said all" no_requests_but 20 'watch|get'
used=$(processor) server=$(server_used) quiet=$(now)
stays "${QUIET:-300}" "the agents run" agents_stay
requests "$quiet" "$(now)"
hours=$(awk -v from="$quiet" -v to="$(now)" 'BEGIN {print (to - from) / 3600000}')
per_hour() { awk -v n="$1" -v nodes="$nodes" -v hours="$hours" 'BEGIN {printf "%.0f", n / nodes / hours}'; }
say "quiet: $(by_kind)"
figure "requests of an agent in an hour while all is quiet" "$(per_hour "$(count .+)"): $(per_hour "$(count watch)") watches, $(per_hour "$(count get)") gets"
figure "processor time of an agent of $per_node pods while all is quiet" \
  "$(awk -v ns=$(($(processor) - used)) -v n="$nodes" -v hours="$hours" 'BEGIN {printf "%.4f %% of a core", ns / n / hours / 3.6e10}')"
figure "resident memory of an agent of $per_node pods" "$(resident | spread '%.1f MB')"
idle=$(awk -v ms=$(($(server_used) - server)) -v hours="$hours" 'BEGIN {print ms / hours / 3.6e6}')    # of a core
probes=$(awk -v n="$(wc -l <"$work/probes")" -v hours="$hours" 'BEGIN {printf "%.0f", n / hours}')
[ "$probes" -gt 3000 ] || fail "the audit log has $probes probes of a supervisor in an hour"
server=$(server_used) from=$(now)
# as supervisors do: on one connection, which the server keeps with HTTP/1.1 alone
curl -sS --fail --http1.1 -o "$work/livez" --cacert "$dir/pki/ca.crt" "https://$site_ip:6443/livez?[1-5000]"
figure "probes of a supervisor in an hour while all is quiet, without a credential" \
  "$probes, each $(awk -v ms=$(($(server_used) - server)) -v took="$(($(now) - from))" -v idle="$idle" \
    'BEGIN {printf "%.2f", (ms - idle * took) / 5000}') ms of the API server's processor time"
[ "$(count watch)" -ge "$nodes" ] || fail "the audit log has $(count watch) watches of $nodes agents"
[ "$(count 'list|page')" = 0 ] || fail "agents list although nothing changes: $(by_kind)"
[ "$(count "$writes")" = 0 ] || fail "agents write although nothing changes: $(by_kind)"

# all lose the API server at once, and find it again
outage refused
stays "${AWAY:-90}" "the agents run" agents_stay
back=$(now)
outage_end
wait_for 60 "the API server" api_wait 1
answers=$(now)
wait_for 75 "every agent to watch again" all_watch "$back"     # no pause is longer than a minute
watching=$(since "$answers")
wait_for 150 "the agents to have said all" no_requests_but 20 'watch|get'
requests "$back" "$(now)"
say "after the outage: $(by_kind)"
# the first request of each agent, in seconds after the first of all
awk '!seen[$2]++ {if (!from) from = $1; print ($1 - from) / 1000}' "$work/requests" >"$work/firsts"
most=$(awk '{n[int($1)]++} END {for (s in n) if (n[s] > most) most = n[s]; print most}' "$work/firsts")
figure "API server back to the last of $nodes agents watching" "$watching s"
figure "first requests of $nodes agents after an outage of ${AWAY:-90} s" "$(spread '%.1f s' <"$work/firsts") after the first of them, at most $most in a second"
figure "requests of an agent after an outage" "$(by_agent | spread '%d'), all together $(count list) lists and $(count "$writes") writes"
[ "$most" -le $((nodes / 2)) ] || fail "$most of $nodes agents come back within one second: $(paste -sd' ' "$work/firsts")"
lists=$(awk '$3 == "list" {print $2, $4}' "$work/requests" | sort | uniq -d)
[ -z "$lists" ] || fail "agents list more than once: $lists"
[ "$(count "$writes")" = 0 ] || fail "agents write although nothing changed: $(by_kind)"
wait_for 30 "all as before" all_recoverable

# many pods change at once: some are made again under their names, others under new ones
changed=$((nodes * 5)) from=$(now)
{ each_node pods_of 1 3; each_node pods_of 101 102; } >"$work/fleet-new.yaml"
kubectl -n fleet delete pods -l 'number in (1,2,3,4,5)' >/dev/null
kubectl create -f "$work/fleet-new.yaml" >/dev/null
made=$(since "$from")
wait_for 120 "PodCheckpoints of the new pods, and none of the old" all_recoverable
figure "$changed pods deleted and made anew to the last PodCheckpoint recoverable" "$(since "$from") s" "$made s to delete and make the pods"
nothing_old() { [ -z "$(find "$fleet" -name 'fleet_*-[45]' -print -quit)" ]; }
wait_for 180 "the old pods' checkpoints to go from their nodes" nothing_old
wait_for 120 "the agents to have said all" no_requests_but 20 'watch|get'
requests "$from" "$(now)"
say "while pods changed: $(by_kind)"
figure "writes for a pod that is replaced" "$(awk -v n="$(count "$writes")" -v pods="$changed" 'BEGIN {printf "%.1f", n / pods}'), all together $(by_kind)"
all_recoverable >"$work/last" || fail "not as the pods are: $(<"$work/last")"
agents_stay || fail "an agent has ended"
pids | diff "$work/agents" - || fail "an agent was started again"

# nothing of the fleet is left
kubectl delete namespace fleet >/dev/null
kubectl delete nodes -l fleet=yes >/dev/null
no_fleet() {
  local left; left=$(kubectl get pods,podcheckpoints -A -o jsonpath='{range .items[*]}{.spec.nodeName} {.kind} {.metadata.name}{"\n"}{end}') || return 1
  not grep ^fleet- <<<"$left"
}
wait_for 180 "the fleet's objects to be deleted" no_fleet            # pods of DaemonSets among it, a minute after their nodes
stop fleet
umount "$fleet"
api_more=()
stop apiserver
healthy
