"""Every program of the vendor's guide that the SDK can run, sync and under asyncio, with both generations of its libraries.

Those that come with the SDK run as they are printed (guide.py); those in programs/ are ours and make the calls of which the
guide only tells. Nothing differs but address, keys and workflow id. All of them run side by side (the SDK asks once a second);
their files come by the returned address alone and are compared pixel by pixel.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys

import pytest

import guide
import pictures

HERE = pathlib.Path(__file__).parent
PROGRAMS = HERE / "programs"
# Which of the libraries are of the older generation.
GENERATIONS = {"newer": [], "older": ["httpx", "wizard"], "older-httpx": ["httpx"], "older-wizard": ["wizard"]}
# Written for asyncio alone, or for both.
ONCE = {"uploads_async", "context_manager", "errors", "errors_async", "full_example", "full_example_async", "global_function",
        "printed-asyncio", "printed-faq_many"}
LIMIT_S = 240
SOURCE = pictures.png()


def _programs():
    own = [path.stem for path in PROGRAMS.glob("*.py") if path.stem != "common"]
    names = sorted(own) + [f"printed-{name}" for name in guide.BLOCKS]
    return [*names, *[f"{name}-twin" for name in names if name not in ONCE]]


NAMES = _programs()
# Mixed pairs change neither what is sent nor what is read: a few programs tell whether that holds.
OF_MIXED = ["errors", "errors_async", "uploads_async", "predictions", "printed-quick_start", "printed-quick_start-twin",
            "printed-files", "printed-resources-twin"]
CASES = [(generation, name) for generation in GENERATIONS
         for name in (NAMES if generation in ("newer", "older") else OF_MIXED)]


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
    printed = {**plain, "10": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "guide"}}}
    inputs = ["--input", "1.image=image", "--input", "10.filename_prefix=prompt"]
    for n, name in enumerate(["reference", "mask", "thumbnail"], 3):
        printed[str(n)] = {"class_type": "LoadImage", "inputs": {"image": "example.png"}}
        printed[str(10 + n)] = {"class_type": "PreviewImage", "inputs": {"images": [str(n), 0]}}
        inputs += ["--input", f"{n}.image={name}"]
    # What the programs leave out has a default.
    for endpoint in ("default", "private"):
        assert darkroom.api("PUT", f"endpoints/{endpoint}/inputs/example.png", data=SOURCE).status_code == 201
    for name, shape in [("guide", ""), ("guide-url", ",shape=url")]:
        made = darkroom.publish(home, name, printed, *inputs, "--output", f"10.images=images{shape}")
        assert made["findings"] == [], made
    return "poster"


@pytest.fixture(scope="module")
def runs(darkroom, app, older, published, tmp_path_factory):
    """All programs, with all generations, running; by generation, what each ended with, and the directory it ran in."""
    home = tmp_path_factory.mktemp("programs")
    image = home / "input.png"
    image.write_bytes(SOURCE)
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}

    def source(name):
        bare = name.removesuffix("-twin")
        if bare.startswith("printed-"):
            workflow = "guide-url" if bare == "printed-direct_run" else "guide"
            text = guide.program(bare.removeprefix("printed-"), {
                "your-app-key": app.key, "your-app-secret": app.secret, "https://custom-endpoint.com": app.url,
                "your-workflow-id": workflow, "your-dedicated-resource-id": "dedicated",
            })
        else:
            text = (PROGRAMS / f"{bare}.py").read_text(encoding="utf-8")
        return text if name == bare else guide.twin(text)

    def run(generation):
        todo = []
        for name in [name for of, name in CASES if of == generation]:
            out = home / generation / name
            for file in guide.FILES:
                place = out / file
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(SOURCE)
            todo.append({"name": name, "source": source(name), "cwd": str(out), "env": {"OUT": str(out)}})
        path = [str(older[library]) for library in GENERATIONS[generation]]
        environment = {
            **clean, "SPEEDPIX_ENDPOINT": app.url, "SPEEDPIX_APP_KEY": app.key, "SPEEDPIX_APP_SECRET": app.secret,
            "WORKFLOW_ID": published, "IMAGE": str(image), "PYTHONPATH": os.pathsep.join([*path, str(PROGRAMS)]),
        }
        done = subprocess.run(
            [sys.executable, str(HERE / "side_by_side.py")], env=environment, capture_output=True, text=True,
            timeout=LIMIT_S, input=json.dumps(todo),
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{darkroom.server.log()[-3000:]}"
        return json.loads(done.stdout.splitlines()[-1]), home / generation

    with concurrent.futures.ThreadPoolExecutor(len(GENERATIONS)) as pool:
        yield {generation: pool.submit(run, generation) for generation in GENERATIONS}


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
    assert seen["fails"][0] == "PredictionError", seen["fails"]
    told("fails", "node 2 (TestRaise)", "it went wrong", "EXECUTION_ERROR")
    assert seen["secret"][:2] == ["HTTPStatusError", "400"], seen["secret"]
    told("secret", "Invalid Signature, Server StringToSign:`POST#application/json; charset=utf-8#")
    told("resource", "RESOURCE_NOT_FOUND", "'none'")


# Files that a printed program saves by itself, and how many files of results it ends with beside them.
PRINTED = {
    "quick_start": (["result.png"], 1), "resources": ([], 3), "clients": ([], 0), "direct_run": (["result.png"], 1),
    "global_function": ([], 1), "background": (["result.png"], 1), "predictions": (["result.png"], 1), "files": ([], 1),
    "upload": ([], 1), "asyncio": ([f"async_result{n}.png" for n in ("", "_0", "_1", "_2")], 0), "errors": ([], 1),
    "faq_background": ([], 2), "faq_many": ([], 5),
}


def check_printed(darkroom, name, code, out):
    """It ends as the guide says, and whatever it was given is that picture."""
    printed = (out / "printed").read_text(encoding="utf-8")
    if name == "strategies":
        # The guide's own mistake: `run` has no such argument, whatever the server does.
        assert code == 1 and "TypeError" in printed and "file_encoding_strategy" in printed, printed
        return
    assert code == 0 and "失败" not in printed and "rror" not in printed, printed
    saved, seen = PRINTED[name]
    files = [out / file for file in saved] + sorted(out.glob("seen_*.png"))
    assert len(files) == len(saved) + seen, (files, printed)
    expected = pictures.inverted(SOURCE)
    for file in files:
        assert pictures.same(file.read_bytes(), expected), file
    if name == "resources":
        task = json.loads((out / "seen.json").read_text())["prediction"]
        assert darkroom.api("GET", f"jobs/{task}").json()["endpoint"] == "private"


@pytest.mark.parametrize("generation,name", CASES)
def test_a_program_of_the_guide(runs, darkroom, generation, name):
    codes, home = runs[generation].result()
    out, bare = home / name, name.removesuffix("-twin")
    if bare.startswith("printed-"):
        check_printed(darkroom, bare.removeprefix("printed-"), codes[name], out)
        return
    printed = (out / "printed").read_text(encoding="utf-8")
    assert codes[name] == 0, printed
    facts = json.loads(printed.splitlines()[-1])
    if bare in ("errors", "errors_async"):
        check_errors(facts)
        return
    files = [file for file in out.glob("*.png") if file.name not in guide.FILES]
    assert files, facts
    expected = pictures.inverted(SOURCE)
    for file in files:
        assert pictures.same(file.read_bytes(), expected), file
    if bare == "resources":
        job = darkroom.api("GET", f"jobs/{facts['job']}").json()
        assert job["endpoint"] == "private", job
    elif bare == "background":
        assert facts["before"] == "waiting", facts
    elif bare == "predictions":
        assert facts["again"] == "succeeded", facts
    elif bare == "uploads":
        assert len([file for file in files if not file.name.startswith("seen_")]) == 4, files
        assert facts["key"].endswith("/中文 名.png"), facts
    elif bare == "many_files":
        assert facts["images"] == 2, facts
