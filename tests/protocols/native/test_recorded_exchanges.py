"""Every HTTP exchange that was recorded with ComfyUI 0.3.64, had with us. What may differ is listed here with the reason, and a
difference that is listed and does not happen fails too."""

import http.client
import io
import json
import pathlib
import re
import time

import pytest
from PIL import Image

from darkroom_server import Server

RECORDED = pathlib.Path(__file__).resolve().parents[2] / "data" / "native" / "exchanges.json"
LIMIT_S = 180
CLEAN = "what ComfyUI answers with a text 500 is a clean 400 here"

# What differs: a pattern of "METHOD path | label", the status that we answer (None: what we answer is looked at by other tests), and why.
DIFFERENCES = [
    (r"max_items=abc", 400, CLEAN),
    (r"POST prompt: (number bad|extra_data null|prompt null|prompt list|invalid json)$", 400, CLEAN),
    (r"POST (queue no body|free nobody)$", 400, CLEAN),
    (r"upload (type bogus|no filename|mask no original_ref)$", 400, CLEAN),
    (r"GET /view\?filename=x.txt&type=input&(preview|channel)", 400, CLEAN),
    (r"upload filename traversal$", 400, "the recorder's client escaped the name; as it is written here it climbs out, and ComfyUI refuses that too"),
    (r"GET /internal/folder_paths ", 200, "paths of machines are not told"),
    (r"GET (/api)?/(interrupt|free) ", 405, "the path takes another method; ComfyUI answers what nobody knows from its page's directory"),
    (r"OPTIONS prompt$", 405, "a preflight is answered to the origins that `cors_origins` names"),
    (r"GET /api/ ", 404, "the page of an endpoint is at /e/{endpoint}/"),
    (r"view_metadata$", 404, "the engine has no models; of instances that have, `tests/tests/it/native/remote.rs`"),
]


def picture(size, name):
    """A PNG with an alpha channel, or a JPEG; other sizes are other pictures."""
    made = Image.new("RGBA", (size % 97 + 8, 24), (size % 256, 60, 90, 128))
    file = io.BytesIO()
    if name.endswith(".jpg"):
        made.convert("RGB").save(file, "JPEG")
    else:
        made.save(file, "PNG")
    return file.getvalue()


def content(field):
    """`<2240 bytes>` stands for a picture, the small ones for their texts."""
    size = re.fullmatch(r"<(\d+) bytes>", field["value"])
    if not size:
        return field["value"].encode()
    text = {5: b"hello", 24: b"<script>alert(1)</script>"}.get(int(size[1]))
    return text or picture(int(size[1]), field["filename"])


def form(fields):
    boundary = "----recorded"
    lines = []
    for field in fields:
        name = f'form-data; name="{field["name"]}"'
        if "filename" in field:
            name += f'; filename="{field["filename"]}"'
        head = f'--{boundary}\r\nContent-Disposition: {name}\r\n'
        if "ct" in field:
            head += f'Content-Type: {field["ct"]}\r\n'
        lines.append(head.encode() + b"\r\n" + content(field) + b"\r\n")
    return b"".join(lines) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


