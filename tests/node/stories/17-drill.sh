#!/bin/bash
# A drill: a rehearsal in normal operation, a real cut, and the drill killed in the middle of either.
# on containerd1
# once: the API and the kubelet are what is tried
. "$(dirname "$0")/../lib.sh"

healthy; remember
# what other stories left in the store is removed when its retention is over
of_these() { [ "$(find "$store/checkpoints" -mindepth 1 -maxdepth 1 -type d | wc -l)" = 3 ]; }
wait_for 180 "the checkpoints of pods that are gone to go" of_these
pods=3
drill() { checkpointer drill "$@"; }
answer() { python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$work/drill.json" "$1"; } # EXPRESSION of d
# no_drill: nothing of a drill is left on the node, in the runtime or in the API
no_drill() {
  local left; left=$(find "$manifests" -name 'pod-checkpointer-drill_*'; on_node find /run/pod-checkpointer/drill /run/pod-checkpointer/drill.yaml 2>/dev/null)
  [ -z "$left" ] || { echo "left: $left"; return 1; }
  left=$(on_node ip route show type blackhole)
  [ -z "$left" ] || { echo "still cut off: $left"; return 1; }
  left=$(observe containers | awk '$2 == "CONTAINER_RUNNING" && $3 ~ "-drill-"')
  [ -z "$left" ] || { echo "still runs: $left"; return 1; }
  left=$(kubectl get pods -A --no-headers | grep -e '-drill' || true)
  [ -z "$left" ] || { echo "in the API: $left"; return 1; }
}
serving() { observe containers | grep CONTAINER_RUNNING | grep -v -e '-drill-' -e pod-checkpointer-agent | cut -d' ' -f1,3- | sort; }
untouched() { diff "$work/serving" <(serving); }  # what served still runs, in the same containers
serving >"$work/serving"

# --- in normal operation
begun=$(now)
drill -o json >"$work/drill.json" 2>"$work/drill.err" || fail "a drill of healthy pods: $(cat "$work/drill.err" "$work/drill.json")"
[ "$(answer 'sum(p["recovers"] for p in d["pods"])')" = $pods ] || fail "not all recover: $(cat "$work/drill.json")"
[ "$(answer '[x for p in d["pods"] for x in p.get("differences", [])]')" = "[]" ] || fail "differences: $(cat "$work/drill.json")"
for i in 0 1 2; do figure "rehearsed, $(answer "d['pods'][$i]['name'].split('-')[0]")" "$(answer "'%.2f s' % d['pods'][$i]['seconds']")"; done
figure "drill of $pods pods" "$(since "$begun") s"
wait_for 10 "nothing of the drill to be left" no_drill
untouched || fail "the drill touched what serves"
for n in $served; do figure "unserved during the drill, $n" "$(gaps "$n" "$begun") s"; done
pods_as_before || fail "the drill changed pods"
drill "$web" >"$work/drill.txt" || fail "a drill of one pod: $(cat "$work/drill.txt")"
grep -q "^shop .* yes " "$work/drill.txt" && grep -q "^Not covered:" "$work/drill.txt" || fail "a drill for people: $(cat "$work/drill.txt")"
# from the supervisor's pod, which has the rights; the agent's has not
kubectl -n pod-checkpointer exec "pod-checkpointer-supervisor-$name" -- /pod-checkpointer drill "$web" >"$work/drill.txt" 2>&1 ||
  fail "a drill through kubectl exec: $(cat "$work/drill.txt")"
wait_for 10 "nothing of the drill to be left" no_drill

# --- a pod that would not come back is reported
kept=$work/kept; rm -rf "$kept"; cp -a "$store/checkpoints/${proxy/\//_}" "$kept"
for f in $(checkpoint "$proxy"); do sed -i 's/digest: \(.*\)[0-9a-f]\{4\}/digest: \10000/' "$f"; done
status=0; drill -o json >"$work/drill.json" 2>"$work/drill.err" || status=$?
[ $status = 3 ] || fail "a damaged checkpoint: exit code $status, $(cat "$work/drill.err")"
[ "$(answer '[(p["recovers"], p.get("reason")) for p in d["pods"] if p["name"].startswith("proxy")]')" = "[(False, 'Damaged')]" ] || fail "$(cat "$work/drill.json")"
[ "$(answer 'sum(p["recovers"] for p in d["pods"])')" = 2 ] || fail "the others: $(cat "$work/drill.json")"
cp -a "$kept/." "$store/checkpoints/${proxy/\//_}/"

# --- killed in the middle
rehearsing() { [ -L "$manifests/pod-checkpointer-drill_${web/\//_}.yaml" ]; }
drill "$web" >"$work/drill.txt" 2>&1 &
wait_for 20 "a rehearsal" rehearsing
on_node pkill -KILL -f '^[^ ]*pod-checkpointer drill '
wait || true
wait_for 90 "the supervisor to remove what the drill left" no_drill
untouched || fail "a drill touched what serves"
interrupted() { on_node pkill -INT -f '^[^ ]*pod-checkpointer drill '; }
drill "$web" >"$work/drill.txt" 2>&1 & drilling=$!
wait_for 20 "a rehearsal" rehearsing
interrupted
status=0; wait $drilling || status=$?
[ $status = 1 ] || fail "a drill that was interrupted: $status"
no_drill || fail "an interrupted drill leaves traces"
untouched || fail "a drill touched what serves"

# --- cut off for real
cat >"$dir/bin/restart-kubelet" <<'SH'
#!/bin/bash
# what systemd would do; its output goes where the old one's went
pid=$(pgrep -x kubelet)
exec >>"/proc/$pid/fd/1" 2>&1
mapfile -d '' -t line <"/proc/$pid/cmdline"
kill -KILL "$pid"
while pgrep -x kubelet >/dev/null; do sleep 0.05; done
exec setsid --fork sh -c 'until "$@" || [ $? -gt 1 ]; do sleep 0.1; done' - "${line[@]}"
SH
chmod +x "$dir/bin/restart-kubelet"
cut_off() { on_node ip route show type blackhole | grep "$site_ip"; }
way_back() { not cut_off && on_node curl -ks --max-time 2 "https://$site_ip:6443/livez"; }
status=0; drill --outage 40s --restart-kubelet restart-kubelet </dev/null >"$work/drill.txt" 2>&1 || status=$?
[ $status = 1 ] && grep -q "Give --yes" "$work/drill.txt" || fail "an outage without --yes: $status, $(cat "$work/drill.txt")"
not cut_off

begun=$(now)
drill --outage 40s --yes --restart-kubelet restart-kubelet -o json >"$work/drill.json" 2>"$work/drill.err" & drilling=$!
wait_for 20 "the node to be cut off" cut_off
on_node curl -ks --max-time 2 "https://$site_ip:6443/livez" && fail "the node reaches the API server"
status=0; wait $drilling || status=$?
say "$(tr '\n' ';' <"$work/drill.err")"
[ $status = 0 ] || fail "an outage: $status, $(cat "$work/drill.err" "$work/drill.json")"
way_back || fail "the way back is not there"
[ "$(answer 'sum(p["recovers"] for p in d["pods"])')" = $pods ] || fail "not all recover: $(cat "$work/drill.json")"
say "differences: $(answer '[x for p in d["pods"] for x in p.get("differences", [])]')"
for i in 0 1 2; do
  n=$(answer "d['pods'][$i]['name'].split('-')[0]")
  figure "outage of 40 s, stopped to running, $n" "$(answer "'%.1f s' % d['pods'][$i]['seconds']")"
  figure "way back to handed over, $n" "$(answer "'%.1f s' % d['pods'][$i]['handedBack']")"
done
settled() { no_drill && no_trace && parents_serve; }
wait_for 60 "everything as before" settled
never_failed

# --- killed while cut off: the dead man's switch, or the supervisor
drill --outage 60s --yes --restart-kubelet restart-kubelet >"$work/drill.txt" 2>&1 &
wait_for 20 "the node to be cut off" cut_off
some_link() { not nothing_active; }
wait_for 40 "the first twin" some_link
on_node pkill -KILL -f '^[^ ]*pod-checkpointer drill '; killed=$(now)
wait_for 10 "the way back" way_back
figure "drill killed to way back" "$(since "$killed") s"
wait || true
wait_for 180 "everything as before" settled
wait_for 60 "every pod to be ready" pods_ready
never_failed
# and with the switch killed too
drill --outage 30s --yes --restart-kubelet restart-kubelet >"$work/drill.txt" 2>&1 &
wait_for 20 "the node to be cut off" cut_off
on_node pkill -KILL -f '^[^ ]*pod-checkpointer drill'; killed=$(now)
wait_for 10 "the way back" way_back
figure "drill and switch killed to way back" "$(since "$killed") s"
wait || true
wait_for 180 "everything as before" settled
wait_for 60 "every pod to be ready" pods_ready
pods_as_before || fail "pods are not as before"
never_failed
