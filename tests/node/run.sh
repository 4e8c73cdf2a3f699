#!/bin/bash
# Runs the stories on a real node. See README.md.
#
#   run.sh                            what CI runs: each story on the runtime that it names, or on both
#   run.sh STORY…                     these, on both: a story's number or a part of its name
#   run.sh --long [STORY…]            with those that take long, all at full length and on both
#   run.sh --runtime RUNTIME …        on containerd2 or containerd1 alone
#   run.sh -l                         list them, with the runtimes that CI runs them on
#   run.sh -b                         build what they need, and no more
#
# PROGRAM=/path/to/pod-checkpointer (static) tests that one instead of building it; KEEP=1 keeps a failed node up;
# NODES=3 nodes run side by side, by default one of each runtime.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
runtimes=(containerd2 containerd1)
wanted=() build_only='' list=''
while [ $# -gt 0 ]; do
  case $1 in
  -l) list=1 ;;
  -b) build_only=1 ;;
  --runtime) runtimes=("$2"); shift ;;
  --long) export LONG=1 ;;
  -*) sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2; exit 2 ;;
  *) wanted+=("$1") ;;
  esac
  shift
done

# is STORY WORD: the head of the story has a line that begins with it
is() { awk -v word="$2" '/^[^#]/ {exit} NR > 2 && $2 ~ "^" word ":?$" {found = 1} END {exit !found}' "$1"; }
# runs_on STORY RUNTIME: one that names a runtime runs there in CI. One that is named on the command line, and all with --long, run
# on both, unless one runtime is as good as two.
runs_on() {
  local on; on=$(sed -n '/^[^#]/q; s/^# on \(containerd[12]\)$/\1/p' "$1")
  if [ -z "$on" ] || [ ${#runtimes[@]} = 1 ]; then return 0; fi
  if [ -n "${LONG:-}${wanted[*]:-}" ] && ! is "$1" once; then return 0; fi
  [ "$on" = "$2" ]
}
if [ -n "$list" ]; then
  for s in "$here"/stories/*.sh; do
    on=''
    if is "$s" long; then on=' --long'; else for r in "${runtimes[@]}"; do ! runs_on "$s" "$r" || on+=" $r"; done; fi
    printf '%-20s %-24s %s\n' "$(basename "$s" .sh)" "${on# }" "$(sed -n '2s/^# //p' "$s")"
  done
  exit
fi
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
    if [ -n "${LONG:-}" ] || ! is "$s" long; then stories+=("$s"); fi
    continue
  fi
  for w in "${wanted[@]}"; do [[ $n == *"$w"* ]] && { stories+=("$s"); break; }; done
done
# those that need a node of their own come last, so that the others share one
plain=() own=()
for s in "${stories[@]}"; do if is "$s" self-hosted; then own+=("$s"); else plain+=("$s"); fi; done
stories=("${plain[@]}" "${own[@]}")
[ ${#stories[@]} -gt 0 ] || { echo "run.sh: no story is called ${wanted[*]} (run.sh -l lists them)" >&2; exit 2; }

[ -n "$build_only" ] || packages
for r in "${runtimes[@]}"; do "$here/build.sh" "$r"; done
[ -n "${PROGRAM:-}" ] || build_program
[ -z "$build_only" ] || exit 0
[ -x "$PROGRAM" ] || { echo "run.sh: $PROGRAM is no program" >&2; exit 1; }
export PROGRAM
results=$(mktemp -d)
mkdir -p "$here/../../target/node-logs"; kept=$(cd "$here/../../target/node-logs" && pwd)

# one_node NUMBER RUNTIME…: runs what no other node has begun, the stories of the first runtime first. After a failure the next story
# gets a fresh node. A story that failed is tried once more there: the kubelet's pauses and several nodes on two processors make some of
# them late. Both outcomes are printed.
one_node() {
  local number=$1 node=$here/node.sh have s; shift
  # shellcheck disable=SC2064
  trap "'$node' down 2>/dev/null || true" EXIT
  trap 'exit 1' INT TERM
  for RUNTIME in "$@"; do
    export RUNTIME LANE=$number
    have=''
    if [ "$RUNTIME" = "${runtimes[$number]:-}" ]; then LANE=''; fi # so that node.sh finds it by its runtime alone
    for s in "${stories[@]}"; do
      if runs_on "$s" "$RUNTIME" && mkdir "$results/begun.$RUNTIME.$(basename "$s")" 2>/dev/null; then one_story "$s"; fi
    done
    [ -z "$have" ] || "$node" down 2>/dev/null || true
  done
}
one_story() { # STORY: on this node, which is of kind $have
  local n out kind=plain attempt begun status
  n=$(basename "$1" .sh)
  if is "$1" self-hosted; then kind=self-hosted; export SELF_HOSTED=1; else unset SELF_HOSTED; fi
  for attempt in 1 2; do
    begun=$SECONDS out=$kept/$RUNTIME-$n.log status=0
    [ $attempt = 1 ] || { out=$kept/$RUNTIME-$n.again.log; echo "$RUNTIME $n" >>"$results/$number.again"; }
    {
      if [ "$have" != $kind ]; then "$node" up; fi &&
      "$node" in-site bash "$1"
    } >"$out" 2>&1 || status=$?
    have=$kind
    if [ $status = 0 ]; then
      echo "passed  $RUNTIME $n ($((SECONDS - begun)) s)"; echo "$n" >>"$results/$number.passed"
      grep '^  figure: ' "$out" || true
      return
    fi
    "$node" logs 60 >>"$out" 2>&1 || true
    echo "FAILED  $RUNTIME $n ($((SECONDS - begun)) s), see $out"
    { grep -aE '^FAILED|^timed out|^node.sh:|^[<>] ' "$out" || tail -3 "$out"; } | sed 's/^/        /' | head -12 || true
    [ -z "${KEEP:-}" ] || { echo "        kept: RUNTIME=$RUNTIME LANE=$LANE tests/node/node.sh shell"; trap - EXIT; exit 1; }
    have=''
  done
  echo "$RUNTIME $n" >>"$results/$number.failed"
}

# side by side: most of a story is waiting for the kubelet
nodes=${NODES:-${#runtimes[@]}} children=()
export PATIENCE=${PATIENCE:-$nodes}
for ((i = 0; i < nodes; i++)); do
  first=$((i % ${#runtimes[@]}))
  one_node $i "${runtimes[@]:first}" "${runtimes[@]:0:first}" &
  children+=($!)
done
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
