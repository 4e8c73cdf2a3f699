#!/bin/bash
# Builds what the node runs, once, into a cache outside the checkout; each part under a key of its sources.
#   build.sh [containerd2|containerd1]                  build what is missing
#   build.sh --into DIRECTORY [containerd2|containerd1] put the programs there
# OLDEST=1: with the control plane of the oldest Kubernetes that is promised to work, which then is under the usual names.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pod-checkpointer-node

part() { echo "$cache/$1-$(cd "$here/$1" && cat ./*.go go.mod go.sum 2>/dev/null | sha256sum | cut -c1-16)"; }
build() { # PART GO-ARGUMENT…: to a directory beside, renamed when whole
  local part=$1 out; out=$(part "$1"); shift
  [ ! -d "$out" ] || return 0
  echo "building $part into $out" >&2
  mkdir -p "$cache"
  local new; new=$(mktemp -d "$cache/.$part.XXXX")
  (cd "$here/$part" && CGO_ENABLED=0 go build -trimpath -o "$new/" "$@")
  chmod 755 "$new"
  mv -T "$new" "$out" 2>/dev/null || rm -rf "$new"      # another build was quicker
}

into=
if [ "${1:-}" = --into ]; then into=$2; shift 2; fi
runtime=${1:-containerd2}
version_flags() { # PART: Kubernetes' own version is given to it when it is linked
  local version minor info=k8s.io/component-base/version
  version=$(awk '$1 == "k8s.io/kubernetes" {print $2; exit}' "$here/$1/go.mod")
  minor=${version#v1.}
  echo "-s -w -X $info.gitVersion=$version -X $info.gitMajor=1 -X $info.gitMinor=${minor%%.*} -X k8s.io/client-go/pkg/version.gitVersion=$version"
}
build kube -ldflags "$(version_flags kube)" .
[ -z "${OLDEST:-}" ] || build oldest -ldflags "$(version_flags oldest)" .
build witness -ldflags '-s -w' .
[ "$runtime" != containerd2 ] || build containerd github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}

[ -n "$into" ] || exit 0
parts=(kube witness)
[ "$runtime" != containerd2 ] || parts+=(containerd)
[ -z "${OLDEST:-}" ] || parts+=(oldest)
for p in "${parts[@]}"; do cp -l "$(part "$p")"/* "$into/" 2>/dev/null || cp "$(part "$p")"/* "$into/"; done
for program in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do ln -sf kube "$into/$program"; done
[ -z "${OLDEST:-}" ] || for program in kube-apiserver kube-controller-manager kube-scheduler; do ln -sf oldest "$into/$program"; done