class Conversation:
    """Asks one server what was asked of ComfyUI."""

    def __init__(self, server):
        self.port = server.port
        self.names = {}

    def ask(self, exchange):
        """Status, headers, body."""
        headers = dict(exchange.get("headers") or {})
        body = None
        if "json" in exchange:
            body, headers["Content-Type"] = json.dumps(exchange["json"]).encode(), "application/json"
        elif "raw" in exchange:
            body = exchange["raw"].encode()
        elif "form" in exchange:
            body, headers["Content-Type"] = form(exchange["form"])
        if headers.get("Origin") == "http://127.0.0.1:8188":
            headers["Origin"] = f"http://127.0.0.1:{self.port}"
        path = exchange["path"].replace(" ", "%20")
        for recorded, ours in self.names.items():
            path = path.replace(recorded, ours)
            headers = {name: value.replace(recorded, ours) for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        try:
            connection.request(exchange["method"], path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get(self, path):
        status, _, body = self.ask({"method": "GET", "path": path})
        assert status == 200, (path, status, body[:500])
        return json.loads(body)

    def wait_idle(self):
        """Until everything that was queued has run."""
        deadline = time.monotonic() + LIMIT_S
        while self.get("/prompt")["exec_info"]["queue_remaining"]:
            assert time.monotonic() < deadline, self.get("/queue")
            time.sleep(0.05)

    def prepare(self, exchanges):
        """What was in the recorded ComfyUI's directories."""
        for name, folder, value in [
            ("h1_rgba.png", "", "<2240 bytes>"), ("h1_rgb.jpg", "", "<1947 bytes>"), ("h1_sub.png", "sub", "<2240 bytes>"),
        ]:
            fields = [{"name": "image", "value": value, "filename": name, "ct": "image/png"}, {"name": "subfolder", "value": folder}]
            status, _, body = self.ask({"method": "POST", "path": "/upload/image", "form": fields})
            assert status == 200, body
        graph = next(e["json"]["prompt"] for e in exchanges if e["label"] == "POST prompt: partial targets")
        status, _, body = self.ask({"method": "POST", "path": "/prompt", "json": {"prompt": graph}})
        assert status == 200, body
        self.wait_idle()
        outputs = self.get(f"/history/{json.loads(body)['prompt_id']}").popitem()[1]["outputs"]
        self.names["ComfyUI_temp_qksef_00001_.png"] = outputs["5"]["images"][0]["filename"]
        status, headers, _ = self.ask({"method": "GET", "path": "/view?filename=h1_rgba.png&type=input"})
        self.names['"18e9d030c0f8ad6c-8c0"'] = headers["etag"]


def wrong(exchange, status, headers, body):
    """How an answer differs from the recorded one; None where it does not."""
    if status != exchange["status"]:
        return f"{status} instead of {exchange['status']}: {body[:300]}"
    if status >= 300 and "error" not in exchange:
        return None
    told = exchange["told"]
    if told in ("object", "list"):
        answer = json.loads(body)
        if not isinstance(answer, dict if told == "object" else list):
            return f"no {told}: {body[:300]}"
        if "error" in exchange and answer["error"]["type"] != exchange["error"]:
            return f"{answer['error']['type']} instead of {exchange['error']}"
        missing = set(exchange.get("keys", ())) - set(answer if told == "object" else ())
        if missing and "history" not in exchange["path"]:
            return f"without {missing}: {body[:300]}"
    elif told == "bytes" and exchange["type"] != headers.get("content-type"):
        return f"{headers.get('content-type')} instead of {exchange['type']}"
    elif told == "nothing" and body:
        return f"says {body[:300]}"
    return None


def test_what_was_asked_of_comfyui_is_answered_alike_but_for_what_is_listed():
    exchanges = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert len(exchanges) > 200
    unlisted, happened = [], set()
    with Server() as server:
        conversation = Conversation(server)
        conversation.prepare(exchanges)
        for exchange in exchanges:
            what = f"{exchange['method']} {exchange['path']} | {exchange['label']}"
            if "105906176" in json.dumps(exchange.get("form", "")):
                continue  # `tests/tests/it/native_files/uploads.rs`: a file that is too large
            if "/history" in exchange["path"]:
                conversation.wait_idle()
            status, headers, body = conversation.ask(exchange)
            difference = wrong(exchange, status, headers, body)
            if difference is None:
                continue
            listed = [nth for nth, (pattern, ours, _) in enumerate(DIFFERENCES) if re.search(pattern, what) and ours in (None, status)]
            happened.update(listed)
            if not listed:
                unlisted.append(f"{what}: {difference}")
    assert not unlisted, "\n".join(unlisted)
    assert not [DIFFERENCES[nth] for nth in set(range(len(DIFFERENCES))) - happened]
