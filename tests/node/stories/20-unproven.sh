#!/bin/bash
# The server that answers cannot be proven to be the API server: after a minute the pods serve anyway.
# long
. "$(dirname "$0")/../lib.sh"

# a node whose clock says 1970 sees certificates that are not valid yet, one whose clock says 2038 sees expired ones
case $runtime in containerd2) kinds=not-yet-valid ;; *) kinds=wrong-ca ;; esac
[ -z "${LONG:-}" ] || kinds="wrong-ca expired not-yet-valid foreign portal"
declare -A fault=(
  [wrong-ca]="API server's certificate is of another CA of the same name"
  [expired]="API server's certificate expired, or this clock says 2038"
  [not-yet-valid]="API server's certificate is not yet valid, or this clock says 1970"
  [foreign]="somebody else's TLS server in its place"
  [portal]="a captive portal in its place: plain HTTP")

guarded
for kind in ${KINDS:-$kinds}; do
  outage "$kind"
  reboot
  wait_for 60 "the supervisor to see it" contact_is Unproven
  stays 40 "nothing is active in the first minute" nothing_active
  back_up 120
  took=$(slowest "$booted")
  stays 10 "what was activated is served" served_lately
  hand_back
  cell "${fault[$kind]}, node rebooted" "unproven: activated after 60 s, handed over to the real one" \
    "all serve $took s after boot; unserved at the handover: $(unserved "$ended")"
done
unharmed
