"""Requests to the paths of a service whose instances answer HTTP: replayed on an instance that is started for them, the
answer on the sink, once, whatever dies on the way. The instances are a real program."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import requests
from darkroom_server import Server, binary, free_port
from queue_server import TOKEN, client, kill_child, wait_ready

HEADERS = {"Authorization": TOKEN}
LIMIT_S = 180
PROGRAM = pathlib.Path(__file__).parent / "http_service.py"


def config(directory, more=""):
    command = json.dumps([sys.executable, str(PROGRAM), "{port}", str(directory)])
    return f"""
[[keys]]
name = "app"
secret = "{TOKEN}"
scopes = ["client"]
[[keys]]
name = "boss"
secret = "sk_boss"
scopes = ["admin"]
[[keys]]
name = "hand"
secret = "sk_hand"
scopes = ["worker"]
[endpoints.svc]
kind = "worker"
command = {command}
queue = {{ max_length = 1, max_payload = "1MB" }}
limits = {{ cancel_grace = "60s" }}
{more}
[endpoints.short]
kind = "worker"
command = {command}
limits = {{ execution_timeout = "1s", cancel_grace = "200ms" }}
[endpoints.pull]
kind = "worker"
"""


class Running:
    """A server, and the directory in which its instances leave their marks."""

    def __init__(self, server, directory):
        self.server = server
        self.directory = directory
        self.url = f"{server.url}/api/predict"

    def post(self, path, body=b"", service="svc", headers=None, **query):
        url = f"{self.url}/{service}{path}"
        sent = {**HEADERS, **(headers or {})}
        return requests.post(url, params=query, data=body, headers=sent, timeout=LIMIT_S)

    def put(self, path, body=b"", service="svc", **query):
        answer = self.post(path, body, service, **query)
        assert answer.status_code == 200, answer.text
        return int(answer.text), answer.headers["X-Eas-Queueservice-Request-Id"]

    def sink(self, service="svc"):
        return client(self.server, f"{service}/sink")

    def results(self, count, service="svc"):
        """So many items of the sink, taken away."""
        items, sink = [], self.sink(service)
        deadline = time.monotonic() + LIMIT_S
        while len(items) < count:
            assert time.monotonic() < deadline, f"{len(items)} of {count} came\n{self.server.log()[-3000:]}"
            items += sink.get(timeout="1s")
        return items

    def seen(self):
        path = self.directory / "seen"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def pids(self):
        """Of instances that live."""
        found = [int(p.name) for p in (self.directory / "pids").glob("*")]
        return [pid for pid in found if is_program(pid)]

    def jobs(self, service="svc"):
        url = f"{self.server.url}/darkroom/v1/jobs?endpoint={service}"
        return requests.get(url, headers=HEADERS, timeout=LIMIT_S).json()["jobs"]

    def eventually(self, what, probe):
        deadline = time.monotonic() + LIMIT_S
        while not (found := probe()):
            assert time.monotonic() < deadline, f"{what}\n{self.server.log()[-3000:]}"
            time.sleep(0.02)
        return found

    def at_gate(self):
        mark = self.directory / "at-gate"
        self.eventually("nobody came to the gate", mark.exists)
        mark.unlink()

    def open(self, gate):
        (self.directory / gate).touch()


def is_program(pid):
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        state = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return PROGRAM.name.encode() in command and state != "Z"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    directory = tmp_path_factory.mktemp("service")
    with Server(config(directory)) as server:
        yield Running(server, directory)


@pytest.fixture
def fresh(tmp_path):
    with Server(config(tmp_path)) as server:
        yield Running(server, tmp_path)


def test_a_request_starts_an_instance_and_its_answer_comes_to_the_sink(running):
    assert running.pids() == []
    index, request_id = running.put("/videox_fun/infer_forward", b"\x00\xff body", task_id="图 1", _priority_="1")
    (item,) = running.results(1)
    assert dict(item.tags) == {"task_id": "图 1", "requestId": request_id}
    told = json.loads(item.data)
    assert (told["path"], told["query"]) == ("/videox_fun/infer_forward", "task_id=%E5%9B%BE+1")
    assert told["body"].encode("latin-1") == b"\x00\xff body"
    assert told["headers"]["x-eas-queueservice-request-id"] == request_id
    assert told["headers"]["authorization"] is None, "our token is not the program's"
    assert len(running.pids()) == 1
    (job,) = [job for job in running.jobs() if job["state"] == "succeeded"]
    assert "POST /videox_fun/infer_forward" in job["summary"]
    # The item stood for the job, and went with it.
    assert running.sink().attributes()["stream.length"] == "0"
    queue = client(running.server, "svc")
    assert queue.search(index) == {} and queue.attributes()["stream.length"] == "0"
    # The input is bounded as its jobs are; the queue's own bound is the sink's.
    bounds = [side.attributes()["stream.approxMaxLength"] for side in (queue, running.sink())]
    assert bounds[1] == "1" and int(bounds[0]) > 1


def test_the_sdks_client_with_a_path_and_without_one(running):
    queue = client(running.server, "svc", path_suffix="v1/models/sd:predict")
    queue.set_timeout(30000)
    index, request_id = queue.put(b"{}", {"customer": "7"})
    bare = client(running.server, "svc")
    bare_index, bare_id = bare.put(b"root")
    assert int(bare_index) > int(index)
    told = {item.tags["requestId"]: json.loads(item.data) for item in running.results(2)}
    assert (told[request_id]["path"], told[request_id]["query"]) == ("/v1/models/sd:predict", "customer=7")
    assert (told[bare_id]["path"], told[bare_id]["body"]) == ("/", "root")
    assert int(queue.attributes()["stream.lastEntry"]) >= int(bare_index)


def test_paths_of_other_protocols_are_the_programs_own(running):
    paths = ["/prompt", "/api_prompt", "/queue", "/view", "/upload/image", "/output/x.png", "/history/1", "/sink2"]
    for path in paths:
        running.put(path)
    assert sorted(json.loads(item.data)["path"] for item in running.results(len(paths))) == sorted(paths)


def test_headers_and_bodies_stay_as_they_are(running):
    url = f"{running.url}/svc/echo"
    headers = {**HEADERS, "Content-Type": "image/png", "Accept": "image/webp"}
    assert requests.post(url, headers=headers, data=b"x", timeout=LIMIT_S).status_code == 200
    told = json.loads(running.results(1)[0].data)["headers"]
    assert (told["content-type"], told["accept"]) == ("image/png", "image/webp")
    # Beyond what lies in a row, both ways.
    large = bytes(range(256)) * 2000
    running.put("/echo", large)
    assert json.loads(running.results(1)[0].data)["body"].encode("latin-1") == large
    running.put("/bytes", b"2000")
    assert running.results(1)[0].data == bytes(range(256)) * 2000
    assert running.post("/echo", b"x" * 1_000_001).status_code == 413


def test_an_answer_without_a_body_skips_the_sink(running):
    running.put("/nothing", requestId="silent")
    running.put("/echo", requestId="after")
    assert [item.tags["requestId"] for item in running.results(1)] == ["after"]
    assert running.sink().get(timeout="0s") == []


def test_what_the_program_refuses_comes_with_its_status_and_is_not_tried_again(running):
    before = len(running.seen())
    for status in [400, 422, 404, 302]:
        running.put(f"/status/{status}", b"no such model")
        (item,) = running.results(1)
        assert (item.tags["lastCode"], item.data) == (str(status), b"no such model")
    assert len(running.seen()) == before + 4
    job = max(running.jobs(), key=lambda job: job["id"])
    shown = requests.get(f"{running.server.url}/darkroom/v1/jobs/{job['id']}", headers=HEADERS, timeout=LIMIT_S).json()
    assert shown["state"] == "failed" and "status 302: no such model" in shown["failure"]["message"]


def test_a_5xx_is_tried_again_and_at_last_told(running):
    before = len(running.seen())
    running.put("/moody", b"mood")
    (item,) = running.results(1)
    assert ("lastCode" not in item.tags, item.data) == (True, b"well again")
    running.put("/status/503", b"never well")
    (item,) = running.results(1)
    assert (item.tags["lastCode"], item.data) == ("503", b"never well")
    assert len(running.seen()) == before + 4, "each was sent twice"


def test_a_full_sink_takes_results_all_the_same(running):
    for number in range(4):
        running.put("/echo", str(number).encode())
    sink = running.sink()
    running.eventually("results came", lambda: sink.attributes()["stream.length"] == "4")
    assert len(running.results(4)) == 4


def test_an_instance_that_dies_loses_an_attempt_and_two_of_them_fail_the_request(running):
    running.put("/die", b"once")
    assert running.results(1)[0].data == b"alive"
    running.put("/always_die")
    (item,) = running.results(1)
    assert item.tags["lastCode"] == "500"
    assert b"signal 9" in item.data, item.data


def test_an_instance_that_is_killed_gives_its_request_to_the_next(running):
    running.put("/gate", b"after-kill")
    running.at_gate()
    (pid,) = running.pids()
    os.kill(pid, signal.SIGKILL)
    running.open("after-kill")
    (item,) = running.results(1)
    assert (item.data, "lastCode" in item.tags) == (b"through", False)


def test_a_repeated_post_under_the_clients_own_id_is_one_request(running):
    first = running.put("/echo", b"1", requestId="mine")
    assert running.put("/echo", b"2", requestId="mine") == first
    (item,) = running.results(1)
    assert (item.tags["requestId"], json.loads(item.data)["body"]) == ("mine", "1")
    assert running.put("/echo", b"3", requestId="mine") == first
    assert running.sink().get(timeout="0s") == []


def test_deleting_and_truncating_cancel_requests_that_wait_or_run(running):
    queue = client(running.server, "svc")
    at_work, _ = running.put("/gate", b"cancelled")
    running.at_gate()
    waits = [running.put("/echo", b"never")[0] for _ in range(2)]
    assert queue.search(at_work) == {"IsPending": True, "WaitCount": 0}
    assert queue.search(waits[1]) == {"IsPending": False, "WaitCount": 1}
    assert queue.delete(waits[0]) == "OK"
    assert queue.search(waits[1]) == {"IsPending": False, "WaitCount": 0}
    queue.truncate(waits[1] + 1)
    assert queue.attributes()["stream.length"] == "0"
    running.eventually(
        "they end", lambda: sorted(job["state"] for job in running.jobs())[:3] == ["cancelled"] * 3
    )
    running.open("cancelled")
    # The instance that was at it is free again, and nobody is told of what was cancelled.
    _, request_id = running.put("/echo", b"next")
    assert [item.tags["requestId"] for item in running.results(1)] == [request_id]
    assert not any("never" in line for line in running.seen())


def test_a_request_that_takes_too_long_is_told_and_its_instance_is_replaced(running):
    running.put("/gate", b"never-opened", service="short")
    (item,) = running.results(1, "short")
    assert (item.tags["lastCode"], item.data) == ("504", b"no answer within 1 s")
    running.put("/nothing", service="short")
    running.put("/status/400", b"refused", service="short")
    (item,) = running.results(1, "short")
    assert item.data == b"refused", "another instance took it"


def test_bad_requests_are_refused_before_they_are_jobs(running):
    before = len(running.jobs())
    for path, status, word in [("/a/%2e%2e/b", 400, "segment"), ("/" + "a" * 9000, 400, "bytes")]:
        request = requests.Request("POST", running.url, headers=HEADERS).prepare()
        request.url = f"{running.url}/svc{path}"
        with requests.Session() as session:
            answer = session.send(request, timeout=LIMIT_S)
        assert (answer.status_code, word in answer.text) == (status, True), answer.text
    for method, path, status, word in [
        ("GET", "svc/health", 405, "POST"),
        ("PUT", "svc/health", 405, "POST"),
        ("POST", "nobody/infer", 404, "nobody"),
        ("PUT", "svc?_indexes_=1", 400, "its own instances"),
    ]:
        answer = requests.request(method, f"{running.url}/{path}", headers=HEADERS, timeout=LIMIT_S)
        assert (answer.status_code, word in answer.text) == (status, True), (method, path, answer.text)
    wrong = requests.post(f"{running.url}/svc/infer", headers={"Authorization": "wrong"}, timeout=LIMIT_S)
    assert wrong.status_code == 401
    run = requests.post(
        f"{running.server.url}/v2/svc/run", headers={"Authorization": f"Bearer {TOKEN}"}, json={"input": 1}, timeout=LIMIT_S
    )
    assert (run.status_code, "/api/predict/svc/" in run.text) == (400, True), run.text
    assert len(running.jobs()) == before


def test_what_is_posted_to_a_service_of_handlers_is_their_input_and_its_output_comes_to_the_sink(running):
    worker = requests.Session()
    worker.headers["Authorization"] = "sk_hand"

    def handled(answer):
        polled = worker.get(f"{running.server.url}/v2/pull/job-take/hand?job_in_progress=0", timeout=LIMIT_S)
        assert polled.status_code == 200, polled.text
        job = polled.json()
        done = worker.post(
            f"{running.server.url}/v2/pull/job-done/hand/{job['id']}?isStream=false", data=json.dumps(answer), timeout=LIMIT_S
        )
        assert done.status_code == 200, done.text
        return job["input"]

    for path, body in [("", '{"prompt": "a cat"}'), ("/any/path", '{"input": {"prompt": "a cat"}}'), ("/api_prompt", '{"prompt": "a cat"}')]:
        _, request_id = running.put(path, body, "pull", task_id="7", requestId=f"r{len(path)}")
        assert handled({"output": {"image": "b64"}}) == {"prompt": "a cat"}
        (item,) = running.results(1, "pull")
        assert json.loads(item.data) == {"image": "b64"}
        assert item.tags == {"task_id": "7", "requestId": request_id}
    running.put("/any", "3", "pull")
    assert handled({"error": "no such model"}) == 3
    (item,) = running.results(1, "pull")
    assert (item.data, item.tags["lastCode"]) == (b"no such model", "500")
    # One that nobody took goes with its item.
    index, _ = running.put("", "4", "pull")
    queue = client(running.server, "pull")
    assert queue.search(index)["IsPending"] is False
    queue.delete(index)
    assert running.jobs("pull")[0]["state"] == "cancelled"
    refused = running.post("", "no JSON", "pull")
    assert (refused.status_code, "not JSON" in refused.text) == (400, True)


def test_connect_shows_lines_that_work(running):
    command = [str(binary()), "--server", running.server.url, "--key", TOKEN, "endpoints", "show", "svc", "--connect"]
    printed = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
    (way,) = json.loads(printed)["protocols"]
    environment = {**os.environ, "DARKROOM_KEY": TOKEN, "NO_PROXY": "*"}
    done = subprocess.run(
        ["sh", "-c", way["snippet"]], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert int(done.stdout) > 0
    assert json.loads(running.results(1)[0].data)["path"] == "/"


def test_a_killed_server_sends_each_request_again_and_tells_each_result_once(fresh):
    count = 12
    asked = {fresh.put("/echo", str(number).encode(), task_id=str(number))[1] for number in range(count)}
    asked.add(fresh.put("/gate", b"opened")[1])
    fresh.at_gate()
    kill_child(fresh.server)
    fresh.open("opened")
    got = [item.tags["requestId"] for item in fresh.results(count + 1)]
    assert sorted(got) == sorted(asked)
    assert fresh.sink().get(timeout="0s") == []


def test_a_graceful_restart_gives_back_what_runs(fresh):
    _, request_id = fresh.put("/gate", b"opened")
    fresh.at_gate()
    (pid,) = fresh.pids()
    assert fresh.server.stop() == 0
    assert not is_program(pid), "it ended with its server"
    fresh.open("opened")
    fresh.server.start()
    wait_ready(fresh.server.url)
    (item,) = fresh.results(1)
    assert (item.tags["requestId"], item.data) == (request_id, b"through")


def test_a_program_that_somebody_else_runs(tmp_path):
    port = free_port()
    remote = f"""
[endpoints.far]
kind = "worker"
backend = "remote"
urls = [{{ url = "http://127.0.0.1:{port}/base", header = {{ x-eas-queueservice-request-id = "theirs" }} }}]
"""
    with Server(config(tmp_path, remote)) as server:
        running = Running(server, tmp_path)
        _, request_id = running.put("/echo", b"1", service="far")
        headers = {"Authorization": "Bearer sk_boss"}

        def state():
            listed = requests.get(f"{server.url}/darkroom/v1/instances", headers=headers, timeout=LIMIT_S).json()
            return [(i["state"], i["state_reason"]) for i in listed["instances"] if i["endpoint"] == "far"]

        running.eventually("it is told to be down", lambda: any("nothing listens" in why for _, why in state()))
        with subprocess.Popen([sys.executable, str(PROGRAM), str(port), str(tmp_path)]) as program:
            try:
                (item,) = running.results(1, "far")
                told = json.loads(item.data)
                assert (told["path"], item.tags["requestId"]) == ("/base/echo", request_id)
                assert told["headers"]["x-eas-queueservice-request-id"] == "theirs"
            finally:
                program.kill()
