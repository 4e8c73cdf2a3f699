#!/bin/bash
# Power cuts on real file systems. docs/durability.md tells what is cut and what is looked at.
#
#   run.sh [ext4|ext4-writeback|xfs|btrfs…]   all by default
#
# CUTS=200 cuts of each file system (50 by default), SEED=1 draws others.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
[ "$(id -u)" = 0 ] || { echo "run.sh: mounting needs root" >&2; exit 1; }

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); } # PROGRAM PACKAGE
need mkfs.ext4 e2fsprogs; need mkfs.xfs xfsprogs; need mkfs.btrfs btrfs-progs; need unshare util-linux; need mount mount
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

cd "$root"
cargo build --quiet --locked --bin pod-checkpointer --example disk
target=${CARGO_TARGET_DIR:-target}/debug
export PROGRAM=$target/pod-checkpointer
# what it mounts is gone with it, however it ends
exec unshare --mount --propagation private "$target/examples/disk" "$@"
