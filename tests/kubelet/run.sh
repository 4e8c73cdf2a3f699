#!/bin/bash
# The kubelet judges the form: generated pods, judged by this program and by four versions of Kubernetes. See README.md.
#   run.sh                              20,000 pods, another seed each time
#   PODS=1000000 SEED=7 run.sh          a long run, or one again
#   SEED=7 ONLY=123 run.sh              one pod again
#   UPDATE=1 run.sh                     writes what was seen to docs/compatibility.md instead of comparing it
set -euo pipefail
cd "$(dirname "$0")/../.."
JUDGES=$(tests/kubelet/build.sh)
export JUDGES
# Built as for `cargo test`, or optimised if that saves more time than it takes: a pod takes 5 ms instead of 14, and the program
# minutes to build. What it is built on is not built again.
options=()
[ "${PODS:-20000}" -le 50000 ] || options=(--config 'profile.dev.package.pod-checkpointer.opt-level=2')
# not started by `cargo test`, which keeps the build directory locked until it ends
program=$(cargo test "${options[@]}" --no-run --locked --test kubelet --message-format=json |
  sed -n '/"name":"kubelet"/s/.*"executable":"\([^"]*\)".*/\1/p')
exec "$program"
