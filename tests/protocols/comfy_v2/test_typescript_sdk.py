"""The TypeScript SDK, unmodified, in the Node.js that stands beside this Python: every public method."""

import json
import os
import pathlib
import subprocess

import pytest

from npm import LIMIT_S, beside, with_packages
from v2 import KEY, picture, png

PROGRAM = pathlib.Path(__file__).parent / "javascript"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The directory of the program with the packages that it names; fetched by npm, without running anything of theirs."""
    return with_packages(PROGRAM, tmp_path_factory.mktemp("javascript"))


@pytest.mark.parametrize("prefix", ["", "/e/default"], ids=["root", "prefix"])
def test_a_program_uses_every_method(server, program, tmp_path, prefix):
    source = tmp_path / "picture.png"
    source.write_bytes(png((10, 20, 30)))
    done = subprocess.run(
        [beside("node"), "client.mjs", KEY, str(source), str(tmp_path)],
        cwd=program, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
        env={**{k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}, "COMFY_BASE_URL": server.url + prefix},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{server.log()[-4000:]}"
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["missing"] == []
    assert [asset["filePath"] for asset in told["brought"]] == ["disk.png", "bytes.png", "stream.png", "photo.png"]
    for asset in told["brought"]:
        assert asset["same"] and asset["hash"].startswith("blake3:") and asset["jobId"] is None
    assert [asset["createdNew"] for asset in told["brought"]][:3] == [True, True, True]
    assert told["first"] == "queued" and told["events"][-1] == "succeeded" and told["events"].count("outputReady") == 1
    assert told["events"][-2] == "outputReady" and told["cancelled"] == told["again"] == "succeeded"
    assert told["ran"] == ["succeeded", "succeeded"] and told["format"] == "api"
    assert told["refusals"] == ["NotFound", "InvalidWorkflow", "WorkflowFormatUi", "NotFound"]
    seen = told["seen"]
    data = (tmp_path / "out.png").read_bytes()
    assert seen["size"] == len(data) and list(data[2:6]) == told["part"] and seen["jobId"] == seen["id"]
    assert (seen["outputs"], seen["error"], seen["nodeId"], seen["type"]) == (1, None, "9", "image")
    assert told["url"] == f"{server.url}{prefix}/api/v2/assets/{seen['outputId']}/content"
    assert picture(data)[0] == (16, 16)
