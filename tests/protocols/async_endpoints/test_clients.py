"""Both vendors' clients against one server: every public call of them, found by looking, on an endpoint of ComfyUI (whose
jobs really run) and on one whose workers never come."""

import asyncio
import http.server
import inspect
import json
import queue
import threading

import aiohttp
import ppio_gpus
import ppio_gpus.client
import pytest
import requests
import runpod
from runpod.endpoint.asyncio import asyncio_runner
from runpod.endpoint import runner

from darkroom_server import Server

KEY = "sk_test"
CONFIG = f"""
[[keys]]
name = "app"
secret = "{KEY}"
scopes = ["client"]
[[keys]]
name = "reader"
secret = "sk_worker"
scopes = ["worker"]
[fetch]
allow = ["127.0.0.1/32"]
[endpoints.comfy]
[endpoints.nobody]
kind = "worker"
"""
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": 255}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "苹果"}},
}
TASK = {"input": {"workflow": GRAPH, "images": [], "output_node_id": "9"}}
COVERED = {
    runner.Endpoint: {"health", "purge_queue", "run", "run_sync"},
    runner.Job: {"cancel", "output", "status", "stream"},
    asyncio_runner.Endpoint: {"health", "purge_queue", "run"},
    asyncio_runner.Job: {"cancel", "output", "status", "stream"},
    ppio_gpus.client.Endpoint: {"health", "purge_queue", "run"},
    ppio_gpus.client.Job: {"cancel", "output", "status"},
}


@pytest.fixture(scope="module")
def server():
    with Server(CONFIG) as running:
        runpod.api_key = KEY
        runpod.endpoint_url_base = f"{running.url}/v2"
        yield running


def endpoints(server, name):
    """The same endpoint through both SDKs."""
    return (
        runpod.Endpoint(name),
        ppio_gpus.client.Endpoint(name, api_key=KEY, endpoint_url_base=f"{server.url}/v1"),
    )


def open_image(output):
    """The one image of an answer, fetched as anybody can."""
    (image,) = output["images"]
    assert image["data"] == image["url"] and image["filename"].startswith("苹果")
    return requests.get(image["url"], timeout=10).content


def call(server, path, method="get", key=KEY, **more):
    """A plain call, with the bare key."""
    headers = {"Authorization": key} if key else {}
    return requests.request(method, server.url + path, headers=headers, timeout=120, **more)


@pytest.mark.parametrize("cls", COVERED, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_public_call_is_driven_here(cls):
    names = {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}
    assert names == COVERED[cls]


def test_workflows_run_through_both_clients(server):
    for endpoint in endpoints(server, "comfy"):
        job = endpoint.run(TASK)
        assert open_image(job.output(timeout=60)).startswith(b"\x89PNG")
        assert job.status() == "COMPLETED"
    assert open_image(runpod.Endpoint("comfy").run_sync(TASK, timeout=60)).startswith(b"\x89PNG")


def test_jobs_wait_are_cancelled_and_purged_through_both_clients(server):
    for endpoint in endpoints(server, "nobody"):
        job = endpoint.run({"prompt": "a red apple 苹果"})
        assert job.status() == "IN_QUEUE"
        assert job.cancel()["status"] == "CANCELLED"
        assert job.cancel()["status"] == "CANCELLED"
        assert job.status() == "CANCELLED" and job.output(timeout=1) is None
        endpoint.run({"input": {}})
        endpoint.run({"input": {"p": 1}, "policy": {"lowPriority": True, "ttl": 60000}})
        assert endpoint.health()["jobs"]["inQueue"] == 2
        assert endpoint.purge_queue() == {"removed": 2, "status": "completed"}
        assert endpoint.health()["jobs"]["inQueue"] == 0


def test_the_stream_of_what_yields_nothing_ends(server):
    job = runpod.Endpoint("comfy").run(TASK)
    assert list(job.stream()) == []
    waiting = runpod.Endpoint("nobody").run({"p": 1})
    waiting.cancel()
    assert list(waiting.stream()) == []


def test_the_asyncio_client(server):
    async def drive():
        async with aiohttp.ClientSession() as session:
            endpoint = runpod.AsyncioEndpoint("comfy", session)
            job = await endpoint.run(TASK["input"])
            output = await job.output(timeout=60)
            assert await job.status() == "COMPLETED"
            nobody = runpod.AsyncioEndpoint("nobody", session)
            waiting = await nobody.run({"p": 1})
            assert await waiting.status() == "IN_QUEUE"
            assert (await waiting.cancel())["status"] == "CANCELLED"
            assert [chunk async for chunk in waiting.stream()] == []
            assert (await nobody.health())["jobs"]["inQueue"] == 0
            assert await nobody.purge_queue() == {"removed": 0, "status": "completed"}
            return output

    assert open_image(asyncio.run(drive())).startswith(b"\x89PNG")


def test_curl_with_the_bare_key(server):
    job = call(server, "/v2/nobody/run", "post", json={"input": {"self": 1}, "s3Config": {"accessSecret": "s3cret-s3cret"}})
    job = job.json()
    assert job["status"] == "IN_QUEUE"
    status = call(server, f"/v2/nobody/status/{job['id']}")
    assert "s3cret" not in status.text and status.json()["delayTime"] >= 0
    assert call(server, f"/v2/nobody/status/sync-{job['id']}-u1").json()["id"] == job["id"]
    listed = call(server, "/v2/nobody/requests?limit=1").json()
    assert [one["id"] for one in listed["requests"]] == [job["id"]]
    short = call(server, "/v2/nobody/runsync?wait=1000", "post", json={"input": 1})
    assert short.status_code == 200 and short.json()["status"] == "IN_QUEUE"
    assert call(server, f"/v2/nobody/retry/{job['id']}", "post").status_code == 400
    call(server, "/v2/nobody/purge-queue", "post")


@pytest.fixture
def receiver():
    """Somebody who is told of ends: its address, and what it was told."""
    told = queue.Queue()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listener.server_port}/hook", told
    listener.shutdown()
    listener.server_close()


