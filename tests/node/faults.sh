#!/bin/bash
# Brings docs/faults.md up to date: with every row that a story printed in its last run on either runtime (`cell:` lines
# below target/node-logs), if it passed. Rows of kinds that were not run this time stay as they are.
#
#   tests/node/run.sh --long && tests/node/faults.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
logs=${1:-$root/target/node-logs}
python3 - "$logs" "$here/stories" "$root/docs/faults.md" >"$root/docs/.faults.md" <<'PYTHON'
import pathlib, re, sys

logs, stories, document = map(pathlib.Path, sys.argv[1:])
rows = {}
if document.exists():
    for line in document.read_text().splitlines():
        found = re.fullmatch(r"\| (.*?) \| (.*?) \| (.*?) ?\| (.*?) ?\| \[(.*?)\]\(.*\) \|", line)
        if found:
            fault, expected, newer, older, story = found.groups()
            rows[story, fault] = {"expected": expected, "containerd2": newer, "containerd1": older}
for log in logs.glob("*.log"):
    runtime, story = log.stem.split("-", 1)
    text = log.read_text(errors="replace").splitlines()
    if any(line.startswith("FAILED") for line in text):
        print(f"left out, because it failed: {log.stem}", file=sys.stderr)
        continue
    for line in text:
        found = re.fullmatch(r"  cell: (.*) \| (.*) \| (.*)", line)
        if found:
            fault, expected, seen = found.groups()
            row = rows.setdefault((story, fault), {})
            row["expected"], row[runtime] = expected, seen
rows = {key: row for key, row in sorted(rows.items(), key=lambda item: item[0][0]) if (stories / f"{key[0]}.sh").exists()}
print("""# Every fault, on a real node

<!-- Written by tests/node/faults.sh from what the stories printed; do not edit. -->

This table lists what was done to a node with a real kubelet, what should happen ([decision.md](decision.md) has the rules), and what was seen. Stories marked `# long` run only with `--long`; all others run in CI. Each story fails if

- a pod is not served again,
- a parent is rejected,
- more than one process of a pod runs where only one may (or more than two where twin and parent overlap),
- anything of a twin is left when the outage is over, or
- a foreign file in the kubelet's directory is touched.

The seconds are those of one run on two cores, and do not decide whether a story passes. An empty cell means that the story was not run on that runtime.

The machine that the stories run on cannot set the wall clock of one node alone. So the years 1970 and 2038 are tested indirectly, by API servers whose certificates are not yet valid or have expired. That is all that such a clock changes for the supervisor. Delays and ages are counted on the boot-time clock, which is independent of the wall clock; the tests of the decision pass it as an argument.

| fault | expected | seen, containerd 2.4 | seen, containerd 1.6 | story |
| --- | --- | --- | --- | --- |""")
for (story, fault), row in rows.items():
    print(f"| {fault} | {row['expected']} | {row.get('containerd2', '')} | {row.get('containerd1', '')} | [{story}](../tests/node/stories/{story}.sh) |")
PYTHON
mv "$root/docs/.faults.md" "$root/docs/faults.md"
echo "docs/faults.md: $(grep -c '^| .*stories/' "$root/docs/faults.md") rows"
