"""The worker side request by request: what the SDKs were recorded to send, and what no SDK would."""

import concurrent.futures
import http.client
import itertools
import json
import pathlib
import sys

import pytest
import requests

from darkroom_server import Server
from worker_calls import HANDLER, KEYS, SDKS, Wire, attempts, call, ended, run, status

CAPTURES = pathlib.Path(__file__).with_name("captures")
CONFIG = KEYS + f"""
[[keys]]
name = "everywhere"
secret = "sk_every_worker"
scopes = ["worker"]
[endpoints.alone]
kind = "worker"
[endpoints.other]
kind = "worker"
[endpoints.comfy]
[endpoints.ours]
kind = "worker"
python = {json.dumps(sys.executable)}
handler = {json.dumps(str(HANDLER))}
args = ["ppio", "sync"]
env = {{ RAN = "/dev/null" }}
"""


@pytest.fixture(scope="module")
def server():
    with Server(CONFIG) as running:
        yield running


NAMES = itertools.count(1)


@pytest.fixture
def worker(server):
    """A worker of its own for each test, and nothing that waits for another."""
    yield Wire(server, "alone", f"w-{next(NAMES)}")
    call(server, "post", "/v2/alone/purge-queue")


def taken(server, worker, given=None):
    """A job that the worker holds."""
    job = run(server, "alone", given or {})
    assert worker.take() == {"id": job, "input": given or {}}
    return job


def recorded(sdk):
    """What an SDK sent, in order."""
    return [json.loads(line) for line in (CAPTURES / f"{sdk}_worker.jsonl").read_text(encoding="utf-8").splitlines()]


def replay(server, request, worker, ids, key):
    """Sends a recorded request to `alone`, about our jobs instead of the recorded ones."""
    target = request["target"].replace("/v1/ep0123456789/", "/v2/alone/")
    for old, new in {**worker, **ids}.items():
        target = target.replace(f"/{old}", f"/{new}")
    headers = {name: ids.get(value, value) for name, value in request["headers"]}
    if headers.get("Authorization"):
        bearer = "Bearer " if headers["Authorization"].startswith("Bearer ") else ""
        headers["Authorization"] = bearer + key
    plain = requests.Request(request["method"], server.url + target, headers=headers, data=request["body"].encode() or None)
    with requests.Session() as session:
        return session.send(plain.prepare(), timeout=120)


def told_by(posts):
    """What a job is after these posts, by the reference's rules: status, output, error, chunks."""
    chunks, final = [], None
    for post in posts:
        body = json.loads(post["body"], parse_constant=lambda _: None)
        if "/job-stream/" in post["target"]:
            chunks.append(body["output"])
        elif body.get("status") != "IN_PROGRESS" and final is None:
            final = body
    error = final.get("error") or None
    return ("FAILED" if error else "COMPLETED", final.get("output"), error, chunks)


@pytest.mark.parametrize("sdk", SDKS)
def test_what_the_sdks_were_recorded_to_send_is_understood(server, sdk):
    requests_by_job = {}
    for request in recorded(sdk):
        if request["method"] == "POST":
            job = request["target"].split("/")[5].split("?")[0].split("&")[0]
            requests_by_job.setdefault((request["step"], job), []).append(request)
    assert len(requests_by_job) > 35
    for (step, recorded_job), posts in requests_by_job.items():
        name = f"w-{next(NAMES)}"
        worker = {posts[0]["target"].split("/")[4]: name}
        if not dict(posts[0]["headers"])["Authorization"]:
            assert replay(server, posts[0], worker, {}, "sk_worker").status_code == 401
            continue
        if step == "odd":
            # Jobs with ids that no server of ours makes.
            assert {replay(server, post, worker, {}, "sk_worker").status_code for post in posts} == {404}
            continue
        job = taken(server, Wire(server, "alone", name))
        for post in posts:
            assert replay(server, post, worker, {recorded_job: job}, "sk_worker").status_code == 200, post
        state, output, error, chunks = told_by(posts)
        now = status(server, "alone", job)
        assert (now["status"], now.get("output"), now.get("error")) == (state, output, error), (step, recorded_job)
        assert now["workerId"] == name
        if chunks:
            stream = call(server, "get", f"/v2/alone/stream/{job}")["stream"]
            assert [one["output"] for one in stream] == chunks


