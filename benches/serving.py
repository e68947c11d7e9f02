"""A Darkroom server of a bench's own."""

import contextlib
import socket
import subprocess
import time
import urllib.request


@contextlib.contextmanager
def darkroom(binary, directory, config):
    """Runs the program with a configuration (a text) and its data in a directory; gives the port it listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = directory / "darkroom.toml"
    file.write_text(config, encoding="utf-8")
    server = subprocess.Popen(
        [binary, "serve", "--config", file, "--data-dir", directory / "data", "--listen", f"127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()
