#!/usr/bin/env python3
"""Make pods of the witness from charts, so that they run where neither their images nor their machines are.

charts.py DIRECTORY <OBJECTS.json >LIST.json

Read are the objects as `kubectl create --dry-run=client -o json` prints them. Kept is all that a pod sees; replaced are
images, commands, what probes and hooks execute, and host directories outside of /etc, /var, /run and the kernel's.
ConfigMaps, Secrets and accounts that are named are made. In DIRECTORY: `hosts`, where those on the host's network report;
`differences`, which mounts are captured; `pods`, one a line.
"""

import json
import os
import sys

REPORT, REPORT_HOST = 18090, 8300
KEPT = ("/etc", "/var", "/run", "/proc", "/sys", "/dev")

directory = sys.argv[1]
text, objects = sys.stdin.read(), []
while text.strip():
    found, end = json.JSONDecoder().raw_decode(text.lstrip())
    text = text.lstrip()[end:]
    objects += found["items"] if found["kind"] == "List" else [found]

# what this machine lacks it cannot give (CAP_SYS_RESOURCE is number 24)
with open("/proc/self/status", encoding="ascii") as status:
    bounding = next(int(line.split()[1], 16) for line in status if line.startswith("CapBnd:"))
has_sys_resource = bounding >> 24 & 1

needed = {}          # (kind, namespace, name): keys
hosts, differences, pods = [], [], []
host_ports = set()   # on the host's network each can be served once


def need(kind, namespace, name, *keys):
    needed.setdefault((kind, namespace, name), set()).update(keys)


def references(namespace, spec, containers):
    for volume in spec.get("volumes", []):
        sources = [volume] + volume.get("projected", {}).get("sources", [])
        for source in sources:
            for kind, field, name in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")):
                wanted = source.get(field)
                if not wanted or wanted.get("optional"):
                    continue
                keys = [item["key"] for item in wanted.get("items", [])]
                mounts = [m for c in containers for m in c.get("volumeMounts", []) if m["name"] == volume["name"]]
                keys = keys or [m["subPath"] for m in mounts if "subPath" in m] or ["config"]
                need(kind, namespace, wanted.get(name) or wanted["name"], *keys)
    for container in containers:
        for entry in container.get("env", []):
            for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                wanted = entry.get("valueFrom", {}).get(field)
                if wanted and not wanted.get("optional"):
                    need(kind, namespace, wanted["name"], wanted["key"])
        for entry in container.get("envFrom", []):
            for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if field in entry and not entry[field].get("optional"):
                    need(kind, namespace, entry[field]["name"], "VARIABLE")
    if "serviceAccountName" in spec:
        need("ServiceAccount", namespace, spec["serviceAccountName"])
    if not spec.get("priorityClassName", "system-").startswith("system-"):
        need("PriorityClass", None, spec["priorityClassName"])


def ports_of(container):
    ports = [p["containerPort"] for p in container.get("ports", []) if p.get("protocol", "TCP") == "TCP"]
    actions = [container.get(k, {}) for k in ("startupProbe", "readinessProbe", "livenessProbe")]
    actions += [container.get("lifecycle", {}).get(k, {}) for k in ("postStart", "preStop")]
    for action in actions:
        for kind in ("httpGet", "tcpSocket", "grpc"):
            if isinstance(action.get(kind, {}).get("port"), int):
                ports.append(action[kind]["port"])
    return ports


def replace_actions(container, report):
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(kind)
        if not probe:
            continue
        probe.pop("initialDelaySeconds", None)
        if "exec" in probe:
            probe["exec"]["command"] = ["/witness", "get", f"http://127.0.0.1:{report}/"]
        if "grpc" in probe:
            probe["tcpSocket"] = {"port": probe.pop("grpc")["port"]}
        if "httpGet" in probe:
            probe["httpGet"]["scheme"] = "HTTP"
            if probe["httpGet"].get("host", "").startswith("169.254."):
                del probe["httpGet"]["host"]
    for kind in ("postStart", "preStop"):
        hook = container.get("lifecycle", {}).get(kind, {})
        if "exec" in hook:
            hook["exec"]["command"] = ["/witness", "write", f"/witnessed/{container['name']}.{kind}", "was here"]


