#!/bin/bash
# From the program of an earlier commit to this one, and an outage with a reboot at any moment of it: whoever is there, acts.
# long
# PREVIOUS=/path/to/pod-checkpointer (static): the earlier program; by default the commit before this one is built.
. "$(dirname "$0")/../lib.sh"

root=$(cd "$here/../.." && pwd)
if [ -z "${PREVIOUS:-}" ]; then
  commit=$(git -C "$root" rev-parse --short HEAD~1)
  say "building $commit"
  rm -rf "$work/previous"; mkdir -p "$work/previous"
  git -C "$root" archive "$commit" | tar -x -C "$work/previous"
  target=x86_64-unknown-linux-gnu
  (cd "$work/previous" && RUSTFLAGS='-C target-feature=+crt-static' CARGO_TARGET_DIR=$root/target cargo build --quiet --release --locked --target $target)
  PREVIOUS=$root/target/$target/release/pod-checkpointer
  cp "$PREVIOUS" "$work/pod-checkpointer.before"; PREVIOUS=$work/pod-checkpointer.before
fi
cmp -s "$PREVIOUS" "$PROGRAM" && fail "the earlier program is the same as this one"

install() { # PROGRAM TAG: as its README says, by its own YAML
  cp "$1" "$dir/bin/pod-checkpointer.new"; mv "$dir/bin/pod-checkpointer.new" "$dir/bin/pod-checkpointer"
  image "localhost/pod-checkpointer:$2" /pod-checkpointer pod-checkpointer="$1"
  "$1" manifests --image "localhost/pod-checkpointer:$2" | kubectl apply -f - >/dev/null
}
rolled_out() { kubectl -n pod-checkpointer rollout status --timeout=1s daemonset/pod-checkpointer; }
agent_is() { [ "$(kubectl -n pod-checkpointer get pods -l app.kubernetes.io/component=agent -o jsonpath='{.items[*].spec.containers[0].image}')" = "localhost/pod-checkpointer:$1" ]; }
manifest_is() { grep "localhost/pod-checkpointer:$1\"" "$manifests/pod-checkpointer-supervisor.yaml" >/dev/null; }
supervised() { supervisor_runs && observe containers | grep "CONTAINER_RUNNING pod-checkpointer/pod-checkpointer-supervisor-$name" >/dev/null; }
in_force() { rolled_out && agent_is "$1" && manifest_is "$1" && supervised && recoverable; }
kept() { # a checkpoint of each pod, and a supervisor that the kubelet was given
  local n; for n in "$web" "$proxy" "$radio"; do checkpoint "$n" >/dev/null || { echo "no checkpoint of $n"; return 1; }; done
  [ -s "$manifests/pod-checkpointer-supervisor.yaml" ] || { echo "no supervisor in the kubelet's directory"; return 1; }
}

guarded
say "an upgrade and a downgrade in peace"
for version in before dev; do
  program=$PROGRAM; [ $version = dev ] || program=$PREVIOUS
  from=$(now)
  install "$program" $version
  lost=''
  changed() { kept || lost=1; in_force $version; }
  wait_for 180 "$version to be in force" changed
  [ -z "$lost" ] || fail "not kept meanwhile"
  wait_for 60 "the supervisor's mirror pod" supervisor_shown
  figure "all of $version in force" "$(since "$from") s"
  [ "$(gaps web "$from" | awk '{print $1}')" = 0.00 ] || [ "$(gaps web "$from" | awk '{print $1}')" = 0 ] || fail "web was not served: $(gaps web "$from")"
done

# the moment of the outage: before the new agent, while the supervisor is replaced, after it
moments=${MOMENTS:-0 1 2 3 4 6 9 14}
for moment in $moments; do
  install "$PREVIOUS" before
  wait_for 180 "the earlier program to be in force" in_force before
  wait_for 60 "the supervisor's mirror pod" supervisor_shown
  remember
  install "$PROGRAM" dev
  stays "$moment" "a checkpoint of each pod and a supervisor" kept
  outage refused
  kept || fail "not kept at the outage"
  by=before; ! manifest_is dev || by=dev
  reboot
  kept || fail "not kept after the reboot"
  back_up 120
  say "outage $moment s after the upgrade began: the supervisor of $by brought all back $(awk -v a="$(slowest "$booted")" 'BEGIN {print a}') s after the boot"
  outage_end
  wait_for 60 "the API server to answer" api_wait 1
  wait_for 150 "every parent to serve" parents_serve
  wait_for 180 "no trace of the twins" no_trace
  wait_for 240 "the upgrade to catch up" in_force dev
  wait_for 60 "every pod to be ready" all_ready
  wait_for 60 "the supervisor's mirror pod" supervisor_shown
  harmless
done
cell "an upgrade, an outage with a reboot in the middle of it" "the pair that is there brings all back; the upgrade catches up" \
  "so, $moments s after it began"
unharmed
kubectl apply -k "$here/deploy" >/dev/null
healthy
