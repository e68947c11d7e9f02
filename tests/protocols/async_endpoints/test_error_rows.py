"""Every row of the references' tables of errors, as users of both SDKs and of curl see it, each by something that really goes
wrong."""

import contextlib
import itertools
import shutil
import subprocess
import threading

import ppio_gpus.client
import pytest
import requests
import runpod

from darkroom_server import Server
from worker_calls import KEYS, Wire, call, run, wait_for

# Statuses of the tables that callers never get here.
NEVER = {
    402: "nothing costs anything",
    408: "only for a body that takes longer than a minute to come: the SDKs send theirs at once, and a GET has none",
    409: "callers of these routes cannot name their jobs, so no two clash; workers are told so (test_worker_wire.py)",
}
TABLE = {400, 401, 402, 403, 404, 408, 409, 413, 429, 500, 503}
CONFIG = KEYS + """
[[keys]]
name = "elsewhere"
secret = "sk_elsewhere"
scopes = ["client"]
endpoints = ["full"]
[endpoints.alone]
kind = "worker"
[endpoints.vendor]
kind = "worker"
limits = { vendor_limits = true }
[endpoints.full]
kind = "worker"
limits = { max_queued = 1 }
"""
NAMES = itertools.count(1)
# Lies in a blob, as input and as output.
LARGE = "x" * 40_000


@pytest.fixture(scope="module")
def server():
    with Server(CONFIG) as running:
        call(running, "post", "/v2/full/run", json={"input": "the one that may wait"})
        run(running, "alone", LARGE)
        Wire(running, "alone", "first").done(Wire(running, "alone", "first").take()["id"], {"output": 1})
        yield running


class RunPod:
    def __init__(self, server, endpoint, key):
        runpod.endpoint_url_base = f"{server.url}/v2"
        self.endpoint = runpod.Endpoint(endpoint, api_key=key)

    def run(self, body):
        return self.endpoint.run(body)

    def status(self, job):
        return runpod.endpoint.Job(self.endpoint.endpoint_id, job, self.endpoint.rp_client).status()


class Ppio:
    def __init__(self, server, endpoint, key):
        self.endpoint = ppio_gpus.client.Endpoint(endpoint, api_key=key, endpoint_url_base=f"{server.url}/v1")
        self.client = ppio_gpus.client.HTTPClient(key, f"{server.url}/v1")

    def run(self, body):
        return self.endpoint.run(body)

    def status(self, job):
        return ppio_gpus.client.Job(self.endpoint.endpoint_id, job, self.client).status()


class Curl:
    """The program itself."""

    def __init__(self, server, endpoint, key):
        self.base, self.key = f"{server.url}/v2/{endpoint}", key

    def _curl(self, *arguments, given=None):
        command = ["curl", "-sS", "--max-time", "120", "-H", f"Authorization: {self.key}", "-w", "\\n%{http_code}", *arguments]
        ran = subprocess.run(command, input=given, capture_output=True, timeout=150, check=True)
        body, status = ran.stdout.rsplit(b"\n", 1)
        answer = requests.Response()
        answer._content, answer.status_code, answer.url = body, int(status), arguments[-1]
        if answer.status_code >= 400:
            told = answer.json()
            assert told["error"] and told["code"] and told["requestId"], told
        answer.raise_for_status()
        return answer.json()

    def run(self, body):
        return self._curl("-d", "@-", f"{self.base}/run", given=requests.models.complexjson.dumps(body).encode())["id"]

    def status(self, job):
        return self._curl(f"{self.base}/status/{job}")["status"]


@pytest.fixture(params=[RunPod, Ppio, Curl], ids=["runpod", "ppio", "curl"])
def client(request, server):
    if request.param is Curl and not shutil.which("curl"):
        pytest.skip("there is no curl here")
    return lambda endpoint, key="sk_test": request.param(server, endpoint, key)


@contextlib.contextmanager
def refused(status):
    """What is done in the block is answered so."""
    with pytest.raises((requests.HTTPError, RuntimeError)) as told:
        yield
    if isinstance(told.value, RuntimeError) and not isinstance(told.value, requests.HTTPError):
        # The SDKs have their own word for this one.
        assert status == 401 and "nauthorized" in str(told.value)
    else:
        assert told.value.response.status_code == status


