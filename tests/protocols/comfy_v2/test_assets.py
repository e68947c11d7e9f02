"""Assets on the wire and through the SDK: brought once, had by hash and id, named by graphs, deleted, ranges, and bad input."""

import asyncio
import http.server
import io
import threading
import uuid

import blake3
import pytest
from comfy_sdk import AsyncComfy, Comfy
from comfy_sdk.exceptions import BlobNotFound, ComfyError, HashMismatch, NotFound

from v2 import KEY, Api, picture, png

# Of the SDK's classes of files; test_python_sdk.py asks whether these are all.
USED = {
    "Asset": {
        "id", "file_path", "hash", "created_new", "job_id", "expires_at", "commit", "delete", "as_reference", "get_download_url",
    },
    "AssetFactory": {"from_file", "from_bytes", "from_stream", "from_url", "get", "delete"},
}
UNKNOWN = "00000000-0000-0000-0000-000000000000"
ASSET = {"id", "hash", "size_bytes", "content_type", "created_at", "url", "url_expires_at", "file_path", "expires_at"}


def fresh():
    """A picture that nobody has brought."""
    return png(tuple(uuid.uuid4().bytes[:3]), (8, 8 + uuid.uuid4().int % 200))


def hash_of(data):
    return f"blake3:{blake3.blake3(data).hexdigest()}"


def form(file_first=False, data=None, name="photo.png", **fields):
    """The parts of an upload in either order."""
    file = [("file", (name, fresh() if data is None else data, "image/png"))]
    texts = [(key, (None, value)) for key, value in {"content_type": "image/png", "file_path": name, **fields}.items() if value is not None]
    return {"files": file + texts if file_first else texts + file}


def invert(image):
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "inverted"}},
    }


def is_inverse(data, colour):
    """Of one colour, and that inverted: to one level, as 32-bit floats have it."""
    (shown,) = picture(data)[1]
    return all(abs(255 - before - after) <= 1 for before, after in zip(colour, shown))


@pytest.mark.parametrize("file_first", [False, True])
def test_bytes_are_kept_once_and_had_by_id(api, file_first):
    data = fresh()
    assert api("HEAD", f"/assets/by-hash/{hash_of(data)}").status_code == 404
    first = api("POST", "/assets", **form(file_first, data, expected_hash=hash_of(data).upper().replace("BLAKE3", "blake3"), tags="input"))
    assert first.status_code == 201, first.text
    asset = first.json()
    assert ASSET <= set(asset) and asset["created_new"] is True and str(uuid.UUID(asset["id"])) == asset["id"]
    assert asset["hash"] == hash_of(data) and asset["size_bytes"] == len(data) and asset["file_path"] == "photo.png"
    assert asset["expires_at"] is None and "job_id" not in asset
    for spelled in (hash_of(data), hash_of(data).replace(":", "%3A")):
        answer = api("HEAD", f"/assets/by-hash/{spelled}")
        assert answer.status_code == 200 and answer.content == b""
    again = api("POST", "/assets", **form(file_first, data))
    assert again.status_code == 200 and again.json()["created_new"] is False and again.json()["id"] == asset["id"]
    same = api("POST", "/assets/from-hash", json={"hash": asset["hash"], "file_path": "photo.png", "tags": ["input"]})
    assert same.status_code == 200 and same.json()["id"] == asset["id"] and same.json()["created_new"] is False
    other = api("POST", "/assets/from-hash", json={"hash": asset["hash"], "file_path": "other.png"})
    assert other.status_code == 201 and other.json()["id"] != asset["id"] and other.json()["file_path"] == "other.png"
    shown = api("GET", f"/assets/{asset['id']}").json()
    assert "created_new" not in shown and shown["hash"] == asset["hash"]
    assert Api(api.base, key=None)("GET", shown["url"]).content == data, "the link is good by itself"
    path = f"/assets/{asset['id']}/content"
    assert api("GET", path).content == data
    part = api("GET", path, headers={"Range": "bytes=1-4"})
    assert part.status_code == 206 and part.content == data[1:5]
    assert api("GET", path, headers={"Range": "bytes=999999-"}).status_code == 416
    # The record goes, the bytes stay with the other one.
    assert api("DELETE", f"/assets/{asset['id']}").status_code == 204
    api.refused(404, "not_found", api("DELETE", f"/assets/{asset['id']}"))
    api.refused(404, "not_found", api("GET", path))
    assert api("GET", f"/assets/{other.json()['id']}/content").content == data


