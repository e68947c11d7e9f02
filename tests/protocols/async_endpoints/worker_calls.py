"""What the tests of workers share: calls of clients with one key, and a worker that speaks by hand."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import requests

HANDLER = pathlib.Path(__file__).with_name("handler.py")
SDKS = ["runpod", "ppio"]
LIMIT_S = 180
KEYS = """
[[keys]]
name = "app"
secret = "sk_test"
scopes = ["client"]
[[keys]]
name = "operator"
secret = "sk_admin"
scopes = ["admin"]
[[keys]]
name = "gpu-box"
secret = "sk_worker"
scopes = ["worker"]
endpoints = ["alone"]
"""


def call(server, method, path, key="sk_test", **more):
    """The JSON of an answer that has to be a 200."""
    answer = requests.request(method, server.url + path, headers={"Authorization": f"Bearer {key}"}, timeout=120, **more)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


def run(server, endpoint, given, **options):
    return call(server, "post", f"/v2/{endpoint}/run", json={"input": given, **options})["id"]


def status(server, endpoint, job):
    return call(server, "get", f"/v2/{endpoint}/status/{job}")


def attempts(server, job):
    """How a job's attempts ended, oldest first."""
    return [one["state"] for one in call(server, "get", f"/darkroom/v1/jobs/{job}", key="sk_admin")["attempts"]]


def wait_for(what, condition):
    deadline = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} in {LIMIT_S} s"
        time.sleep(0.05)
    return found


def ended(server, endpoint, job):
    """The status of a job that has ended."""

    def look():
        now = status(server, endpoint, job)
        return now if now["status"] not in ("IN_QUEUE", "IN_PROGRESS") else None

    return wait_for(f"job {job} of {endpoint} ends", look)


def pids_of(ran, job):
    """The processes that ran a job, in order."""
    lines = ran.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith(job)]


def runs_the_handler(pid):
    """Whether that process is a worker of ours, and lives."""
    try:
        return str(HANDLER).encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def environment(server, endpoint, name, key="sk_worker", ping_ms=10_000):
    """What a worker is told that somebody starts by hand, for both SDKs."""
    told = {"RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true"}
    for family, version, bearer in [("RUNPOD", "v2", ""), ("PPIO", "v1", "Bearer ")]:
        base, pod = f"{server.url}/{version}/{endpoint}", f"${family}_POD_ID"
        told |= {
            f"{family}_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?ping={ping_ms}",
            f"{family}_WEBHOOK_POST_OUTPUT": f"{base}/job-done/{pod}/$ID?gpu=RTX",
            f"{family}_WEBHOOK_POST_STREAM": f"{base}/job-stream/{pod}/$ID?gpu=RTX",
            f"{family}_WEBHOOK_PING": f"{base}/ping/{pod}",
            f"{family}_AI_API_KEY": f"{bearer}{key}",
            f"{family}_POD_ID": name,
            f"{family}_PING_INTERVAL": str(ping_ms),
        }
    return told


class OwnWorker:
    """A worker of an SDK in a process that the test started; leaving the block ends it and what it started."""

    def __init__(self, server, sdk, mode, name, ran, directory, ping_ms=10_000):
        self._start(sdk, mode, directory, ran, [], environment(server, "alone", name, ping_ms=ping_ms))

    @classmethod
    def pasted(cls, exports, sdk, mode, ran, directory):
        """One that was started in a shell, behind these lines."""
        worker = cls.__new__(cls)
        worker._start(sdk, mode, directory, ran, ["sh", "-c", exports + '\nexec "$@"', "sh"], {})
        return worker

    def _start(self, sdk, mode, directory, ran, shell, told):
        self.process = subprocess.Popen(
            [*shell, sys.executable, str(HANDLER), sdk, mode], cwd=directory, stdin=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, **told, "RAN": str(ran)},
        )
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Its heartbeat is a process of its own, and outlives it.
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class Wire:
    """A worker that speaks by hand, request by request."""

    def __init__(self, server, endpoint, name, key="sk_worker"):
        self.base = f"{server.url}/v2/{endpoint}"
        self.name = name
        self.session = requests.Session()
        self.session.headers["Authorization"] = key

    def get(self, route, query=""):
        return self.session.get(f"{self.base}/{route}/{self.name}{query}", timeout=120)

    def take(self):
        """The next job, as an object; there has to be one."""
        answer = self.get("job-take", "?gpu=RTX&job_in_progress=0")
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return answer.json()

    def post(self, route, job, body):
        body = body if isinstance(body, (bytes, str)) else json.dumps(body)
        data = body.encode() if isinstance(body, str) else body
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.session.post(f"{self.base}/{route}/{self.name}/{job}?gpu=RTX&isStream=false", data=data, headers=headers, timeout=120)

    def done(self, job, body):
        return self.post("job-done", job, body).status_code
