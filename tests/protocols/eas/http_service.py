"""A program as people put behind a queue: answers HTTP on the port it is told, one request at a time.

    python http_service.py PORT DIRECTORY

In the directory it leaves one line for each request in `seen`, and beside it its process id while it runs.
"""

import http.server
import json
import os
import pathlib
import sys
import time
import urllib.parse

port, directory = int(sys.argv[1]), pathlib.Path(sys.argv[2])
HEADERS = ["content-type", "accept", "authorization", "x-eas-queueservice-request-id"]


class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        url = urllib.parse.urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with open(directory / "seen", "a", encoding="utf-8") as seen:
            seen.write(self.path + "\n")
        name = url.path.split("/")[1]
        getattr(self, name or "root", self.echo)(url, body)

    def echo(self, url, body):
        told = {"path": url.path, "query": url.query, "body": body.decode("latin-1")}
        told["headers"] = {name: self.headers[name] for name in HEADERS}
        self.answer(200, json.dumps(told).encode(), "application/json")

    root = echo

    def bytes(self, url, body):
        self.answer(200, bytes(range(256)) * int(body), "image/png")

    def nothing(self, url, body):
        self.answer(200, b"")

    def status(self, url, body):
        self.answer(int(url.path.split("/")[2]), body)

    def moody(self, url, body):
        """The first time it is not well."""
        mark = directory / body.decode()
        if mark.exists():
            return self.answer(200, b"well again")
        mark.touch()
        self.answer(503, b"not well")

    def gate(self, url, body):
        """Waits until somebody opens it."""
        (directory / "at-gate").touch()
        while not (directory / body.decode()).exists():
            time.sleep(0.02)
        self.answer(200, b"through")

    def die(self, url, body):
        """The first time it dies at it."""
        mark = directory / body.decode()
        if mark.exists():
            return self.answer(200, b"alive")
        mark.touch()
        os.kill(os.getpid(), 9)

    def always_die(self, url, body):
        os.kill(os.getpid(), 9)

    def answer(self, status, body, content_type="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


with http.server.HTTPServer(("127.0.0.1", port), Service) as server:
    pid = directory / "pids" / str(os.getpid())
    pid.parent.mkdir(exist_ok=True)
    pid.touch()
    server.serve_forever()
