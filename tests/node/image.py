#!/usr/bin/env python3
"""Write an OCI image archive of nothing but the given files, without a container engine.

image.py NAME ARCHIVE 'ENTRYPOINT ARG…' FILE=SOURCE…
"""

import hashlib
import io
import json
import sys
import tarfile


def add(tar, path, data, mode):
    info = tarfile.TarInfo(path)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob(kind, data):
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(data), "size": len(data)}


if len(sys.argv) < 5:
    sys.exit(__doc__)
name, archive, entrypoint, *files = sys.argv[1:]

layer_file = io.BytesIO()
with tarfile.open(fileobj=layer_file, mode="w") as tar:
    for entry in files:
        path, source = entry.split("=", 1)
        with open(source, "rb") as file:
            add(tar, path.lstrip("/"), file.read(), 0o755)
layer = layer_file.getvalue()
config = json.dumps({
    "architecture": "amd64", "os": "linux",
    "config": {"Entrypoint": entrypoint.split(), "Env": ["PATH=/"]},
    "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
}).encode()
manifest = json.dumps({
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": blob("config.v1+json", config), "layers": [blob("layer.v1.tar", layer)],
}).encode()
index = json.dumps({
    "schemaVersion": 2,
    "manifests": [blob("manifest.v1+json", manifest) | {"annotations": {
        "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}}],
}).encode()
with tarfile.open(archive, "w") as tar:
    add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644)
    add(tar, "index.json", index, 0o644)
    for data in (layer, config, manifest):
        add(tar, "blobs/sha256/" + digest(data)[7:], data, 0o644)
