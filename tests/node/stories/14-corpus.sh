#!/bin/bash
# Pods with every field that a twin can carry: each twin sees what its parent saw; those that cannot come back are refused.
# on containerd2
# once: 15-charts does the same on the other runtime
. "$(dirname "$0")/../lib.sh"

corpus=$here/corpus
# shellcheck disable=SC2034
reports=$work/corpus report_ports=8080,8081,8082
report_names='(env|vol|id|name|net|sec|res|init|life|of|new|claim)-.*'
# shellcheck disable=SC2034
report_hosts=$node_ip:8201,$node_ip:8202,$node_ip:8203,$node_ip:8204
rm -rf "$reports"; mkdir -p "$reports"
long=a-namespace-with-the-longest-name-that-is-allowed-for-namespace
files=("$corpus"/{environment,volumes,identity,names,network,security,resources,init,lifecycle,controllers,persistent-volume,pod-level-resources}.yaml)
[ "$runtime" = containerd1 ] || files+=("$corpus/newer-runtime.yaml")
# CORPUS_WITHOUT: files of the corpus that the program, or the machine, is not ready for
for f in ${CORPUS_WITHOUT:-}; do files=("${files[@]/*"$f"*/}"); done

healthy
host=$disk/var/lib/corpus
mkdir -p "$host"/{untyped,local} "$disk/var/lib/kubelet/seccomp/corpus"
echo "of the host" >"$host/untyped/file"
echo '{"defaultAction": "SCMP_ACT_ALLOW"}' >"$disk/var/lib/kubelet/seccomp/corpus/allow.json"
echo one >"$work/marker"
image localhost/moving:1 /witness witness="$dir/bin/witness" marker="$work/marker"
image localhost/gone:1 /witness witness="$dir/bin/witness" another="$work/marker"
image localhost/files:1 /none data/marker="$work/marker"

bundle="|"$'\n'$(sed 's/^/    /' "$dir/pki/ca.crt")
objects=$(<"$corpus/objects.yaml")
kubectl apply -f - <<<"${objects//TRUST_BUNDLE/$bundle}" >/dev/null
openssl rand -hex -out "$work/large" 500000
openssl rand -out "$work/random" 900000
kubectl -n corpus create configmap large --from-file="$work/large" >/dev/null
kubectl -n corpus create secret generic large --from-file="$work/random" >/dev/null
for n in corpus $long; do
  wait_for 20 "the service account of $n" kubectl -n "$n" get serviceaccount default
  wait_for 20 "the root certificates of $n" kubectl -n "$n" get configmap kube-root-ca.crt
done
kubectl -n corpus patch serviceaccount default -p '{"automountServiceAccountToken": false}' >/dev/null
from=$(now)
for f in "${files[@]}"; do [ -z "$f" ] || kubectl apply -f "$f" >/dev/null; done
wait_for 180 "the corpus to be ready" all_ready
say "$(kubectl get pods -A --no-headers | wc -l) pods are ready after $(since "$from") s"

# wrong on purpose
kubectl patch node $name --subresource=status -p '{"status": {"capacity": {"corpus.test/dongle": "4"}}}' >/dev/null
cp "$corpus/static.yaml" "$manifests/"
kubectl apply -f "$corpus/refused.yaml" >/dev/null
# one has restarted since
restarts() { kubectl -n corpus get pod env-restarted -o jsonpath='{.status.containerStatuses[0].restartCount}' | grep -qx 1; }
witness get "http://$(address corpus/env-restarted):8080/exit" >/dev/null 2>&1 || true
wait_for 30 "a restart" restarts
# the name of an image refers to another image now
echo two >"$work/marker"
image localhost/moving:1 /witness witness="$dir/bin/witness" marker="$work/marker"
kubectl -n corpus annotate pod life-image moved=yes >/dev/null
wait_for 90 "the wrong ones to run" all_ready
gone=$(on_node ctr -n k8s.io images ls | awk '$1 == "localhost/gone:1" {print $3}')
on_node ctr -n k8s.io images ls | awk -v d="$gone" '$3 == d {print $1}' | xargs nsenter --target "$(<"$dir/node.pid")" --all -- ctr -n k8s.io images rm >/dev/null
kubectl -n corpus annotate pod image gone=yes >/dev/null

