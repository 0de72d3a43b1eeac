"""A kernel's runner that knows what those of 18.12 know beyond the older ones: the clean step of a batch, and services. It
stands for theirs because no release of them was ever published; each message is as PROTOCOL section 8 has it.
"""
import http.server
import json
import subprocess
import threading

import zmq

context = zmq.Context()
commands, records = context.socket(zmq.PULL), context.socket(zmq.PUSH)
commands.bind("tcp://*:2000")
records.bind("tcp://*:2001")
running = set()


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page")


def step(name, shell):
    done = subprocess.run(["/bin/sh", "-c", shell], stdout=subprocess.PIPE)
    if done.stdout:
        records.send_multipart([b"stdout", done.stdout])
    records.send_multipart([name, json.dumps({"exitCode": done.returncode}).encode()])


def start(service):
    if service["name"] == "broken":
        return {"status": "failed", "error": "it has no program"}
    if service["name"] in running:
        return {"status": "running"}
    server = http.server.HTTPServer(("0.0.0.0", service["port"]), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    running.add(service["name"])
    return {"status": "started"}


while True:
    kind, text = commands.recv_multipart()
    if kind == b"clean":
        step(b"clean-finished", text)
    elif kind == b"build":
        step(b"build-finished", text or b"true")
    elif kind == b"exec":
        step(b"finished", text or b"true")
    elif kind == b"start-service":
        records.send_multipart([b"service-result", json.dumps(start(json.loads(text))).encode()])
