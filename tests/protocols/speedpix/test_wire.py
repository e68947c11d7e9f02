"""The wire itself: signatures, envelopes, uploads, and what bad input gets, by requests that tests sign themselves."""

import base64
import http.server
import json
import socket
import threading
import time

import pytest

import pictures
from darkroom_server import Server
from signing import HTTP, JSON, App, check_progress

SOURCE = pictures.png(seed=3)


@pytest.fixture(scope="module")
def flow(darkroom, tmp_path_factory):
    """A workflow on the embedded engine whose input is a file and a size."""
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "mine.png"}},
        "3": {"class_type": "ImageScale", "inputs": {
            "image": ["1", 0], "upscale_method": "nearest-exact", "width": 24, "height": 16, "crop": "disabled"}},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "10": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "wire"}},
    }
    made = darkroom.publish(
        tmp_path_factory.mktemp("wire"), "wire", graph, "--input", "1.image=image",
        "--input", "3.width=width,max=64", "--input", "3.upscale_method=method", "--output", "10.images=images",
    )
    assert made["version"] == "v1"
    assert [finding["code"] for finding in made["findings"]] == ["missing_default_file"]
    return "wire"


def upload(app, data=SOURCE, content_type="image/png", size=None, name="输入.png"):
    body = {"contentType": content_type, "originalFilename": name}
    if size is not None:
        body["size"] = size
    answer = app.post("/scc/sp_create_temp_file_upload_sign", body).json()
    assert answer["status"] == 10, answer
    return answer["data"]


def put(app, url, data, content_type="image/png"):
    return app.http.put(url, data=data, headers={"Content-Type": content_type, "Accept": "*/*"}, timeout=60)


def refused(envelope, sub_code, *parts):
    """Status 20, both layers, null data, in both spellings."""
    assert envelope["status"] == 20 and envelope["data"] is None, envelope
    for camel, snake in [("errCode", "err_code"), ("errMessage", "err_message"), ("subErrCode", "sub_err_code"),
                         ("subErrMessage", "sub_err_message"), ("apiInvokeId", "api_invoke_id")]:
        assert envelope[camel] == envelope[snake] and envelope[camel], envelope
    assert envelope["subErrCode"] == sub_code, envelope
    assert all(part in envelope["subErrMessage"] for part in parts), envelope


def test_a_call_from_upload_to_file(app, flow):
    signed = upload(app)
    for camel, snake in [("uploadUrl", "upload_url"), ("accessUrl", "access_url"), ("objectKey", "object_key"),
                         ("expireTime", "expire_time")]:
        assert signed[camel] == signed[snake], signed
    assert len(str(signed["expireTime"])) == 13 and signed["path"]
    assert put(app, signed["uploadUrl"], SOURCE).status_code == 200
    assert HTTP.get(signed["accessUrl"], timeout=60).content == SOURCE
    answer = app.prompt(flow, {"image": signed["accessUrl"]})
    assert answer["status"] == 10 and answer["errCode"] is None and answer["sub_err_code"] is None, answer
    data = answer["data"]
    assert data["taskId"] == data["task_id"] and data["status"] == "waiting", data
    done = app.finished(data["taskId"])
    assert done["status"] == 10, done
    result = done["data"]["result"]
    assert sorted(result) == ["images"] and sorted(result["images"]) == ["url"], result
    assert done["data"]["images"] == [result["images"]["url"]], done
    assert done["data"]["taskEndTime"] >= done["data"]["task_begin_time"] > 10**12, done
    file = HTTP.get(result["images"]["url"], timeout=60, allow_redirects=False)
    assert file.status_code == 200 and pictures.same(file.content, pictures.read(SOURCE))


def test_temporary_files_come_on_request(app, flow):
    data_uri = "data:image/png;base64," + base64.b64encode(SOURCE).decode()
    task = app.prompt(flow, {"image": data_uri}, return_temp_files=True)["data"]["taskId"]
    result = app.finished(task)["data"]["result"]
    assert sorted(result) == ["images", "temp_files"], result
    preview = HTTP.get(result["temp_files"]["url"], timeout=60).content
    assert pictures.same(preview, pictures.read(SOURCE))


