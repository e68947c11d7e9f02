"""Every program of the vendor's guide that the SDK can run, with both generations of its libraries.

The programs in programs/ are ours: they make the guide's calls with the SDK as it is published, and nothing differs but
address, keys and workflow id. Each runs as a process of its own, all of them side by side (the SDK asks once a second).
Their files come by the returned address alone and are compared pixel by pixel.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys

import pytest

import pictures

PROGRAMS = pathlib.Path(__file__).parent / "programs"
NAMES = sorted(path.stem for path in PROGRAMS.glob("*.py") if path.stem != "common")
GENERATIONS = ["newer", "older"]
LIMIT_S = 240
SOURCE = pictures.png()


@pytest.fixture(scope="module")
def published(darkroom, tmp_path_factory):
    """The workflows that the programs call, published by the command line."""
    home = tmp_path_factory.mktemp("workflows")
    inputs = ["--input", "1.image=image,required", "--input", "6.text=text", "--endpoint", "tests"]
    first = darkroom.publish(home, "poster", pictures.workflow(), *inputs, "--output", "10.images=images")
    assert (first["workflow_id"], first["version"], first["aliases"]) == ("poster", "v1", ["main"])
    darkroom.publish(home, "poster-url", pictures.workflow(), *inputs, "--output", "10.images=images,shape=url")
    plain = pictures.workflow()
    del plain["6"]
    plain["10"]["inputs"]["filename_prefix"] = "plain"
    darkroom.publish(home, "poster-plain", plain, "--input", "1.image=image", "--output", "10.images=images")
    two = {
        **plain,
        "3": {"class_type": "LoadImage", "inputs": {"image": "other.png"}},
        "4": {"class_type": "ImageInvert", "inputs": {"image": ["3", 0]}},
        "5": {"class_type": "ImageBatch", "inputs": {"image1": ["2", 0], "image2": ["4", 0]}},
    }
    two["10"]["inputs"]["images"] = ["5", 0]
    darkroom.publish(home, "poster-two", two, "--input", "1.image=first", "--input", "3.image=second",
                     "--output", "10.images=images")
    fails = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "TestRaise", "inputs": {"image": ["1", 0], "message": "it went wrong", "seed": ""}},
        "10": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
    darkroom.publish(home, "poster-fails", fails, "--endpoint", "tests")
    return "poster"


@pytest.fixture(scope="module")
def runs(darkroom, app, older, published, tmp_path_factory):
    """All programs, each with both generations, running; by name and generation."""
    home = tmp_path_factory.mktemp("programs")
    image = home / "input.png"
    image.write_bytes(SOURCE)
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}

    def run(name, generation):
        out = home / generation / name
        out.mkdir(parents=True)
        path = [str(older)] if generation == "older" else []
        environment = {
            **clean, "SPEEDPIX_ENDPOINT": app.url, "SPEEDPIX_APP_KEY": app.key, "SPEEDPIX_APP_SECRET": app.secret,
            "WORKFLOW_ID": published, "OUT": str(out), "IMAGE": str(image), "PYTHONPATH": os.pathsep.join(path),
        }
        done = subprocess.run(
            [sys.executable, str(PROGRAMS / f"{name}.py")], env=environment, cwd=out, capture_output=True, text=True,
            timeout=LIMIT_S, stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{darkroom.server.log()[-3000:]}"
        return json.loads(done.stdout.splitlines()[-1]), out

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield {(name, generation): pool.submit(run, name, generation) for name in NAMES for generation in GENERATIONS}


def check_errors(seen):
    """What the SDK shows of each mistake says what to do about it."""
    def told(name, *parts):
        assert all(part in " ".join(seen[name]) for part in parts), (name, seen[name])

    told("workflow", "WORKFLOW_NOT_FOUND", "there is no workflow 'nowhere'")
    told("alias", "ALIAS_NOT_FOUND", "has no alias 'none'", "main")
    told("version", "VERSION_NOT_FOUND", "v99")
    told("input", "INVALID_INPUT", "did you mean image?")
    told("missing", "INVALID_INPUT", "'image'", "required")
    told("path", "INVALID_INPUT", "./nope.jpg", "caller's own machine")
    told("wrapped", "INVALID_INPUT", "directly into inputs")
    for name in ("fails", "fails_async"):
        assert seen[name][0] == "PredictionError", seen[name]
        told(name, "node 2 (TestRaise)", "it went wrong", "EXECUTION_ERROR")
    assert seen["secret"][:2] == ["HTTPStatusError", "400"], seen["secret"]
    told("secret", "Invalid Signature, Server StringToSign:`POST#application/json; charset=utf-8#")
    told("resource", "RESOURCE_NOT_FOUND", "'none'")


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_program_of_the_guide(runs, darkroom, name, generation):
    facts, out = runs[name, generation].result()
    if name == "errors":
        check_errors(facts)
        return
    files = sorted(out.glob("*.png"))
    assert files, facts
    expected = pictures.inverted(SOURCE)
    for file in files:
        assert pictures.same(file.read_bytes(), expected), file
    if name == "resources":
        job = darkroom.api("GET", f"jobs/{facts['job']}").json()
        assert job["endpoint"] == "private", job
    elif name == "background":
        assert facts["before"] == "waiting", facts
    elif name == "predictions":
        assert facts["again"] == "succeeded", facts
    elif name == "uploads":
        assert len(files) == 4 and facts["key"].endswith("/中文 名.png"), facts
    elif name == "many_files":
        assert facts["images"] == 2, facts
