#!/bin/bash
# Fuzzes one of the readers with coverage, on stable Rust. See README.md.
#   run.sh checkpoint 10000000          so many runs, from the corpus and the seeds
#   run.sh render 1000000 -seed=7       and what else libFuzzer knows
#   run.sh minimise render              takes what was found into the corpus, as few files as reach the same code
set -euo pipefail
cd "$(dirname "$0")"

host=$(rustc -vV | sed -n 's/^host: //p')
# what cargo-fuzz sets, without a sanitizer, as nothing here is unsafe code of ours, and without a trace of comparisons,
# which takes half of the time. With --target build scripts get none of it
coverage=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table)
RUSTFLAGS=${coverage[*]} cargo build --release --locked --target "$host"
programs=target/$host/release

if [ "$1" = minimise ]; then
  target=$2
  few=$(mktemp -d)
  mkdir -p "work/$target" "work/seeds/$target"
  # longer ones reach nothing more that is worth their place in the checkout
  SEEDS=work/seeds/$target "$programs/$target" -set_cover_merge=1 -use_counters=0 -max_len=8192 -timeout=10 \
    "$few" "corpus/$target" "work/$target" "work/seeds/$target"
  rm -rf "corpus/$target"
  mv "$few" "corpus/$target"
  chmod 755 "corpus/$target"
  du -sh "corpus/$target"
  exit
fi

target=$1 runs=$2
shift 2
mkdir -p "work/$target" "work/seeds/$target" "corpus/$target" artifacts
export SEEDS=work/seeds/$target
# slow or hungry is a find as well: an input of 4 KiB takes less than a millisecond and next to no memory
exec "$programs/$target" -runs="$runs" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -dict=words.dict \
  -artifact_prefix="artifacts/$target-" -print_final_stats=1 "$@" \
  "work/$target" "corpus/$target" "$SEEDS"