def test_a_wish_how_long_it_is_kept_is_kept(api):
    data = fresh()
    short = api("POST", "/assets", **form(data=data, expires_in="60")).json()
    assert short["expires_at"] > short["created_at"]
    longer = api("POST", "/assets/from-hash", json={"hash": short["hash"], "file_path": "photo.png", "expires_in": 604800}).json()
    assert longer["id"] == short["id"] and longer["expires_at"] > short["expires_at"]
    again = api("POST", "/assets", **form(data=data, expires_in="60")).json()
    assert again["expires_at"] == longer["expires_at"], "never shorter"


@pytest.mark.parametrize(("fields", "status", "code"), [
    ({"file_path": None}, 422, "invalid_request"),
    ({"file_path": ""}, 422, "invalid_request"),
    ({"file_path": "../x.png"}, 422, "invalid_request"),
    ({"file_path": "input/../../x.png"}, 422, "invalid_request"),
    ({"file_path": "/etc/passwd"}, 422, "invalid_request"),
    ({"file_path": "\\x.png"}, 422, "invalid_request"),
    ({"file_path": "output/x.png"}, 422, "invalid_request"),
    ({"file_path": "models/checkpoints/x.safetensors"}, 422, "invalid_request"),
    ({"content_type": "image"}, 422, "invalid_request"),
    ({"expires_in": "59"}, 422, "invalid_request"),
    ({"expires_in": "604801"}, 422, "invalid_request"),
    ({"expires_in": "soon"}, 422, "invalid_request"),
    ({"expected_hash": "blake3:zz"}, 409, "hash_mismatch"),
    ({"expected_hash": "blake3:" + "0" * 64}, 409, "hash_mismatch"),
])
@pytest.mark.parametrize("file_first", [False, True])
def test_uploads_that_are_refused_leave_nothing(api, fields, status, code, file_first):
    data = fresh()
    api.refused(status, code, api("POST", "/assets", **form(file_first, data, **fields)))
    assert api("HEAD", f"/assets/by-hash/{hash_of(data)}").status_code == 404


def test_what_is_no_form(api):
    for content, kind in [
        (b"{}", "application/json"), (b"", ""), (b"x", "multipart/form-data"), (b"--b\r\nbroken", "multipart/form-data; boundary=b"),
        (b"--b--\r\n", "multipart/form-data; boundary=b"),
    ]:
        api.refused(422, "invalid_request", api("POST", "/assets", content=content, headers={"Content-Type": kind}))
    no_file = {"files": [("content_type", (None, "image/png")), ("file_path", (None, "a.png"))]}
    api.refused(422, "invalid_request", api("POST", "/assets", **no_file))


