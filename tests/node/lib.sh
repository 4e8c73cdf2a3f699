# shellcheck shell=bash
# What stories are made of. A story runs in the site, sources this file, and finds a node with the program
# deployed and the marked pods running and captured; it leaves the node like that, or fails.
# Everything of node.sh can be called too: outage, outage_end, power_off, boot, on_node, observe, kubectl …
set -Eeuo pipefail
# shellcheck source=node.sh
. "$(dirname "${BASH_SOURCE[0]}")/node.sh"

manifests=$disk/etc/kubernetes/manifests
store=$disk/var/lib/pod-checkpointer
work=$dir/work                                  # a story's own files; the probe's log
story=$(basename "$0" .sh)
served="web proxy radio proxy-port radio-port"  # what the client asks for: own addresses, host port, host network
trap 'echo "FAILED at $(basename "${BASH_SOURCE[0]}"):$LINENO (called at ${BASH_LINENO[*]}): $BASH_COMMAND" >&2' ERR

say() { echo "  $(date +%T) $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
now() { date +%s%3N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN{printf "%.2f", (b-a)/1000}'; }
middle() { sort -n | awk '{n[NR] = $1} END {if (!NR) exit 1; printf "%s (%s–%s, %d rounds)", n[int((NR + 1) / 2)], n[1], n[NR], NR}'; }
# figure NAME VALUE [REFERENCE]: a measurement, never a verdict
figure() { echo "$runtime, $story: $1: $2${3:+ (reference: $3)}" | tee -a "$dir/figures" | sed 's/^/  figure: /'; }

# cell FAULT EXPECTED SEEN: a row of docs/faults.md, which faults.sh makes of what stories print; no verdict either
cell() { echo "  cell: $1 | $2 | $3"; }

# In functions that wait_for and stays call, bash does not stop at the first failure: they need `|| return 1`.
# wait_for SECONDS WHAT COMMAND…: the story fails if it does not come true in time. The bound is an idle machine's; one with
# several nodes is given PATIENCE times as much.
wait_for() {
  local seconds=$(($1 * ${PATIENCE:-1})) what=$2 from asked pause; shift 2; from=$(now)
  until asked=${EPOCHREALTIME/[.,]/}; "$@" >"$work/last" 2>&1; do
    (( $(now) - from < seconds * 1000 )) || fail "waited $seconds s for: $what. Last answer: $(tail -3 "$work/last")"
    # no longer asked than not: kubectl takes a tenth of a second of a processor that the node may need
    pause=$((${EPOCHREALTIME/[.,]/} - asked)); (( pause > 100000 )) || pause=100000
    sleep "$((pause / 1000000)).$(printf %06d $((pause % 1000000)))"
  done
}
# stays SECONDS WHAT COMMAND…: it is true, and remains so
stays() {
  local seconds=$1 what=$2 from; shift 2; from=$(now)
  while (( $(now) - from < seconds * 1000 )); do
    "$@" >"$work/last" 2>&1 || fail "after $(since "$from") s no longer true: $what. $(tail -3 "$work/last")"
    sleep 0.5
  done
}
not() { ! "$@"; }

## the pods
app_pod() { # NAME: namespace/pod of its newest pod
  kubectl get pods -A --no-headers --sort-by=.metadata.creationTimestamp -o custom-columns=N:.metadata.namespace,P:.metadata.name,D:.metadata.deletionTimestamp |
    awk -v n="$1" '$3 == "<none>" && ($2 == n || index($2, n "-") == 1) {found = $1 "/" $2} END {if (!found) exit 1; print found}'
}
new_namespace() { # NAME: one that takes pods, which need its service account
  kubectl create namespace "$1" >/dev/null
  wait_for 30 "the service account of namespace $1" kubectl -n "$1" get serviceaccount default
}
twin_of() { echo "$1-$name"; }
running() { observe containers | grep "CONTAINER_RUNNING $1 " >/dev/null; }   # NAMESPACE/POD; -q would break the pipe
address() { local a; a=$(observe address "$1"); echo "${a:-$node_ip}"; }
report() { # NAME NAMESPACE/POD: all that its process sees
  local port=8080; [ "$1" != radio ] || port=8082
  witness get "http://$(address "$2"):$port/report" >"$work/$1.$3.json"
}
# Stories with many pods: every witness that is reachable, asked at once. They set the directory of the reports, which names
# are of interest, and on which ports of pods and of the node they are.
reports='' report_names='' report_ports=8080 report_hosts=''
reported() { # SIDE: parent or twin
  rm -f "$reports"/*."$1".json
  witness collect --into "$reports" --side "$1" --network $pod_cidr --ports "$report_ports" --hosts "$report_hosts" \
    --names "$report_names" --node "$(<"$dir/node.pid")"
}
all_twins_report() {
  reported twin || return 1
  diff <(basename -as .parent.json "$reports"/*.parent.json) <(basename -as .twin.json "$reports"/*.twin.json)
}
twins_equal() { # FILE: the differences that must be. What probes send comes by and by, so more than one look
  for _ in 1 2 3 4; do
    if reported twin >/dev/null && witness compare --except "$1" "$reports" >"$work/differences"; then
      say "$(<"$work/differences")"
      return
    fi
  done
  cat "$work/differences"
  fail "twins do not see what their parents saw"
}
crash() { on_node kill -KILL "$(observe pid "$1" "$2")"; }                     # NAMESPACE/POD CONTAINER

## the client
probe_start() { # NAME=URL…: more than the usual
  start probe witness probe --listen $site_ip:9000 --log "$work/probe.log" web=pod:8080 proxy=pod:8080 radio=pod:8082 \
    floor=pod:8080 ledger=pod:8080 proxy-port=http://$node_ip:8081/ radio-port=http://$node_ip:8082/ "$@"
}
first() { witness first "$work/probe.log" "$@" 2>/dev/null; }                  # NAME SINCE
gaps() { witness gaps "$work/probe.log" "$@"; }                                # NAME SINCE [UNTIL]
copies() { witness copies "$work/probe.log" "$@"; }                            # NAME SINCE [UNTIL]
slowest() { # SINCE [NAMES]: when the last of them was served
  for n in ${2:-$served}; do first "$n" "$1"; done | sort -n | tail -1
}
unserved() { # SINCE [UNTIL]: by kind of pod, in short
  local n; for n in "web:own address" "proxy-port:host port" "radio:host network"; do
    echo "$(gaps "${n%%:*}" "$@" | awk '{print $1}') s ${n#*:}"
  done | paste -sd, | sed 's/,/, /g'
}
all_served() { for n in ${2:-$served}; do first "$n" "$1" || { echo "$n is not served"; return 1; }; done; }
served_now() { all_served $(( $(now) - 700 )); }
served_lately() { all_served $(( $(now) - 3000 )) "$@"; }                      # [NAMES]: also where the machine is busy

## the program
checkpoint() { ls "$store/checkpoints/${1/\//_}/"*.yaml; }                     # NAMESPACE/POD
link() { echo "$manifests/pod-checkpointer_${1/\//_}.yaml"; }
is_active() { [ -L "$(link "$1")" ]; }
nothing_active() {
  local links; links=$(find "$manifests" -type l -name 'pod-checkpointer_*')
  [ -z "$links" ] || { echo "active: $links"; return 1; }
}
no_trace() { # of any activation, on the node or in the runtime
  nothing_active || return 1
  local left; left=$(on_node find /run/pod-checkpointer/active /run/pod-checkpointer/volumes -mindepth 1 2>/dev/null || true)
  [ -z "$left" ] || { echo "left: $left"; return 1; }
  left=$(observe containers | awk -v n="-$name" '$2 == "CONTAINER_RUNNING" && $3 ~ n "$" && $3 !~ "/(floor|etcd|pod-checkpointer-supervisor)-"')
  [ -z "$left" ] || { echo "twins still run: $left"; return 1; }
}
program_log() { cat "$disk"/var/log/pods/pod-checkpointer_"$1"*/*/*.log; }     # supervisor: pod-checkpointer-supervisor
supervisor_runs() { running "pod-checkpointer/pod-checkpointer-supervisor-$name"; }
supervisor_shown() { kubectl -n pod-checkpointer get pod "pod-checkpointer-supervisor-$name" --no-headers | grep ' 1/1 *Running '; }
checkpointer() { on_node pod-checkpointer "$@"; }
contact_is() { on_node grep -A2 '^contact:' /run/pod-checkpointer/status.yaml | grep "class: $1"; } # as the supervisor sees it
pid_of() { on_node pgrep -f "^[^ ]*pod-checkpointer $1( |\$)"; }                # agent or supervisor
kill_part() { on_node pkill -KILL -f "^[^ ]*pod-checkpointer $1( |\$)" || true; } # at any moment: it may be down already
served_by() { # PART: agent, supervisor or operator
  case $1 in
  agent) echo "http://$node_ip:9797" ;;
  supervisor) echo http://127.0.0.1:9798 ;;
  operator) echo "http://$(kubectl -n pod-checkpointer-operator get pods -o jsonpath='{.items[0].status.podIP}'):9797" ;;
  esac
}
# metrics PART: what it serves, judged by Prometheus' own tool
metrics() {
  local page; page=$(on_node curl -fsS --max-time 5 "$(served_by "$1")/metrics") || return 1
  promtool check metrics <<<"$page" >&2 || { echo "promtool does not like what the $1 serves" >&2; return 1; }
  echo "$page"
}
is_counted() { # PART SERIES LEAST: the series without the program's prefix
  local value; value=$(metrics "$1" | awk -v s="pod_checkpointer_$2" '$1 == s {print $2}')
  awk -v v="${value:-none}" -v least="$3" 'BEGIN {exit !(v + 0 >= least && v != "none")}' || { echo "$2 of the $1 is ${value:-absent}"; return 1; }
}
is_well() { # PART: its health and readiness
  local address; address=$(served_by "$1")
  on_node curl -fsS --max-time 5 "$address/healthz" "$address/readyz"
}
outages() { echo "/proc/$(<"$dir/node.pid")/root/run/pod-checkpointer/outages.yaml"; }
outage_times() { # FROM TO: seconds of the last outage, from the first FROM of any pod to the last TO; `from`: contact was lost
  python3 -c '
import sys, yaml
outage = yaml.safe_load(open(sys.argv[1]))["outages"][-1]
pods = [{**pod, "from": outage["from"]} for pod in outage["pods"].values()]
print("%.2f" % ((max(pod[sys.argv[3]] for pod in pods) - min(pod[sys.argv[2]] for pod in pods)) / 1000))' \
    "$(outages)" "$@"
}
# recording OUTAGE: what the supervisor wrote about it, below target/recordings; the model is compared with copies of these in
# tests/fixtures/recordings
recording() {
  local into=$here/../../target/recordings
  mkdir -p "$into"
  cp "$(outages)" "$into/$runtime-$1.yaml"
}
memory() { awk '/^VmRSS/{printf "%.1f MB", $2 / 1024}' "/proc/$(pgrep -f "^[^ ]*pod-checkpointer $1( |\$)" | head -1)/status"; }

# settings NAME=VALUE…: flags of the program, as environment of the agent; it passes them on to the supervisor
settings() {
  kubectl -n pod-checkpointer set env daemonset/pod-checkpointer "${@/#/POD_CHECKPOINTER_}" >/dev/null
  wait_for 90 "the agent to be replaced" kubectl -n pod-checkpointer rollout status --timeout=1s daemonset/pod-checkpointer
  local from; from=$(now)
  wait_for 60 "the supervisor to be replaced" supervisor_has "$@"
  say "new settings in force after $(since "$from") s: $*"
}
supervisor_has() { # NAME=VALUE…, or NAME- for a default: the running process has these flags, where they are its own
  local pid flags setting flag; pid=$(pid_of supervisor | head -1); flags=" $(on_node cat "/proc/$pid/cmdline" | tr '\0=' '  ') "
  for setting; do
    case $setting in ACTIVATION_DELAY* | ACTIVATE_LOCKED_OUT* | PROBE_* | UNSTICK_KUBELET* | KEY_FILE*) ;; *) continue ;; esac
    flag=${setting%%[=-]*}; flag=${flag,,}; flag=--${flag//_/-}
    case $setting in
    *=*) [[ $flags == *" $flag ${setting#*=} "* ]] ;;
    *) [[ $flags != *" $flag "* ]] ;;
    esac || { echo "the supervisor runs with $flags"; return 1; }
  done
}

deploy() {
  cp "$PROGRAM" "$dir/bin/pod-checkpointer"     # for the command line on the node
  image localhost/pod-checkpointer:dev /pod-checkpointer pod-checkpointer="$PROGRAM"
  traces >"$dir/before"
  kubectl apply -k "$here/deploy" >/dev/null
  wait_for 60 "the agent" kubectl -n pod-checkpointer rollout status --timeout=1s daemonset/pod-checkpointer
}
absent() { # of kubectl get: there is none
  local found; found=$(kubectl get "$@" --ignore-not-found -o name) && [ -z "$found" ] || { echo "found: $found"; return 1; }
}
as_before() { diff "$dir/before" <(traces); }    # the node's directories, before the installation
uninstall() { # what was deployed by plain YAML; the next deployment starts from nothing
  kubectl delete -k "$here/deploy" --ignore-not-found >/dev/null
  wait_for 60 "the agent to end" not pid_of agent
  checkpointer uninstall >/dev/null
  wait_for 60 "the supervisor to end" not pid_of supervisor
  wait_for 30 "the node's directories to be as before" as_before
}

## with the operator
operator_up() { # it runs soon; nothing asks it for agents
  pod-checkpointer manifests --operator --image localhost/pod-checkpointer:dev >"$work/operator.yaml"
  kubectl apply -f "$work/operator.yaml" >/dev/null
}
ask_for_agents() { # by a PodCheckpointer that sets nothing
  kubectl apply -f - >/dev/null <<YAML
{apiVersion: podcheckpointer.io/v1alpha1, kind: PodCheckpointer, metadata: {name: default}, spec: {}}
YAML
}
set_spec() { kubectl patch podcheckpointers default --type merge -p "{\"spec\": $1}" >/dev/null; }
shown() { # JSONPATH VALUE: what the PodCheckpointer shows
  local value; value=$(kubectl get podcheckpointers default -o jsonpath="{.status.$1}")
  [ "$value" = "$2" ] || { echo "$1 is $value: $(kubectl get podcheckpointers default -o jsonpath='{.status}')"; return 1; }
}
says() { shown "conditions[?(@.type==\"$1\")].$2" "$3"; }                      # CONDITION status|reason VALUE
is_ready() { says Applied status True && says Ready reason Ready; }
settled() { # the current spec is applied everywhere
  shown observedGeneration "$(kubectl get podcheckpointers default -o jsonpath='{.metadata.generation}')" && is_ready
}
protected() { # with agents that are there
  wait_for 60 "every pod to be recoverable" recoverable
  wait_for 60 "the supervisor" supervisor_runs
}

# first_control_plane: with an etcd on the node, an API server that is a process of the node and controllers that are processes
# of the site, until those in the cluster can be created
first_control_plane() {
  cp "$dir"/pki/{apiserver,admin}.{crt,key} "$dir/pki/sa.key" "$disk/etc/kubernetes/pki/"
  # shellcheck disable=SC2046
  start_on_node apiserver kube-apiserver $(ETCD_IP=$node_ip api_flags /etc/kubernetes/pki)
  wait_for 60 "the first API server" api_wait 1
  controllers_start
  wait_for 60 "the node to be Ready" node_ready
}
node_ready() { kubectl get node "$name" | grep -w Ready; }

traces() { # what the program could leave behind on the node's disk and in its memory
  on_node find /etc/kubernetes /var/lib/pod-checkpointer /run/pod-checkpointer -printf '%p %M %u:%g %l\n' 2>/dev/null | sort || true
}

# healthy: the state in which each story begins, and to which it must return
healthy() {
  mkdir -p "$work"; probe_start "$@"
  outage_end                                    # whatever a story left
  wait_for 60 "an API server" api_wait 1
  [ -e "$dir/before" ] || deploy
  kubectl apply -f "$here/pods/marked.yaml" -f "$here/pods/unmarked.yaml" >/dev/null
  wait_for 120 "every pod to be ready" pods_ready
  wait_for 60 "the supervisor" supervisor_runs
  wait_for 60 "the supervisor's mirror pod" supervisor_shown
  for n in web proxy radio; do wait_for 30 "a checkpoint of $n" checkpoint "$(app_pod $n)"; done
  wait_for 30 "every pod to be recoverable" recoverable
  wait_for 150 "no trace of an outage" no_trace
}
all_ready() {
  local not_ready
  not_ready=$(kubectl get pods -A --no-headers | awk '{split($3, r, "/"); if ($4 != "Running" || r[1] != r[2]) print}')
  [ -z "$not_ready" ] || { echo "$not_ready"; return 1; }
}
pods_ready() { # and those of the stories are there
  all_ready || return 1
  for n in web proxy radio; do app_pod $n >/dev/null || return 1; done
}
recoverable() {
  local answer; answer=$(kubectl get podcheckpoints -A -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name}={.status.conditions[?(@.type=="Recoverable")].status}{"\n"}{end}')
  for n in web proxy radio; do grep -qx "$(app_pod $n)=True" <<<"$answer" || { echo "$n: $answer"; return 1; }; done
}

# remember: what must be as before when the outage is over
remember() {
  for n in web proxy radio; do declare -g "$n=$(app_pod $n)"; report $n "${!n}" parent; done
  pods_now >"$work/pods"
}
pods_as_before() { diff "$work/pods" <(pods_now); }
pods_now() { kubectl get pods -A --no-headers -o custom-columns=N:.metadata.namespace,P:.metadata.name,U:.metadata.uid,S:.status.phase; }

# guarded: healthy, remembered, and with what a fault could harm: a pod that may never run twice, and files of others
# where the kubelet looks. unharmed says at the end that none of it was.
guarded() {
  healthy "$@"
  kubectl apply -f "$here/pods/ledger.yaml" >/dev/null
  wait_for 60 "a checkpoint of ledger" checkpoint shop/ledger-0
  mkdir -p "$manifests/pod-checkpointer_of_somebody.yaml"
  echo "not a manifest" >"$manifests/theirs.yaml"; echo "not ours" >"$manifests/pod-checkpointer_another_pod.yaml.orig"
  ln -sfn /nowhere "$manifests/.theirs"
  foreign >"$work/foreign"
  wait_for 60 "every pod to be ready" pods_ready
  remember
  guarded=$(now)
}
foreign() { # foreign files in the kubelet's directory, with inode and time of the last change
  find "$manifests" -mindepth 1 ! -name pod-checkpointer-supervisor.yaml ! \( -type l -name 'pod-checkpointer_*' \) ! -name '.pod-checkpointer-*' \
    ! -name floor.yaml -printf '%p %i %M %C@ %s %l\n' | sort
}
harmless() { # since guarded: nothing rejected, no foreign file touched, no pod twice except those that may overlap
  local n most
  never_failed
  diff "$work/foreign" <(foreign) || fail "a file of somebody else was touched"
  for n in web:2 proxy:2 radio:1 ledger:1; do
    most=$(copies "${n%:*}" "$guarded")
    [ "${most% *}" -le "${n#*:}" ] || fail "there were ${most% *} of ${n%:*} at a time, where there may be ${n#*:}; more than one for ${most#* } s"
  done
}
unharmed() { # and the end of it
  harmless
  rmdir "$manifests/pod-checkpointer_of_somebody.yaml"
  rm "$manifests/theirs.yaml" "$manifests/pod-checkpointer_another_pod.yaml.orig" "$manifests/.theirs"
}

reboot() { # sets booted, the moment when containerd was started
  power_off
  booted=$(now)
  boot
}
# back_up: every marked pod is served again since the boot
back_up() { wait_for "${1:-60}" "every marked pod to serve again" all_served "$booted"; }
boot_figures() { # NAME [REFERENCE]
  for n in $served; do figure "boot to serving, $1, $n" "$(first "$n" "$booted") s" "${2:-$(first floor "$booted") s for a static pod}"; done
  wait_for 10 "the supervisor to record it" outage_times decided serving
  figure "first failed probe to the decision, $1" "$(outage_times from decided) s"
  figure "decision to the last link, $1" "$(outage_times decided activated) s"
  figure "decision to the last one running, $1" "$(outage_times decided serving) s"
}
compare_twins() {
  for n in web proxy radio; do
    report $n "$(twin_of "${!n}")" twin
    witness compare --except "$here/pods/differences" "$work/$n.parent.json" "$work/$n.twin.json" || fail "the twin of $n does not see what its parent saw"
  done
}

# hand_back: the API server answers; everything becomes as before, and the client notices as little as possible
hand_back() { # [quiet]: sets ended, when the outage ended, and parents_after, in seconds
  local answered n
  ended=$(now)
  outage_end
  wait_for 60 "the API server to answer" api_wait 1; answered=$(now)
  wait_for 150 "every parent to serve" parents_serve
  parents_after=$(since "$answered")
  wait_for 180 "no trace of the twins" no_trace
  say "parents serve $parents_after s after the first answer, nothing is left of the twins after $(since "$answered") s"
  if [ "${1:-}" != quiet ]; then
    figure "API answers to every parent serving" "$parents_after s"
    for n in $served; do figure "unserved at the handover, $n" "$(gaps "$n" "$ended") s"; done
  fi
  wait_for 60 "every pod to be ready" pods_ready
  wait_for 60 "kubectl get pods -A to show what it showed before" pods_as_before
  local mirrors; mirrors=$(kubectl get pods -A -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.annotations.podcheckpointer\.io/checkpoint-of}{"\n"}{end}' | awk 'NF > 1')
  [ -z "$mirrors" ] || fail "mirror pods of twins: $mirrors"
  never_failed
}
parents_serve() { for n in web proxy radio; do running "${!n}" || { echo "$n does not run"; return 1; }; done; served_now; }
never_failed() { # rejected pods leave an event even after they are gone
  local rejected; rejected=$(kubectl get events -A --no-headers -o custom-columns=R:.reason,O:.involvedObject.name,M:.message |
    grep -E '^(NodePorts|OutOf[a-z]+|UnexpectedAdmissionError|NodeAffinity|Evicted) ' || true)
  [ -z "$rejected" ] || fail "rejected: $rejected"
}
