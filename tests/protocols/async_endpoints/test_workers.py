"""Both vendors' worker SDKs, unmodified: workers that the server starts, and one that comes by itself."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import pytest
import requests
import runpod

from darkroom_server import Server, binary
from worker_calls import (
    HANDLER, KEYS, LIMIT_S, SDKS, OwnWorker, attempts, call, ended, pids_of, run, status, wait_for,
)

MODES = ["sync", "async", "generator", "aggregate", "concurrent", "refresh"]
# Jobs without a result are missed by two pings; frequent ones accuse a worker that is merely slow, so only there.
PINGS_MS = {"sync": 1000}


def config(ran):
    """An endpoint per SDK and kind of handler, and one whose workers come by themselves."""
    text = KEYS + """
[endpoints.alone]
kind = "worker"
"""
    for sdk in SDKS:
        for mode in MODES:
            ping = PINGS_MS.get(mode, 10_000)
            text += f"""
[endpoints.{sdk}-{mode}]
kind = "worker"
python = {json.dumps(sys.executable)}
handler = {json.dumps(str(HANDLER))}
args = ["{sdk}", "{mode}"]
env = {{ RAN = {json.dumps(str(ran))}, RUNPOD_PING_INTERVAL = "{ping}", PPIO_PING_INTERVAL = "{ping}" }}
scaling = {{ idle_timeout = "20s" }}
limits = {{ cancel_grace = "{"1s" if mode == "concurrent" else "10s"}" }}
"""
    return text


@pytest.fixture(scope="module")
def ran():
    """Where handlers note what they ran: a line `job pid` each."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "ran"
        path.touch()
        yield path


@pytest.fixture(scope="module")
def server(ran):
    with Server(config(ran)) as running:
        runpod.api_key = "sk_test"
        runpod.endpoint_url_base = f"{running.url}/v2"
        yield running


@pytest.fixture(params=SDKS)
def sdk(request):
    return request.param


# Input kind -> status, output, error.
RESULTS = {
    "dict": ("COMPLETED", {"echo": {"kind": "dict"}, "zh": "你好"}, None),
    "str": ("COMPLETED", "plain", None),
    "list": ("COMPLETED", [1, 2, {"error": "inside"}], None),
    "none": ("COMPLETED", None, None),
    "true": ("COMPLETED", True, None),
    "empty": ("COMPLETED", None, None),
    "error": ("FAILED", None, "invalid input"),
    "error_plus": ("FAILED", {"images": ["a"]}, "partial"),
    "error_obj": ("FAILED", None, {"code": 7}),
    "error_falsy": ("COMPLETED", None, None),
    "status_key": ("COMPLETED", {"status": "IN_PROGRESS", "x": 1}, None),
    "nan": ("COMPLETED", {"v": None}, None),
}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_every_result_of_a_handler_is_told(server, sdk, mode):
    endpoint = f"{sdk}-{mode}"
    jobs = {kind: run(server, endpoint, {"kind": kind}) for kind in RESULTS}
    raised = run(server, endpoint, {"kind": "raise"})
    for kind, expected in RESULTS.items():
        told = ended(server, endpoint, jobs[kind])
        assert (told["status"], told.get("output"), told.get("error")) == expected, kind
    told = ended(server, endpoint, raised)
    report = json.loads(told["error"])
    assert (told["status"], report["error_message"]) == ("FAILED", "boom 你好")
    assert report["worker_id"] == told["workerId"] and told["executionTime"] >= 0


def test_a_large_result_is_told_as_an_address(server, sdk):
    endpoint = f"{sdk}-sync"
    told = ended(server, endpoint, run(server, endpoint, {"kind": "huge", "size": 21_000_000}))
    assert told["status"] == "COMPLETED" and told["output"]["size"] > 21_000_000
    assert requests.get(told["output"]["url"], timeout=60).json() == {"data": "x" * 21_000_000}


