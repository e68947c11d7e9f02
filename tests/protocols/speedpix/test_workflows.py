"""Publishing and calling by the command line and the server's own API."""

import base64
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

import pictures
from signing import HTTP

SOURCE = pictures.png(seed=5)
DATA_URI = "data:image/png;base64," + base64.b64encode(SOURCE).decode()


def graph(kind="ImageInvert"):
    made = pictures.workflow(kind=kind)
    made["10"]["inputs"]["filename_prefix"] = f"flow-{kind}"
    del made["6"]
    return made


IO = ["--input", "1.image=image", "--output", "10.images=images"]


def run(darkroom, workflow, mode="sync", **body):
    return darkroom.api("POST", f"workflows/{workflow}/run?mode={mode}", json=body)


def fetch(run):
    [item] = run["outputs"]["images"]
    return HTTP.get(item["url"], timeout=60).content


def flipped():
    from PIL import Image

    return pictures.read(SOURCE).transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def test_versions_aliases_and_their_history(darkroom, tmp_path):
    assert darkroom.publish(tmp_path, "海报", graph(), *IO)["version"] == "v1"
    second = darkroom.publish(tmp_path, "海报", graph("ImageFlip"), *IO, "--note", "turned", "--alias", "v2.1")
    assert (second["version"], second["aliases"]) == ("v2", ["v2.1"])
    inverted, turned = pictures.inverted(SOURCE), flipped()
    for wanted, expected in [({}, inverted), ({"alias": "v2.1"}, turned), ({"version": "v1"}, inverted),
                             ({"version": "v2", "alias": "main"}, turned)]:
        done = run(darkroom, "海报", inputs={"image": DATA_URI}, **wanted)
        assert done.status_code == 200, done.text
        assert pictures.same(fetch(done.json()), expected), wanted
    moved = darkroom.cli("workflows", "alias", "海报", "main", "v2")
    assert (moved["from"], moved["version"]) == ("v1", "v2")
    assert pictures.same(fetch(run(darkroom, "海报", inputs={"image": DATA_URI}).json()), turned)
    assert darkroom.cli("workflows", "rollback", "海报")["version"] == "v1"
    history = darkroom.cli("workflows", "alias", "海报")
    assert history["aliases"] == {"main": "v1", "v2.1": "v2"}
    assert [(m["alias"], m["to"], m["rollback"]) for m in history["moves"]] == [
        ("main", "v1", True), ("main", "v2", False), ("v2.1", "v2", False), ("main", "v1", False)]
    # Once more goes further back, and there is nothing: not to v2 again.
    assert darkroom.cli("workflows", "rollback", "海报", code=2)["error"]["code"] == "invalid_request"
    assert darkroom.api("GET", "workflows/海报").json()["aliases"]["main"] == "v1"
    paths = [("aliases?limit=3", "moves", 4), ("versions?limit=1", "versions", 2)]
    for path, of, whole in paths:
        first = darkroom.api("GET", f"workflows/海报/{path}").json()
        rest = darkroom.api("GET", f"workflows/海报/{path.split('?')[0]}", params={"after": first["next"]}).json()
        assert rest["next"] is None and len(first[of]) + len(rest[of]) == whole, (first, rest)
    diff = darkroom.cli("workflows", "diff", "海报", "v1", "v2.1")
    assert [node["id"] for node in diff["diff"]["nodes_changed"]] == ["2", "10"], diff
    shown = darkroom.cli("workflows", "show", "海报")
    assert [v["version"] for v in shown["versions"]] == ["v2", "v1"] and shown["versions"][0]["note"] == "turned"
    assert "海报" in [w["workflow_id"] for w in darkroom.cli("workflows", "list")["workflows"]]
    assert darkroom.cli("workflows", "rollback", "海报", "none", code=7)["error"]["code"] == "not_found"
    file = tmp_path / "all.json"
    darkroom.cli("workflows", "export", "海报", "--out", file)
    brought = darkroom.cli("workflows", "import", file, "--name", "copy")
    assert brought["versions"] == ["v1", "v2"] and sorted(brought["aliases"]) == ["main", "v2.1"]
    assert darkroom.api("GET", "workflows/copy/export").json() == {**json.loads(file.read_text()), "workflow_id": "copy"}
    error = darkroom.cli("workflows", "import", tmp_path / "海报.json", code=2)["error"]
    assert "not what `darkroom workflows export` writes" in error["message"], error
    wrong = json.loads(file.read_text())
    wrong["versions"][1]["definition"]["graph"]["2"]["class_type"] = "ImageFlips"
    file.write_text(json.dumps(wrong))
    error = darkroom.cli("workflows", "import", file, "--name", "other-copy", code=2)["error"]
    assert (error["code"], error["details"]["findings"][0]["nearest"][0]) == ("not_publishable", "ImageFlip"), error
    assert error["details"]["findings"][0]["message"].startswith("v2: "), error
    assert darkroom.cli("workflows", "show", "other-copy", code=7)["error"]["code"] == "not_found"


