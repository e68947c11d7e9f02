"""Clients that people use with a ComfyUI, unmodified, against the real server: each runs as a process of its own and knows
the address alone."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import requests
from PIL import Image

from darkroom_server import Server

SCRIPTS = pathlib.Path(__file__).parent / "scripts"
LIMIT_S = 180
COLOUR = 0x336699


@pytest.fixture(scope="module")
def server():
    with Server() as running:
        yield running


def graph(saver="SaveImage"):
    more = {"filename_prefix": "client"} if saver == "SaveImage" else {}
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 24, "height": 16, "batch_size": 1, "color": COLOUR}},
        "9": {"class_type": saver, "inputs": {"images": ["1", 0], **more}},
    }


def address(server):
    return server.url.removeprefix("http://")


@pytest.fixture
def workflow(tmp_path):
    """Writes a graph to a file; gives its path."""

    def write(what):
        path = tmp_path / "workflow_api.json"
        path.write_text(json.dumps(what), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def run(server, tmp_path):
    """Runs a program without the settings of whoever runs the tests; gives the lines it printed."""

    def run(*command):
        clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        done = subprocess.run(
            [str(part) for part in command],
            env={**clean, "HOME": str(home), "DO_NOT_TRACK": "1", "NO_COLOR": "1"},
            cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}\n{server.log()[-4000:]}"
        return done.stdout.splitlines()

    return run


def assert_picture(png):
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    assert picture.size == (24, 16)
    assert picture.getcolors() == [(24 * 16, (0x33, 0x66, 0x99))]


@pytest.mark.parametrize(
    ("script", "saver"), [("history_images", "SaveImage"), ("socket_images", "SaveImageWebsocket")]
)
def test_scripts_in_the_manner_of_comfyuis_examples(server, run, workflow, script, saver):
    printed = run(sys.executable, SCRIPTS / f"{script}.py", address(server), workflow(graph(saver)))
    pictures = [json.loads(line) for line in printed]
    assert [picture["node"] for picture in pictures] == ["9"]
    assert_picture(bytes.fromhex(pictures[0]["png"]))


def test_scripts_below_a_named_endpoint(server, run, workflow):
    printed = run(
        sys.executable, SCRIPTS / "history_images.py", f"{address(server)}/e/default", workflow(graph())
    )
    assert_picture(bytes.fromhex(json.loads(printed[0])["png"]))


def comfy():
    """The program of comfy-cli, which stands beside this Python."""
    pytest.importorskip("comfy_cli")
    program = shutil.which("comfy", path=str(pathlib.Path(sys.executable).parent))
    assert program, "comfy-cli is installed without its program"
    return [program, "--skip-prompt", "--no-enable-telemetry"]


def test_comfy_cli_runs_a_workflow_and_finds_its_job(server, run, workflow):
    place = ["--host", "127.0.0.1", "--port", server.port]
    printed = run(*comfy(), "run", "--workflow", workflow(graph()), *place, "--wait")
    told = json.loads(printed[-1])
    assert told["ok"], told
    assert told["data"]["status"] == "completed"
    (picture,) = told["data"]["outputs"]
    assert_picture(requests.get(picture, timeout=60).content)
    prompt_id = told["data"]["prompt_id"]
    status = json.loads(run(*comfy(), "jobs", "status", prompt_id, *place)[-1])
    assert status["ok"], status
    assert status["data"]["prompt_id"] == prompt_id
    assert status["data"]["status"] == "completed", status


def test_a_program_of_comfy_script(server, run):
    pytest.importorskip("comfy_script")
    printed = run(sys.executable, SCRIPTS / "comfy_script_run.py", server.url)
    assert printed[-1] == "(24, 16) #eeddcc", printed


def test_the_program_of_the_dedicated_edition(run, workflow):
    keys = '[[keys]]\nname = "app"\nsecret = "raw-token"\nscopes = ["client"]\n[endpoints.default]\n'
    with Server(keys) as server:
        for base in ("/", "/e/default/", "/api/predict/default/"):
            first, outputs = run(
                sys.executable, SCRIPTS / "dedicated_edition.py", server.url + base, "raw-token", workflow(graph())
            )
            assert json.loads(first) == {"posted": 200, "looked": 200}
            (image,) = json.loads(outputs)["9"]["images"]
            file = requests.get(
                f"{server.url}{base}view", params=image, headers={"Authorization": "raw-token"}, timeout=60
            )
            assert_picture(file.content)
