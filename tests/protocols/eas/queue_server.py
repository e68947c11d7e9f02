"""A server with a plain queue service, its death by kill -9, and an inference service that answers every item."""

import json
import os
import select
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

from eas_prediction import PredictException, QueueClient

TOKEN = "sk_eas"
SERVICE = "test_group.qservice"
CONFIG = f"""
[[keys]]
name = "app"
secret = "{TOKEN}"
scopes = ["client"]
[endpoints.default]
[endpoints.qservice]
kind = "queue"
[endpoints.qservice.queue]
leave_grace = "1s"
"""
# Long enough for a machine that has much else to do.
READY_LIMIT_S = 120


def host(server):
    """What the SDK calls an endpoint: without a scheme."""
    return server.url.removeprefix("http://")


def client(server, name=SERVICE, **identity):
    """An SDK client of a queue."""
    queue = QueueClient(host(server), name)
    queue.set_token(TOKEN)
    queue.init(**identity)
    return queue


def kill_child(server):
    """As `kill_serving`, of a server that this process started."""
    kill_serving(server.process.pid, server.url)


def stop_and_start(server):
    """A graceful stop of everything, and a new start on the same port with the same data."""
    server.process.terminate()
    assert server.process.wait(READY_LIMIT_S) == 0
    with open(server.log_path, "ab") as log:
        server.process = subprocess.Popen(
            server.process.args, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    wait_ready(server.url)


def kill_serving(parent_pid, url):
    """kill -9 of the serving process; its parent keeps the socket and starts another, for which this waits."""
    with open(f"/proc/{parent_pid}/task/{parent_pid}/children", encoding="ascii") as children:
        child = int(children.read().split()[0])
    death = os.pidfd_open(child)
    os.kill(child, signal.SIGKILL)
    # Until it is dead its connections are open, and a request on one of them would be lost with it.
    ended, _, _ = select.select([death], [], [], READY_LIMIT_S)
    os.close(death)
    assert ended, "a killed process did not end"
    wait_ready(url)


def wait_settled(queues):
    """Waits until every item that was sent to a consumer is committed.

    A client has an item before the server has written down that it was sent; a server that is killed between the two sends
    it again, as it must.
    """
    deadline = time.monotonic() + READY_LIMIT_S
    for queue in queues:
        while any(
            ", Pending: 0," not in consumer
            for key, consumer in queue.attributes().items()
            if key.startswith("consumers.list.")
        ):
            assert time.monotonic() < deadline, queue.attributes()
            time.sleep(0.02)


def wait_ready(url):
    """Waits until a server takes requests."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_LIMIT_S
    while True:
        try:
            if opener.open(f"{url}/readyz", timeout=5).status == 200:
                return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, "the server did not come back"
            time.sleep(0.02)


def insist(call, *args, **kwargs):
    """As a careful program calls: until it is answered."""
    deadline = time.monotonic() + READY_LIMIT_S
    while True:
        try:
            return call(*args, **kwargs)
        except PredictException:
            assert time.monotonic() < deadline
            time.sleep(0.05)


class Echo(threading.Thread):
    """Watches the input, puts an answer with the same tags onto the sink, then commits."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.input = client(server, uid="echo")
        self.sink = client(server, f"{SERVICE}/sink", uid="echo")
        for queue in (self.input, self.sink):
            queue.set_timeout(30000)

    def run(self):
        watcher = self.input.watch(0, 50, auto_commit=False)
        for item in watcher.run():
            answer = json.dumps([{"received": item.data.decode(), "ok": True}])
            # The request id travels as a tag: an answer that is put twice is one.
            insist(self.sink.put, answer, dict(item.tags))
            insist(self.input.commit, item.index)
