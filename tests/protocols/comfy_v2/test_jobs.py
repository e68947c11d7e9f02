"""Jobs on the wire: what a submit, a poll, a cancel and a list say, and to whom."""

import concurrent.futures
import re
import uuid

import pytest

from darkroom_server import Server
from v2 import CONFIG, KEY, Api, picture, plain, sleep, through

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
REQUIRED = {
    "id", "status", "created_at", "started_at", "completed_at", "expires_at", "queue_position", "progress", "outputs",
    "error", "urls",
}


def test_a_job_is_queued_runs_and_gives_its_picture(api):
    accepted = api.accepted(plain(0x102030), metadata={"client": "acme"})
    assert REQUIRED <= set(accepted) and str(uuid.UUID(accepted["id"])) == accepted["id"]
    assert accepted["status"] == "queued" and accepted["outputs"] == [] and accepted["started_at"] is None
    own = f"{api.base}/api/v2/jobs/{accepted['id']}"
    assert accepted["urls"] == {"self": own, "events": f"{own}/events", "cancel": f"{own}/cancel"}
    done = api.wait(accepted["id"])
    assert done["status"] == "succeeded" and done["error"] is None and done["metadata"] == {"client": "acme"}
    for name in ("created_at", "started_at", "completed_at", "expires_at"):
        assert TIME.fullmatch(done[name]), done
    assert done["created_at"] == accepted["created_at"] <= done["started_at"] <= done["completed_at"] < done["expires_at"]
    assert done["progress"] == {"value": 1.0, "nodes_done": 2, "nodes_total": 2}
    assert all(isinstance(number, int) for number in done["metrics"].values()) and set(done["metrics"]) == {"queue_ms", "execution_ms"}
    (output,) = done["outputs"]
    assert output["node_id"] == "9" and output["type"] == "image" and output["content_type"] == "image/png"
    assert output["name"].startswith("plain_") and output["job_id"] == done["id"] and TIME.fullmatch(output["url_expires_at"])
    content = api("GET", f"/assets/{output['id']}/content")
    assert content.headers["content-type"] == "image/png" and len(content.content) == output["size_bytes"]
    assert picture(content.content) == ((16, 16), [(0x10, 0x20, 0x30)])
    # The link is good by itself.
    assert Api(api.base, key=None)("GET", output["url"]).content == content.content
    described = api("GET", f"/assets/{output['id']}").json()
    for name in ("id", "hash", "size_bytes", "content_type", "job_id"):
        assert described[name] == output[name]
    assert described["hash"].startswith("blake3:") and described["file_path"] == output["name"]


def test_parts_of_an_output_can_be_had(api):
    job = api.wait(api.accepted(plain(0x203040))["id"])
    path = f"/assets/{job['outputs'][0]['id']}/content"
    whole = api("GET", path)
    assert whole.status_code == 200 and whole.headers["accept-ranges"] == "bytes"
    part = api("GET", path, headers={"Range": "bytes=2-5"})
    assert part.status_code == 206 and part.content == whole.content[2:6]
    assert part.headers["content-range"] == f"bytes 2-5/{len(whole.content)}"
    assert api("GET", path, headers={"Range": f"bytes={len(whole.content)}-"}).status_code == 416
    assert api("GET", path, headers={"Range": "nonsense"}).content == whole.content
    assert api("HEAD", path).headers["content-length"] == str(len(whole.content))


def test_texts_are_outputs_too(api):
    graph = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "grüße\u2028图"}},
        "9": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    job = api.wait(api.accepted(graph)["id"])
    assert job["status"] == "succeeded", job
    (output,) = job["outputs"]
    assert output["type"] == "text" and output["content_type"].startswith("text/plain")
    content = api("GET", output["url"])
    assert content.text == "grüße\u2028图" and len(content.content) == output["size_bytes"]
    told = [data for name, data in api.events(job["id"]) if name == "output"]
    assert [one["id"] for one in told] == [output["id"]]