def test_bad_values_are_told_before_anything_is_queued(app, flow):
    image = "https://example.com/a.png"
    refused(app.prompt("nowhere", {}), "WORKFLOW_NOT_FOUND", "nowhere")
    refused(app.prompt("a/b", {}), "WORKFLOW_NOT_FOUND", "a/b")
    refused(app.prompt(flow, {}, version_id="v7"), "VERSION_NOT_FOUND", "v7")
    refused(app.prompt(flow, {}, version_id="latest"), "VERSION_NOT_FOUND", "latest")
    refused(app.prompt(flow, {}, alias_id="beta"), "ALIAS_NOT_FOUND", "beta", "it has main")
    refused(app.prompt(flow, {}), "INVALID_INPUT", "'image'", "required")
    refused(app.prompt(flow, {"image": image, "widht": 3}), "INVALID_INPUT", "widht", "did you mean width?")
    refused(app.prompt(flow, {"image": image, "width": 65}), "INVALID_INPUT", "65 is larger than 64")
    refused(app.prompt(flow, {"image": image, "width": "wide"}), "INVALID_INPUT", "a whole number is wanted")
    refused(app.prompt(flow, {"image": image, "method": "nearest-exakt"}), "INVALID_INPUT", "is not one of", "did you mean")
    refused(app.prompt(flow, {"image": "./nope.jpg"}), "INVALID_INPUT", "./nope.jpg", "upload")
    refused(app.prompt(flow, {"image": 7}), "INVALID_INPUT", "a file")
    refused(app.prompt(flow, {"image": "http://127.0.0.1:1/x.png"}), "INVALID_INPUT", "not a public address")
    refused(app.prompt(flow, {"image": "data:image/png;base64,aGVsbG8gd29ybGQ="}), "INVALID_INPUT", "'image'", "not an image")
    refused(app.prompt(flow, {"image": "none.png"}), "INVALID_INPUT", "'image'", "no file 'none.png'")
    refused(app.ask("progress", "t_1"), "TASK_NOT_FOUND", "t_1")
    refused(app.ask("result", "t_1"), "TASK_NOT_FOUND", "t_1")
    answer = app.http.post(f"{app.url}/scc/comfy_prompt", data=b"{", headers=app.headers("/scc/comfy_prompt", b"{"))
    refused(answer.json(), "INVALID_REQUEST", "cannot be read")


def test_a_file_that_is_no_image_is_told_at_the_call(app, flow):
    signed = upload(app, name="page.html")
    assert put(app, signed["uploadUrl"], b"<html>no picture</html>").status_code == 200
    refused(app.prompt(flow, {"image": signed["accessUrl"]}), "INVALID_INPUT", "not an image")
    never = upload(app)
    refused(app.prompt(flow, {"image": never["accessUrl"]}), "INVALID_INPUT", "was not uploaded")


