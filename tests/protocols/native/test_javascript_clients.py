"""A client of ComfyUI's API written in JavaScript, unmodified, in the Node.js that stands beside this Python."""

import io
import json
import os
import pathlib
import subprocess

import pytest
from PIL import Image

from darkroom_server import Server
from npm import LIMIT_S, beside, with_packages

PROGRAM = pathlib.Path(__file__).parent / "javascript"

# Sleeps in steps, so that there is progress to hear of.
CONFIG = """
[endpoints.default]
command = [{binary}, "engine", "--test-nodes", "--listen", "127.0.0.1:{{port}}", "--input-directory", "{{input_dir}}",
  "--output-directory", "{{output_dir}}", "--temp-directory", "{{temp_dir}}", "--user-directory", "{{user_dir}}"]
"""
GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "?"}},
    "5": {"class_type": "TestSleep", "inputs": {"image": ["1", 0], "seconds": 0.5, "steps": 5, "seed": "javascript"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "javascript"}},
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The directory of the program with the packages that it names; fetched by npm, without running anything of theirs."""
    return with_packages(PROGRAM, tmp_path_factory.mktemp("javascript"))


@pytest.mark.parametrize("base", ["", "/e/default"])
def test_a_javascript_program_uploads_runs_hears_and_finds_its_prompt(program, tmp_path, base):
    from darkroom_server import binary

    picture, workflow = tmp_path / "picture.png", tmp_path / "workflow.json"
    Image.new("RGB", (24, 16), (0x33, 0x66, 0x99)).save(picture)
    workflow.write_text(json.dumps(GRAPH), encoding="utf-8")
    with Server(CONFIG.format(binary=json.dumps(str(binary())))) as server:
        done = subprocess.run(
            [beside("node"), "client.mjs", server.url.removeprefix("http://"), picture, workflow, base],
            cwd=program, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
            env={k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")},
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{server.log()[-4000:]}"
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["uploaded"] == {"name": "from-javascript.png", "subfolder": "", "type": "input"}
    values = [value for value, of in told["steps"] if of == 5]
    assert values == sorted(values) and values[-1] == 5 and len(set(values)) > 1, told["steps"]
    kinds = [kind for kind, _ in told["heard"]]
    assert kinds[0] == "execution_start" and "execution_success" in kinds, kinds
    assert [node for kind, node in told["heard"] if kind == "executed"] == ["9"]
    assert told["history"]["status"] == "success"
    assert [image["type"] for image in told["history"]["outputs"]["9"]["images"]] == ["output"]
    (file,) = told["files"]
    shown = Image.open(io.BytesIO(bytes.fromhex(file))).convert("RGB")
    assert shown.size == (24, 16) and shown.getcolors() == [(24 * 16, (0x33, 0x66, 0x99))]
    assert told["nodes"] > 10 and told["version"]
