"""Programs as users of both SDKs write them, unmodified, with another address and key: a client, handlers with progress,
uploads and errors. What the SDKs offer to workers is found by looking: what nobody drives fails here."""

import inspect
import json
import os
import pathlib
import subprocess
import sys

import ppio_gpus
import pytest
import requests
import runpod.serverless
from runpod.serverless.utils import rp_upload

from bucket import KEY_ID, SECRET, Bucket, signed_with
from darkroom_server import Server
from worker_calls import KEYS, LIMIT_S, call, ended, run, status, wait_for

PROGRAMS = pathlib.Path(__file__).with_name("programs")
# Driven by the programs here, by handler.py, or (clients) by test_clients.py.
PPIO = {
    "Endpoint", "Job", "HTTPClient", "api_key", "endpoint_url_base", "start", "progress_update", "upload_image",
    "upload_images", "upload_file", "upload_bytes",
}
RUNPOD = {"start", "progress_update", "register_fitness_check"}
# Say nothing to a server.
RUNPOD_LOCAL = {"runpod_version", "VolumeCache"}
RP_UPLOAD = {"upload_image", "files", "bucket_upload", "upload_file_to_bucket", "upload_in_memory_object"}
RP_UPLOAD_LOCAL = {"get_boto_client", "extract_region_from_url"}


@pytest.fixture(scope="module")
def bucket():
    with Bucket("results", "callers") as running:
        yield running


@pytest.fixture(scope="module")
def server(bucket):
    text = KEYS + "[endpoints.0f43a6867e05fddd]\n"
    for name, program, env in [
        ("ppio", "ppio_handler.py", {}),
        ("runpod", "runpod_handler.py", {}),
        ("unfit", "runpod_handler.py", {"MODEL": "missing"}),
    ]:
        env = ", ".join(f"{key} = {json.dumps(value)}" for key, value in env.items())
        text += f"""
[endpoints.{name}]
kind = "worker"
python = {json.dumps(sys.executable)}
handler = {json.dumps(str(PROGRAMS / program))}
env = {{ {env} }}
bucket = {{ endpoint_url = "{bucket.url}", access_key_id = "{KEY_ID}", secret_access_key = "{SECRET}", name = "results" }}
"""
    with Server(text) as running:
        yield running


def test_everything_that_the_sdks_offer_to_workers_is_driven():
    assert set(ppio_gpus.__all__) == PPIO
    assert set(runpod.serverless.__all__) == RUNPOD | RUNPOD_LOCAL
    public = {
        name for name, it in inspect.getmembers(rp_upload, inspect.isfunction)
        if not name.startswith("_") and it.__module__ == rp_upload.__name__
    }
    assert public == RP_UPLOAD | RP_UPLOAD_LOCAL


def test_a_ppio_client_and_a_handler_with_progress_uploads_and_errors(server):
    ran = subprocess.run(
        [sys.executable, str(PROGRAMS / "ppio_client.py"), "ppio"], capture_output=True, text=True, timeout=LIMIT_S,
        env={**os.environ, "PPIO_API_KEY": "sk_test", "PPIO_ENDPOINT_BASE_URL": f"{server.url}/v1"},
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["status"], told["wrong"]) == ("COMPLETED", "FAILED")
    assert (told["health"]["jobs"]["completed"], told["health"]["jobs"]["failed"]) == (1, 1)
    output = told["output"]
    assert [image["filename"] for image in output["images"]] == ["apple.png"] * 2
    for image in output["images"]:
        assert signed_with(image["url"]) == (KEY_ID, "results")
        assert requests.get(image["url"], timeout=60).content.startswith(b"\x89PNG")
    assert requests.get(output["text"], timeout=60).text == "a red apple 苹果"
    assert requests.get(output["raw"], timeout=60).content == b"\0\1\2"


def test_a_task_for_comfyui_by_the_module_key_and_an_endpoints_id(server):
    ran = subprocess.run(
        [sys.executable, str(PROGRAMS / "ppio_comfyui_task.py"), "sk_test"], capture_output=True, text=True, timeout=LIMIT_S,
        env={**os.environ, "PPIO_ENDPOINT_BASE_URL": f"{server.url}/v1"},
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["first"] in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED") and told["last"] == "COMPLETED"
    (image,) = told["output"]["images"]
    assert image["filename"].startswith("apple")
    assert requests.get(image["url"], timeout=60).content.startswith(b"\x89PNG")


def test_a_runpod_handler_uploads_to_its_endpoints_bucket_and_to_its_callers(server, bucket):
    own = {"endpointUrl": bucket.url, "accessId": "caller", "accessSecret": "caller-s3cret", "bucketName": "callers"}
    job = run(server, "runpod", {"prompt": "苹果"}, s3Config=own)
    told = ended(server, "runpod", job)
    assert told["status"] == "COMPLETED", told
    output = told["output"]
    assert signed_with(output["image"]) == (KEY_ID, "results") and signed_with(output["file"]) == ("caller", "callers")
    for url in [output["image"], *output["images"], output["file"]]:
        assert requests.get(url, timeout=60).content.decode() == "苹果"
    assert requests.get(output["memory"], timeout=60).content == b"\0\1\2"
    assert bucket.stored("callers", f"{job}/notes.txt").decode() == "苹果"
    assert output["bucket"] == [f"{bucket.url}/callers/{job}/notes.txt"]
    assert "s3cret" not in json.dumps(told) and "s3cret" not in server.log()
    wrong = run(server, "runpod", {"prompt": ""})
    assert ended(server, "runpod", wrong)["error"] == "prompt is required"


def test_a_worker_that_says_it_is_unfit_is_not_started_and_says_why(server):
    job = run(server, "unfit", {"prompt": "x"})

    def why():
        waiting = call(server, "get", f"/darkroom/v1/jobs/{job}", key="sk_admin")["waiting"]
        return waiting if "there is no model 模型" in json.dumps(waiting, ensure_ascii=False) else None

    wait_for("the reason", why)
    assert status(server, "unfit", job)["status"] == "IN_QUEUE"
    call(server, "post", f"/v2/unfit/cancel/{job}")
