"""A stand-in for ComfyUI in tests of the backends: answers /system_stats, and misbehaves on demand."""

import argparse
import http.server
import json
import os
import signal
import subprocess
import sys
import time

# Before anything else opens a file: what was inherited.
INHERITED = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        INHERITED[fd] = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        pass  # the one that listed the directory

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--dirs", nargs="*", default=[])
parser.add_argument("--say", help="print this at the start")
parser.add_argument("--exit-at-once", type=int, metavar="CODE")
parser.add_argument("--never-listen", action="store_true")
parser.add_argument("--busy", action="store_true", help="answer 503")
parser.add_argument("--garbage", action="store_true", help="answer 200 with something else")
parser.add_argument("--key", help="refuse whoever does not send this as x-key")
parser.add_argument("--ignore-term", action="store_true")
parser.add_argument("--child", action="store_true", help="start a process in the same group that ignores SIGTERM")
parser.add_argument("--daemon", action="store_true", help="start a process in a session of its own")
options = parser.parse_args()

if options.say:
    print(options.say, file=sys.stderr)
if options.exit_at_once is not None:
    sys.exit(options.exit_at_once)
if options.ignore_term:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
descendants = []
for wanted, new_session in [(options.child, False), (options.daemon, True)]:
    if wanted:
        child = subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=new_session, stdout=subprocess.PIPE)
        child.stdout.readline()
        descendants.append(child.pid)
if options.never_listen:
    time.sleep(600)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/exit":
            print("asked to exit", flush=True)
            os._exit(7)
        refused = options.key and self.headers.get("x-key") != options.key
        self.send_response(503 if options.busy else 401 if refused else 200)
        self.end_headers()
        if options.garbage:
            self.wfile.write(b"<html>hello</html>")
            return
        if self.path == "/internal/logs":
            self.wfile.write(json.dumps("first line\nlast line \u56fe\n").encode())
            return
        self.wfile.write(
            json.dumps(
                {
                    "system": {"comfyui_version": "test"},
                    "pid": os.getpid(),
                    "group": os.getpgid(0),
                    "cwd": os.getcwd(),
                    "env": dict(os.environ),
                    "dirs": options.dirs,
                    "inherited": INHERITED,
                    "descendants": descendants,
                }
            ).encode()
        )

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


Server(("127.0.0.1", options.port), Handler).serve_forever()
