#!/bin/bash
# Foreign and damaged files, a store that cannot be written to: reported, left alone, and no obstacle for other pods.
# on containerd2
. "$(dirname "$0")/../lib.sh"

healthy; remember
echo "# somebody else's" >"$(link "$radio")"
mkdir "$manifests/pod-checkpointer_a_directory.yaml"
ln -s /nowhere "$manifests/dangling.yaml"
echo "not a checkpoint" >"$store/checkpoints/README"
for f in $(checkpoint "$proxy"); do sed -i 's/digest: \(.*\)[0-9a-f]\{4\}/digest: \10000/' "$f"; done
status=0; checkpointer verify >"$work/verify" || status=$?
[ $status = 3 ] || fail "verify says $status where damage is: $(cat "$work/verify")"
grep -q "${proxy/\//_}" "$work/verify" || fail "verify does not name the damaged checkpoint: $(cat "$work/verify")"

outage refused
READ_ONLY=/var/lib/pod-checkpointer reboot       # as a file system is mounted that has errors
not on_node touch /var/lib/pod-checkpointer/x 2>/dev/null || fail "the store can be written to"
wait_for 60 "web, whose files are whole, to serve" all_served "$booted" web
only_web() { [ "$(find "$manifests" -type l -name 'pod-checkpointer_*')" = "$(link "$web")" ]; }
stays 5 "only web is active" only_web
checkpointer status >"$work/status" || true
for reason in Damaged ForeignManifest; do grep -q $reason "$work/status" || fail "status does not say $reason: $(cat "$work/status")"; done

# rm fails if one of them is no longer there
grep -q "somebody else's" "$(link "$radio")" || fail "a foreign file was overwritten"
rmdir "$manifests/pod-checkpointer_a_directory.yaml"
rm "$(link "$radio")" "$manifests/dangling.yaml" "$store/checkpoints/README"
wait_for 30 "radio, freed of the foreign file, to serve" all_served "$booted" radio
ended=$(now)
outage_end
says_so() { kubectl -n edge get podcheckpoint "${proxy#*/}" -o jsonpath='{.status.conditions[?(@.type=="Captured")]}' | grep StoreFailed; }
wait_for 150 "proxy's condition to say that it cannot be stored" says_so
# its readiness is what stops a rollout, so it is not ready as long as a checkpoint cannot be written
agent_is() { kubectl -n pod-checkpointer get daemonset pod-checkpointer -o jsonpath='{.status.numberReady}' | grep -x "$1"; }
wait_for 60 "the agent not to be ready" agent_is 0
on_node mount -o remount,bind,rw /var/lib/pod-checkpointer
hand_back quiet
cell "checkpoint damaged, file of somebody else under our link's name, store mounted read-only" "named, left alone, the others serve" "so"
whole() { checkpointer verify; }
wait_for 90 "the damaged checkpoint to be captured again" whole
