#!/bin/bash
# A real one-node Kubernetes: a site (control plane, name server, the client's place) and, inside it, a node.
# Both are namespaces of this machine, so nothing outside them changes. README.md tells how to use it.
#
#   node.sh up | down              build what is missing, start site and node | end both, forget everything
#   node.sh shell | on-node CMD…   a root shell on the node | one command there
#   node.sh kubectl ARG…           as cluster admin, from the site
#   node.sh outage KIND            refused | blackhole | dead-dns | hang | no-etcd, or another server in its place: slow | mute |
#                                  401 | 403 | 429 | 500 | wrong-ca | expired | not-yet-valid | foreign | portal
#   node.sh outage-end             the API server answers again (does not wait; api-wait does)
#   node.sh power-off | boot       all that a power cut loses, the disk stays | containerd and kubelet come back
#   node.sh kubelet-restart | kubelet-stop | kubelet-start
#   node.sh image NAME ENTRYPOINT FILE=SOURCE…   build an image and import it
#   node.sh observe CMD…           what kubelet (owned) or runtime (sandboxes, containers, …) say
#   node.sh logs [LINES]           tails of every log, and the program's own status files
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
runtime=${RUNTIME:-containerd2}              # containerd2, from Go modules, or containerd1, Debian's
id=$(sha256sum <<<"$here" | cut -c1-6)-$runtime${LANE:+-$LANE} # LANE: one of several such nodes
dir=${NODE_DIR:-/var/tmp/pod-checkpointer-node-$id}
name=node-1
site_ip=10.1.0.1                             # API server, name server and clients
node_ip=10.1.0.2
pod_cidr=10.244.0.0/24
api_name=api.site.test                       # in the kubelet's kubeconfig, as most have a name there
api_ip=$site_ip
if [ -n "${SELF_HOSTED:-}" ]; then api_name=$node_ip; api_ip=$node_ip; fi # the API server will be a pod of this node
cgroup=pod-checkpointer-node-$id
disk=$dir/disk                               # what the node has on disk: its /etc and /var
export KUBECONFIG=$dir/pki/admin.conf PATH=$dir/bin:$PATH

die() { echo "node.sh: $*" >&2; exit 1; }
until_ok() { # SECONDS COMMAND…
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do ((SECONDS < end)) || { echo "timed out: $*" >&2; return 1; }; sleep 0.05; done
}
child_of() { local child; read -r child _ <"/proc/$1/task/$1/children" || [ -n "$child" ] && echo "$child"; } # no newline ends that file
alive() { [ -e "$dir/$1.pid" ] && kill -0 "$(<"$dir/$1.pid")" 2>/dev/null; }
kill_wait() { # PID: gone for good, whatever it was
  kill -KILL "$1" 2>/dev/null || return 0
  until_ok 20 eval "! kill -0 $1"
}

start() { # NAME COMMAND…: a process of the site
  local what=$1; shift
  alive "$what" && return
  setsid "$@" >>"$dir/log/$what.log" 2>&1 </dev/null &
  echo $! >"$dir/$what.pid"
  disown 2>/dev/null || true                  # it may have ended by now
}
stop() { if alive "$1"; then kill_wait "$(<"$dir/$1.pid")"; fi; rm -f "$dir/$1.pid"; }
on_node() { nsenter --target "$(<"$dir/node.pid")" --all -- "$@"; }
start_on_node() { # NAME COMMAND…: a child of the node's first process, which reaps it; nsenter would stop with a stopped child
  local what=$1; shift
  nsenter --target "$(<"$dir/node.pid")" --all -- setsid --fork "$@" >>"$dir/log/$what.log" 2>&1 </dev/null &
  disown 2>/dev/null || true
}

