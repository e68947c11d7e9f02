"""What a signed call of a published workflow costs beyond the same graph posted to ComfyUI's own /prompt.

    python3 benches/signed_calls.py target/release/darkroom [ROUNDS]

One caller, nothing runs, the three kinds of requests in turns over one connection each: `/prompt`, our own typed call answered
202, and `/scc/comfy_prompt` as SpeedPix's SDK signs it (signed before the clock runs). The target is 0.5 ms beyond `/prompt`.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import uuid

from serving import darkroom

CALLS = 500
KEY = "sk_bench"
CONFIG = f"""
[[keys]]
name = "bench"
secret = "{KEY}"
scopes = ["admin"]
[endpoints.default.scaling]
max_instances = 0
[endpoints.default.limits]
max_queued = 1000000
"""
JSON = "application/json"
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


def signed(app, path, body):
    """Headers as `protocols/speedpix.md` §2 has them."""
    now = time.time()
    headers = {
        "Accept": JSON,
        "content-md5": base64.b64encode(hashlib.md5(body).digest()).decode(),
        "Content-Type": JSON,
        "date": time.strftime("%a, %d %b %Y %H:%M:%S GMT+00:00", time.gmtime(now)),
        "x-ca-key": app["app_key"],
        "x-ca-nonce": str(uuid.uuid4()),
        "x-ca-signature-method": "HmacSHA256",
        "x-ca-timestamp": str(int(now * 1000)),
    }
    names = ["x-ca-key", "x-ca-nonce", "x-ca-signature-method", "x-ca-timestamp"]
    lines = ["POST", JSON, headers["content-md5"], JSON, headers["date"], *(f"{name}:{headers[name]}" for name in names), path]
    digest = hmac.new(app["app_secret"].encode(), "\n".join(lines).encode(), hashlib.sha256).digest()
    return {**headers, "x-ca-signature-headers": ",".join(names), "x-ca-signature": base64.b64encode(digest).decode()}


def measure(binary):
    with tempfile.TemporaryDirectory(dir=".") as name, darkroom(binary, pathlib.Path(name), CONFIG) as port:
        ours = {"Authorization": f"Bearer {KEY}", "Content-Type": JSON}
        made = subprocess.run(
            [binary, "keys", "create", "--app", "--name", "app", "--server", f"http://127.0.0.1:{port}", "--key", KEY, "--json"],
            capture_output=True, text=True, check=True,
        )
        app = json.loads(made.stdout.splitlines()[-1])
        connections = {}

        def post(kind, path, body, headers, expected):
            if kind not in connections:
                connections[kind] = http.client.HTTPConnection("127.0.0.1", port)
                connections[kind].connect()
                connections[kind].sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began = time.perf_counter()
            connections[kind].request("POST", path, body, headers)
            answer = connections[kind].getresponse()
            told = answer.read()
            spent = time.perf_counter() - began
            assert answer.status == expected, (answer.status, told)
            return spent

        published = {
            "workflow_id": "small", "graph": GRAPH,
            "inputs": [{"name": "colour", "node": "1", "field": "color"}], "outputs": [{"name": "images", "node": "2"}],
        }
        post("publish", "/darkroom/v1/workflows", json.dumps(published).encode(), ours, 201)
        prompt = json.dumps({"prompt": GRAPH}).encode()
        typed = json.dumps({"inputs": {"colour": 7}}).encode()
        scc = json.dumps({"workflow_id": "small", "version_id": None, "alias_id": "main", "inputs": {"colour": 7}}).encode()
        ready = [signed(app, "/scc/comfy_prompt", scc) for _ in range(CALLS)]
        took = {"/prompt": [], "typed": [], "signed": []}
        for headers in ready:
            took["/prompt"].append(post("native", "/prompt", prompt, ours, 200))
            took["typed"].append(post("typed", "/darkroom/v1/workflows/small/run?mode=async", typed, ours, 202))
            took["signed"].append(post("signed", "/scc/comfy_prompt", scc, headers, 200))
    p50 = {kind: 1000 * sorted(spent)[CALLS // 2] for kind, spent in took.items()}
    beyond = ", ".join(f"{kind} +{p50[kind] - p50['/prompt']:.2f} ms" for kind in ("typed", "signed"))
    print(f"p50 of /prompt {p50['/prompt']:.2f} ms; beyond it: {beyond} (target 0.5)", flush=True)


if __name__ == "__main__":
    for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 3):
        measure(os.path.abspath(sys.argv[1]))