@pytest.mark.parametrize("sdk", SDKS)
def test_the_recorded_polls_and_pings_are_answered(server, sdk):
    """A job waits for each poll, so that none is held."""
    seen = set()
    for n, request in enumerate(recorded(sdk)):
        route = request["target"].split("/")[3]
        # With a job each they are answered at once.
        if request["method"] == "POST":
            continue
        worker = {request["target"].split("/")[4].split("?")[0].split("&")[0]: f"{sdk}-poll-{n}"}
        authorized = dict(request["headers"])["Authorization"] != ""
        seen.add(route)
        if route == "ping":
            answer = replay(server, request, worker, {}, "sk_worker")
            assert answer.status_code == (200 if authorized else 401), request
            continue
        job = run(server, "alone", {"n": n})
        if route == "job-stop" and authorized:
            own = Wire(server, "alone", f"{sdk}-poll-{n}")
            assert own.take()["id"] == job
            call(server, "post", f"/v2/alone/cancel/{job}")
            assert replay(server, request, worker, {}, "sk_worker").json() == {"jobsToStop": [job]}
            own.done(job, {})
            continue
        answer = replay(server, request, worker, {}, "sk_worker")
        if not authorized:
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
            call(server, "post", f"/v2/alone/cancel/{job}")
            continue
        got = answer.json()
        assert (got if route == "job-take-batch" else [got]) == [{"id": job, "input": {"n": n}}]
        Wire(server, "alone", f"{sdk}-poll-{n}").done(job, {})
    assert seen == {"ping", "job-take", "job-take-batch"} | ({"job-stop"} if sdk == "runpod" else set())


def test_polls_under_names_that_are_none_are_told_to_wait(server):
    """A 404 would be asked again at once, three hundred times a second."""
    for path in ["", "a/b", "/x", "a%2Fb", "x" * 200]:
        for poll in ("job-take", "job-take-batch", "job-stop"):
            answer = requests.get(f"{server.url}/v2/alone/{poll}/{path}?gpu=RTX", headers={"Authorization": "sk_worker"}, timeout=60)
            assert (answer.status_code, answer.headers.get("Retry-After")) == (429, "5"), (poll, path)


def test_the_first_result_counts(server, worker):
    job = taken(server, worker)
    assert worker.done(job, {"output": 1}) == 200
    for late in [{"output": 2}, {"error": "late"}, {"status": "IN_PROGRESS", "output": 3}]:
        assert worker.done(job, late) == 200
        assert status(server, "alone", job)["output"] == 1
    assert worker.post("job-stream", job, {"output": 4}).status_code == 200
    assert call(server, "get", f"/v2/alone/stream/{job}") == {"status": "COMPLETED", "stream": []}
    cancelled = taken(server, worker)
    assert call(server, "post", f"/v2/alone/cancel/{cancelled}")["status"] == "CANCELLED"
    assert worker.done(cancelled, {"output": 1}) == 200
    assert status(server, "alone", cancelled)["status"] == "CANCELLED"


def test_jobs_of_others_are_left_alone(server, worker):
    job = taken(server, worker)
    thief = Wire(server, "alone", "thief")
    assert thief.done(job, {"output": "stolen"}) == 409
    assert thief.post("job-stream", job, {"output": "stolen"}).status_code == 409
    # It exists once it has asked for work.
    waiting = run(server, "alone", {})
    assert thief.take()["id"] == waiting
    for route in ("job-done", "job-stream"):
        assert thief.post(route, job, {"output": "stolen"}).status_code == 409
    elsewhere = Wire(server, "other", "thief", key="sk_every_worker")
    own = run(server, "other", {})
    assert elsewhere.take()["id"] == own
    assert elsewhere.done(job, {"output": "stolen"}) == 404
    queued = run(server, "alone", {})
    assert thief.done(queued, {"output": "never taken"}) == 409
    call(server, "post", f"/v2/alone/cancel/{queued}")
    assert worker.done(job, {"output": "own"}) == 200
    assert status(server, "alone", job)["output"] == "own"
    # Whoever comes with another key is no worker of that name.
    assert Wire(server, "alone", "thief", key="sk_every_worker").done(waiting, {}) == 403
    assert thief.done(waiting, {}) == 200


