"""Workers and servers that are killed, and servers that are restarted: every job completes, and completes once."""

import json
import os
import signal
import socket
import sys

import pytest
import requests

from darkroom_server import Server
from worker_calls import (
    HANDLER, KEYS, SDKS, OwnWorker, Wire, attempts, ended, pids_of, run, runs_the_handler, status, wait_for,
)

ALONE = KEYS + """
[endpoints.alone]
kind = "worker"
"""


@pytest.fixture
def ran(tmp_path):
    path = tmp_path / "ran"
    path.touch()
    return path


@pytest.mark.parametrize("sdk", SDKS)
@pytest.mark.parametrize("point, runs", [("before_record", 2), ("recorded", 1)])
def test_a_server_that_is_killed_while_it_takes_a_result(sdk, point, runs, ran, tmp_path):
    """The SDK throws the result away. Unless it was recorded already, the job is missed two pings later, and run again."""
    script = tmp_path / "failpoints"
    script.write_text(f"{point}:1\n")
    with Server(ALONE, env={"DARKROOM_FAILPOINTS": str(script)}) as server:
        job = run(server, "alone", {"kind": "str"})
        # Only what is to be missed by two pings is worth frequent ones, which accuse a worker that is merely slow.
        with OwnWorker(server, sdk, "sync", "box", ran, tmp_path, ping_ms=2000 if runs > 1 else 10_000):
            told = ended_across_a_kill(server, job)
            assert f"failpoint reached: {point}" in server.log()
            assert (told["status"], told["output"], told["workerId"]) == ("COMPLETED", "plain", "box")
            assert attempts(server, job) == ["lost"] * (runs - 1) + ["done"]
            assert len(pids_of(ran, job)) == runs
            after = run(server, "alone", {"kind": "str"})
            assert ended(server, "alone", after)["output"] == "plain", "its worker goes on with the next server"


def ended_across_a_kill(server, job):
    """The status of a job that has ended, where the server may die under the question."""

    def look():
        try:
            answer = requests.get(f"{server.url}/v2/alone/status/{job}", headers={"Authorization": "sk_test"}, timeout=120)
        except requests.ConnectionError:
            return None
        if answer.status_code >= 500:
            return None
        assert answer.status_code == 200, answer.text
        now = answer.json()
        return now if now["status"] not in ("IN_QUEUE", "IN_PROGRESS") else None

    return wait_for("the job ends", look)


@pytest.mark.parametrize("sdk", SDKS)
def test_a_result_that_is_posted_while_no_server_runs_waits_for_the_next_one(sdk, ran, tmp_path):
    until = tmp_path / "go on"
    with Server(ALONE, holds_socket=True) as server:
        with OwnWorker(server, sdk, "sync", "box", ran, tmp_path):
            job = run(server, "alone", {"kind": "progress", "until": str(until)})
            wait_for("progress", lambda: status(server, "alone", job).get("output"))
            assert server.stop() == 0
            until.touch()
            server.start()
            told = ended(server, "alone", job)
            assert (told["status"], told["output"], told.get("retries")) == ("COMPLETED", {"done": True}, None)
            assert attempts(server, job) == ["done"] and len(pids_of(ran, job)) == 1


def test_a_worker_of_ours_that_is_kept_goes_on_with_the_next_server(ran, tmp_path):
    until = tmp_path / "go on"
    config = KEYS + f"""
[endpoints.kept]
kind = "worker"
python = {json.dumps(sys.executable)}
handler = {json.dumps(str(HANDLER))}
args = ["ppio", "sync"]
env = {{ RAN = {json.dumps(str(ran))} }}
scaling = {{ on_exit = "keep" }}
"""
    pid = None
    with Server(config, holds_socket=True) as server:
        try:
            job = run(server, "kept", {"kind": "progress", "until": str(until)})
            (pid,) = wait_for("the job runs", lambda: pids_of(ran, job))
            assert server.stop() == 0
            until.touch()
            server.start()
            assert ended(server, "kept", job)["output"] == {"done": True}
            assert attempts(server, job) == ["done"]
            after = run(server, "kept", {"kind": "str"})
            assert ended(server, "kept", after)["output"] == "plain"
            assert pids_of(ran, after) == [pid] == pids_of(ran, job)
        finally:
            if pid and runs_the_handler(pid):
                os.killpg(os.getpgid(pid), signal.SIGKILL)


def test_a_result_that_is_on_its_way_when_the_server_stops_is_taken():
    body = json.dumps({"output": "x" * 100_000}).encode()
    with Server(ALONE) as server:
        worker = Wire(server, "alone", "box")
        job = run(server, "alone", {})
        assert worker.take()["id"] == job
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            head = (
                f"POST /v2/alone/job-done/box/{job}?gpu=RTX&isStream=false HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
                f"Authorization: sk_worker\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body[:50_000])
            server.process.terminate()
            wait_for("the server to stop taking requests", lambda: not ready(server))
            connection.sendall(body[50_000:])
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert server.wait_end() == 0
        server.start()
        told = status(server, "alone", job)
        assert (told["status"], told["output"]) == ("COMPLETED", "x" * 100_000)


def ready(server):
    try:
        return requests.get(f"{server.url}/readyz", timeout=10).status_code == 200
    except requests.ConnectionError:
        return False
