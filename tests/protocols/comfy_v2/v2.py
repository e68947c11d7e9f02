"""A server with keys and two endpoints, and the protocol as a program without an SDK uses it."""

import base64
import io
import json
import time

import httpx
from PIL import Image

from darkroom_server import binary

KEY = "sk_v2"
LIMIT_S = 180
TERMINAL = {"succeeded", "canceled", "failed", "expired"}


def engine():
    """The command of an engine with the nodes for testing."""
    command = [
        str(binary()), "engine", "--listen", "127.0.0.1:{port}", "--input-directory", "{input_dir}",
        "--output-directory", "{output_dir}", "--temp-directory", "{temp_dir}", "--user-directory", "{user_dir}",
        "--test-nodes",
    ]
    return f"command = {json.dumps(command)}"


# `default` is the embedded engine, whose classes are known before an instance ran; `tests` can sleep and fail.
CONFIG = f"""
[[keys]]
name = "app"
secret = "{KEY}"
scopes = ["client"]
[[keys]]
name = "other"
secret = "sk_other"
scopes = ["client"]
tenant = "other"
[[keys]]
name = "narrow"
secret = "sk_narrow"
scopes = ["client"]
endpoints = ["default"]
[[keys]]
name = "worker"
secret = "sk_worker"
scopes = ["worker"]
[endpoints.default]
[endpoints.tests]
{engine()}
[endpoints.functions]
kind = "worker"
backend = "external"
"""


def plain(colour=0x336699, prefix="plain", side=16):
    """A picture of one colour, saved."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": side, "height": side, "batch_size": 1, "color": colour}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def through(class_type, seed, **inputs):
    """A picture that passes through a node for testing; `seed` makes it unlike every other run."""
    graph = plain()
    graph["5"] = {"class_type": class_type, "inputs": {"image": ["1", 0], "seed": seed, **inputs}}
    graph["9"]["inputs"]["images"] = ["5", 0]
    return graph


def sleep(seconds, seed, steps=10):
    """Runs that long, with progress."""
    return through("TestSleep", seed, seconds=seconds, steps=steps)


class Api:
    """Plain calls below one base address."""

    def __init__(self, base, key=KEY):
        self.base = base
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(headers=headers, timeout=60, trust_env=False)

    def __call__(self, method, path, **options):
        url = path if path.startswith("http") else f"{self.base}/api/v2{path}"
        return self.http.request(method, url, **options)

    def submit(self, workflow, **more):
        headers = more.pop("headers", {})
        return self("POST", "/jobs", json={"workflow": workflow, **more}, headers=headers)

    def accepted(self, workflow, **more):
        answer = self.submit(workflow, **more)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def job(self, job_id):
        answer = self("GET", f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait(self, job_id, *statuses):
        """Polls until the job has one of these statuses, of which the terminal ones are the usual."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            job = self.job(job_id)
            if job["status"] in (statuses or TERMINAL):
                return job
            assert time.monotonic() < deadline, job
            assert job["status"] not in TERMINAL, job
            time.sleep(0.02)

    def refused(self, status, code, answer):
        """The envelope of an error."""
        assert answer.status_code == status, f"{answer.status_code} {answer.text}"
        error = answer.json()["error"]
        assert set(error) == {"code", "message", "details"} and error["code"] == code, error
        assert error["message"] and isinstance(error["details"], (dict, type(None)))
        if status == 429:
            assert int(answer.headers["retry-after"]) >= 1
        return error

    def events(self, job_id):
        """Every event of a job's stream until the server closes it, as (name, data)."""
        with self.http.stream("GET", f"{self.base}/api/v2/jobs/{job_id}/events", timeout=LIMIT_S) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"] == "text/event-stream"
            yield from parsed(answer.iter_lines())


def parsed(lines):
    """Server-sent events; comments as (None, text)."""
    name, data = None, []
    for line in lines:
        if line.startswith(":"):
            yield None, line[1:].strip()
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].strip())
        elif not line and data:
            assert len(data) == 1, "one line of data an event"
            yield name, json.loads(data[0])
            name, data = None, []


def png(colour=(0x33, 0x66, 0x99), size=(16, 16)):
    """A picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def picture(data):
    """Size and colours of a picture."""
    shown = Image.open(io.BytesIO(data)).convert("RGB")
    return shown.size, [colour for _, colour in shown.getcolors()]


def unbase64(text):
    return base64.b64decode(text, validate=True)