def convert(chart, namespace, spec):
    inits = spec.get("initContainers", [])
    containers = inits + spec["containers"]
    references(namespace, spec, containers)
    captured, on_host = set(), set()
    for volume in spec.setdefault("volumes", []):
        if {"configMap", "secret", "projected", "downwardAPI"} & set(volume):
            captured.add(volume["name"])
        if "hostPath" in volume:
            on_host.add(volume["name"])
            path = volume["hostPath"]["path"]
            if path != "/" and not path.startswith(KEPT):
                volume["hostPath"] = {"path": "/var/lib/charts" + path, "type": "DirectoryOrCreate"}
    spec["volumes"].append({"name": "witnessed", "emptyDir": {}})
    shared = spec.get("hostNetwork", False)
    served, left = host_ports if shared else set(), []
    for index, container in enumerate(containers):
        name = f"chart-{chart}_{container['name']}"
        report = REPORT_HOST + len(hosts) if shared else REPORT + index
        mounts = container.setdefault("volumeMounts", [])
        outside = [m["mountPath"].rstrip("/") for m in mounts if m["name"] in on_host]
        def is_outside(path):
            return any(path == o or path.startswith(o + "/") for o in outside)
        paths = [m["mountPath"].rstrip("/") for m in mounts if m["name"] in captured]
        if spec.get("automountServiceAccountToken", True):
            paths.append("/var/run/secrets/kubernetes.io/serviceaccount")
        for path in paths:
            if not is_outside(path):
                differences.append(f"{name} Mounts {path.replace('.', '[.]')} backing  # captured")
        mounts.append({"name": "witnessed", "mountPath": "/witnessed"})
        own = container.pop("command", []) + container.pop("args", [])
        container["image"], container["imagePullPolicy"] = "localhost/witness:1", "IfNotPresent"
        added = container.get("securityContext", {}).get("capabilities", {}).get("add", [])
        if "SYS_RESOURCE" in added and not has_sys_resource:
            added.remove("SYS_RESOURCE")
        for kind, amount in container.get("resources", {}).get("requests", {}).items():
            if kind == "cpu":  # so that all fit on a node together
                container["resources"]["requests"]["cpu"] = f"{max(1, int(amount.rstrip('m')) // 20)}m"
        # a report holds what is new by nature, so that others do not look at it
        see = ["--name", name, "--skip", ",".join([*outside, "/witnessed"])]
        if container in inits and container.get("restartPolicy") != "Always":
            into = f"/witnessed/{container['name']}.json"
            container["args"] = ["report", "--into", into, *see, "--", *own]
            left.append(into)
            continue
        listen = [report, *dict.fromkeys(p for p in ports_of(container) if p not in served)]
        served.update(listen)
        if shared:
            hosts.append(f"10.1.0.2:{report}")
        replace_actions(container, report)
        if container is spec["containers"][0]:
            see += ["--also", ",".join(left)]
        container["args"] = ["serve", "--listen", ",".join(f":{p}" for p in listen), *see, "--", *own]


made = []
for o in objects:
    namespace, chart = o["metadata"]["namespace"], o["metadata"]["name"]
    need("Namespace", None, namespace)
    o.pop("status", None)
    spec = o["spec"]["template"]["spec"] if "template" in o["spec"] else o["spec"]
    if "replicas" in o["spec"]:
        o["spec"]["replicas"] = 1
    convert(chart, namespace, spec)
    pods.append(f"{namespace}/{chart}")
    made.append(o)

before = []
for (kind, namespace, name), keys in sorted(needed.items(), key=lambda n: (n[0][0] != "Namespace", n[0][0], n[0][2])):
    thing = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
    if namespace:
        thing["metadata"]["namespace"] = namespace
    if kind == "PriorityClass":
        thing.update(apiVersion="scheduling.k8s.io/v1", value=1000)
    if kind in ("ConfigMap", "Secret"):
        data = {key: f"{key} of {name}: $(HOME) $$ 012\n" for key in keys}
        thing["data" if kind == "ConfigMap" else "stringData"] = data
    before.append(thing)

for name, lines in (("hosts", [",".join(hosts)]), ("differences", differences), ("pods", pods)):
    with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
json.dump({"apiVersion": "v1", "kind": "List", "items": before + made}, sys.stdout)