def test_a_webhook_is_told_what_status_says(server, receiver):
    address, told = receiver
    for base in ("/v1", "/v2"):
        job = call(server, f"{base}/comfy/run", "post", json={**TASK, "webhook": address}).json()
        body = told.get(timeout=60)
        status = call(server, f"{base}/comfy/status/{job['id']}").json()
        assert open_image(body["output"]).startswith(b"\x89PNG")
        # Addresses are signed anew each time they are told.
        for answer in (body, status):
            answer["output"] = [image["filename"] for image in answer["output"]["images"]]
        assert body == status and body["status"] == "COMPLETED"
    job = call(server, "/v2/nobody/run", "post", json={"input": 1, "webhook": address}).json()
    call(server, f"/v2/nobody/cancel/{job['id']}", "post")
    assert {"id": job["id"], "status": "CANCELLED"}.items() <= told.get(timeout=60).items()


@pytest.mark.parametrize("base", ["/v1", "/v2"])
def test_bad_requests_get_json_and_a_status(server, base):
    unknown = "0190163d-8694-739b-aea5-966c26f8ad91"
    for method, path, body, status in [
        ("get", "/nobody/status/5", None, 404),
        ("get", "/nobody/status/a/b", None, 404),
        ("get", f"/nobody/status/{unknown}", None, 404),
        ("get", f"/nobody/stream/{unknown}", None, 404),
        ("post", f"/nobody/cancel/{unknown}", None, 404),
        ("post", f"/nobody/retry/{unknown}", None, 404),
        ("post", "/nowhere/run", '{"input": 1}', 404),
        ("get", "/nobody/elsewhere", None, 404),
        ("get", "/nobody/run", None, 405),
        ("post", "/nobody/run", "not json", 400),
        ("post", "/nobody/run", "", 400),
        ("post", "/nobody/run", "[]", 400),
        ("post", "/nobody/run", "{}", 400),
        ("post", "/nobody/run", '{"input": 1, "policy": {"ttl": 1}}', 400),
        ("post", "/nobody/run", '{"input": 1, "webhook": "file:///x"}', 400),
        ("post", "/nobody/run", '{"input": 1, "webhook": "http://10.0.0.1/"}', 400),
        ("post", "/nobody/runsync?wait=1", '{"input": 1}', 400),
        ("post", "/comfy/run", '{"input": {"workflow": {}}}', 400),
        ("post", "/comfy/run", '{"input": {"prompt": 1}}', 400),
        ("post", "/comfy/run", '{"input": {"workflow": {"1": {"class_type": "Nothing", "inputs": {}}}}}', 400),
    ]:
        answer = call(server, base + path, method, data=body)
        assert (answer.status_code, bool(answer.json()["error"])) == (status, True), (path, body, answer.text)
    for key, status in [(None, 401), ("sk_nobody", 401), ("sk_worker", 403)]:
        answer = call(server, f"{base}/nobody/run", "post", key=key, data='{"input": 1}')
        assert answer.status_code == status and answer.json()["error"]
    assert call(server, f"{base}/nobody/health").json()["jobs"]["inQueue"] == 0
