#!/bin/bash
# The kubelet is the judge of form: generated pods, judged by us and by four versions of Kubernetes. See README.md.
#   run.sh                              20,000 pods, another seed each time
#   PODS=1000000 SEED=7 run.sh          a long run, or one again
#   SEED=7 ONLY=123 run.sh              one pod again
#   UPDATE=1 run.sh                     writes what was seen to docs/compatibility.md instead of comparing it
set -euo pipefail
cd "$(dirname "$0")/../.."
JUDGES=$(tests/kubelet/build.sh)
export JUDGES
# Built as for `cargo test`, or optimised where that takes less time than it saves: a pod takes 5 ms in place of 14, and our code
# minutes to build. What it is built on is not built again.
options=()
[ "${PODS:-20000}" -le 50000 ] || options=(--config 'profile.dev.package.pod-checkpointer.opt-level=2')
# not started by `cargo test`, which keeps the build directory locked until it ends
program=$(cargo test "${options[@]}" --no-run --locked --test kubelet --message-format=json |
  sed -n '/"name":"kubelet"/s/.*"executable":"\([^"]*\)".*/\1/p')
exec "$program"