def test_generators_stream_each_chunk_once(server, sdk):
    endpoint = f"{sdk}-generator"
    job = runpod.Endpoint(endpoint).run({"more": 30})
    assert list(job.stream()) == ["a", {"n": 1}, *range(30), [1, 2]]
    assert job.output() == []
    for kind, message in [("raise", "gen boom"), ("error", "gen err")]:
        job = runpod.Endpoint(endpoint).run({"kind": kind})
        assert list(job.stream()) == ["a", {"n": 1}]
        assert message in status(server, endpoint, job.job_id)["error"]
    endpoint = f"{sdk}-aggregate"
    assert runpod.Endpoint(endpoint).run_sync({"p": 1}, timeout=LIMIT_S) == [{"i": 0}, {"i": 1}]


def test_intermediate_output_is_shown_while_the_handler_runs(server, sdk, tmp_path):
    endpoint, until = f"{sdk}-sync", tmp_path / "go on"
    job = run(server, endpoint, {"kind": "progress", "until": str(until)})
    shown = wait_for("progress", lambda: status(server, endpoint, job).get("output"))
    assert shown == {"pct": 10}
    until.touch()
    assert ended(server, endpoint, job)["output"] == {"done": True}


def test_a_worker_has_an_empty_directory_of_its_own(server, sdk):
    where = ended(server, f"{sdk}-sync", run(server, f"{sdk}-sync", {"kind": "where"}))["output"]
    assert [name for name in where["files"] if not name.startswith(".")] == []
    assert where["cwd"] != os.getcwd()


@pytest.mark.parametrize("kind", ["die", "exit", "unserialisable"])
def test_a_job_without_a_result_is_tried_again_and_fails_with_a_reason(server, sdk, ran, kind):
    endpoint = f"{sdk}-sync"
    job = run(server, endpoint, {"kind": kind})
    told = ended(server, endpoint, job)
    assert (told["status"], told["retries"], bool(told["error"])) == ("FAILED", 1, True)
    assert len(pids_of(ran, job)) == 2
    after = run(server, endpoint, {"kind": "str"})
    assert ended(server, endpoint, after)["output"] == "plain"


def test_a_job_of_a_killed_worker_completes_once_elsewhere(server, sdk, ran, tmp_path):
    endpoint, until = f"{sdk}-sync", tmp_path / "go on"
    job = run(server, endpoint, {"kind": "progress", "until": str(until)})
    (pid,) = wait_for("the job runs", lambda: pids_of(ran, job))
    os.kill(pid, signal.SIGKILL)
    wait_for("the job runs again", lambda: len(pids_of(ran, job)) == 2)
    until.touch()
    told = ended(server, endpoint, job)
    assert (told["status"], told["retries"], told["output"]) == ("COMPLETED", 1, {"done": True})


def test_a_cancelled_job_ends_at_once_and_its_worker_goes_on(server, ran):
    endpoint = "runpod-async"
    job = run(server, endpoint, {"kind": "sleep", "seconds": 3600})
    wait_for("the job runs", lambda: pids_of(ran, job))
    assert call(server, "post", f"/v2/{endpoint}/cancel/{job}")["status"] == "CANCELLED"
    after = run(server, endpoint, {"kind": "str"})
    assert ended(server, endpoint, after)["output"] == "plain"
    assert status(server, endpoint, job)["status"] == "CANCELLED"
    assert pids_of(ran, after) == pids_of(ran, job), "told to stop, it needed no replacement"


def test_a_job_that_runs_too_long_times_out(server, ran):
    endpoint = "runpod-async"
    job = run(server, endpoint, {"kind": "sleep", "seconds": 3600}, policy={"executionTimeout": 5000})
    told = ended(server, endpoint, job)
    assert told["status"] == "TIMED_OUT" and told["executionTime"] >= 5000