def test_a_file_above_100_mib(server):
    api = Api(server.url)
    data = b"x" * ((100 << 20) + 1)
    api.refused(413, "payload_too_large", api("POST", "/assets", **form(data=data, name="a.bin")))
    # Also where its length is not told.
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'

    def chunked():
        yield head
        for _ in range(102):
            yield b"x" * (1 << 20)
        yield b"\r\n--b--\r\n"

    answer = api("POST", "/assets", content=chunked(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    api.refused(413, "payload_too_large", answer)


def test_hashes_that_are_not_here(api):
    for hash_ in ("blake3:" + "0" * 64, "blake3:zz", "", "md5:x", "x" * 500):
        api.refused(404, "blob_not_found", api("POST", "/assets/from-hash", json={"hash": hash_}))
    for body in ({}, {"hash": 3}, {"hash": None}):
        api.refused(404, "blob_not_found", api("POST", "/assets/from-hash", json=body))
    for body in ("[]", "", "{"):
        api.refused(400, "invalid_request", api("POST", "/assets/from-hash", content=body))
    for hash_ in ("blake3:" + "0" * 64, "x", "%ff"):
        assert api("HEAD", f"/assets/by-hash/{hash_}").status_code == 404


def test_others_have_nothing_of_it(server):
    api, other, data = Api(server.url), Api(server.url, "sk_other"), fresh()
    asset = api("POST", "/assets", **form(data=data)).json()
    assert other("HEAD", f"/assets/by-hash/{asset['hash']}").status_code == 404
    other.refused(404, "blob_not_found", other("POST", "/assets/from-hash", json={"hash": asset["hash"]}))
    for method, path in [("GET", ""), ("GET", "/content"), ("DELETE", "")]:
        other.refused(404, "not_found", other(method, f"/assets/{asset['id']}{path}"))
    reference = {"__type": "core/ASSET", "info": {"id": asset["id"]}}
    error = other.refused(422, "missing_asset", other.submit(invert(reference)))
    assert error["details"] == {"missing_ids": [asset["id"]]}
    # The same bytes of somebody else are somebody else's.
    theirs = other("POST", "/assets", **form(data=data))
    assert theirs.status_code == 201 and theirs.json()["id"] != asset["id"]


def test_graphs_name_assets_by_reference_by_name_and_after_deletion(api):
    colour, name = (0x10, 0x80, 0xF0), f"{uuid.uuid4().hex}.png"
    asset = api("POST", "/assets", **form(data=png(colour), name=name)).json()
    reference = {"__type": "core/ASSET", "info": {"id": asset["id"], "hash": "blake3:wrong", "file_path": "wrong.png"}}
    jobs = [api.accepted(invert(image)) for image in (reference, name)]
    told = [api("GET", f"/jobs/{job['id']}/workflow").json()["workflow"]["1"]["inputs"]["image"] for job in jobs]
    assert told[0] == told[1] and told[0].endswith(".png"), "a name that is the same wherever it runs"
    assert api("DELETE", f"/assets/{asset['id']}").status_code == 204
    for job in jobs:
        done = api.wait(job["id"])
        assert done["status"] == "succeeded", done
        made = api("GET", f"/assets/{done['outputs'][0]['id']}/content").content
        assert is_inverse(made, colour)
    api.refused(422, "missing_asset", api.submit(invert(reference)))


def test_the_newest_file_of_a_name_counts(api):
    name = f"{uuid.uuid4().hex}.png"
    for colour in ((1, 2, 3), (200, 100, 50)):
        assert api("POST", "/assets", **form(data=png(colour), name=name)).status_code in (200, 201)
    done = api.wait(api.accepted(invert(name))["id"])
    assert is_inverse(api("GET", f"/assets/{done['outputs'][0]['id']}/content").content, (200, 100, 50))


def test_what_a_job_made_is_held_by_it(api):
    done = api.wait(api.accepted(invert_of_empty())["id"])
    output = done["outputs"][0]["id"]
    api.refused(409, "asset_in_use", api("DELETE", f"/assets/{output}"))
    assert api("GET", f"/assets/{output}").json()["job_id"] == done["id"]


def invert_of_empty():
    graph = invert("unused")
    graph["1"] = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 5}}
    return graph


@pytest.fixture(params=["", "/e/default"], ids=["root", "prefix"])
def sdk(server, request, monkeypatch):
    monkeypatch.setenv("COMFY_BASE_URL", server.url + request.param)
    monkeypatch.setenv("COMFY_API_KEY", KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def elsewhere():
    """The address of a picture on another server of this machine."""
    data = fresh()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}/photo.png", data
    web.shutdown()
    web.server_close()


