#!/bin/bash
# The API server answers, but not the kubelet, whose certificate it does not know: shown, and activated where that is wanted.
# long
. "$(dirname "$0")/../lib.sh"

healthy; remember
settings ACTIVATE_LOCKED_OUT=3m
certificate=$disk/etc/kubernetes/pki/kubelet
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/other.key" -out "$work/other.crt" -days 30 \
  -subj "/O=system:nodes/CN=system:node:$name" 2>/dev/null
cp -p "$certificate.crt" "$certificate.key" "$work/"
cp "$work/other.crt" "$certificate.crt"; cp "$work/other.key" "$certificate.key"
reboot
wait_for 60 "the supervisor" supervisor_runs
wait_for 60 "the kubelet to be told that nobody knows it" grep -q Unauthorized "$dir/log/kubelet.log"
stays 60 "nothing is active while it may be starting" nothing_active
told() { checkpointer status | grep KubeletLockedOut; }
wait_for 300 "the status to say that the kubelet is locked out" told
wait_for 120 "every marked pod to serve" all_served "$booted"
stays 10 "they serve on, though the API server answers" served_now

cp "$work/kubelet.crt" "$work/kubelet.key" "$disk/etc/kubernetes/pki/"
kubelet_stop; kubelet_start
wait_for 150 "every parent to serve" parents_serve
wait_for 180 "no trace of the twins" no_trace
cell "API server answers, but does not know the kubelet's certificate, node rebooted" \
  "shown as KubeletLockedOut, activated with --activate-locked-out 3m, handed over when the kubelet is let in" \
  "all serve $(slowest "$booted") s after boot"
settings ACTIVATE_LOCKED_OUT-
wait_for 60 "every pod to be ready" pods_ready
never_failed