def blobs_of_jobs(server):
    """The directory where inputs and results of jobs lie."""
    (found,) = [path for path in (server.home / "data").rglob("jobs") if path.is_dir()]
    return found


@contextlib.contextmanager
def instead_of(directory, place):
    """Puts something else where a directory was."""
    aside = directory.with_name("aside")
    directory.rename(aside)
    try:
        place(directory)
        yield lambda: directory.unlink() or aside.rename(directory)
    finally:
        if aside.exists():
            directory.unlink()
            aside.rename(directory)


def finished(server, output):
    """A job that has ended with this output."""
    name = f"w-{next(NAMES)}"
    job = run(server, "alone", 1)
    worker = Wire(server, "alone", name)
    assert worker.take()["id"] == job and worker.done(job, {"output": output}) == 200
    return job




@pytest.mark.row(400)
def test_400_of_a_policy_that_cannot_be(client):
    with refused(400):
        client("alone").run({"input": 1, "policy": {"ttl": 1}})


@pytest.mark.row(401)
def test_401_of_a_key_that_nobody_has(client):
    with refused(401):
        client("alone", "sk_nobody").run({"input": 1})
    with refused(401):
        client("alone", "sk_nobody").status("5")


@pytest.mark.row(403)
def test_403_of_a_key_for_something_else(client):
    for key in ("sk_elsewhere", "sk_worker"):
        with refused(403):
            client("alone", key).run({"input": 1})


@pytest.mark.row(404)
def test_404_of_what_is_not_there(client):
    with refused(404):
        client("nowhere").run({"input": 1})
    with refused(404):
        client("alone").status("0190163d-8694-739b-aea5-966c26f8ad91")


@pytest.mark.row(413)
def test_413_of_a_body_that_is_too_long(client):
    with refused(413):
        client("vendor").run({"input": "x" * 10_000_001})
    with refused(413):
        client("alone").run({"input": "x" * (33 << 20)})


@pytest.mark.row(429)
def test_429_of_a_queue_that_is_full(server, client):
    with refused(429):
        client("full").run({"input": 1})
    answer = requests.post(f"{server.url}/v2/full/run", headers={"Authorization": "sk_test"}, json={"input": 1}, timeout=60)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    # How full it is may still be asked: nothing answers a GET with 429, which the SDKs would ask again for half a minute.
    assert call(server, "get", "/v2/full/health")["jobs"]["inQueue"] == 1


@pytest.mark.row(500)
def test_500_of_a_result_that_is_broken_and_of_a_store_that_is(server, client):
    job = finished(server, LARGE)
    (result,) = blobs_of_jobs(server).glob(f"{job}/result-*.json")
    result.write_bytes(b"x" * result.stat().st_size)
    with refused(500):
        client("alone").status(job)
    with instead_of(blobs_of_jobs(server), lambda place: place.touch()), refused(500):
        client("alone").run({"input": LARGE})


@pytest.mark.row(503)
def test_503_of_a_store_that_is_away_for_a_while(server, client):
    job = finished(server, LARGE)
    jobs = blobs_of_jobs(server)
    with instead_of(jobs, lambda place: place.symlink_to(place.name)) as bring_back:
        with refused(503):
            client("alone").run({"input": LARGE})
        answer = requests.get(f"{server.url}/v1/alone/status/{job}", headers={"Authorization": "sk_test"}, timeout=60)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        if isinstance(client("alone"), Curl):
            with refused(503):
                client("alone").status(job)
            return
        # The SDKs ask again after what Retry-After says, and their users see nothing of it.
        failures = server.log().count("the blob store failed")
        told = []
        asking = threading.Thread(target=lambda: told.append(client("alone").status(job)))
        asking.start()
        wait_for("the first question", lambda: server.log().count("the blob store failed") > failures)
        bring_back()
        asking.join(120)
        assert told == ["COMPLETED"]


def test_every_row_is_shown_or_never_happens():
    here = {mark.args[0] for test in globals().values() for mark in getattr(test, "pytestmark", []) if mark.name == "row"}
    assert here | set(NEVER) == TABLE and not here & set(NEVER)
