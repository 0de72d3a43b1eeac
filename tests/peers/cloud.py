"""A machine of a cloud, in a network namespace of the test's own: the metadata service of one of the three, a server of
Sentry's and one of DogStatsD's. Whatever comes is written to a file each, a line at a time.

usage: cloud.py CLOUD DIRECTORY
"""

import gzip
import http.server
import json
import pathlib
import socket
import sys
import threading
import zlib

CLOUD, DIRECTORY = sys.argv[1], pathlib.Path(sys.argv[2])

AZURE = {
    "compute": {"vmId": "7a1c0c80-azure", "vmSize": "Standard_D2", "location": "koreacentral"},
    "network": {"interface": [{"ipv4": {"ipAddress": [{"privateIpAddress": "10.1.2.3"}]}}]},
}
ANSWERS = {
    "amazon": {
        "/latest/meta-data/instance-id": "i-0amazon",
        "/latest/meta-data/local-ipv4": "10.1.2.3",
        "/latest/meta-data/instance-type": "t2.medium",
        "/latest/meta-data/placement/availability-zone": "ap-northeast-2a",
        "/latest/dynamic/instance-identity/document": json.dumps({"region": "ap-northeast-2"}),
    },
    "google": {
        "/computeMetadata/v1/instance/id": "4711",
        "/computeMetadata/v1/instance/network-interfaces/0/ip": "10.1.2.3",
        "/computeMetadata/v1/instance/machine-type": "projects/1/machineTypes/n1-standard-1",
        "/computeMetadata/v1/instance/zone": "projects/1/zones/asia-east1-b",
    },
    "azure": {"/metadata/instance?api-version=2017-03-01": json.dumps(AZURE)},
}


def tell(name, line):
    with open(DIRECTORY / name, "a", encoding="utf-8") as file:
        file.write(line.rstrip("\n") + "\n")


class Metadata(http.server.BaseHTTPRequestHandler):
    """Answers as strictly as the clouds do: without its mark a request gets nothing."""

    def allowed(self):
        if CLOUD == "amazon":
            return self.headers.get("X-aws-ec2-metadata-token") == "a-token"
        if CLOUD == "google":
            return self.headers.get("Metadata-Flavor") == "Google" and self.headers["Host"] == "metadata.google.internal"
        return self.headers.get("Metadata") == "true"

    def answer(self, status, text=""):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        is_token = CLOUD == "amazon" and self.path == "/latest/api/token"
        self.answer(200, "a-token") if is_token else self.answer(404)

    def do_GET(self):
        text = ANSWERS[CLOUD].get(self.path)
        if not self.allowed():
            self.answer(401)
        elif text is None:
            self.answer(404)
        else:
            self.answer(200, text)

    def log_message(self, *_):
        pass


class Sentry(Metadata):
    """Takes reports."""

    def do_POST(self):
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else self.chunks()
        encoding = self.headers.get("Content-Encoding", "")
        body = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body) if encoding == "deflate" else body
        tell("sentry", f"POST {self.path} {self.headers.get('X-Sentry-Auth', '')}")
        for line in body.decode().splitlines():
            tell("sentry", line)
        self.answer(200, "{}")

    def chunks(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


def statsd(server):
    while True:
        for line in server.recv(65536).decode().splitlines():
            tell("statsd", line)


datadog = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datadog.bind(("127.0.0.1", 8125))
threading.Thread(target=statsd, args=(datadog,), daemon=True).start()
servers = [
    http.server.ThreadingHTTPServer(("169.254.169.254", 80), Metadata),
    http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Sentry),
]
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
tell("ready", "ready")
threading.Event().wait()
