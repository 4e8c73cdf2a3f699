#!/bin/bash
# A device that a pod needs is gone after the reboot: this is reported, the others serve, and the pod comes back with the device.
# long
. "$(dirname "$0")/../lib.sh"

healthy
echo dial >"$disk/var/lib/modem"
kubectl apply -f "$here/pods/modem.yaml" >/dev/null
wait_for 60 "modem's checkpoint" checkpoint edge/modem
remember

outage refused
power_off
rm "$disk/var/lib/modem"
booted=$(now); boot
wait_for 60 "the others to serve" all_served "$booted"
told() { checkpointer status | grep "modem .*KubeletRefuses: .* volume device: .var.lib.modem does not exist (File)"; }
wait_for 90 "the status to say what modem waits for" told
took=$(since "$booted")
served_now || fail "the others do not serve any more"

echo dial >"$disk/var/lib/modem"; mended=$(now)
wait_for 200 "modem's twin to run" running "$(twin_of edge/modem)"
runs=$(since "$mended")
well() { not told; }
wait_for 60 "the status to say nothing of it any more" well
cell "a file that a pod mounts from the node is gone, node rebooted" \
  "Blocked with the volume and its path; the others serve; it comes back with the file" \
  "said $took s after boot, runs $runs s after the file is back"
hand_back quiet

kubectl -n edge delete pod modem >/dev/null
wait_for 150 "its checkpoint to go" not checkpoint edge/modem
rm "$disk/var/lib/modem"
never_failed