@pytest.fixture
def site():
    """A server of somebody else's, with a picture and a page."""
    files = {"/a.png": ("image/png", SOURCE), "/page": ("text/html", b"<html>no picture</html>")}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            kind, data = files.get(self.path, ("text/plain", b""))
            self.send_response(200 if data else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://localhost:{served.server_port}"
        served.shutdown()


def test_addresses_of_others_are_fetched_when_the_task_runs(app, flow, site):
    task = app.prompt(flow, {"image": f"{site}/a.png"})["data"]["taskId"]
    done = app.finished(task)
    assert done["status"] == 10, done
    file = HTTP.get(done["data"]["result"]["images"]["url"], timeout=60).content
    assert pictures.same(file, pictures.read(SOURCE))
    for path, told in [("/page", "not an image"), ("/none", "404")]:
        failed = app.finished(app.prompt(flow, {"image": site + path})["data"]["taskId"])
        assert failed["status"] == 20 and failed["data"]["status"] == "failed", failed
        assert failed["subErrCode"] == failed["sub_err_code"] == "INPUT_UNAVAILABLE", failed
        assert told in failed["subErrMessage"] and failed["subErrMessage"].startswith("input 'image': "), failed


def test_progress_and_the_time_left_come_from_past_runs(darkroom, app, tmp_path):
    slow = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "TestSleep", "inputs": {"seconds": 3.0, "steps": 30, "image": ["1", 0], "seed": "0"}},
        "10": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "slow"}},
    }
    name = f"slow-{tmp_path.name}"
    darkroom.publish(tmp_path, name, slow, "--endpoint", "tests", "--input", "2.seed=seed,type=string",
                     "--output", "10.images=images")
    assert app.finished(app.prompt(name, {"seed": "1"})["data"]["taskId"])["status"] == 10
    second = app.prompt(name, {"seed": "2"})["data"]
    assert second["estimatedDurationInSeconds"] > 0 and second["estimated_duration_in_seconds"] > 0, second
    seen, deadline = [], time.monotonic() + 120
    while not seen or seen[-1]["status"] not in ("succeeded", "failed"):
        assert time.monotonic() < deadline, seen[-1:]
        seen.append(app.ask("progress", second["taskId"])["data"])
        check_progress(seen[-1])
    unfinished = [one for one in seen if one["status"] in ("waiting", "running")]
    assert unfinished and all(one["etaRelative"] >= 1 for one in unfinished), unfinished
    fractions = [one["progress"] for one in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1 and seen[-1]["etaRelative"] == 0, fractions
    assert any(0 < fraction < 1 for fraction in fractions), fractions


def test_an_upload_address_is_good_once_for_what_was_signed(app):
    signed = upload(app, size=len(SOURCE))
    assert put(app, signed["uploadUrl"], SOURCE + b"x").status_code == 413
    assert put(app, signed["uploadUrl"], SOURCE, "image/jpeg").status_code == 403
    assert put(app, signed["uploadUrl"].replace("expires=", "expires=9"), SOURCE).status_code == 403
    assert put(app, signed["uploadUrl"], SOURCE).status_code == 200
    again = put(app, signed["uploadUrl"], b"other")
    assert again.status_code == 409 and "used already" in again.json()["error"]["message"], again.text
    assert HTTP.get(signed["accessUrl"], timeout=60).content == SOURCE
    assert HTTP.get(signed["accessUrl"].split("?")[0], timeout=60).status_code == 403
    too_large = app.post("/scc/sp_create_temp_file_upload_sign", {"contentType": "a/b", "size": 10**12}).json()
    assert too_large["subErrCode"] == "TOO_LARGE", too_large


def rejected(answer, status, message):
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["X-Ca-Error-Message"].startswith(message), answer.headers
    assert len(answer.headers["X-Ca-Error-Code"]) == 6


def test_requests_that_are_not_signed_right(app, flow):
    path, body = "/scc/comfy_get_progress", {"taskId": "t_1"}
    ok = app.post(path, body)
    assert ok.status_code == 200
    rejected(HTTP.post(app.url + path, json=body, timeout=60), 400, "Invalid AppKey")
    rejected(App(app.url, "ak_unknown", app.secret).post(path, body), 400, "Invalid AppKey")
    rejected(app.post(path, body, {"x-ca-signature": ""}), 401, "Empty Signature")
    rejected(app.post(path, body, {"x-ca-signature": "AAAA"}), 400, "Invalid Signature, Server StringToSign:`POST#")
    rejected(App(app.url, app.key, "wrong").post(path, body), 400, "Invalid Signature")
    now = int(time.time() * 1000)
    for off in (-16, 16):
        stale = app.post(path, body, x_ca_timestamp=str(now + off * 60_000))
        rejected(stale, 400, "Timestamp Expired")
    rejected(app.post(path, body, x_ca_timestamp="soon"), 400, "Invalid Timestamp")
    assert app.post(path, body, x_ca_nonce="only-once").status_code == 200
    rejected(app.post(path, body, x_ca_nonce="only-once"), 400, "Nonce Used")
    sent = json.dumps(body, separators=(",", ":")).encode()
    headers = app.headers(path, sent)
    tampered = app.http.post(app.url + path, data=sent.replace(b"t_1", b"t_2"), headers=headers, timeout=60)
    rejected(tampered, 400, "Invalid Content-MD5")
    # Whoever changed it has not used up the nonce of the one who may send it.
    assert app.http.post(app.url + path, data=sent, headers=headers, timeout=60).status_code == 200
    rejected(app.post("/scc/sd_get_progress", body), 400, "API Not Found")
    assert app.secret not in app.post(path, body, {"x-ca-signature": "AAAA"}).headers["X-Ca-Error-Message"]
    # Time and nonce must be among what is signed, else a recorded request could be made new.
    for names in ("x-ca-key", "x-ca-key,x-ca-timestamp", "x-ca-key,x-ca-nonce"):
        rejected(app.post(path, body, x_ca_signature_headers=names), 400, "Invalid Signature")


def test_nobody_without_a_secret_makes_the_server_read_a_body(darkroom, app):
    path = "/scc/comfy_prompt"
    for headers in (app.headers(path, b"{}", x_ca_key="ak_unknown"), {**app.headers(path, b"{}"), "x-ca-signature": "AAAA"}):
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{darkroom.server.port}", "Content-Length: 60000000",
                             "Expect: 100-continue", *lines])
        with socket.create_connection(("127.0.0.1", darkroom.server.port), timeout=60) as wire:
            # The body is sent to who asks for it.
            wire.sendall(f"{head}\r\n\r\n".encode())
            answer = wire.recv(65536).decode()
        assert answer.startswith("HTTP/1.1 400") and "x-ca-error-code: I400HD" in answer, answer


