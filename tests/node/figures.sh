#!/bin/bash
# Measures what docs/figures.md shows, and writes it.
#
#   tests/node/figures.sh [ROUNDS [RUNTIME]]   10 rounds on containerd2 by default: about an hour and a half on two cores
#   tests/node/figures.sh --written            from what the stories printed in their last run
#
# NOTE="…" is put at the beginning: what else the machine did.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
stories=(01-reboot 02-outages 03-hand-back 11-capture 25-control-plane 26-pods 27-quiet)
if [ "${1:-}" != --written ]; then
  REPEAT=${1:-10} WATCH=${WATCH:-60} "$here/run.sh" --runtime "${2:-containerd2}" "${stories[@]}"
fi
python3 - "$root/target/node-logs" "$here/stories" "${stories[@]}" >"$root/docs/figures.md" <<'PYTHON'
import os, pathlib, re, statistics, sys

logs, stories, wanted = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
number = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(?: \[[^)]*\])? *(.*)")


def middle(texts):
    """Median, least and most of what begins with a number, and what stands after it; as it is if it is a summary."""
    if len(texts) == 1 and "rounds)" in texts[0]:
        return texts[0]
    found = [number.fullmatch(text) for text in texts]
    if not all(found):
        return texts[-1]
    values, unit = [float(one[1]) for one in found], found[-1][2]
    places = max(len(one[1].partition(".")[2]) for one in found)
    shown = f"{statistics.median(values):.{places}f} {unit}"
    if len(values) > 1:
        shown += f" ({min(values):.{places}f}–{max(values):.{places}f}, {len(values)} rounds)"
    return shown


print("""# Figures

<!-- Written by tests/node/figures.sh from what the stories measured; do not edit. -->

These figures were measured on a real node with Kubernetes v1.36. The node and the site with its control plane shared two cores with other programs. Each figure is a median, with the minimum, the maximum and the number of rounds in brackets; a single round has no brackets. The reference is what the same run measured for the kubelet alone, with a static pod that was already on the disk. No checkpointer can be faster than that, except by helping the kubelet.

`tests/node/figures.sh 10` measures everything again. `web` and `proxy` are pods on the pod network, reached at their own address; `proxy-port` is a host port; `radio` is a pod on the host network.""")
if os.environ.get("NOTE"):
    print(f"\n{os.environ['NOTE']}")
for log in sorted(logs.glob("*.log"), key=lambda log: (log.stem.split("-", 1)[1], log.stem)):
    runtime, story = log.stem.split("-", 1)
    if story not in wanted:
        continue
    figures = {}
    for line in log.read_text(errors="replace").splitlines():
        found = re.fullmatch(r"  figure: [^,]+, [^:]+: (.*?): ([^:]*?(?:\[.*\])?[^:]*?)(?: \(reference: (.*)\))?", line)
        if found:
            name, value, reference = found.groups()
            values = figures.setdefault(name, ([], []))
            values[0].append(value)
            values[1].extend([reference] if reference else [])
    if figures:
        title = (stories / f"{story}.sh").read_text().splitlines()[1][2:]
        print(f"\n## {title}\n\n[{story}](../tests/node/stories/{story}.sh), {runtime}\n\n| | measured | reference |\n| --- | --- | --- |")
        for name, (values, references) in figures.items():
            print(f"| {name} | {middle(values)} | {middle(references) if references else ''} |")
PYTHON
echo "docs/figures.md: $(grep -c '^| [^-|]' "$root/docs/figures.md") figures"