def test_the_workflow_is_the_one_that_runs_without_credentials(api):
    graph = plain(0x304050)
    job = api.accepted(graph, extra_data={"api_key_comfy_org": "comfyui-secret-key"})
    told = api("GET", f"/jobs/{job['id']}/workflow")
    assert told.status_code == 200 and told.json()["format"] == "api"
    assert {node: told.json()["workflow"][node]["class_type"] for node in graph} == {"1": "EmptyImage", "9": "SaveImage"}
    done = api.wait(job["id"])
    for text in (told.text, str(done), api("GET", "/jobs").text):
        assert "comfyui-secret-key" not in text


def test_a_cancel_ends_a_job_that_waits_or_runs_and_no_other(tests_api):
    api = tests_api
    running = api.accepted(sleep(120, str(uuid.uuid4())))["id"]
    waiting = api.accepted(sleep(120, str(uuid.uuid4())))["id"]
    api.wait(running, "running")
    assert api.wait(waiting, "queued")["queue_position"] == 1
    answer = api("POST", f"/jobs/{waiting}/cancel")
    assert answer.status_code == 200 and answer.json()["status"] == "canceled" and answer.json()["error"] is None
    assert answer.json()["completed_at"]
    answer = api("POST", f"/jobs/{running}/cancel").json()
    assert answer["status"] in ("canceling", "canceled")
    assert api.wait(running)["status"] == "canceled"
    again = api("POST", f"/jobs/{running}/cancel")
    assert again.status_code == 200 and again.json()["status"] == "canceled"


def test_a_failed_job_says_which_node_and_why(tests_api):
    job = tests_api.wait(tests_api.accepted(through("TestRaise", str(uuid.uuid4()), message="out of luck"))["id"])
    assert job["status"] == "failed" and job["outputs"] == []
    error = job["error"]
    assert error["code"] == "node_execution_error" and "out of luck" in error["message"], error
    assert (error["node_id"], error["class_type"]) == ("5", "TestRaise")
    assert isinstance(error["traceback"], (str, type(None)))


def test_jobs_are_found_by_label_page_by_page(server):
    api, run = Api(server.url), uuid.uuid4().hex
    ids = [api.accepted(plain(n), metadata={"run": run, "n": str(n % 2), "all": "yes"})["id"] for n in range(7)]
    api.accepted(plain(9), metadata={"run": "another", "n": "0"})

    def pages(**query):
        cursor, sizes, found = None, [], []
        while True:
            answer = api("GET", "/jobs", params={**query, **({"cursor": cursor} if cursor else {})})
            assert answer.status_code == 200, answer.text
            sizes.append(len(answer.json()["jobs"]))
            found += answer.json()["jobs"]
            cursor = answer.json()["next_cursor"]
            if not cursor:
                return sizes, found

    sizes, found = pages(**{"metadata[run]": run, "limit": 3})
    assert sizes == [3, 3, 1] and [job["id"] for job in found] == ids[::-1]
    for job in found:
        assert REQUIRED <= set(job) and job["metadata"]["run"] == run and job["deployment_id"] == "default"
        assert TIME.fullmatch(job["create_time"]) and TIME.fullmatch(job["update_time"])
    _, found = pages(**{"metadata[run]": run, "metadata[n]": "1", "metadata[all]": "yes"})
    assert [job["id"] for job in found] == ids[1::2][::-1]
    assert pages(**{"metadata[run]": run, "metadata[n]": "2"})[1] == []
    for job in ids:
        api.wait(job)
    _, found = pages(**{"metadata[run]": run, "status": "succeeded,failed", "limit": 4})
    assert len(found) == 7
    assert pages(**{"metadata[run]": run, "status": "queued,canceling"})[1] == []
    everything = [job["id"] for job in pages(limit=100)[1]]
    assert len(everything) == len(set(everything)) and set(ids) <= set(everything)


def test_a_cursor_is_good_for_its_own_list_alone(server):
    api, run = Api(server.url), uuid.uuid4().hex
    for n in range(2):
        api.accepted(plain(n), metadata={"run": run})
    cursor = api("GET", "/jobs", params={"metadata[run]": run, "limit": 1}).json()["next_cursor"]
    assert cursor
    api.refused(400, "invalid_cursor", api("GET", "/jobs", params={"limit": 1, "cursor": cursor}))
    other = Api(server.url, "sk_other")
    other.refused(400, "invalid_cursor", other("GET", "/jobs", params={"metadata[run]": run, "cursor": cursor}))
    for wrong in ("x", "AAAA", "é", "{}"):
        api.refused(400, "invalid_cursor", api("GET", "/jobs", params={"cursor": wrong}))


