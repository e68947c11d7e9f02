"""What both vendors' clients were recorded to send, replayed at the server, and how its refusals look through them."""

import asyncio
import json
import pathlib
import re
import threading

import aiohttp
import ppio_gpus.client
import pytest
import requests
import runpod

from darkroom_server import Server
from worker_calls import KEYS, SDKS, Wire, call, run, status, wait_for

CAPTURES = pathlib.Path(__file__).with_name("captures")
CONFIG = KEYS + """
[endpoints.alone]
kind = "worker"
[endpoints.full]
kind = "worker"
limits = { max_queued = 1 }
"""
STATES = {"IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}


@pytest.fixture(scope="module")
def server():
    with Server(CONFIG) as running:
        yield running


def keys_of(value, at=""):
    """The paths of all keys of an answer, but for what the handler said."""
    if not isinstance(value, dict):
        return set()
    inner = [keys_of(inner, f"{at}/{key}") for key, inner in value.items() if key != "output"]
    return {f"{at}/{key}" for key in value}.union(*inner)


@pytest.mark.parametrize("sdk", SDKS)
def test_what_the_clients_were_recorded_to_send_is_answered(server, sdk):
    """Each request as it was sent; the answer has every key of the recorded one."""
    lines = (CAPTURES / f"{sdk}_client.jsonl").read_text(encoding="utf-8").splitlines()
    ours, routes = {}, set()
    # Without one, who waits for a result would wait for ever.
    stop = serving(server, f"for-{sdk}")
    for request in map(json.loads, lines):
        family, _, route, *job = request["target"].strip("/").split("/")
        routes.add(route)
        target = "/".join(["", family, "alone", route, *(ours.get(one, one) for one in job)])
        headers = {key: "Bearer sk_test" if key == "Authorization" else value for key, value in request["headers"]}
        plain = requests.Request(request["method"], server.url + target, headers=headers, data=request["body"].encode() or None)
        with requests.Session() as session:
            answer = session.send(plain.prepare(), timeout=120)
        assert answer.status_code == 200, (request, answer.text)
        assert answer.headers["Content-Type"] == "application/json"
        told, recorded = answer.json(), request["answer"] or {}
        known = {"delayTime", "executionTime", "workerId", "output", "error"}
        missing = keys_of(recorded) - keys_of(told) - {f"/{key}" for key in known}
        assert not missing, (request, told)
        assert told.get("status", "completed") in STATES | {"completed"}, told
        if recorded.get("id"):
            ours[recorded["id"]] = told["id"]
        if route == "stream":
            assert isinstance(told["stream"], list)
    stop()
    expected = {"run", "status", "cancel", "health", "purge-queue"}
    assert routes == expected | ({"runsync", "stream"} if sdk == "runpod" else set())


def serving(server, name):
    """A worker by hand that ends all jobs at once; returns what ends it."""
    over = threading.Event()

    def work():
        worker = Wire(server, "alone", name)
        while not over.is_set():
            answer = worker.get("job-take", "?job_in_progress=0")
            if answer.status_code == 200:
                worker.done(answer.json()["id"], {"output": {"ok": 1}})

    thread = threading.Thread(target=work)
    thread.start()

    def stop():
        over.set()
        # Ends the poll that is held.
        job = run(server, "alone", {})
        thread.join()
        call(server, "post", f"/v2/alone/cancel/{job}")

    return stop


def clients(server, endpoint, key):
    """An endpoint through both SDKs' clients."""
    runpod.endpoint_url_base = f"{server.url}/v2"
    return [
        runpod.Endpoint(endpoint, api_key=key),
        ppio_gpus.client.Endpoint(endpoint, api_key=key, endpoint_url_base=f"{server.url}/v1"),
    ]


@pytest.mark.parametrize(
    "endpoint, key, given, code",
    [
        ("alone", "sk_nobody", {"p": 1}, 401),
        ("alone", "sk_worker", {"p": 1}, 403),
        ("nowhere", "sk_test", {"p": 1}, 404),
        ("alone", "sk_test", {"input": {"p": 1}, "policy": {"ttl": 1}}, 400),
        ("alone", "sk_test", {"input": {"p": "x" * (33 << 20)}}, 413),
        ("full", "sk_test", {"p": 1}, 429),
    ],
)
def test_refusals_look_as_the_sdks_show_them(server, endpoint, key, given, code):
    """`protocols/async-endpoints.md` §2.2: 401 is an error of its own, all others carry their status, and no post is repeated."""
    waiting = run(server, "full", {}) if code == 429 else None
    for client in clients(server, endpoint, key):
        if code == 401:
            with pytest.raises(RuntimeError, match=re.compile("unauthorized", re.IGNORECASE)):
                client.run(given)
            with pytest.raises(RuntimeError):
                client.health()
            continue
        with pytest.raises(requests.HTTPError) as refused:
            client.run(given)
        assert refused.value.response.status_code == code
        assert refused.value.response.json()["error"]
    if waiting:
        call(server, "post", f"/v2/full/cancel/{waiting}")


def test_a_refused_asyncio_client_gets_json_without_an_id(server):
    async def drive():
        runpod.api_key = "sk_nobody"
        async with aiohttp.ClientSession() as session:
            await runpod.AsyncioEndpoint("alone", session).run({"p": 1})

    runpod.endpoint_url_base = f"{server.url}/v2"
    with pytest.raises(KeyError, match="id"):
        asyncio.run(drive())


def test_jobs_of_low_priority_start_no_worker_and_are_run_by_those_of_others(tmp_path):
    """What is running takes them; until then they wait."""
    handler = tmp_path / "handler.py"
    handler.write_text("import runpod\nrunpod.serverless.start({'handler': lambda job: job['input']})\n")
    python = json.dumps(__import__("sys").executable)
    config = KEYS + f"""
[endpoints.low]
kind = "worker"
python = {python}
handler = {json.dumps(str(handler))}
[endpoints.other]
kind = "worker"
python = {python}
handler = {json.dumps(str(handler))}
"""
    with Server(config) as own:
        low = run(own, "low", {"n": 1}, policy={"lowPriority": True})
        # The planner has looked, more than once: it started the worker of a later job, which has run.
        other = run(own, "other", {"n": 2})
        wait_for("the other job ends", lambda: status(own, "other", other)["status"] == "COMPLETED")
        started = call(own, "get", "/darkroom/v1/instances", key="sk_admin")["instances"]
        assert {one["endpoint"] for one in started} == {"other"}
        assert status(own, "low", low)["status"] == "IN_QUEUE"
        high = run(own, "low", {"n": 3})
        for job, n in [(high, 3), (low, 1)]:
            told = wait_for("it ends", lambda: (it := status(own, "low", job))["status"] == "COMPLETED" and it)
            assert told["output"] == {"n": n}
