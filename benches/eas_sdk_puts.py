"""What a durable put costs a program of EAS's SDK: its own puts, one after the other beside a WebSocket watch with auto commit.

    python3 -m venv v && v/bin/pip install -r tests/protocols/requirements.txt
    v/bin/python benches/eas_sdk_puts.py target/release/darkroom [ROUNDS]

Each round times the same puts against a queue that is only in memory (this file, as a process of its own), as many raw
writes of 16 KiB with fdatasync (half before, half after), and Darkroom. The target is 1.3 times the sum of the first two.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from serving import darkroom

PUTS = 2000
TOKEN = "sk_bench"
CONFIG = f"""
[[keys]]
name = "bench"
secret = "{TOKEN}"
scopes = ["client"]
[endpoints.work]
kind = "queue"
"""


class InMemory(asyncio.Protocol):
    """A POST puts, a WebSocket gets what is put from then on."""

    watchers: set = set()
    count = 0

    def connection_made(self, transport):
        self.transport, self.held, self.watches = transport, b"", False

    def connection_lost(self, _error):
        self.watchers.discard(self)

    def data_received(self, data):
        if self.watches:
            return
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            headers = dict(
                line.lower().split(b": ", 1)[:1] + line.split(b": ", 1)[1:] for line in self.held[:end].split(b"\r\n")[1:]
            )
            if key := headers.get(b"sec-websocket-key"):
                self.watch(key)
                return
            size = int(headers.get(b"content-length", 0))
            if len(self.held) < end + 4 + size:
                return
            body, self.held = self.held[end + 4 : end + 4 + size], self.held[end + 4 + size :]
            self.put(body)

    def watch(self, key):
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.transport.write(upgrade + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        self.watches = True
        self.watchers.add(self)

    def put(self, body):
        InMemory.count += 1
        index = str(InMemory.count).encode()
        head = b"HTTP/1.1 200 OK\r\nX-Eas-Queueservice-Request-Id: r" + index + b"\r\nContent-Length: "
        self.transport.write(head + str(len(index)).encode() + b"\r\n\r\n" + index)
        if body:
            frame = b"\x82\x7e" + len(body).to_bytes(2, "big") + body
            for watcher in self.watchers:
                watcher.transport.write(frame)


async def serve_in_memory():
    server = await asyncio.get_running_loop().create_server(InMemory, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def watch(port):
    import websocket

    query = "_watch_=true&_auto_commit_=true&_window_=100&_index_=0"
    url = f"ws://127.0.0.1:{port}/api/predict/work?{query}"
    connection = websocket.create_connection(url, header=[f"Authorization: {TOKEN}"])
    print("watching", flush=True)
    for _ in range(PUTS):
        connection.recv()
    print("all", flush=True)


@contextlib.contextmanager
def beside(*mode):
    """This file as another process."""
    process = subprocess.Popen([sys.executable, __file__, *mode], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout
    finally:
        process.kill()
        process.wait()


def puts(port):
    from eas_prediction import QueueClient

    queue = QueueClient(f"127.0.0.1:{port}", "work")
    queue.set_token(TOKEN)
    queue.init()
    with beside("--watch", str(port)) as watcher:
        assert watcher.readline() == "watching\n"
        began = time.perf_counter()
        for _ in range(PUTS):
            queue.put(b"x" * 256)
        spent = time.perf_counter() - began
        assert watcher.readline() == "all\n"
    return spent


def commits(directory, count):
    page, path = b"x" * 16384, directory / "raw"
    with open(path, "wb", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(count):
            file.write(page)
            os.fdatasync(file.fileno())
        spent = time.perf_counter() - began
    path.unlink()
    return spent


def measure(binary):
    with tempfile.TemporaryDirectory(dir=".") as name:
        directory = pathlib.Path(name)
        with beside("--serve") as memory:
            in_memory = puts(int(memory.readline()))
        disk = commits(directory, PUTS // 2)
        with darkroom(binary, directory, CONFIG) as port:
            ours = puts(port)
        disk += commits(directory, PUTS // 2)
    ratio = ours / (in_memory + disk)
    ms = [f"{1000 * spent / PUTS:.2f}" for spent in (in_memory, disk, ours)]
    print(f"per put: in memory {ms[0]} ms, raw commit {ms[1]} ms, darkroom {ms[2]} ms = {ratio:.2f} of the sum (target 1.3)", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        asyncio.run(serve_in_memory())
    elif sys.argv[1] == "--watch":
        watch(int(sys.argv[2]))
    else:
        for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 3):
            measure(os.path.abspath(sys.argv[1]))
