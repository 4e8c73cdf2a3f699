#!/bin/bash
# Builds the judge for each Kubernetes version, once, into a cache outside the checkout, under a key of its sources.
# Prints the directory that holds the programs, named after their versions.
set -euo pipefail
here=$(cd "$(dirname "$0")/judge" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pod-checkpointer-kubelet

key=$(cd "$here" && cat ./*.go ./*.s versions/*.mod versions/*.sum | sha256sum | cut -c1-16)
out=$cache/$key
mkdir -p "$out"
for mod in "$here"/versions/*.mod; do
  version=$(basename "$mod" .mod)
  [ ! -x "$out/$version" ] || continue
  begin=$SECONDS
  # which form the kubelet's own functions have: see the build tags of judge/*.go
  case $version in
    v1.33.* | v1.34.*) tags= ;;
    v1.35.*) tags=logger,mode ;;
    *) tags=logger ;;
  esac
  new=$(mktemp "$cache/.$version.XXXX")
  (cd "$here" && CGO_ENABLED=0 go build -modfile="versions/$version.mod" -tags "$tags" -ldflags '-s -w' -o "$new" .)
  chmod 755 "$new"
  mv "$new" "$out/$version"
  echo "built the judge of $version in $((SECONDS - begin)) s" >&2
done
echo "$out"
