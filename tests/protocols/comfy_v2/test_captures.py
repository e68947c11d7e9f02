"""The answers of the official proxy, as they were recorded under both SDKs, against ours: the same statuses, and of every key that it
sends the same type."""

import json
import pathlib
import re
import uuid

import blake3
import pytest

from v2 import Api, plain, png, sleep

CAPTURES = pathlib.Path(__file__).parent / "captures"
# The proxy's own, beside the specification; both SDKs ignore them.
EXTRAS = {"outputs_reused", "truncated"}
# Objects whose keys are the caller's.
FREE = {"workflow", "details"}


def route(path):
    path = re.sub(r"/jobs/[^/]+", "/jobs/{id}", path.split("?")[0].partition("/api/v2")[2])
    path = re.sub(r"/by-hash/.+", "/by-hash/{hash}", path)
    return re.sub(r"/assets/(?!from-hash|by-hash)[^/]+", "/assets/{id}", path)


def types(value, at="", found=None):
    """`{path: {types}}` of an answer; lists count as one item."""
    found = {} if found is None else found
    found.setdefault(at, set()).add("number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__)
    if isinstance(value, dict) and at.rpartition(".")[2] not in FREE:
        for key, inner in value.items():
            if key not in EXTRAS:
                types(inner, f"{at}.{key}", found)
    elif isinstance(value, list):
        for inner in value:
            types(inner, f"{at}[]", found)
    return found


def recorded():
    """`{(method, route, status): {path: {types}}}` of all recorded exchanges with a JSON answer, or none."""
    shapes = {}
    for file in sorted(CAPTURES.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            shape = shapes.setdefault((one["method"], route(one["path"]), one["status"]), {})
            if isinstance(one.get("resp_body"), str):
                types(json.loads(one.get("resp_body")), found=shape)
    return shapes


class Recorder(Api):
    """Keeps what was answered."""

    def __init__(self, base):
        super().__init__(base)
        self.kept = {}

    def __call__(self, method, path, **options):
        answer = super().__call__(method, path, **options)
        shape = self.kept.setdefault((method, route(str(answer.url)), answer.status_code), {})
        if answer.content and answer.headers.get("content-type", "").startswith("application/json"):
            types(answer.json(), found=shape)
        return answer


@pytest.fixture(scope="module")
def ours(server):
    """The same calls as were recorded, made here."""
    api, unknown = Recorder(f"{server.url}/e/tests"), str(uuid.uuid4())
    data = png(tuple(uuid.uuid4().bytes[:3]))
    hash_, name = f"blake3:{blake3.blake3(data).hexdigest()}", {"file_path": "in.png"}

    def upload(**fields):
        texts = [(key, (None, value)) for key, value in {"content_type": "image/png", **name, **fields}.items()]
        return api("POST", "/assets", files=[*texts, ("file", ("in.png", data, "image/png"))])

    api("GET", "/health")
    api("HEAD", f"/assets/by-hash/{hash_}")
    upload(expected_hash="blake3:" + "0" * 64)
    asset = upload(expected_hash=hash_).json()
    api("HEAD", f"/assets/by-hash/{hash_}")
    api("POST", "/assets/from-hash", json={"hash": hash_, **name})
    api("POST", "/assets/from-hash", json={"hash": "blake3:" + "0" * 64, **name})
    graph = plain()
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET", "info": {"id": asset["id"]}}}}
    done = api.wait(api.accepted(graph, headers={"Idempotency-Key": hash_})["id"])
    api.refused(422, "idempotency_key_reuse", api.submit(graph, headers={"Idempotency-Key": hash_}))
    running = api.accepted(sleep(60, unknown))["id"]
    api.wait(running, "running")
    api("GET", "/jobs")
    api("POST", f"/jobs/{running}/cancel")
    api.wait(running)
    for path in ("", "/workflow"):
        api("GET", f"/jobs/{done['id']}{path}")
    api("POST", f"/jobs/{done['id']}/cancel")
    api("GET", f"/jobs/{done['id']}/events")
    api("GET", f"/jobs/{unknown}")
    output = done["outputs"][0]["id"]
    for path in (f"/assets/{asset['id']}", f"/assets/{output}/content", f"/assets/{unknown}", f"/assets/{unknown}/content"):
        api("GET", path)
    api("GET", f"/assets/{output}/content", headers={"Range": "bytes=0-4"})
    for _ in range(2):
        api("DELETE", f"/assets/{asset['id']}")
    return api.kept


def test_something_was_recorded():
    assert len(recorded()) >= 20


@pytest.mark.parametrize("exchange", sorted(recorded()), ids=lambda exchange: " ".join(map(str, exchange)))
def test_answers_have_the_recorded_shape(ours, exchange):
    assert exchange in ours, "it is answered with that status"
    shape, mine = recorded()[exchange], ours[exchange]
    for path, told in shape.items():
        parent = path.rpartition(".")[0]
        if "dict" not in mine.get(parent, {"dict"}):
            continue  # What is null here has no keys.
        assert path in mine or path.endswith("[]"), f"{path} is not told"
        # Who tells more than null tells what the specification says; the SDKs' own models check that.
        odd = {kind for kind in mine.get(path, set()) if kind not in told and told != {"NoneType"} and kind != "NoneType"}
        assert not odd, f"{path}: {odd} and not {told}"