@pytest.mark.usefixtures("sdk")
def test_the_sdk_brings_files_from_anywhere(tmp_path, elsewhere):
    url, there = elsewhere
    with Comfy() as client:
        colours = [(9, 8, 7), (90, 80, 70)]
        (tmp_path / "on disk.png").write_bytes(png(colours[0], (20, 20 + uuid.uuid4().int % 99)))
        assets = [
            client.assets.from_file(tmp_path / "on disk.png"),
            client.assets.from_bytes(fresh(), filename="bytes.png", content_type="image/png"),
            client.assets.from_stream(io.BytesIO(fresh()), filename="stream.png"),
            client.assets.from_url(url),
        ]
        for asset in assets:
            assert asset.id is None and asset.created_new is None
            done = client.run(workflow_with(client, asset), timeout=120)
            assert asset.id and asset.created_new is True and asset.hash.startswith("blake3:") and asset.job_id is None
            assert asset.expires_at is None and asset.commit() == asset.id
            assert asset.as_reference()["info"]["id"] == asset.id
            assert asset.get_download_url().url.endswith(f"/assets/{asset.id}/content")
            assert done.status == "succeeded" and done.outputs[0].type == "image"
            known = client.assets.get(asset.id)
            assert (known.id, known.file_path, known.hash) == (asset.id, asset.file_path, asset.hash)
        again = client.assets.from_bytes(there, filename=assets[3].file_path)
        assert again.commit() == assets[3].id and again.created_new is False
        made = client.assets.get(done.outputs[0].id)
        assert made.job_id == done.id
        with pytest.raises(ComfyError) as held:
            made.delete()
        assert held.value.code == "asset_in_use"
        assets[0].delete()
        client.assets.delete(known.id)
        for gone in (known.id, UNKNOWN):
            with pytest.raises(NotFound):
                client.assets.get(gone)
            with pytest.raises(NotFound):
                client.assets.delete(gone)
        low = client.assets._low
        with pytest.raises(BlobNotFound):
            low_call(low.asset_from_hash, "blake3:" + "0" * 64)
        with pytest.raises(HashMismatch):
            low_call(low.post_assets, io.BytesIO(fresh()), "image/png", "a.png", expected_hash="blake3:" + "0" * 64)


def low_call(call, *arguments, **options):
    """A call of the SDK's lower layer, with the upper one's errors."""
    from comfy_sdk.exceptions import translating

    with translating():
        return call(*arguments, **options)


@pytest.mark.usefixtures("sdk")
def test_the_same_with_asyncio(tmp_path, elsewhere):
    async def program():
        async with AsyncComfy() as client:
            (tmp_path / "a.png").write_bytes(fresh())
            assets = [
                client.assets.from_file(tmp_path / "a.png"),
                client.assets.from_bytes(fresh(), filename="bytes.png"),
                client.assets.from_stream(io.BytesIO(fresh()), filename="stream.png"),
                await client.assets.from_url(elsewhere[0]),
            ]
            for asset in assets:
                done = await client.run(workflow_with(client, asset), timeout=120)
                assert done.status == "succeeded" and asset.created_new is True and asset.job_id is None
                assert asset.expires_at is None and await asset.commit() == asset.id and asset.hash
                assert (await asset.as_reference())["info"]["file_path"] == asset.file_path
                assert (await asset.get_download_url()).url.endswith("/content")
            known = await client.assets.get(assets[0].id)
            await known.delete()
            await client.assets.delete(assets[1].id)
            with pytest.raises(NotFound):
                await client.assets.get(assets[0].id)

    asyncio.run(program())


def workflow_with(client, asset):
    workflow = client.workflows.from_json(invert("?"))
    workflow.set_input("1", "image", asset)
    return workflow
