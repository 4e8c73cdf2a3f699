#!/bin/bash
# Reboot, restart or hang of kubelet and runtime during activation, release and handover: the outcome is the same.
# both: the faults are those of the runtime, and each runtime gets different ones
. "$(dirname "$0")/../lib.sh"

case $runtime in containerd2) faults="reboot kubelet-hung" ;; *) faults="kubelet-restart runtime-hung" ;; esac
[ -z "${LONG:-}" ] || faults="reboot kubelet-restart runtime-restart kubelet-hung runtime-hung socket-gone"
declare -A called=([reboot]="node loses power" [kubelet-restart]="kubelet killed and started" [runtime-restart]="runtime killed and started"
  [kubelet-hung]="kubelet hangs 8 s" [runtime-hung]="runtime hangs 8 s" [socket-gone]="pod-resources socket deleted, kubelet restarted 8 s later")
overlapping() { served_lately "web proxy"; }
links() { find "$manifests" -type l -name 'pod-checkpointer_*' | sort; }
links_kept() { diff "$work/links" <(links); }
meanwhile() { # MOMENT: eight seconds in which nothing answers
  if [ "$1" = activation ]; then
    links >"$work/links"
    stays 8 "the links are as they were" links_kept
  else
    stays 8 "what overlaps is served" overlapping
  fi
}
strike() { # FAULT MOMENT
  case $1 in
  reboot) [ "$2" = activation ] || outage refused; reboot ;;
  kubelet-restart) kubelet_stop; kubelet_start ;;
  runtime-restart)
    on_node pkill -KILL -x containerd
    wait_for 10 "the runtime to end" not on_node pgrep -x containerd
    start_on_node containerd containerd ;;
  kubelet-hung) on_node pkill -STOP -x kubelet; meanwhile "$2"; on_node pkill -CONT -x kubelet ;;
  runtime-hung) on_node pkill -STOP -x containerd; meanwhile "$2"; on_node pkill -CONT -x containerd ;;
  socket-gone) on_node rm /var/lib/kubelet/pod-resources/kubelet.sock; meanwhile "$2"; kubelet_stop; kubelet_start ;;
  esac
}
ending() { # FAULT MOMENT: everything becomes as before
  hand_back quiet
  cell "${called[$1]} in the middle of $2" "handed over, nothing twice, no trace" "parents serve $parents_after s after the API server; unserved since: $(unserved "$ended")"
}
some_link() { not nothing_active; }
is_released() { [ -z "$(links)" ]; }
is_handed_over() { running "$web"; }

guarded
for fault in ${FAULTS:-$faults}; do
  remember                    # each return creates the parents' volumes again
  outage refused
  reboot
  wait_for 60 "the first link" some_link
  struck=$(now)
  strike "$fault" activation
  back_up 90
  compare_twins
  stays 3 "what was activated is served" served_lately
  cell "${called[$fault]} in the middle of activation" "the twins serve, none twice" "all serve $(slowest "$struck") s after it"

  outage_end
  wait_for 60 "the release" is_released
  struck=$(now)
  strike "$fault" release
  if [ "$fault" = reboot ]; then back_up; fi
  ending "$fault" release

  outage refused
  reboot
  back_up
  outage_end
  wait_for 120 "the first parent" is_handed_over
  strike "$fault" handover
  if [ "$fault" = reboot ]; then back_up; fi
  ending "$fault" handover
done
unharmed
