"""Workflows as jobs of a queue: posted bare, their results on the sink in the documented shape, exactly once each."""

import io
import json
import pathlib
import subprocess
import sys
import time

import pytest
import requests
from darkroom_server import Server
from PIL import Image
from queue_server import TOKEN, client, kill_child

CONFIG = f"""
[[keys]]
name = "app"
secret = "{TOKEN}"
scopes = ["client"]
[[keys]]
name = "other"
secret = "sk_other"
scopes = ["client"]
tenant = "other"
[endpoints.default]
[endpoints.waits.scaling]
max_instances = 0
"""
HEADERS = {"Authorization": TOKEN}
LIMIT_S = 180


def workflow(color=0xFF0000, width=16):
    """A picture of one colour, without any model."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": width, "height": 8, "batch_size": 2, "color": color}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
    }


@pytest.fixture(scope="module")
def server():
    with Server(CONFIG) as running:
        yield running


@pytest.fixture
def sink(server):
    queue = client(server, "default/sink")
    queue.truncate(int(queue.attributes()["stream.lastEntry"]) + 1)
    return queue


def post(server, graph, service="default", **query):
    url = f"{server.url}/api/predict/{service}/api_prompt"
    answer = requests.post(url, params=query, json=graph, headers=HEADERS, timeout=LIMIT_S)
    assert answer.status_code == 200, answer.text
    return int(answer.text), answer.headers["X-Eas-Queueservice-Request-Id"]


def results(sink, count):
    """So many items of the sink, taken away."""
    items = []
    deadline = time.monotonic() + LIMIT_S
    while len(items) < count:
        assert time.monotonic() < deadline, f"{len(items)} of {count} results came"
        items += sink.get(timeout="1s")
    return items


def test_the_pages_program_works_as_printed(server, tmp_path):
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(workflow()), encoding="utf-8")
    program = pathlib.Path(__file__).parent / "page_program.py"
    done = subprocess.run(
        [sys.executable, str(program), f"{server.url}/api/predict/default", TOKEN, str(path)],
        capture_output=True, text=True, timeout=LIMIT_S, check=True,
    )
    first, second, *items = done.stdout.splitlines()
    assert [line.split()[:2] for line in (first, second)] == [["200", "1"], ["200", "2"]]
    items = [json.loads(item) for item in items]
    assert len(items) == 2
    assert all(item["tags"]["task_id"] == "txt2img_test" for item in items)
    assert {item["tags"]["requestId"] for item in items} == {line.split()[2] for line in (first, second)}


def test_a_result_has_the_documented_shape_and_its_files_are_there(server, sink):
    _, request_id = post(server, workflow(0x00FF00), task_id="图 1", extra="tag")
    (item,) = results(sink, 1)
    assert dict(item.tags) == {"task_id": "图 1", "extra": "tag", "requestId": request_id}
    *executed, outputs = json.loads(item.data)
    assert [e["type"] for e in executed] == ["executed"]
    data = executed[0]["data"]
    assert (data["node"], data["output"]) == ("9", outputs["9"])
    assert len(data["prompt_id"]) == 36
    pictures = outputs["9"]["images"]
    assert len({p["filename"] for p in pictures}) == 2
    base = f"{server.url}/api/predict/default"
    for picture in pictures:
        assert (picture["type"], picture["subfolder"]) == ("output", "")
        by_name = requests.get(f"{base}/output/{picture['filename']}", headers=HEADERS, timeout=LIMIT_S)
        by_url = requests.get(picture["url"], timeout=LIMIT_S)
        for answer in (by_name, by_url):
            image = Image.open(io.BytesIO(answer.content)).convert("RGB")
            assert (image.size, image.getpixel((3, 3))) == ((16, 8), (0, 255, 0))
        foreign = {"Authorization": "sk_other"}
        name = f"{base}/output/{picture['filename']}"
        assert requests.get(name, headers=foreign, timeout=LIMIT_S).status_code == 404
    assert requests.get(f"{base}/output/nothing.png", headers=HEADERS, timeout=LIMIT_S).status_code == 404


def test_file_names_of_two_jobs_differ(server, sink):
    for _ in range(2):
        post(server, workflow(0x0000FF))
    names = [p["filename"] for item in results(sink, 2) for p in json.loads(item.data)[-1]["9"]["images"]]
    assert len(set(names)) == 4


def test_a_failed_job_says_so_on_the_sink(server, sink):
    graph = workflow()
    graph["1"]["inputs"]["width"] = 64
    graph["2"] = {"class_type": "ImageCrop", "inputs": {
        "image": ["1", 0], "width": 16, "height": 16, "x": 0, "y": 0}}
    graph["5"] = {"class_type": "RegexReplace", "inputs": {
        "string": "a", "regex_pattern": "(", "replace": "", "case_insensitive": False, "multiline": False,
        "dotall": False, "count": 0}}
    graph["6"] = {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}}
    _, request_id = post(server, graph, task_id="fails")
    (item,) = results(sink, 1)
    assert item.tags["lastCode"] == "500"
    assert (item.tags["task_id"], item.tags["requestId"]) == ("fails", request_id)
    last = json.loads(item.data)[-1]
    assert last["type"] == "execution_error"
    assert last["data"]["exception_message"]


def test_a_repeated_post_under_the_clients_own_id_is_one_job_with_one_result(server, sink):
    first = post(server, workflow(1), requestId="mine")
    assert post(server, workflow(1), requestId="mine") == first
    assert results(sink, 1)[0].tags["requestId"] == "mine"
    assert post(server, workflow(1), requestId="mine") == first
    assert sink.get(timeout="1s") == []


def test_an_item_tells_where_its_job_is_and_deleting_it_cancels(server):
    queue = client(server, "waits")
    ours = [post(server, workflow(), "waits")[0] for _ in range(3)]
    assert queue.search(ours[2]) == {"IsPending": False, "WaitCount": 2}
    assert queue.delete(ours[0]) == "OK"
    assert queue.search(ours[2]) == {"IsPending": False, "WaitCount": 1}
    listed = requests.get(f"{server.url}/darkroom/v1/jobs?endpoint=waits", headers=HEADERS, timeout=LIMIT_S).json()
    states = sorted(job["state"] for job in listed["jobs"])
    assert states == ["cancelled", "queued", "queued"]
    queue.truncate(ours[2] + 1)
    assert queue.attributes()["stream.length"] == "0"
    assert queue.search(ours[2]) == {}
    assert client(server, "waits/sink").get(timeout="0s") == [], "nobody waits for these"


def test_each_job_gives_one_result_while_the_server_is_killed():
    count = 30
    with Server(CONFIG) as server:
        sink = client(server, "default/sink")
        asked = {post(server, workflow(n), task_id=str(n))[1] for n in range(count)}
        for _ in range(3):
            time.sleep(0.2)
            kill_child(server)
        got = [item.tags["requestId"] for item in results(sink, count)]
        assert sorted(got) == sorted(asked)
        assert sink.get(timeout="1s") == []
