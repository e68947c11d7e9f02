"""The TypeScript SDK, unmodified, in the Node.js that stands beside this Python: every public method."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from v2 import KEY, picture, png

PROGRAM = pathlib.Path(__file__).parent / "javascript"
LIMIT_S = 300
# How npm says that no package index can be reached from here.
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ERR_SOCKET_TIMEOUT")


def beside(name):
    """A program of this environment, else of the machine."""
    return shutil.which(name, path=str(pathlib.Path(sys.executable).parent)) or shutil.which(name)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The directory of the program with the packages that it names; fetched by npm, without running anything of theirs."""
    home = tmp_path_factory.mktemp("javascript")
    for file in PROGRAM.iterdir():
        if file.is_file():
            shutil.copy(file, home)
    npm = beside("npm")
    done = npm and subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=60000"],
        cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
        env={**os.environ, "PATH": f"{pathlib.Path(npm).parent}:{os.environ['PATH']}"},
    )
    if not done or done.returncode != 0:
        said = done.stderr[-1000:] if done else "no npm"
        why = f"the packages of {PROGRAM} cannot be had: {said}"
        # What lacks is no fault of the house; packages that are there and cannot be installed are.
        if done and not any(code in done.stderr for code in NO_NETWORK) and os.environ.get("CI") in ("true", "1"):
            pytest.fail(f"{why} (CI is set: this client is part of what is promised)")
        pytest.skip(why)
    return home


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