def test_findings_are_readable(darkroom, tmp_path):
    wrong = graph()
    wrong["2"]["class_type"] = "ImageInverts"
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(wrong))
    error = darkroom.cli("publish", file, "--name", "wrong", *IO, code=2)["error"]
    [finding] = [f for f in error["details"]["findings"] if f["level"] == "error"]
    assert (finding["code"], finding["node"], finding["nearest"]) == ("missing_node", "2", ["ImageInvert"]), error
    file.write_text(json.dumps(graph()))
    for option in ["1.imag=image", "9.x=image", "2.image=image"]:
        error = darkroom.cli("publish", file, "--name", "wrong", "--input", option, code=2)["error"]
        assert error["code"] == "not_publishable", error
    assert darkroom.cli("publish", file, "--name", "wrong", *IO, "--check")["ok"] is True
    assert darkroom.cli("workflows", "show", "wrong", code=7)["error"]["code"] == "not_found"


def test_the_editors_own_file_is_published(darkroom, tmp_path):
    page = {
        "nodes": [
            {"id": 1, "type": "LoadImage", "widgets_values": ["mine.png", "image"],
             "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}]},
            {"id": 2, "type": "ImageInvert", "inputs": [{"name": "image", "type": "IMAGE", "link": 1}],
             "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [2]}]},
            {"id": 10, "type": "SaveImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 2}],
             "widgets_values": ["page"]},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 10, 0, "IMAGE"]],
    }
    assert darkroom.publish(tmp_path, "page", page, *IO)["version"] == "v1"
    done = run(darkroom, "page", inputs={"image": {"data": DATA_URI}}).json()
    assert pictures.same(fetch(done), pictures.inverted(SOURCE))


def test_a_draft_is_called_by_nobody_until_it_is_published(darkroom, tmp_path):
    made = darkroom.publish(tmp_path, "sketch", graph(), *IO, "--draft")
    assert made["workflow_id"] == "sketch"
    assert run(darkroom, "sketch", inputs={}).status_code == 404
    assert darkroom.api("GET", "workflows/sketch/draft").json()["draft"]["endpoint"] == "default"
    made = darkroom.cli("publish", "--name", "sketch", "--from-draft")
    assert (made["workflow_id"], made["version"]) == ("sketch", "v1")
    assert darkroom.api("GET", "workflows/sketch/draft").status_code == 404


@pytest.fixture(scope="module")
def typed(darkroom, tmp_path_factory):
    made = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": 255}},
        "10": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "typed"}},
    }
    options = ["--input", "1.width=width,min=1,max=64,description=how wide", "--input", "1.color=colour,required",
               "--output", "10.images=images", "--description", "a plain picture"]
    assert darkroom.publish(tmp_path_factory.mktemp("typed"), "typed", made, *options)["version"] == "v1"
    return "typed"


