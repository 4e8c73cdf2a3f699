#!/bin/bash
# Power cuts on real file systems. docs/durability.md says what is cut and what is checked.
#
#   run.sh [ext4|ext4-writeback|xfs|btrfs…]   all by default
#
# CUTS=200 cuts of each file system (50 by default), SEED=1 draws others.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
[ "$(id -u)" = 0 ] || { echo "run.sh: mounting needs root" >&2; exit 1; }

# shellcheck source=../packages.sh
. "$root/tests/packages.sh"
need mkfs.ext4 e2fsprogs; need mkfs.xfs xfsprogs; need mkfs.btrfs btrfs-progs; need unshare util-linux; need mount mount
install_needed

cd "$root"
cargo build --quiet --locked --bin pod-checkpointer --example disk
target=${CARGO_TARGET_DIR:-target}/debug
export PROGRAM=$target/pod-checkpointer
# its mounts end with it, however it ends
exec unshare --mount --propagation private "$target/examples/disk" "$@"
