"""Starts the real `darkroom serve` on a free port with a directory of its own, for programs written in Python.

The binary is $DARKROOM_BIN, else target/debug/darkroom. Leaving the `with` block ends the server by SIGTERM and fails
when it does not end, or ends with an error.
"""

import itertools
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Bounds of what hangs, not of what is slow.
START_LIMIT_S = 120
STOP_LIMIT_S = 90


def binary():
    """Path of the program under test."""
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    path = pathlib.Path(os.environ.get("DARKROOM_BIN") or pathlib.Path(target) / "debug" / "darkroom")
    if not path.is_file():
        raise RuntimeError(f"{path} is not there: run `cargo build -p darkroom` or set DARKROOM_BIN")
    return path.resolve()


# Below the range that the kernel gives to whoever asks for any port or connects somewhere (32768 and up on Linux): none of
# those could be relied upon while a server restarts.
_PORTS = itertools.count(os.getpid() * 7919)


def free_port():
    """A port nobody listens on now."""
    for number in _PORTS:
        port = 10_000 + number % 22_000
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("the count has no end")


class Server:
    """A running server; `config` is appended to its darkroom.toml, `env` to its environment.

    With `holds_socket` the listening socket is ours, as a service manager's: while no server runs, whoever connects waits.
    """

    def __init__(self, config="", env=None, holds_socket=False):
        self.config = config
        self.env = env or {}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.socket = None
        if holds_socket:
            self.socket = socket.create_server(("127.0.0.1", self.port), backlog=128)

    def __enter__(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="darkroom-test-"))
        config = self.home / "darkroom.toml"
        config.write_text(f'[server]\nstop_grace = "100ms"\n{self.config}\n', encoding="utf-8")
        self.log_path = self.home / "server.log"
        self.start()
        return self

    def start(self):
        """Starts it, for the first time or again on the same data, and waits until it is ready."""
        command = [
            str(binary()), "serve",
            "--listen", f"127.0.0.1:{self.port}",
            "--config", str(self.home / "darkroom.toml"),
            "--data-dir", str(self.home / "data"),
        ]
        inherited = ()
        if self.socket:
            # The process that gets the socket has to be the one that the promise names: a shell that becomes it.
            inherited = (self.socket.fileno(),)
            hands_over = f'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&{inherited[0]}'
            command = ["bash", "-c", hands_over, "sh", *command]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=inherited,
                env={**os.environ, **self.env},
            )
        try:
            self._wait_ready()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def wait_end(self):
        """Its exit status, once it was told to end."""
        try:
            return self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "no end"

    def stop(self):
        """Ends it gracefully; its data stays for the next start."""
        self.process.terminate()
        return self.wait_end()

    def __exit__(self, *exception):
        code = self.stop()
        if self.socket:
            self.socket.close()
        log = self.log()
        shutil.rmtree(self.home, ignore_errors=True)
        if exception[0] is None:
            assert code == 0, f"the server ended with {code}:\n{log}"
        else:
            print(log[-6000:])

    def _wait_ready(self):
        # Nothing in the way of a loopback address, whatever the environment says of proxies.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                if opener.open(f"{self.url}/readyz", timeout=10).status == 200:
                    return
            except (urllib.error.URLError, OSError):
                pass
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server was not ready in {START_LIMIT_S} s:\n{self.log()}")
            time.sleep(0.02)

    def log(self):
        """Everything it logged so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")
