#!/bin/bash
# Uninstall: the node's directories are as they were before.
# on containerd2
. "$(dirname "$0")/../lib.sh"

healthy
uninstall
for n in web proxy radio; do running "$(app_pod $n)" || fail "$n was disturbed"; done
rm "$dir/before"                                 # the next story deploys again