certificate() { # NAME SUBJECT
  openssl req -newkey rsa:2048 -nodes -keyout "$dir/pki/$1.key" -out "$dir/pki/$1.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "$dir/pki/$1.csr" -CA "$dir/pki/ca.crt" -CAkey "$dir/pki/ca.key" -CAcreateserial -days 30 -out "$dir/pki/$1.crt" \
    -extfile <(echo "subjectAltName=IP:127.0.0.1,IP:$site_ip,IP:$node_ip,IP:10.0.0.1,DNS:localhost,DNS:api.site.test,DNS:kubernetes.default.svc") 2>/dev/null
}
kubeconfig() { # FILE CERTIFICATE SERVER DIRECTORY-OF-CERTIFICATES
  cat >"$1" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: site, cluster: {server: "https://$3:6443", certificate-authority: $4/ca.crt}}]
users: [{name: me, user: {client-certificate: $4/$2.crt, client-key: $4/$2.key}}]
contexts: [{name: site, context: {cluster: site, user: me}}]
current-context: site
YAML
}

prepare_site() {
  mkdir -p "$dir/pki" "$dir/log" "$dir/images" "$dir/etcd"
  openssl req -x509 -newkey rsa:2048 -nodes -keyout "$dir/pki/ca.key" -out "$dir/pki/ca.crt" -subj /CN=ca -days 30 2>/dev/null
  openssl genrsa -out "$dir/pki/sa.key" 2048 2>/dev/null
  certificate apiserver /CN=kube-apiserver
  certificate admin /O=system:masters/CN=admin
  certificate kubelet "/O=system:nodes/CN=system:node:$name"
  certificate controller-manager /CN=system:kube-controller-manager
  certificate scheduler /CN=system:kube-scheduler
  certificate front-proxy /CN=front-proxy      # may say who asks
  for who in admin controller-manager scheduler; do kubeconfig "$dir/pki/$who.conf" $who $api_ip "$dir/pki"; done
}