def test_others_see_nothing_of_a_job(server):
    api, other = Api(server.url), Api(server.url, "sk_other")
    job = api.wait(api.accepted(plain(1), metadata={"mine": "yes"})["id"])
    output = job["outputs"][0]["id"]
    for method, path in [
        ("GET", ""), ("GET", "/workflow"), ("GET", "/events"), ("POST", "/cancel"),
    ]:
        other.refused(404, "not_found", other(method, f"/jobs/{job['id']}{path}"))
    for path in (f"/assets/{output}", f"/assets/{output}/content"):
        other.refused(404, "not_found", other("GET", path))
    reference = {"__type": "core/ASSET", "info": {"id": output}}
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": reference}}}
    other.refused(422, "missing_asset", other.submit(graph))
    assert other("GET", "/jobs", params={"metadata[mine]": "yes"}).json() == {"jobs": [], "next_cursor": None}
    # And of another endpoint, as of another deployment.
    elsewhere = Api(f"{server.url}/e/tests")
    elsewhere.refused(404, "not_found", elsewhere("GET", f"/jobs/{job['id']}"))


def test_what_a_job_made_goes_into_the_next_one(api):
    first = api.wait(api.accepted(plain(0x112233))["id"])
    reference = {"__type": "core/ASSET", "info": {"id": first["outputs"][0]["id"], "hash": "blake3:wrong", "file_path": "x"}}
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": reference}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "again"}},
    }
    second = api.accepted(graph)
    named = api("GET", f"/jobs/{second['id']}/workflow").json()["workflow"]["1"]["inputs"]["image"]
    assert isinstance(named, str) and "/" not in named and named.endswith(".png")
    done = api.wait(second["id"])
    assert done["status"] == "succeeded", done
    content = api("GET", f"/assets/{done['outputs'][0]['id']}/content").content
    assert picture(content) == ((16, 16), [(0xEE, 0xDD, 0xCC)])


def test_an_idempotency_key_is_good_once(server):
    api, key = Api(server.url), str(uuid.uuid4())
    headers = {"Idempotency-Key": key}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: api.submit(plain(n), headers=headers), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [422] * 7
    api.refused(422, "idempotency_key_reuse", api.submit(plain(1), headers=headers))
    # Another tenant's, and another endpoint's, are others.
    assert Api(server.url, "sk_other").submit(plain(1), headers=headers).status_code == 201
    assert Api(f"{server.url}/e/tests").submit(plain(1), headers=headers).status_code == 201


def test_a_key_is_good_again_where_no_job_came_of_it(server):
    api, headers = Api(server.url), {"Idempotency-Key": str(uuid.uuid4())}
    api.refused(422, "invalid_workflow", api.submit({"1": {"class_type": "NoSuchClass", "inputs": {}}}, headers=headers))
    reference = {"__type": "core/ASSET", "info": {"id": str(uuid.uuid4())}}
    api.refused(422, "missing_asset", api.submit({"1": {"class_type": "LoadImage", "inputs": {"image": reference}}}, headers=headers))
    assert api.submit(plain(1), headers=headers).status_code == 201
    api.refused(422, "idempotency_key_reuse", api.submit(plain(1), headers=headers))


def test_a_full_queue_is_told_with_a_time_and_takes_the_key_again():
    config = CONFIG.replace("[endpoints.tests]", '[endpoints.tests]\nlimits = { max_queued = 1 }')
    with Server(config) as server:
        api = Api(f"{server.url}/e/tests")
        running = api.accepted(sleep(120, "a"))["id"]
        api.wait(running, "running")
        waiting = api.accepted(sleep(120, "b"))["id"]
        headers = {"Idempotency-Key": "again"}
        api.refused(429, "queue_full", api.submit(sleep(0, "c"), headers=headers))
        api("POST", f"/jobs/{waiting}/cancel")
        assert api.submit(sleep(0, "c"), headers=headers).status_code == 201
        for job in api("GET", "/jobs").json()["jobs"]:
            api("POST", f"/jobs/{job['id']}/cancel")


