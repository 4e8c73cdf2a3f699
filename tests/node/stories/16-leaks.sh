#!/bin/bash
# A whole life with marked secrets: found in the clear checkpoint and nowhere else, with a key not even there.
# on containerd2
# once: what is written does not depend on the runtime
. "$(dirname "$0")/../lib.sh"

markers=$work/markers patterns=$work/patterns said=$work/said key=/etc/pod-checkpointer.key
host() { echo "/proc/$(<"$dir/node.pid")/root"; }
run() { echo "$(host)/run/pod-checkpointer"; }
marker() { local text; text=m$(openssl rand -hex 12); echo "$text" | tee -a "$markers"; }
# signatures of the tokens that the kubelet gave to this pod, or to all pods including the agent
tokens() { find "$(host)/var/lib/kubelet/pods/${1:-}" -path '*/kube-api-access-*/token' -type f -exec awk -F. '{print $NF}' {} +; }
# each marker in clear and in base64, with zero, one or two bytes before it in the encoded text
search_for() {
  python3 -c '
import base64, sys
for marker in set(sys.stdin.read().split()):
    print(marker)
    for before in range(3):
        text = base64.b64encode(bytes(before) + marker.encode()).decode()
        print(text[-(-8 * before // 6):8 * (before + len(marker)) // 6])' <"${1:-$markers}"
}
none() { # WHAT FILE…: no marker is in them, or below them, and each can be read
  local what=$1 found status=0; shift
  found=$(grep -raFlf "$patterns" "$@" 2>&1) || status=$?
  [ $status = 1 ] || fail "a marker is in $what, or it cannot be searched ($status): $found"
}

# look MOMENT [online]: only root and the pod itself can read them
look() {
  local part pid command text files open
  if [ "${2:-}" = online ]; then tokens >>"$markers"; fi
  search_for >"$patterns"
  rm -rf "$said"; mkdir -p "$said"
  for command in "status" "status -o json" "verify" "verify -o json" "show edge/keeper"; do
    # shellcheck disable=SC2086
    checkpointer $command >"$said/${command//\//_}" 2>&1 || true   # 3 where something is damaged
  done
  [ "$(grep -rl keeper "$said" | wc -l)" -ge 3 ] || fail "the command line does not know the pod: $(cat "$said"/*)"
  none "what the command line says" "$said"
  none "a log" "$disk"/var/log/pods/pod-checkpointer_*
  not compgen -G "$disk/var/log/pods/pod-checkpointer_*/*/*.gz" || fail "a log was packed, which the search does not look into"
  none "the manifest directory" "$manifests"
  mapfile -t files < <(find "$store" "$(run)" -type f ! -name '.pod-checkpointer-tmp-*' ! -path "$store/checkpoints/*" ! -path '*/active/*' ! -path '*/volumes/*')
  none "a file beside the checkpoints" "${files[@]}"
  open=$(find "$store" "$(run)" "$manifests"/pod-checkpointer* -path '*/volumes/*' -prune -o ! -type l -perm /077 -print)
  [ -z "$open" ] || fail "not for root alone: $open"
  for part in supervisor ${2:+agent}; do
    pid=$(pid_of "$part" | head -1)
    none "the process of the $part" "$(host)/proc/$pid/"{environ,cmdline}
  done
  for part in supervisor ${2:+agent}; do
    for text in metrics healthz readyz; do on_node curl -sS --max-time 5 "$(served_by "$part")/$text" >"$said/$part.$text"; done
    grep -q '^pod_checkpointer_build_info' "$said/$part.metrics" || fail "the metrics of the $part are not there"
  done
  none "what is served over HTTP" "$said"
  open=$(on_node ss -Hltnp | grep pod-checkpoint | awk '{print $4}' | grep -vE ':979[78]$' || true)
  [ -z "$open" ] || fail "a part listens, and is not searched: $open"
  if [ "${2:-}" = online ]; then
    # everything in the API but the markers' own homes
    kubectl api-resources --verbs=list -o name | grep -vxE 'secrets|componentstatuses' | paste -sd, >"$work/kinds"
    kubectl get "$(<"$work/kinds")" -A -o yaml --show-managed-fields --field-selector metadata.name!=keeper-conf >"$said/api" 2>"$work/refused"
    for text in "kind: PodCheckpoint\$" "reason: EnvironmentNotText" "kind: Event\$"; do
      grep -q "$text" "$said/api" || fail "not all of the API is searched: no $text"
    done
    none "the API" "$said/api"
  fi
  say "no marker of $(sort -u "$markers" | wc -l) anywhere $1"
}

healthy
rm -f "$markers"
kubectl -n pod-checkpointer set env daemonset/pod-checkpointer RUST_LOG=trace >/dev/null   # whatever the log may say
settings RETENTION=2s
kubectl apply -f - >/dev/null <<YAML
{apiVersion: v1, kind: Secret, metadata: {name: keeper, namespace: edge}, stringData: {WORD: "$(marker)", ODD: "$(marker)�"}}
---
{apiVersion: v1, kind: Secret, metadata: {name: keeper-all, namespace: edge}, stringData: {FIRST: "$(marker)", SECOND: "$(marker)"}}
---
{apiVersion: v1, kind: Secret, metadata: {name: keeper-files, namespace: edge}, stringData: {key: "$(marker)", long: "12 $(marker)\n$(marker)"}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: keeper-conf, namespace: edge}, data: {conf: "word = $(marker)"}}
---
apiVersion: v1
kind: Pod
metadata: {name: keeper, namespace: edge, annotations: {podcheckpointer.io/checkpoint: "true"}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: keeper
    image: localhost/witness:1
    args: [serve, --name, "\$(WORD)"]
    envFrom: [{secretRef: {name: keeper-all}}, {configMapRef: {name: keeper-conf}}]
    env:
    - {name: WORD, valueFrom: {secretKeyRef: {name: keeper, key: WORD}}}
    - {name: URL, value: "http://user:\$(WORD)@host"}
    volumeMounts: [{name: files, mountPath: /files}, {name: all, mountPath: /all}]
  volumes:
  - {name: files, secret: {secretName: keeper-files}}
  - {name: all, projected: {sources: [{configMap: {name: keeper-conf}}, {secret: {name: keeper-all}}]}}
---
# runs, and is refused for a value that is not text
apiVersion: v1
kind: Pod
metadata: {name: keeper-refused, namespace: edge, annotations: {podcheckpointer.io/checkpoint: "true"}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: keeper
    image: localhost/witness:1
    args: [serve]
    env: [{name: ODD, valueFrom: {secretKeyRef: {name: keeper, key: ODD}}}]
YAML
wait_for 60 "the checkpoint" checkpoint edge/keeper
is_refused() { kubectl -n edge get podcheckpoint keeper-refused -o yaml | grep 'reason: EnvironmentNotText'; }
wait_for 60 "the refusal" is_refused
odd=$(sed -n 2p "$markers")                        # the refused pod's alone
grep -vx "$odd" "$markers" >"$work/captured"
# captured again, with a new word in a file. The kubelet looks when the pod changes
kubectl -n edge patch secret keeper-files -p "{\"stringData\": {\"key\": \"$(marker | tee -a "$work/captured")\"}}" >/dev/null
kubectl -n edge annotate pod keeper touched=now >/dev/null
again() { [ "$(checkpoint edge/keeper | wc -l)" = 2 ]; }
wait_for 150 "the second generation" again
# the search works: it finds every captured word, and the pod's own token
tokens "$(kubectl -n edge get pod keeper -o jsonpath='{.metadata.uid}')" >>"$work/captured"
while read -r word; do
  grep -raqFf <(search_for <(echo "$word")) "$store/checkpoints/edge_keeper" || fail "the search does not find $word in a checkpoint in clear"
done <"$work/captured"
look "after two captures" online

remember
outage refused
reboot
twin_runs() { running "$(twin_of edge/keeper)"; }
wait_for 60 "the twin" twin_runs
back_up
look "in the outage"
newest=$(checkpoint edge/keeper | tail -1)
sed -i 's/^\(digest: .*\)..../\10000/' "$newest"
look "with a damaged generation"
hand_back quiet
whole() { checkpointer verify "$@"; }
wait_for 90 "the damaged generation to be captured again" whole
look "after the hand-over" online

# with a key: none in the store either, nor what was in clear before
(umask 077; openssl rand -hex 32 | tee -a "$markers" >"$disk$key")
settings KEY_FILE=$key
none_in_clear() { not grep -rlE '^(manifest|volumes):' "$store/checkpoints"; }
wait_for 60 "every generation to be sealed" none_in_clear
wait_for 60 "every checkpoint to be whole" whole --key-file $key
look "beside sealed checkpoints" online
none "the sealed store" "$store"
wait_for 60 "the supervisor's mirror pod" supervisor_shown
remember
outage refused
reboot
wait_for 60 "the twin of a sealed checkpoint" twin_runs
back_up
look "in an outage with a key"
none "the sealed store" "$store"
grep -raqFf "$patterns" "$(run)" || fail "what the twin is given is not in memory, where it should be"
hand_back quiet
look "after the hand-over with a key" online
none "memory after the hand-over" "$(run)"
none "the sealed store" "$store"

kubectl -n edge delete pod keeper keeper-refused >/dev/null
wait_for 60 "the checkpoint to be removed" not checkpoint edge/keeper
for place in "$store" "$(run)" "$disk"/var/log/pods/pod-checkpointer_*; do none "what is left after the removal" "$place"; done

# back to clear text: without what was sealed, and without the key
kubectl -n pod-checkpointer set env daemonset/pod-checkpointer RUST_LOG- >/dev/null
rm -r "$store/checkpoints"                         # an agent that can write none of its checkpoints is not ready
settings KEY_FILE- RETENTION-
rm "$disk$key"
kubectl -n edge delete secret keeper keeper-all keeper-files >/dev/null
kubectl -n edge delete configmap keeper-conf >/dev/null
healthy