def test_values_are_checked_all_at_once(darkroom, typed):
    refused = run(darkroom, typed, inputs={"width": 65, "widths": 1})
    assert refused.status_code == 422, refused.text
    error = refused.json()["error"]
    assert error["code"] == "invalid_input"
    told = {(one["input"], one["code"]) for one in error["details"]["inputs"]}
    assert told == {("width", "out_of_range"), ("colour", "missing_input"), ("widths", "unknown_input")}
    for wanted, code in [({"version": "v9"}, "version_not_found"), ({"alias": "no"}, "alias_not_found")]:
        assert run(darkroom, typed, inputs={"colour": 1}, **wanted).json()["error"]["code"] == code
    assert run(darkroom, "nowhere").json()["error"]["code"] == "workflow_not_found"


def test_three_ways_to_wait(darkroom, typed):
    done = run(darkroom, typed, inputs={"colour": 0xFF0000, "width": 4}).json()
    assert done["state"] == "succeeded" and done["version"] == "v1", done
    picture = pictures.read(fetch(done))
    assert picture.size == (4, 8) and picture.getpixel((0, 0)) == (255, 0, 0)
    later = run(darkroom, typed, "async", inputs={"colour": 1}, reference="mine")
    assert later.status_code == 202, later.text
    job = later.json()["job"]
    assert run(darkroom, typed, "async", inputs={"colour": 2}, reference="mine").json()["job"] == job
    deadline = time.monotonic() + 120
    while (shown := darkroom.api("GET", f"workflows/{typed}/runs/{job}").json())["state"] != "succeeded":
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    assert shown["progress"] == 1 and len(shown["outputs"]["images"]) == 1
    assert darkroom.api("GET", f"workflows/nowhere/runs/{job}").status_code == 404
    events = []
    with darkroom.api("POST", f"workflows/{typed}/run", json={"inputs": {"colour": 3}}, stream=True,
                      headers={"Accept": "text/event-stream"}) as stream:
        for line in stream.iter_lines(decode_unicode=True):
            if line.startswith("event: "):
                events.append([line[7:], None])
            elif line.startswith("data: "):
                events[-1][1] = json.loads(line[6:])
    assert events[0][0] == "job" and events[-1][0] == "result", events
    assert events[-1][1]["state"] == "succeeded" and events[-1][1]["outputs"]["images"], events


def test_a_job_that_fails_says_where(darkroom, tmp_path):
    made = graph()
    made["2"] = {"class_type": "TestRaise", "inputs": {"image": ["1", 0], "message": "it went wrong"}}
    darkroom.publish(tmp_path, "raises", made, *IO, "--endpoint", "tests")
    answer = run(darkroom, "raises", inputs={"image": DATA_URI})
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["code"] == "job_failed" and "it went wrong" in error["message"], error
    assert error["details"]["run"]["failure"]["node_id"] == "2"


def test_files_come_in_every_form(darkroom, tmp_path):
    darkroom.publish(tmp_path, "forms", graph(), *IO)
    signed = darkroom.api("POST", "uploads", json={"filename": "a.png", "content_type": "image/png"}).json()
    assert HTTP.put(signed["upload_url"], data=SOURCE, headers={"Content-Type": "image/png"}, timeout=60).ok
    darkroom.api("PUT", "endpoints/default/inputs/stored.png", data=SOURCE)
    forms = [DATA_URI, {"data": DATA_URI}, "stored.png", {"upload": "stored.png"}, {"asset": signed["asset"]},
             signed["url"], {"url": signed["url"]}]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda form: run(darkroom, "forms", inputs={"image": form}), forms))
    for form, answer in zip(forms, answers):
        assert answer.status_code == 200, (form, answer.text)
        assert pictures.same(fetch(answer.json()), pictures.inverted(SOURCE)), form
    # What one run made goes into the next.
    [made] = answers[0].json()["outputs"]["images"]
    again = run(darkroom, "forms", inputs={"image": made["url"]})
    assert again.status_code == 200, again.text
    # What cannot be had is told before anything is queued, by the input's name.
    for bad, told in [("none.png", "there is no file 'none.png'"), ("http://localhost:1/a.png", "cannot be fetched"),
                      ("data:image/png;base64,aGVsbG8gd29ybGQ=", "not an image")]:
        refused = run(darkroom, "forms", inputs={"image": bad})
        assert refused.status_code == 422, refused.text
        [problem] = refused.json()["error"]["details"]["inputs"]
        assert (problem["input"], problem["code"]) == ("image", "bad_file") and told in problem["message"], problem
    for bad in [{"asset": "temp/x/other/a.png"}, {"asset": "outputs/x"}, {"file": "a"}, {"url": "ftp://x"}, {}]:
        assert run(darkroom, "forms", inputs={"image": bad}).json()["error"]["code"] == "invalid_input", bad


