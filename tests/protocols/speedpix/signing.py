"""Signs requests as the vendor's SDK does, so that tests can also sign them wrongly."""

import base64
import hashlib
import hmac
import json
import time
import uuid

import requests

JSON = "application/json; charset=utf-8"
# Without any key, and with nothing in the way of a loopback address, whatever the environment says of proxies.
HTTP = requests.Session()
HTTP.trust_env = False


class App:
    """An app key of a server."""

    def __init__(self, url, key, secret):
        self.url, self.key, self.secret = url, key, secret
        self.http = requests.Session()
        self.http.trust_env = False

    def headers(self, path, body, **changed):
        """The headers of a request; `changed` are put in before it is signed."""
        now = time.time()
        headers = {
            "date": time.strftime("%a, %d %b %Y %H:%M:%S GMT+00:00", time.gmtime(now)),
            "x-ca-key": self.key,
            "x-ca-timestamp": str(int(now * 1000)),
            "x-ca-nonce": str(uuid.uuid4()),
            "x-ca-signature-method": "HmacSHA256",
            "x-ca-signature-headers": "x-ca-timestamp,x-ca-key,x-ca-nonce,x-ca-signature-method",
            "Content-Type": JSON,
            "Accept": JSON,
            "content-md5": base64.b64encode(hashlib.md5(body).digest()).decode(),
            **{name.replace("_", "-"): value for name, value in changed.items()},
        }
        headers["x-ca-signature"] = self.signature(path, headers)
        return headers

    def signature(self, path, headers):
        lines = ["POST", headers["Accept"], headers["content-md5"], headers["Content-Type"], headers["date"]]
        names = sorted(headers["x-ca-signature-headers"].split(","))
        lines += [f"{name}:{headers[name]}" for name in names]
        text = "\n".join([*lines, path])
        return base64.b64encode(hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).digest()).decode()

    def post(self, path, value, headers=None, sent_path=None, **changed):
        """Sends a signed request; gives the response."""
        body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        signed = {**self.headers(path, body, **changed), **(headers or {})}
        return self.http.post(f"{self.url}{sent_path or path}", data=body, headers=signed, timeout=60)

    def prompt(self, workflow, inputs, resource=None, **more):
        """Calls a workflow; gives the envelope."""
        headers = {"X-SP-RESOURCE-CONFIG-ID": resource} if resource else None
        body = {"workflow_id": workflow, "version_id": None, "inputs": inputs, "alias_id": "main", **more}
        answer = self.post("/scc/comfy_prompt", body, headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ask(self, what, task):
        answer = self.post(f"/scc/comfy_get_{what}", {"taskId": task})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def finished(self, task, limit_s=120):
        """Polls until the task is over; gives the envelope of its result."""
        deadline = time.monotonic() + limit_s
        while True:
            progress = self.ask("progress", task)["data"]
            check_progress(progress)
            if progress["status"] in ("succeeded", "failed"):
                return self.ask("result", task)
            assert time.monotonic() < deadline, progress
            time.sleep(0.1)


def check_progress(data):
    """What the SDK must find in every answer about a task's progress, whichever library reads it."""
    for camel, snake in [("taskId", "task_id"), ("etaRelative", "eta_relative")]:
        assert data[camel] == data[snake], data
    assert isinstance(data["etaRelative"], int), data
    assert isinstance(data["progress"], (int, float)) and 0 <= data["progress"] <= 1, data
    assert data["status"] in ("waiting", "running", "succeeded", "failed"), data
