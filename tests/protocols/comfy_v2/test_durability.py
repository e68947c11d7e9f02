"""What the official proxy does not do: jobs, labels and links outlive the server's death and that of an instance, also under a
batch."""

import concurrent.futures
import os
import select
import signal
import threading
import time
import urllib.error
import urllib.request
import uuid

import httpx
import pytest
from comfy_sdk import Comfy, OutputReady
from comfy_sdk.exceptions import ComfyError, IdempotencyKeyReuse

from darkroom_server import Server
from v2 import CONFIG, KEY, LIMIT_S, Api, engine, picture, plain, sleep

BATCH = 300
THREE = f"""
[[keys]]
name = "operator"
secret = "sk_operator"
scopes = ["admin"]
[endpoints.three]
{engine()}
scaling = {{ max_instances = 3, min_instances = 3 }}
"""


@pytest.fixture
def killed(monkeypatch):
    with Server(CONFIG + THREE) as server:
        monkeypatch.setenv("COMFY_BASE_URL", f"{server.url}/e/three")
        monkeypatch.setenv("COMFY_API_KEY", KEY)
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield server


def kill(pid):
    """kill -9, and waits for the end."""
    death = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    ended, _, _ = select.select([death], [], [], LIMIT_S)
    os.close(death)
    assert ended, "a killed process did not end"


def kill_serving(server):
    """Of the process that serves; its parent keeps the socket and starts another."""
    parent = server.process.pid
    with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as children:
        kill(int(children.read().split()[0]))


def operator(server, path):
    """A question of an operator."""
    return Api(server.url, "sk_operator").http.get(f"{server.url}/darkroom/v1/{path}").json()


def instance_of(server, job):
    """The pid of the instance on which a job runs."""
    attempts = operator(server, f"jobs/{job}")["attempts"]
    return operator(server, f"instances/{attempts[-1]['instance']}")["pid"] if attempts else None


def patiently(check):
    """What a condition gives once it holds."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_program_that_polls_does_not_notice_that_the_server_died(killed):
    with Comfy() as client:
        job = client.submit(client.workflows.from_json(sleep(3, str(uuid.uuid4()))), metadata={"kept": "yes"})
        Api(f"{killed.url}/e/three").wait(job.id, "running")
        ended, polls = threading.Event(), []

        def poll():
            # A connection that the dead process had accepted goes with it: everybody's does. A new one waits.
            while not ended.is_set():
                polls.append(client_status(killed, job.id))

        poller = threading.Thread(target=poll, daemon=True)
        poller.start()
        patiently(lambda: 200 in polls)
        kill_serving(killed)
        before = len(polls)
        done = Comfy().jobs.get(job.id).wait(timeout=LIMIT_S)
        # The first of these may have been answered before the kill.
        patiently(lambda: 200 in polls[before + 1:])
        ended.set()
        poller.join(LIMIT_S)
        assert not poller.is_alive()
        assert done.status == "succeeded" and done.metadata == {"kept": "yes"}
        assert set(polls) <= {200, "lost with its connection"}, polls
        assert any(isinstance(event, OutputReady) for event in done.events())
        with pytest.raises(IdempotencyKeyReuse):
            client.submit(client.workflows.from_json(plain()), idempotency_key=key_of(client))


def client_status(server, job):
    try:
        with httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False) as http:
            return http.get(f"{server.url}/e/three/api/v2/jobs/{job}").status_code
    except httpx.TransportError:
        return "lost with its connection"


def key_of(client):
    """A key that was used."""
    key = str(uuid.uuid4())
    client.submit(client.workflows.from_json(plain()), idempotency_key=key)
    return key


def test_a_job_whose_instance_dies_runs_again_and_its_stream_goes_on(killed):
    with Comfy() as client:
        # Long enough that the kill comes before its end.
        job = client.submit(client.workflows.from_json(sleep(20, str(uuid.uuid4()), steps=100)))
        values, seen_running = [], False
        for event in job.events():
            if type(event).__name__ == "Progress":
                values.append(event.value)
                if not seen_running and event.step:
                    seen_running = True
                    kill(patiently(lambda: instance_of(killed, job.id)))
        assert seen_running and values == sorted(values)
        attempts = operator(killed, f"jobs/{job.id}")["attempts"]
        assert [one["state"] for one in attempts] == ["lost", "done"], attempts
        assert attempts[0]["instance"] != attempts[1]["instance"]
        done = job.refresh()
        assert done.status == "succeeded" and len(done.outputs) == 1
        assert picture(done.outputs[0].to_bytes())[0] == (16, 16)


def test_a_batch_survives_the_servers_death(killed):
    run = uuid.uuid4().hex
    accepted, lock, half = {}, threading.Lock(), threading.Event()

    def submit(number):
        key, client = str(uuid.uuid4()), Comfy()
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                workflow = client.workflows.from_json(plain(number))
                job = client.submit(workflow, idempotency_key=key, metadata={"run": run, "n": str(number), "odd": str(number % 2)})
                break
            except IdempotencyKeyReuse:
                # It was accepted, and the answer was lost with its connection.
                (job,) = client.list_jobs(metadata={"run": run, "n": str(number)})
                break
            except (ComfyError, httpx.TransportError) as error:
                assert not isinstance(error, ComfyError) or error.http_status is None, error
                assert time.monotonic() < deadline, error
        client.close()
        with lock:
            accepted[number] = job.id
            if len(accepted) == BATCH // 2:
                half.set()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        batch = [pool.submit(submit, number) for number in range(BATCH)]
        assert half.wait(LIMIT_S)
        kill_serving(killed)
        for one in batch:
            one.result(LIMIT_S)
    assert len(set(accepted.values())) == BATCH
    with Comfy() as client:
        patiently(lambda: all(one.status == "succeeded" for one in client.list_jobs(metadata={"run": run}, limit=100)))
        listed = list(client.list_jobs(metadata={"run": run}, limit=37))
        assert sorted(one.id for one in listed) == sorted(accepted.values()), "none missing, none doubled"
        assert all(accepted[int(one.metadata["n"])] == one.id for one in listed)
        odd = [one.id for one in client.list_jobs(metadata={"run": run, "odd": "1"}, limit=50)]
        assert sorted(odd) == sorted(accepted[number] for number in range(1, BATCH, 2))
    api = Api(f"{killed.url}/e/three")

    def look(number):
        job = api.job(accepted[number])
        (output,) = job["outputs"]
        for url in (output["url"], f"/assets/{output['id']}/content"):
            colour = picture(api("GET", url).content)[1]
            assert colour == [(number >> 16, number >> 8 & 255, number & 255)], number

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(BATCH)))