def has(tool):
    """Whether it is here; a Node before 18 has no `fetch`."""
    if not shutil.which(tool):
        return False
    known = subprocess.run([tool, "--version"], capture_output=True, text=True, timeout=60).stdout
    return tool != "node" or int(known.lstrip("v").split(".")[0]) >= 18


def test_schema_openapi_and_snippets_describe_a_call_that_works(darkroom, typed, tmp_path):
    schema = darkroom.api("GET", f"workflows/{typed}/schema").json()
    assert schema["properties"]["width"]["maximum"] == 64 and schema["required"] == ["colour"], schema
    document = HTTP.get(f"{darkroom.url}/darkroom/openapi.json", headers=darkroom.http.headers, timeout=60).json()
    operation = document["paths"][f"/darkroom/v1/workflows/{typed}/run"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["inputs"], "a call without them is refused"
    inputs = body["properties"]["inputs"]
    assert inputs["properties"]["width"]["description"] == "how wide" and operation["description"] == "a plain picture"
    snippets = darkroom.api("GET", f"workflows/{typed}/snippets").json()
    assert sorted(snippets) == ["curl", "javascript", "python", "speedpix"]
    shop = darkroom.app(f"snippets-{tmp_path.name}")
    environment = {
        "DARKROOM_KEY": "sk_operator", "NO_PROXY": "*", "no_proxy": "*", "PATH": os.environ.get("PATH", ""),
        "SPEEDPIX_APP_KEY": shop.key, "SPEEDPIX_APP_SECRET": shop.secret,
    }
    runners = {
        "python": ("py", [sys.executable]), "speedpix": ("py", [sys.executable]), "curl": ("sh", ["sh"]),
        "javascript": ("mjs", ["node"]),
    }
    for name, (ending, command) in runners.items():
        tool = "node" if name == "javascript" else name
        if tool in ("node", "curl") and not has(tool):
            print(f"SKIPPED: the snippet for {name}: no {tool} here")
            continue
        program = tmp_path / f"snippet-{name}.{ending}"
        program.write_text(snippets[name], encoding="utf-8")
        done = subprocess.run([*command, str(program)], capture_output=True, text=True, timeout=120, env=environment,
                              stdin=subprocess.DEVNULL)
        told = {"curl": '"state":"succeeded"', "speedpix": "FileOutput(url='http"}.get(name, "images http")
        assert done.returncode == 0 and told in done.stdout, (name, done)


def test_the_command_line_calls_one_and_saves_what_it_makes(darkroom, typed, tmp_path):
    done = darkroom.cli("workflows", "run", typed, "--input", "width=5", "--input", "colour=255", "--out", tmp_path)
    assert done["state"] == "succeeded" and len(done["files"]) == 1, done
    picture = pictures.read(open(done["files"][0], "rb").read())
    assert picture.size == (5, 8) and picture.getpixel((0, 0)) == (0, 0, 255)
    assert darkroom.cli("workflows", "run", typed, "--input", "width=x", code=2)["error"]["code"] == "invalid_input"


def test_an_alias_switched_in_flight_gives_every_call_one_version_whole(darkroom, tmp_path):
    def made(number):
        # A version is a size and a colour: a call that mixed two would have one's size and the other's colour.
        return {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 8 * number, "height": 8, "batch_size": 1, "color": number}},
            "10": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"v{number}"}},
        }

    for number in (1, 2):
        darkroom.publish(tmp_path, "switched", made(number), "--output", "10.images=images")

    def call(n):
        if n % 10 == 5:
            moved = darkroom.api("PUT", "workflows/switched/aliases/main", json={"version": f"v{n // 10 % 2 + 1}"})
            assert moved.status_code == 200, moved.text
        answer = run(darkroom, "switched", "async")
        assert answer.status_code == 202, answer.text
        return answer.json()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        calls = list(pool.map(call, range(200)))
        deadline = time.monotonic() + 240

        def finish(one):
            while (shown := darkroom.api("GET", f"workflows/switched/runs/{one['job']}").json())["state"] != "succeeded":
                assert shown["state"] in ("queued", "running") and time.monotonic() < deadline, shown
                time.sleep(0.2)
            return shown

        done = list(pool.map(finish, calls))
    seen = set()
    for accepted, ended in zip(calls, done):
        assert accepted["version"] == ended["version"]
        number = int(ended["version"][1:])
        seen.add(number)
        picture = pictures.read(fetch(ended))
        assert picture.size == (8 * number, 8) and set(picture.getdata()) == {(0, 0, number)}, ended
        assert ended["outputs"]["images"][0]["filename"].startswith(f"v{number}"), ended
    assert seen == {1, 2}, "the alias was moved meanwhile"


