#!/bin/bash
# Well-known projects' pods, those that are recoverable: each twin sees what its parent saw.
# on containerd1
# once: 14-corpus does the same on the other runtime
. "$(dirname "$0")/../lib.sh"

# the others are refused: tests/it/charts.rs says why
refused="backup-job dra-inference emqx etcd frigate kafka minio nvidia-device-plugin postgres prometheus secrets-store-app"
charts=$work/charts
# shellcheck disable=SC2034
reports=$work/chart-reports report_names='chart-.*' report_ports=18090,18091,18092,18093,18094
rm -rf "$reports" "$charts"; mkdir -p "$reports" "$charts"

healthy
for chart in "$here"/../charts/*.yaml; do
  case " $refused " in *" $(basename "$chart" .yaml) "*) continue ;; esac
  cat "$chart"; echo; echo "---"
done >"$charts/all.yaml"
kubectl create --dry-run=client --output json -f "$charts/all.yaml" >"$charts/all.json"
python3 "$here/charts.py" "$charts" <"$charts/all.json" >"$charts/converted.json"
# shellcheck disable=SC2034
report_hosts=$(<"$charts/hosts")
python3 - "$charts" <<'PYTHON'
import json, sys
items = json.load(open(sys.argv[1] + "/converted.json"))["items"]
is_pod = lambda item: item["kind"] in ("Pod", "Deployment", "DaemonSet", "StatefulSet")
for name, wanted in (("before.json", lambda i: not is_pod(i)), ("pods.json", is_pod)):
    json.dump({"apiVersion": "v1", "kind": "List", "items": [i for i in items if wanted(i)]}, open(f"{sys.argv[1]}/{name}", "w"))
PYTHON
from=$(now)
kubectl apply -f "$charts/before.json" >/dev/null
kubectl apply -f "$charts/pods.json" >/dev/null
ours() { # that are there and Ready
  all_ready || return 1
  kubectl get pods -A --no-headers -o custom-columns=N:.metadata.namespace,P:.metadata.name |
    awk 'NR == FNR {wanted[$1]; next} {for (w in wanted) if (index($1 "/" $2, w "-") == 1) delete wanted[w]} END {for (w in wanted) {print "no pod of " w; missing = 1}; exit missing}' "$charts/pods" -
}
wait_for 240 "the charts' pods to be ready" ours
say "$(wc -l <"$charts/pods") charts are ready after $(since "$from") s"
marked() { kubectl get pods -A --no-headers -o custom-columns='N:.metadata.namespace,P:.metadata.name,M:.metadata.annotations.podcheckpointer\.io/checkpoint,L:.metadata.annotations.checkpointer\.alpha\.coreos\.com/checkpoint' |
  awk '$3 == "true" || $4 == "true" {print $1 "/" $2}' | sort; }
every_one_recoverable() {
  diff <(marked) <(kubectl get podcheckpoints -A -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name} {.status.conditions[?(@.type=="Recoverable")].status}{"\n"}{end}' |
    awk '$2 == "True" {print $1}' | sort)
}
wait_for 90 "every chart's pod to be recoverable" every_one_recoverable
report_parents() {
  reported parent >/dev/null || return 1
  diff <(python3 -c '
import json, sys
for item in json.load(open(sys.argv[1]))["items"]:
    spec = item["spec"]["template"]["spec"] if "template" in item["spec"] else item["spec"]
    for container in spec.get("initContainers", []) + spec["containers"]:
        print(container["args"][container["args"].index("--name") + 1])' "$charts/pods.json" | sort) <(basename -as .parent.json "$reports"/*.parent.json | sort)
}
wait_for 60 "every parent to report" report_parents
remember
outage refused
reboot
wait_for 180 "every twin to report" all_twins_report
figure "boot to all $(find "$reports" -name '*.twin.json' | wc -l) reports of twins" "$(since "$booted") s"
twins_equal "$charts/differences"
hand_back quiet
kubectl delete -f "$charts/pods.json" --wait=false >/dev/null
none_left() { ! kubectl get pods -A -o json | grep -q '"chart-'; }
wait_for 120 "the charts' pods to end" none_left