verdicts() { # every pod of the corpus, with the program's verdict
  kubectl get podcheckpoints -A -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name} {.status.conditions[?(@.type=="Captured")].message}|{.status.conditions[?(@.type=="Recoverable")].status}{"\n"}{end}'
}
as_expected() {
  local all wrong=''
  all=$(verdicts)
  while read -r pod expected; do
    if [ "$expected" = "<none>" ]; then
      grep -q "^$pod .*|True$" <<<"$all" || wrong+="$pod should be recoverable: $(grep "^$pod " <<<"$all")"$'\n'
    else
      grep -q "^$pod $expected: see .*|False$" <<<"$all" || wrong+="$pod should be refused with $expected: $(grep "^$pod " <<<"$all")"$'\n'
    fi
  done < <(kubectl get pods -A --no-headers -o custom-columns='N:.metadata.namespace,P:.metadata.name,M:.metadata.annotations.podcheckpointer\.io/checkpoint,E:.metadata.annotations.expect' |
    awk '$3 == "true" {printf "%s/%s %s", $1, $2, $4; for (i = 5; i <= NF; i++) printf " %s", $i; print ""}')
  [ -z "$wrong" ] || { echo "$wrong"; return 1; }
}
wait_for 60 "every verdict to be as it should" as_expected
say "$(verdicts | grep -c 'True$') pods of all are recoverable, $(verdicts | grep -c 'False$') are refused"
rm "$manifests/static.yaml"
kubectl delete -f "$corpus/refused.yaml" --wait=false >/dev/null
refused_gone() { ! kubectl -n corpus get pods -o jsonpath='{.items[*].metadata.annotations.expect}' | grep .; }
wait_for 60 "the wrong ones to end" refused_gone

all_parents() { # a container of each pod, at least
  reported parent >/dev/null || return 1
  local containers; containers=$(kubectl get pods -A -o jsonpath='{range .items[*]}{.spec.containers[*].args} {.spec.containers[*].command} {.spec.initContainers[*].args}{"\n"}{end}' |
    grep -oE '"--name"(,|\] ?\[?)"[^"]*"' | grep -oE '"[^"-][^"]*"$' | tr -d '"' | grep -E "^$report_names" | sort)
  diff <(echo "$containers") <(basename -as .parent.json "$reports"/*.parent.json | sort | grep -vxE 'life-hooks_started')
}
wait_for 60 "every parent to report" all_parents
remember
outage refused
reboot
wait_for 120 "every twin to report" all_twins_report
figure "boot to all $(find "$reports" -name "*.twin.json" | wc -l) reports of twins" "$(since "$booted") s"
twins_equal "$corpus/differences"
# including privileged ones
on_node kube static-pods /etc/kubernetes/manifests "$name" >"$work/static-pods"
python3 - "$work/static-pods" "$(find "$manifests" -type l -name 'pod-checkpointer_*' | wc -l)" <<'PYTHON' || fail "what \`kube static-pods\` makes of the manifests is not what runs"
import json, sys
seen = json.load(open(sys.argv[1]))
containers = [c for pod in seen["pods"] for c in pod["spec"]["containers"] + pod["spec"].get("initContainers", [])]
privileged = sum(c.get("securityContext", {}).get("privileged", False) for c in containers)
print(f"  kube static-pods: {len(seen['pods'])} pods with {privileged} privileged containers, refused: {seen['refused']}")
# of all twins and the supervisor
sys.exit(bool(seen["refused"]) or len(seen["pods"]) != int(sys.argv[2]) + 1 or privileged < 3)
PYTHON
hand_back quiet
[ "$(<"$host/signal/life-signal.end")" = "user defined signal 1" ] || fail "life-signal ended by $(<"$host/signal/life-signal.end")"
[ "$(<"$host/hooks/life-hooks.stop")" = "before the end" ] || fail "life-hooks had no preStop hook"
kubectl delete namespace corpus $long --wait=false >/dev/null
kubectl delete -f "$corpus/persistent-volume.yaml" --ignore-not-found --wait=false >/dev/null
kubectl delete priorityclass corpus-high corpus-low >/dev/null
kubectl delete clustertrustbundle corpus corpus.test:signer:one >/dev/null
kubectl delete runtimeclass corpus corpus-other >/dev/null
left() { kubectl get namespaces corpus $long --ignore-not-found -o name | not grep .; }
wait_for 120 "the corpus to go" left