def test_a_key_of_one_endpoint_changes_nothing_that_runs_on_another(darkroom, tmp_path):
    darkroom.publish(tmp_path, "guarded", graph(), *IO)
    narrow = darkroom.cli("keys", "create", "--name", f"narrow-{tmp_path.name}", "--scope", "publish", "--scope", "client",
                          "--endpoint", "private")["secret"]
    file = tmp_path / "guarded.json"
    error = darkroom.cli("publish", file, "--name", "guarded", *IO, "--endpoint", "private", "--alias", "main", key=narrow,
                         code=4)["error"]
    assert error["code"] == "foreign_endpoint", error
    for command in [("rollback", "guarded"), ("export", "guarded"), ("alias", "guarded", "main", "v1"), ("show", "guarded")]:
        assert darkroom.cli("workflows", *command, key=narrow, code=7)["error"]["code"] == "not_found", command
    assert darkroom.api("GET", "workflows/guarded").json()["latest"] == "v1"
    # Its own it may do all with.
    darkroom.cli("publish", file, "--name", "own", *IO, "--endpoint", "private", key=narrow)
    assert [w["workflow_id"] for w in darkroom.cli("workflows", "list", key=narrow)["workflows"]] == ["own"]


def test_others_neither_see_nor_publish(darkroom, typed, tmp_path):
    other = {"Authorization": "Bearer sk_other"}
    listed = HTTP.get(f"{darkroom.url}/darkroom/v1/workflows", headers=other, timeout=60).json()
    assert listed["workflows"] == [], listed
    for path in [f"workflows/{typed}", f"workflows/{typed}/export", f"workflows/{typed}/versions/v1"]:
        assert HTTP.get(f"{darkroom.url}/darkroom/v1/{path}", headers=other, timeout=60).status_code == 404
    client = darkroom.cli("keys", "create", "--name", f"client-{tmp_path.name}")["secret"]
    allowed = {"Authorization": f"Bearer {client}"}
    shown = HTTP.get(f"{darkroom.url}/darkroom/v1/workflows/{typed}/versions/v1", headers=allowed, timeout=60).json()
    assert "graph" not in shown and shown["inputs"], shown
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(graph()))
    assert darkroom.cli("publish", file, "--name", "mine", key=client, code=4)["error"]["code"] == "missing_scope"
    moved = HTTP.put(f"{darkroom.url}/darkroom/v1/workflows/{typed}/aliases/main", json={"version": "v1"},
                         headers=allowed, timeout=60)
    assert moved.status_code == 403
