#!/usr/bin/env python3
"""Requests of the fleet's agents, from the API server's audit log: requests.py LOG SINCE UNTIL, in milliseconds.

Prints when it was received, the agent's node, the verb, the resource, the code and how long it took of each, in order. The
pages of a list after its first have the verb "page". A watch is told when it begins, and takes "on" while it goes on. Probes
without a credential are of the node "supervisor".
"""
import datetime
import json
import sys

log, since, until = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
seen = {}


def milliseconds(time):
    return datetime.datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() * 1000


with open(log) as lines:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # the API server was killed in the middle of it
            continue
        node = event["user"].get("extra", {}).get("authentication.kubernetes.io/node-name", ["-"])[0]
        at = milliseconds(event["requestReceivedTimestamp"])
        if event["user"].get("username") == "system:anonymous" and event["requestURI"].startswith("/livez"):
            node = "supervisor"
        elif not node.startswith("fleet-"):
            continue
        if not since <= at < until:
            continue
        asked = event.get("objectRef", {})
        resource = "/".join(filter(None, (asked.get("resource", event["requestURI"]), asked.get("subresource"))))
        verb = "page" if event["verb"] == "list" and "continue=" in event["requestURI"] else event["verb"]
        # one line a request, although it may have several stages
        took = int(milliseconds(event["stageTimestamp"]) - at) if event["stage"] == "ResponseComplete" else "on"
        seen[event["auditID"]] = (at, node, verb, resource, event.get("responseStatus", {}).get("code", 0), took)
for at, *rest in sorted(seen.values(), key=lambda request: request[0]):
    print(int(at), *rest)
