#!/usr/bin/env python3
"""An admission webhook that refuses whatever it is asked: webhook.py PKI-DIRECTORY PORT WORDS"""
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

pki, port, words = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Gate(BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = {"uid": review["request"]["uid"], "allowed": False, "status": {"message": words}}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = HTTPServer(("127.0.0.1", port), Gate)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{pki}/apiserver.crt", f"{pki}/apiserver.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