def test_one_worker_runs_as_many_jobs_as_it_asks_for(server, sdk, tmp_path):
    endpoint = f"{sdk}-concurrent"
    # The SDKs grow their concurrency between polls: a first job lets them.
    ended(server, endpoint, run(server, endpoint, {"kind": "str"}))
    # PPIO's begins together what one poll took, which asked for two while the first job ran; what comes later waits until one
    # has ended.
    others = {"runpod": 3, "ppio": 2}[sdk]
    call(server, "post", f"/darkroom/v1/endpoints/{endpoint}/pause", key="sk_admin")
    jobs = [run(server, endpoint, {"kind": "meet", "at": str(tmp_path), "name": n, "others": others}) for n in "abc"]
    call(server, "post", f"/darkroom/v1/endpoints/{endpoint}/resume", key="sk_admin")
    assert all(ended(server, endpoint, job)["output"]["met"] >= others for job in jobs)


def test_a_worker_that_goes_on_with_a_cancelled_job_takes_no_other_job_with_it(server, ran, tmp_path):
    endpoint, until = "ppio-concurrent", tmp_path / "go on"
    # PPIO's SDK cannot be told to stop a job. Both begin together, as above.
    ended(server, endpoint, run(server, endpoint, {"kind": "str"}))
    call(server, "post", f"/darkroom/v1/endpoints/{endpoint}/pause", key="sk_admin")
    meet = {"kind": "meet", "at": str(tmp_path), "others": 2}
    stuck = run(server, endpoint, {**meet, "name": "a", "until": str(tmp_path / "never")})
    other = run(server, endpoint, {**meet, "name": "b", "until": str(until)})
    call(server, "post", f"/darkroom/v1/endpoints/{endpoint}/resume", key="sk_admin")
    wait_for("both run", lambda: {"a", "b"} <= set(os.listdir(tmp_path)))
    assert call(server, "post", f"/v2/{endpoint}/cancel/{stuck}")["status"] == "CANCELLED"

    def draining():
        instances = call(server, "get", "/darkroom/v1/instances", key="sk_admin")["instances"]
        return [one for one in instances if one["endpoint"] == endpoint and one["state"] == "draining"]

    wait_for("the worker gets no more", draining)
    until.touch()
    assert ended(server, endpoint, other)["output"]["met"] >= 2
    assert attempts(server, other) == ["done"]
    wait_for("the worker is ended", lambda: not draining())
    assert ended(server, endpoint, run(server, endpoint, {"kind": "str"}))["output"] == "plain"


def test_a_worker_that_refreshes_is_replaced(server, sdk, ran):
    endpoint = f"{sdk}-refresh"
    jobs = [run(server, endpoint, {"kind": "str"}) for _ in range(2)]
    assert [ended(server, endpoint, job)["output"] for job in jobs] == ["plain"] * 2
    assert pids_of(ran, jobs[0]) != pids_of(ran, jobs[1])


def test_a_worker_that_comes_by_itself_is_served(server, sdk, ran, tmp_path):
    name = f"box-{sdk}"
    command = [binary(), "--server", server.url, "--key", "sk_admin", "keys", "create", "--name", name]
    made = subprocess.run([*command, "--scope", "worker", "--endpoint", "alone"], capture_output=True, text=True, timeout=LIMIT_S)
    assert made.returncode == 0, made.stderr
    job = run(server, "alone", {"kind": "dict"})
    with OwnWorker.pasted(made.stdout, sdk, "sync", ran, tmp_path) as worker:
        told = ended(server, "alone", job)
        assert told["output"]["zh"] == "你好" and told["workerId"].startswith(name)
        assert pids_of(ran, job) == [worker.pid]
        # It runs a last job while it is told to end, and posts the result.
        until = tmp_path / "go on"
        last = run(server, "alone", {"kind": "progress", "until": str(until)})
        wait_for("the job runs", lambda: pids_of(ran, last))
        worker.process.terminate()
        until.touch()
        assert ended(server, "alone", last)["output"] == {"done": True}
        if sdk == "ppio":
            # RunPod's ends with its poll for jobs to stop, which is held for up to 25 s.
            assert worker.process.wait(LIMIT_S) == 0