prepare_disk() {
  mkdir -p "$disk/var"/{lib/kubelet,log,tmp,cache}
  ln -sfn /run "$disk/var/run"
  cp -a /etc "$disk/etc"
  rm -rf "$disk"/etc/{kubernetes,cni,containerd,resolv.conf,hosts}
  mkdir -p "$disk"/etc/{kubernetes/{manifests,pki},cni/net.d,containerd}
  cp "$dir"/pki/{ca.crt,kubelet.crt,kubelet.key} "$disk/etc/kubernetes/pki/"
  kubeconfig "$disk/etc/kubernetes/kubelet.conf" kubelet $api_name /etc/kubernetes/pki
  echo "nameserver $site_ip" >"$disk/etc/resolv.conf"
  printf '127.0.0.1 localhost\n%s %s\n' $node_ip $name >"$disk/etc/hosts"
  cat >"$disk/etc/cni/net.d/10-bridge.conflist" <<JSON
{"cniVersion":"0.4.0","name":"bridge","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"$pod_cidr"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
JSON
  # without CAP_SYS_RESOURCE a sandbox cannot lower its score, and runc fails
  local restrict=true
  (( (16#$(awk '/^CapBnd/{print $2}' /proc/self/status) >> 24) & 1 )) && restrict=false
  cat >"$disk/etc/containerd/config.toml" <<TOML
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = $restrict
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.other]
    runtime_type = "io.containerd.runc.v2"
TOML
  # imageGCHighThresholdPercent: how full this machine's disk is must not matter, and Debian's containerd does not pin the pause image
  # failCgroupV1: refused by default since 1.35, and some machines have only v1
  cat >"$disk/var/lib/kubelet/config.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
maxPods: 250
featureGates: {ClusterTrustBundle: true, ClusterTrustBundleProjection: true, ContainerStopSignals: true}
allowedUnsafeSysctls: [net.core.somaxconn, net.ipv4.ip_forward, "kernel.msg*"]
staticPodPath: /etc/kubernetes/manifests
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDNS: [10.0.0.10]
clusterDomain: cluster.local
enforceNodeAllocatable: []
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: "50Mi"}
YAML
}

cgroups() { for h in /sys/fs/cgroup /sys/fs/cgroup/*; do [ ! -e "$h/cgroup.procs" ] || echo "$h/$cgroup"; done; }

cgroups_end() { for c in $(cgroups); do [ ! -d "$c" ] || until_ok 60 find "$c" -depth -type d -exec rmdir {} + || die "$c is still in use"; done; }

# init is the node's first process: it arranges the node's view of the disk, then only waits. Killing it is the
# power cut: the kernel ends every process of the node, and its mounts and network go with them.
init() {
  mount --make-rprivate /
  mount -t tmpfs -o mode=755,nosuid,nodev,noexec tmpfs /run  # as Debian and Ubuntu mount it
  mkdir -p /run/lock
  mount --bind "$dir/bin" /usr/local/bin
  mount --bind "$disk/etc" /etc
  mount --bind "$disk/var" /var              # last: it hides $dir
  for d in ${READ_ONLY:-}; do mount --bind "$d" "$d"; mount -o remount,bind,ro "$d"; done
  for d in ${SMALL:-}; do                    # DIRECTORY=SIZE: a file system of its own, that can be filled
    mkdir -p "${d%=*}" /run/large
    mount --bind "${d%=*}" /run/large
    mount -t tmpfs -o "mode=700,size=${d#*=}" tmpfs "${d%=*}"
    cp -a /run/large/. "${d%=*}/"
    umount /run/large; rmdir /run/large
  done
  mount --make-rshared /
  hostname $name
  ip link set lo up
  sysctl -qw net.ipv4.ip_forward=1
  touch /run/init-done
  sleep infinity & wait
}

boot() {
  alive node && die "the node is on"
  local unshare pid
  cgroups | xargs mkdir -p
  setsid unshare --mount --net --pid --uts --ipc --fork --kill-child --mount-proc "$here/node.sh" init >>"$dir/log/init.log" 2>&1 </dev/null &
  unshare=$!
  disown
  until_ok 5 child_of $unshare || die "the node's first process did not start: $(tail -3 "$dir/log/init.log")"
  pid=$(child_of $unshare); echo "$pid" >"$dir/node.pid"
  until_ok 5 test -e "/proc/$pid/root/run/init-done" || die "the node did not start: $(tail -3 "$dir/log/init.log")"
  ip link add site0 type veth peer name eth0 netns "$pid"
  ip addr add $site_ip/24 dev site0; ip link set site0 up
  on_node sh -ec "ip addr add $node_ip/24 dev eth0; ip link set eth0 up; ip route add default via $site_ip
    for chain in OUTPUT PREROUTING; do # there is no kube-proxy: this is the API server's service
      iptables -t nat -A \$chain -d 10.0.0.1 -p tcp --dport 443 -j DNAT --to-destination $api_ip:6443; done"
  ip route replace $pod_cidr via $node_ip
  start_on_node containerd containerd
  until_ok 20 on_node ctr version || die "containerd does not answer: $(tail -3 "$dir/log/containerd.log")"
  on_node test -e /var/lib/images-imported || {
    image localhost/pause:1 "/witness pause" witness="$dir/bin/witness"
    image localhost/witness:1 /witness witness="$dir/bin/witness"
    on_node touch /var/lib/images-imported; }
  kubelet_start
}
kubelet_start() { # once more when it ends with an error, as systemd does: the runtime answers before it has found all its containers
  # shellcheck disable=SC2016
  start_on_node kubelet sh -c 'until "$@" || [ $? -gt 1 ]; do sleep 0.1; done' - kubelet --config /var/lib/kubelet/config.yaml --kubeconfig /etc/kubernetes/kubelet.conf \
    --hostname-override $name --node-ip $node_ip --v 2
}
kubelet_stop() { on_node pkill -KILL -x kubelet || true; until_ok 10 eval '! on_node pgrep -x kubelet'; }
power_off() {
  if alive node; then kill_wait "$(<"$dir/node.pid")"; fi
  rm -f "$dir/node.pid"
  ip link delete site0 2>/dev/null || true     # the kernel takes its time to end the node's network
  # a machine that boots has no old cgroups
  cgroups_end
}
observe() {
  local socket=/run/containerd/containerd.sock
  [ "$1" != owned ] || socket=/var/lib/kubelet/pod-resources/kubelet.sock
  on_node kube observe $socket "$@"
}
image() { # NAME ENTRYPOINT FILE=SOURCE…
  python3 "$here/image.py" "$1" "$dir/images/import.tar" "${@:2}"
  on_node ctr -n k8s.io images import - <"$dir/images/import.tar" >/dev/null
}

api_flags() { # DIRECTORY-OF-CERTIFICATES
  echo --etcd-servers "http://${ETCD_IP:-127.0.0.1}:2379" --etcd-prefix "${ETCD_PREFIX:-/registry}" --secure-port 6443 --advertise-address $api_ip \
    --tls-cert-file "$1/apiserver.crt" --tls-private-key-file "$1/apiserver.key" --client-ca-file "$1/ca.crt" \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$1/sa.key" \
    --service-account-signing-key-file "$1/sa.key" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --service-cluster-ip-range 10.0.0.0/24 --kubelet-client-certificate "$1/admin.crt" --kubelet-client-key "$1/admin.key" \
    --kubelet-preferred-address-types InternalIP --feature-gates ClusterTrustBundle=true,ClusterTrustBundleProjection=true,ContainerStopSignals=true \
    --runtime-config certificates.k8s.io/v1beta1/clustertrustbundles=true --allow-privileged \
    --requestheader-client-ca-file "$1/ca.crt" --requestheader-allowed-names front-proxy \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group
}
api_more=()                                  # a story's own flags of the API server
# shellcheck disable=SC2046
api_start() { start apiserver kube-apiserver $(api_flags "$dir/pki") "${api_more[@]}"; }
controllers_start() {
  start controller-manager kube-controller-manager --kubeconfig "$dir/pki/controller-manager.conf" --leader-elect=false \
    --service-account-private-key-file "$dir/pki/sa.key" --root-ca-file "$dir/pki/ca.crt" --use-service-account-credentials
  start scheduler kube-scheduler --kubeconfig "$dir/pki/scheduler.conf" --leader-elect=false
}
api_wait() { until_ok "${1:-60}" kubectl get --raw /readyz; }
drop() { iptables -I INPUT -i site0 -p "$1" --dport "$2" -j DROP; }
outage() {
  case $1 in
  refused) stop apiserver ;;
  blackhole) drop tcp 6443 ;;
  dead-dns) drop udp 53; drop tcp 53; drop tcp 6443 ;;   # the line to the site is cut
  hang) stop apiserver; start hang witness hang $site_ip:6443
    until_ok 5 eval "ss -ltn | grep -q $site_ip:6443" || die "outage: $(tail -1 "$dir/log/hang.log")" ;;
  no-etcd) kill -STOP "$(<"$dir/etcd.pid")" ;;           # it is stopped, and the API server hangs with it
  slow | mute | [1-5][0-9][0-9] | wrong-ca | expired | not-yet-valid | foreign | portal)
    # the site itself still reaches the real one
    stop stand-in; start stand-in witness stand-in --pki "$dir/pki" :7443 "$1"
    until_ok 5 eval "ss -ltn | grep -q ':7443 '" || die "outage: $(tail -1 "$dir/log/stand-in.log")"
    iptables -t nat -C PREROUTING -i site0 -p tcp --dport 6443 -j REDIRECT --to-ports 7443 2>/dev/null ||
      iptables -t nat -A PREROUTING -i site0 -p tcp --dport 6443 -j REDIRECT --to-ports 7443 ;;
  *) die "outage: $1 is no kind of it (node.sh --help)" ;;
  esac
}
outage_end() { iptables -F INPUT; iptables -t nat -F PREROUTING; stop hang; stop stand-in; kill -CONT "$(cat "$dir/etcd.pid" 2>/dev/null)" 2>/dev/null || true; api_start; }

up_inside() {
  ip link set lo up
  prepare_site
  prepare_disk
  if [ -n "${SELF_HOSTED:-}" ]; then boot; return; fi     # the story brings the control plane up on the node
  start etcd etcd --data-dir "$dir/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync
  ip addr add $site_ip/32 dev lo               # there before the node's cable is
  start dns witness dns $site_ip:53 $api_name=$site_ip
  api_start
  api_wait || die "no API server: $(tail -3 "$dir/log/apiserver.log")"
  controllers_start
  boot
  until_ok 60 sh -c "kubectl get node $name | grep -w Ready" || die "the node is not Ready: $(tail -3 "$dir/log/kubelet.log")"
  until_ok 60 kubectl get serviceaccount default
}

up() {
  down
  "$here/build.sh" "$runtime"
  mkdir -p "$dir/bin"
  "$here/build.sh" --into "$dir/bin" "$runtime"
  setsid unshare --mount --net --pid --fork --kill-child --mount-proc bash -c 'sleep infinity & wait' </dev/null >/dev/null 2>&1 &
  until_ok 5 child_of $! || die "no namespaces: this needs root"
  child_of $! >"$dir/site.pid"
  enter_site "$here/node.sh" up
}
down() {
  if alive site; then kill_wait "$(<"$dir/site.pid")"; fi
  rm -rf "$dir"
  cgroups_end
}
enter_site() {
  alive site || die "it is not up (node.sh up)"
  nsenter --target "$(<"$dir/site.pid")" --mount --net --pid env -C "$PWD" IN_SITE="$dir" "$@"
}

logs() {
  local lines=${1:-40} f
  for f in "$dir"/log/{kubelet,containerd,apiserver}.log "$disk"/var/log/pods/pod-checkpointer_*/*/*.log; do
    [ -e "$f" ] && { echo "--- ${f#"$dir/"}"; tail -n "$lines" "$f"; }
  done
  # shellcheck disable=SC2016
  alive node && on_node sh -c 'for f in /run/pod-checkpointer/status.yaml /run/pod-checkpointer/outages.yaml; do
    [ -e $f ] && { echo "--- $f"; cat $f; }; done; echo "--- manifests, run directory"; ls -la /etc/kubernetes/manifests; find /run/pod-checkpointer 2>/dev/null'
  true
}

[ "${BASH_SOURCE[0]}" = "$0" ] || return 0   # sourced by lib.sh: the functions are for the stories

command=${1:-}; shift || true
trap 'echo "node.sh: $command failed at line $LINENO: $BASH_COMMAND" >&2' ERR
case $command in
up) if [ "${IN_SITE:-}" = "$dir" ]; then up_inside; else up; exit; fi ;;
down) [ "${IN_SITE:-}" != "$dir" ] || die "down: only from outside"; down; exit ;;
init) init; exit ;;
"" | -h | --help) sed -n '2,/^set/{/^#/s/^# \?//p}' "$0"; exit 2 ;;
esac
[ "${IN_SITE:-}" = "$dir" ] || { enter_site env RUNTIME="$runtime" "$here/node.sh" "$command" "$@"; exit; }
case $command in
up) ;;
shell) on_node bash ;;
on-node) on_node "$@" ;;
in-site) "$@" ;;
kubectl) exec kubectl "$@" ;;
outage) outage "$@" ;;
outage-end) outage_end ;;
api-start) api_start ;;
api-stop) stop apiserver ;;
api-wait) api_wait "$@" ;;
controllers-start) controllers_start ;;
power-off) power_off ;;
boot) boot ;;
kubelet-start) kubelet_start ;;
kubelet-stop) kubelet_stop ;;
kubelet-restart) kubelet_stop; kubelet_start ;;
image) image "$@" ;;
observe) observe "$@" ;;
logs) logs "$@" ;;
*) die "no such command: $command (node.sh --help)" ;;
esac
