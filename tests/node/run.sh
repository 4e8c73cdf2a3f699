#!/bin/bash
# The stories on a real node. README.md tells more.
#
#   run.sh [--runtime containerd2|containerd1] [STORY…]   a story's number or a part of its name; all by default
#   run.sh --long [STORY…]                                with those that take long, and the others at full length
#   run.sh -l                                             list them
#   run.sh -b                                             build what they need, and no more
#
# PROGRAM=/path/to/pod-checkpointer (static) tests that one instead of building it; KEEP=1 keeps a failed node up.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
runtimes=(containerd2 containerd1)
wanted=() build_only=
while [ $# -gt 0 ]; do
  case $1 in
  -l) for s in "$here"/stories/*.sh; do printf '%-28s %s\n' "$(basename "$s" .sh)" "$(sed -n '2s/^# //p' "$s")"; done; exit ;;
  -b) build_only=1 ;;
  --runtime) runtimes=("$2"); shift ;;
  --long) export LONG=1 ;;
  -*) sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2; exit 2 ;;
  *) wanted+=("$1") ;;
  esac
  shift
done
[ "$(id -u)" = 0 ] || { echo "run.sh: a real node needs root" >&2; exit 1; }

# shellcheck source=../packages.sh
. "$here/../packages.sh"
packages() {
  need runc runc; need /usr/lib/cni/portmap containernetworking-plugins; need iptables iptables; need ip iproute2
  need openssl openssl; need python3 python3; need pgrep procps; need unshare util-linux; need /usr/bin/containerd containerd
  need /usr/lib/python3/dist-packages/yaml python3-yaml
  need promtool prometheus; need curl curl
  install_needed
}
build_program() {
  local target=x86_64-unknown-linux-gnu
  (cd "$root" && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target $target) ||
    { echo "run.sh: the program does not build" >&2; exit 1; }
  PROGRAM=$root/target/$target/release/pod-checkpointer
}

stories=()
for s in "$here"/stories/*.sh; do
  n=$(basename "$s" .sh)
  if [ ${#wanted[@]} = 0 ]; then
    if [ -n "${LONG:-}" ] || ! grep -q '^# long' "$s"; then stories+=("$s"); fi
    continue
  fi
  for w in "${wanted[@]}"; do [[ $n == *"$w"* ]] && { stories+=("$s"); break; }; done
done
[ ${#stories[@]} -gt 0 ] || { echo "run.sh: no story is called ${wanted[*]} (run.sh -l lists them)" >&2; exit 2; }

[ -n "$build_only" ] || packages
for r in "${runtimes[@]}"; do "$here/build.sh" "$r"; done
[ -n "${PROGRAM:-}" ] || build_program
[ -z "$build_only" ] || exit 0
[ -x "$PROGRAM" ] || { echo "run.sh: $PROGRAM is no program" >&2; exit 1; }
export PROGRAM
results=$(mktemp -d)
mkdir -p "$here/../../target/node-logs"; kept=$(cd "$here/../../target/node-logs" && pwd)

# one_runtime RUNTIME: all stories on one node; after a failure the next one gets a fresh node. A story that failed is tried
# once more there: the kubelet's pauses and two nodes on two processors make some of them late. Both outcomes are told.
one_runtime() {
  export RUNTIME=$1
  local node=$here/node.sh kind have='' s n begun out status attempt
  # shellcheck disable=SC2064
  trap "'$node' down 2>/dev/null || true" EXIT
  trap 'exit 1' INT TERM
  for s in "${stories[@]}"; do
    n=$(basename "$s" .sh)
    # long ones run once: some on the first runtime, some on the last
    if grep -q '^# once' "$s" && [ "$RUNTIME" != "${runtimes[0]}" ]; then continue; fi
    if grep -q '^# last' "$s" && [ "$RUNTIME" != "${runtimes[-1]}" ]; then continue; fi
    kind=plain; ! grep -q '^# self-hosted' "$s" || kind=self-hosted
    if [ $kind = plain ]; then unset SELF_HOSTED; else export SELF_HOSTED=1; fi
    for attempt in 1 2; do
      begun=$SECONDS out=$kept/$RUNTIME-$n.log status=0
      [ $attempt = 1 ] || { out=$kept/$RUNTIME-$n.again.log; echo "$RUNTIME $n" >>"$results/$RUNTIME.again"; }
      {
        if [ "$have" != $kind ]; then "$node" up; fi &&
        "$node" in-site bash "$s"
      } >"$out" 2>&1 || status=$?
      have=$kind
      if [ $status = 0 ]; then
        echo "passed  $RUNTIME $n ($((SECONDS - begun)) s)"; echo "$n" >>"$results/$RUNTIME.passed"
        grep '^  figure: ' "$out" || true
        break
      fi
      "$node" logs 60 >>"$out" 2>&1 || true
      echo "FAILED  $RUNTIME $n ($((SECONDS - begun)) s), see $out"
      { grep -aE '^FAILED|^timed out|^node.sh:|^[<>] ' "$out" || tail -3 "$out"; } | sed 's/^/        /' | head -12 || true
      [ -z "${KEEP:-}" ] || { trap - EXIT; exit 1; }
      have=''
      [ $attempt = 1 ] || echo "$RUNTIME $n" >>"$results/$RUNTIME.failed"
    done
  done
}

# side by side: most of a story is waiting for the kubelet
export PATIENCE=${PATIENCE:-${#runtimes[@]}}
children=()
for r in "${runtimes[@]}"; do one_runtime "$r" & children+=($!); done
trap 'kill "${children[@]}" 2>/dev/null || true; wait; rm -rf "$results"' EXIT
trap 'exit 130' INT TERM
broken=0
for c in "${children[@]}"; do wait "$c" || broken=1; done
count() { cat "$results"/*."$1" 2>/dev/null | wc -l; }
echo
[ "$(count failed)" = 0 ] || { echo "failed:"; sed 's/^/  /' "$results"/*.failed; }
[ "$(count again)" = 0 ] || { echo "tried twice:"; sed 's/^/  /' "$results"/*.again; }
echo "$(count passed) passed, $(count failed) failed"
[ "$(count failed)" = 0 ] && [ $broken = 0 ]
