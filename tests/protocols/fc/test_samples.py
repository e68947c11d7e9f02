"""The calls of the vendor's four samples against the real server, where nothing differs but the address.

The programs in samples/ are ours: the vendor's own sources could not be had. They make the samples' calls with the
samples' libraries, and read the answers as they do; each says at its head which facts it reproduces.

Each runs as a process of its own. Its files are downloaded by the returned URL alone, without any credential, and
compared pixel by pixel.
"""

import base64
import http.server
import io
import json
import os
import pathlib
import subprocess
import sys
import threading

import pictures
import pytest
import requests
from PIL import Image, ImageChops

from darkroom_server import Server

SAMPLES = pathlib.Path(__file__).parent / "samples"
MODES = ["sync_call", "stream_call", "async_call", "websocket_call", "websocket_blocking"]
SAMPLE_LIMIT_S = 180

# As the vendor: the function answers callers without credentials, while the rest of the server wants a key.
CONFIG = """
[fetch]
allow = ["127.0.0.1"]
[[keys]]
name = "operator"
secret = "sk_operator"
scopes = ["admin"]
[endpoints.default]
anonymous = true
"""


@pytest.fixture(scope="module")
def server():
    with Server(CONFIG) as running:
        yield running


@pytest.fixture
def sample(server, tmp_path):
    """Runs a sample; gives the lines it printed."""

    def run(name, graph, options=(), **environment):
        file = tmp_path / "workflow_api.json"
        file.write_text(json.dumps(graph), encoding="utf-8")
        clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        done = subprocess.run(
            [sys.executable, str(SAMPLES / f"{name}.py")],
            env={
                **clean, "SERVERLESS_API_URL": server.url, "WORKFLOW_FILE": str(file), "OPTIONS": ",".join(options),
                **environment,
            },
            capture_output=True, text=True, timeout=SAMPLE_LIMIT_S,
        )
        assert done.returncode == 0, f"{name} failed:\n{done.stdout}\n{done.stderr}\n{server.log()[-4000:]}"
        return done.stdout.splitlines()

    return run


def as_base64():
    return base64.b64encode(pictures.PATH.read_bytes()).decode()


def assert_expected(png):
    """Compares a file with the picture that must come out, pixel by pixel."""
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    want = pictures.expected()
    assert (picture.size, picture.mode) == (want.size, "RGB")
    assert ImageChops.difference(picture, want).getbbox() is None, "the pixels differ"


def only_output(lines):
    """The one file of the result, checked against what the sample printed of it."""
    result = json.loads(lines[-1])
    assert set(result) == {"type", "data"}
    assert result["type"] == "serverless_api"
    [entry] = result["data"]["results"]
    assert entry["node_id"] == "9"
    assert entry["batch_id"] == 0
    assert lines[-2] == str(entry["output"]["oss"]["object"])
    return entry["output"]


@pytest.mark.parametrize("mode", MODES)
def test_outputs_by_signed_url_and_base64(sample, mode):
    output = only_output(sample(mode, pictures.workflow(as_base64()), ["output_oss", "output_base64"]))
    assert output["oss"]["object"].endswith(".png")
    answer = requests.get(output["oss"]["url"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert_expected(answer.content)
    assert base64.b64decode(output["base64"]["content"], validate=True) == answer.content


@pytest.mark.parametrize("mode", MODES)
def test_output_oss_alone_leaves_base64_null(sample, mode):
    output = only_output(sample(mode, pictures.workflow(as_base64()), ["output_oss"]))
    assert output["base64"] == {"content": None}
    assert_expected(requests.get(output["oss"]["url"]).content)


@pytest.mark.parametrize("mode", MODES)
def test_output_base64_alone_leaves_the_object_null(sample, mode):
    output = only_output(sample(mode, pictures.workflow(as_base64()), ["output_base64"]))
    assert output["oss"]["object"] is None
    assert output["oss"]["url"] is None
    assert_expected(base64.b64decode(output["base64"]["content"]))


@pytest.mark.parametrize("mode", MODES)
def test_without_options_the_samples_print_none(sample, mode):
    lines = sample(mode, pictures.workflow(as_base64()))
    output = only_output(lines)
    assert lines[-2] == "None"
    assert output["base64"] == {"content": None}
    assert output["raw"]["type"] == "output"


def test_async_ids_may_begin_with_a_digit(sample, server):
    task_id = "0f8fad5b-d9cb-469f-a165-70867728950e"
    output = only_output(sample("async_call", pictures.workflow(as_base64()), ["output_oss"], TASK_ID=task_id))
    assert_expected(requests.get(output["oss"]["url"]).content)
    task = requests.get(f"{server.url}/api/serverless/task/{task_id}").json()
    assert (task["taskId"], task["status"]) == (task_id, "Succeeded")


def test_the_stream_tells_the_messages_in_order(sample):
    graph = pictures.workflow(as_base64())
    graph["9"]["inputs"]["filename_prefix"] = "nobody-else-saves-under-this-name"
    kinds = sample("stream_call", graph)[:-2]
    wanted = ["status", "execution_start", "execution_cached", "executing", "executed", "execution_success"]
    places = [kinds.index(kind) for kind in wanted]
    assert places == sorted(places), kinds
    assert kinds[-1] == "serverless_api"


class Files(http.server.BaseHTTPRequestHandler):
    """A web server with one picture."""

    def do_GET(self):
        body = pictures.PATH.read_bytes() if self.path == "/picture" else b"no"
        self.send_response(200 if self.path == "/picture" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{site.server_port}"
    site.shutdown()
    site.server_close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["data URI", "URL", "name"])
def test_every_form_of_an_image(sample, server, web, mode, form):
    image = {"data URI": f"data:image/png;base64,{as_base64()}", "URL": f"{web}/picture", "name": "照片 1.png"}[form]
    if form == "name":
        uploaded = requests.put(
            f"{server.url}/darkroom/v1/endpoints/default/inputs/{image}", data=pictures.PATH.read_bytes()
        )
        assert uploaded.status_code == 201, uploaded.text
    output = only_output(sample(mode, pictures.workflow(image), ["output_oss"]))
    assert_expected(requests.get(output["oss"]["url"]).content)


def test_a_picture_that_is_not_there_is_an_error_in_every_mode(server, web):
    graph = pictures.workflow(f"{web}/missing")
    answer = requests.post(f"{server.url}/api/serverless/run", json=graph)
    assert answer.status_code == 500
    body = answer.json()
    assert body["type"] == "error"
    assert body["error_code"] == "UNCLASSIFY"
    assert body["error_message"] == (
        f"LoadImage failed: can not get image {web}/missing from http url, got status code 404"
    )
