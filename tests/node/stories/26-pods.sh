#!/bin/bash
# 1, 10 and 110 more marked pods: from the decision to the last link, and until the last one runs.
# long
. "$(dirname "$0")/../lib.sh"

healthy
settings RETENTION=2s
kubectl apply -f - >/dev/null <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: many, namespace: shop}
spec:
  replicas: 0
  selector: {matchLabels: {app: many}}
  template:
    metadata:
      labels: {app: many}
      annotations: {podcheckpointer.io/checkpoint: "true"}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 1
      containers: [{name: many, image: localhost/witness:1, args: [pause]}]
YAML
captured() { [ "$(find "$store/checkpoints" -maxdepth 1 -name 'shop_many-*' | wc -l)" = "$1" ]; }
twins_run() { [ "$(observe containers | grep -c "CONTAINER_RUNNING shop/many-.*-$name ")" = "$1" ]; }
for pods in ${PODS:-1 10 110}; do
  kubectl -n shop scale deployment/many --replicas "$pods" >/dev/null
  wait_for 400 "$pods checkpoints" captured "$pods"
  wait_for 60 "every pod to be ready" pods_ready
  healthy; remember
  for _ in $(seq "${REPEAT:-1}"); do
    outage refused
    reboot
    wait_for 200 "$pods twins" twins_run "$pods"
    wait_for 60 "the supervisor to record that they run" outage_times decided serving
    figure "$pods more pods, decision to the last link" "$(outage_times decided activated) s"
    figure "$pods more pods, decision to the last one running" "$(outage_times decided serving) s"
    figure "$pods more pods, resident memory, supervisor" "$(memory supervisor)"
    hand_back quiet
    figure "$pods more pods, resident memory, agent" "$(memory agent)"
  done
done
kubectl -n shop delete deployment many >/dev/null
wait_for 200 "the checkpoints to go" captured 0
settings RETENTION-