@pytest.mark.parametrize("path", ["/scc/sd_get_progress", "/scc/comfy_prompt"])
def test_a_connection_outlives_a_refusal(darkroom, path):
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{darkroom.server.port}\r\nContent-Length: 2\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", darkroom.server.port), timeout=60) as wire:
        # As clients send it: the head first. Who refuses it then and there closes the connection under the body.
        wire.sendall(head)
        wire.settimeout(0.5)
        answer = b""
        try:
            answer = wire.recv(65536)
        except TimeoutError:
            pass
        wire.settimeout(60)
        wire.sendall(b"{}" + head + b"{}")
        while answer.count(b"HTTP/1.1 400") < 2:
            more = wire.recv(65536)
            assert more, answer
            answer += more


def test_a_recorded_request_runs_once_whatever_becomes_of_the_server():
    config = """
[[keys]]
name = "shop"
app_key = "ak_shop"
app_secret = "sk_shop"
scopes = ["client"]
"""
    path, body = "/scc/comfy_get_progress", b'{"taskId":"t_1"}'
    with Server(config, holds_socket=True) as server:
        shop = App(server.url, "ak_shop", "sk_shop")
        sent, waiting = shop.headers(path, body), shop.headers(path, body)

        def post(headers):
            return HTTP.post(server.url + path, data=body, headers=headers, timeout=60)

        assert post(sent).status_code == 200
        rejected(post(sent), 400, "Nonce Used")
        server.process.kill()
        server.process.wait()
        server.start()
        rejected(post(sent), 400, "Nonce Used")
        # One that was signed before and comes after is nobody's recording.
        assert post(waiting).status_code == 200
        rejected(post(waiting), 400, "Nonce Used")


def test_paths_and_types_that_clients_send_otherwise_than_they_sign(app):
    path, body = "/scc/comfy_get_progress", {"taskId": "t_1"}
    assert app.post(path, body, sent_path=f"/{path}").status_code == 200
    java = app.post(path, body, {"Content-Type": "application/json"})
    assert java.status_code == 200
    # A body that httpx < 0.28 writes: the digest is of the other form.
    compact = '{"taskId":"一"}'.encode()
    headers = app.headers(path, compact)
    spaced = app.http.post(app.url + path, data=b'{"taskId": "\\u4e00"}', headers=headers, timeout=60)
    assert spaced.status_code == 200 and spaced.json()["subErrCode"] == "TASK_NOT_FOUND"
    assert JSON in headers.values()


def test_resources_and_rights(darkroom, app, flow):
    narrow = darkroom.app("narrow", "--endpoint", "private")
    foreign = darkroom.app("foreign", "--tenant", "other")
    image = upload(app)
    put(app, image["uploadUrl"], SOURCE)
    inputs = {"image": image["accessUrl"]}
    refused(narrow.prompt(flow, inputs), "RESOURCE_FORBIDDEN", "'default'")
    refused(narrow.prompt(flow, inputs, "tests"), "RESOURCE_FORBIDDEN", "'tests'")
    refused(app.prompt(flow, inputs, "none,default"), "RESOURCE_NOT_FOUND", "'none'")
    refused(foreign.prompt(flow, inputs), "WORKFLOW_NOT_FOUND", flow)
    task = narrow.prompt(flow, inputs, "dedicated")["data"]["taskId"]
    assert narrow.finished(task)["status"] == 10
    assert darkroom.api("GET", f"jobs/{task}").json()["endpoint"] == "private"
    refused(foreign.ask("progress", task), "TASK_NOT_FOUND")
    task = app.prompt(flow, inputs, "dedicated, default")["data"]["taskId"]
    assert app.finished(task)["status"] == 10


def test_a_revoked_app_is_unknown_at_once(darkroom):
    gone = darkroom.app("gone")
    assert gone.post("/scc/comfy_get_progress", {"taskId": "x"}).status_code == 200
    darkroom.cli("keys", "revoke", "gone")
    rejected(gone.post("/scc/comfy_get_progress", {"taskId": "x"}), 400, "Invalid AppKey")
    # Neither half opens the rest of the server.
    for half in (gone.key, gone.secret):
        answer = HTTP.get(f"{gone.url}/darkroom/v1/jobs", headers={"Authorization": f"Bearer {half}"}, timeout=60)
        assert answer.status_code == 401
