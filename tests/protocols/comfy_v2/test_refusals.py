"""Every code of the protocol's table, in the envelope that the SDKs read."""

import uuid

import pytest
from comfy_sdk import Comfy

from darkroom_server import Server
from v2 import CONFIG, Api, plain

UI = {"nodes": [{"id": 1, "type": "LoadImage"}], "links": [], "last_node_id": 1}
UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("body", ["", "{", "[]", "[1, 2]", "null", "3", '"text"', "\xff", '{"workflow": ' + "[" * 400])
def test_bodies_that_are_no_object(api, body):
    api.refused(400, "invalid_request", api("POST", "/jobs", content=body.encode("latin-1")))


@pytest.mark.parametrize(("code", "more"), [
    ("invalid_workflow", {"workflow": {}}),
    ("invalid_workflow", {"workflow": None}),
    ("invalid_workflow", {"workflow": [1]}),
    ("invalid_workflow", {"workflow": "text"}),
    ("invalid_workflow", {"workflow": {"1": {}}}),
    ("invalid_workflow", {"workflow": {"1": 3}}),
    ("invalid_workflow", {"workflow": {"1": {"class_type": "NoSuchClass", "inputs": {}}}}),
    ("invalid_workflow", {"workflow": {"9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}}),
    ("invalid_workflow", {"workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": "not there.png"}},
                                       "9": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}}),
    ("invalid_workflow", {"webhook_url": "http://example.com/"}),
    ("invalid_workflow", {"inputs": {"a": 1}}),
    ("workflow_format_ui", {"workflow": UI}),
    ("workflow_format_ui", {"workflow": {"nodes": [], "links": []}}),
    ("metadata_invalid", {"metadata": {"run id": "x"}}),
    ("metadata_invalid", {"metadata": {"k": 1}}),
    ("metadata_invalid", {"metadata": {f"k{n}": "v" for n in range(17)}}),
    ("metadata_invalid", {"metadata": "a text"}),
    ("missing_asset", {"workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET"}}}}}),
    ("missing_asset", {"workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET", "info": {"id": UNKNOWN}}}}}}),
    ("missing_asset", {"workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET", "info": {"id": UNKNOWN + ".0"}}}}}}),
])
def test_workflows_that_cannot_run(api, code, more):
    error = api.refused(422, code, api("POST", "/jobs", json={"workflow": plain(), **more}))
    if code == "missing_asset":
        assert len(error["details"]["missing_ids"]) == 1


def test_a_wrong_node_is_named(api):
    graph = plain()
    graph["1"]["inputs"]["width"] = "wide"
    error = api.refused(422, "invalid_workflow", api.submit(graph))
    assert set(error["details"]["node_errors"]) == {"1"}, error
    assert error["details"]["node_errors"]["1"]["errors"][0]["extra_info"]["input_name"] == "width"


@pytest.mark.parametrize("extra_data", [None, [], "text", {"other": "x"}, {"api_key_comfy_org": 3}, {"api_key_comfy_org": None}])
def test_extra_data_is_a_closed_object(api, extra_data):
    api.refused(400, "invalid_request", api.submit(plain(), extra_data=extra_data))


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_keys_have_a_form(api, key):
    api.refused(400, "invalid_request", api.submit(plain(), headers={"Idempotency-Key": key}))


@pytest.mark.parametrize(("code", "query"), [
    ("invalid_request", "limit=0"), ("invalid_request", "limit=101"), ("invalid_request", "limit=-1"), ("invalid_request", "limit=x"),
    ("invalid_request", "status=done"),
    ("invalid_metadata_filter", "metadata[a b]=c"), ("invalid_metadata_filter", "metadata[a]=%0a"),
    ("invalid_metadata_filter", "metadata[a]=1&metadata[b]=1&metadata[c]=1&metadata[d]=1"),
    ("invalid_cursor", "cursor=foreign"),
])
def test_lists_are_asked_for_properly(api, code, query):
    api.refused(400, code, api("GET", f"/jobs?{query}"))


@pytest.mark.parametrize("job", [UNKNOWN, "x", "..%2F..%2Ffree", "%ff", "7" * 300, UNKNOWN.replace("-", "")])
def test_unknown_jobs(api, job):
    for method, path in [("GET", ""), ("GET", "/workflow"), ("GET", "/events"), ("POST", "/cancel")]:
        api.refused(404, "not_found", api(method, f"/jobs/{job}{path}"))


@pytest.mark.parametrize("asset", [UNKNOWN, "x", UNKNOWN + ".0", "..%2Fx", "%ff"])
def test_unknown_assets(api, asset):
    for path in ("", "/content"):
        api.refused(404, "not_found", api("GET", f"/assets/{asset}{path}"))


def test_what_is_no_route_and_no_method(api):
    api.refused(404, "not_found", api("GET", "/deployments"))
    api.refused(404, "not_found", api("GET", f"/jobs/{UNKNOWN}/logs"))
    api.refused(405, "invalid_request", api("DELETE", f"/jobs/{UNKNOWN}"))
    api.refused(405, "invalid_request", api("PUT", "/jobs", json={}))


def test_keys_that_may_not(server):
    for key in ("sk_worker", "sk_narrow"):
        api = Api(f"{server.url}/e/tests", key)
        api.refused(403, "forbidden", api("GET", "/jobs"))
    assert Api(server.url, "sk_narrow")("GET", "/jobs").status_code == 200
    for name in ("functions", "nowhere"):
        api = Api(f"{server.url}/e/{name}")
        api.refused(404, "not_found", api("GET", f"/jobs/{uuid.uuid4()}"))
        api.refused(404, "not_found", api.submit(plain()))


def test_a_body_that_is_too_large(server):
    api = Api(server.url)
    graph = plain()
    graph["1"]["inputs"]["text"] = "x" * (33 << 20)
    api.refused(413, "payload_too_large", api.submit(graph))


def test_without_keys_a_page_of_somebody_else_may_not(monkeypatch):
    with Server("") as server:
        api = Api(server.url, key=None)
        api.refused(403, "forbidden_origin", api("POST", "/jobs", json={"workflow": plain()}, headers={"Origin": "https://evil.example"}))
        # And a program with Node's fetch may, without a key and with one that nobody knows.
        for key in (None, "sk_anything"):
            answer = Api(server.url, key).submit(plain(), headers={"Sec-Fetch-Mode": "cors"})
            assert answer.status_code == 201, answer.text
        monkeypatch.setenv("COMFY_BASE_URL", server.url)
        monkeypatch.delenv("COMFY_API_KEY", raising=False)
        with Comfy() as client:
            assert client.run(client.workflows.from_json(plain()), timeout=120).status == "succeeded"


def test_an_asset_whose_bytes_are_gone():
    with Server(CONFIG) as server:
        api = Api(server.url)
        job = api.wait(api.accepted(plain())["id"])
        for file in (server.home / "data" / "blobs").rglob("*"):
            if file.is_file():
                file.unlink()
        answer = api("GET", f"/assets/{job['outputs'][0]['id']}/content")
        api.refused(404, "output_unavailable", answer)