def test_jobs_of_other_protocols_are_here_and_the_reverse(server):
    api = Api(server.url)
    # Of ComfyUI's own API, under the id that its caller gave, and under the one that it was given.
    for given in (str(uuid.uuid4()), None):
        body = {"prompt": plain(5), **({"prompt_id": given} if given else {})}
        prompt_id = api.http.post(f"{server.url}/prompt", json=body).json()["prompt_id"]
        job = api.wait(prompt_id)
        assert job["id"] == prompt_id and job["status"] == "succeeded" and len(job["outputs"]) == 1
        assert prompt_id in [one["id"] for one in api("GET", "/jobs").json()["jobs"]]
        assert api("GET", f"/jobs/{prompt_id}/workflow").json()["workflow"]["9"]["class_type"] == "SaveImage"
        assert [name for name, _ in api.events(prompt_id)][-2:] == ["output", "status"]
    # A name that is no UUID is none here; the job is found by its own id.
    api.http.post(f"{server.url}/prompt", json={"prompt": plain(6), "prompt_id": "my own name"})
    shown = api("GET", "/jobs").json()["jobs"][0]["id"]
    assert uuid.UUID(shown) and api.wait(shown)["status"] == "succeeded"
    # And the reverse.
    job = api.wait(api.accepted(plain(7))["id"])
    history = api.http.get(f"{server.url}/history/{job['id']}").json()[job["id"]]
    assert history["status"]["status_str"] == "success"
    assert api.http.get(f"{server.url}/api/jobs/{job['id']}").status_code == 200
    ours = api.http.get(f"{server.url}/darkroom/v1/jobs/{job['id']}").json()
    assert ours["state"] == "succeeded" and ours["dialect"] == "comfy_v2"


def test_the_native_protocol_beside_it_goes_on(server):
    http = Api(server.url).http
    for path in ("/api/queue", "/api/jobs", "/api/object_info", "/api/v2/userdata", "/v2/userdata", "/api/users"):
        assert http.get(f"{server.url}{path}").status_code == 200, path


def test_links_follow_the_host_and_survive_a_restart():
    with Server(CONFIG) as server:
        api = Api(f"{server.url}/e/default")
        job = api.wait(api.accepted(plain(8), metadata={"k": "v"}, headers={"Idempotency-Key": "once"})["id"])
        forwarded = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
        assert api("GET", f"/jobs/{job['id']}", headers=forwarded).json()["urls"] == job["urls"]
        by_name = api("GET", f"/jobs/{job['id']}", headers={"Host": f"localhost:{server.port}"}).json()
        assert by_name["urls"]["self"].startswith(f"http://localhost:{server.port}/e/default/api/v2/jobs/")
        content = api("GET", job["outputs"][0]["url"]).content
        assert server.stop() == 0
        server.start()
        after = api("GET", job["urls"]["self"]).json()
        for one in (job, after):
            for output in one["outputs"]:
                assert api("GET", output["url"]).content == content
                del output["url"], output["url_expires_at"]
        assert after == job
        assert api("GET", "/jobs", params={"metadata[k]": "v"}).json()["jobs"][0]["id"] == job["id"]
        api.refused(422, "idempotency_key_reuse", api.submit(plain(8), headers={"Idempotency-Key": "once"}))


@pytest.mark.parametrize("key", [None, "sk_wrong"])
def test_health_is_open_and_nothing_else(server, key):
    api = Api(server.url, key)
    health = api("GET", "/health")
    assert health.status_code == 200 and health.json()["status"] == "healthy"
    for method, path in [
        ("POST", "/jobs"), ("GET", "/jobs"), ("GET", f"/jobs/{uuid.uuid4()}"), ("GET", f"/jobs/{uuid.uuid4()}/events"),
        ("POST", f"/jobs/{uuid.uuid4()}/cancel"), ("GET", f"/assets/{uuid.uuid4()}"), ("GET", f"/assets/{uuid.uuid4()}/content"),
    ]:
        error = api.refused(401, "unauthorized", api(method, path))
        assert KEY not in error["message"]