@pytest.mark.parametrize("job", ["5", "a/b", "..%2f..", "%E4%B8%AD", "x%00", "0190163d-8694-739b-aea5-966c26f8ad91", "a" * 3000])
def test_ids_that_are_none_of_ours_are_not_there(server, worker, job):
    run(server, "alone", {})
    worker.done(worker.take()["id"], {})
    for route in ("job-done", "job-stream"):
        assert worker.post(route, job, {"output": 1}).status_code == 404
    assert worker.get("ping", f"?job_id={job},,5").status_code == 200


def test_credentials_are_good_for_what_they_were_given(server):
    mine = ended(server, "ours", run(server, "ours", {"kind": "token"}))["output"]
    token, name = mine["token"], mine["worker"]
    job = run(server, "alone", {})
    for endpoint, who, key, status_code in [
        ("ours", "another", token, 401),
        ("alone", name, token, 401),
        ("alone", "w", token, 401),
        ("ours", name, token + "x", 401),
        ("ours", name, "sk_worker", 403),
        ("ours", name, "sk_every_worker", 403),
        ("alone", "w", "sk_test", 403),
        ("alone", "w", "sk_nobody", 401),
        ("alone", "w", "", 401),
        ("nowhere", "w", "sk_every_worker", 404),
        ("comfy", "w", "sk_every_worker", 404),
    ]:
        def wire():
            # A refused post may leave its connection closed.
            return Wire(server, endpoint, who, key)

        case = (endpoint, who, key)
        for poll in ("job-take", "job-take-batch", "job-stop"):
            answer = wire().get(poll, "?gpu=RTX&job_in_progress=0")
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5"), case
        if endpoint != "comfy":
            assert wire().done(job, {"output": 1}) == status_code, case
            assert wire().get("ping").status_code == status_code, case
    assert status(server, "alone", job)["status"] == "IN_QUEUE"
    call(server, "post", f"/v2/alone/cancel/{job}")
    # No worker of ours may use the routes of clients.
    answer = requests.post(f"{server.url}/v2/ours/run", headers={"Authorization": token}, json={"input": 1}, timeout=60)
    assert answer.status_code == 401


@pytest.mark.parametrize("body", ["", "not json", "[1]", '"text"', '{"output": ', b"\xff\xfe", '{"output": Nan}'])
def test_a_result_that_is_not_json_fails_the_job_and_says_so(server, worker, body):
    job = taken(server, worker)
    assert worker.done(job, body) == 400
    told = status(server, "alone", job)
    assert told["status"] == "FAILED" and "not JSON" in told["error"]
    assert attempts(server, job) == ["failed"]
    job = taken(server, worker)
    assert worker.post("job-stream", job, body).status_code == 400
    assert "not JSON" in status(server, "alone", job)["error"]
    worker.done(job, {})


def test_a_large_result_is_told_as_an_address_and_a_larger_one_refused(server, worker):
    job = taken(server, worker)
    text = "x" * 30_000_000
    assert worker.done(job, {"output": text}) == 200
    told = status(server, "alone", job)
    assert told["status"] == "COMPLETED" and told["output"]["size"] == len(text) + 2
    assert requests.get(told["output"]["url"], timeout=120).json() == text
    job = taken(server, worker)
    assert worker.done(job, b'{"output": "' + b"x" * (65 << 20) + b'"}') == 413
    told = status(server, "alone", job)
    assert told["status"] == "FAILED" and "larger than" in told["error"]


def test_ten_thousand_chunks_are_streamed_once_each(server, worker):
    count, hands = 10_000, 40
    job = taken(server, worker)

    def yield_some(hand):
        own, seen = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120), set()
        for n in range(hand, count, hands):
            own.request("POST", f"/v2/alone/job-stream/{worker.name}/{job}?v=1", f'{{"output": {n}}}', {"Authorization": "sk_worker"})
            answer = own.getresponse()
            answer.read()
            seen.add(answer.status)
        own.close()
        return seen

    with concurrent.futures.ThreadPoolExecutor(hands) as pool:
        assert set().union(*pool.map(yield_some, range(hands))) == {200}
    assert worker.done(job, {"output": []}) == 200
    streamed = []
    while page := call(server, "get", f"/v2/alone/stream/{job}")["stream"]:
        streamed += [one["output"] for one in page]
    assert sorted(streamed) == list(range(count))
    # Each hand yielded in its order.
    for hand in range(hands):
        own = [n for n in streamed if n % hands == hand]
        assert own == sorted(own)
