"""A server with two endpoints and app keys, a published workflow as the page's test case has it, and the SDK in both
generations of its libraries."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import requests

from darkroom_server import ROOT, Server, binary
from signing import App

HERE = pathlib.Path(__file__).parent
KEY = "sk_operator"


def engine(more=""):
    """An endpoint on an engine that has the nodes for testing."""
    command = [
        str(binary()), "engine", "--listen", "127.0.0.1:{port}", "--input-directory", "{input_dir}",
        "--output-directory", "{output_dir}", "--temp-directory", "{temp_dir}", "--user-directory", "{user_dir}",
        "--test-nodes",
    ]
    return f"command = {json.dumps(command)}\n{more}\n"


CONFIG = f"""
[fetch]
allow = ["localhost"]
[[keys]]
name = "operator"
secret = "{KEY}"
scopes = ["admin"]
[[keys]]
name = "other"
secret = "sk_other"
scopes = ["publish", "client"]
tenant = "other"
[endpoints.default]
[endpoints.tests]
{engine()}
[endpoints.private]
[resources.dedicated]
endpoint = "private"
[resources.full]
endpoint = "default"
load_limit = 1
"""


class Darkroom:
    """The server as an operator uses it."""

    def __init__(self, server):
        self.server = server
        self.url = server.url
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.headers["Authorization"] = f"Bearer {KEY}"

    def api(self, method, path, **options):
        return self.http.request(method, f"{self.url}/darkroom/v1/{path}", timeout=120, **options)

    def cli(self, *arguments, key=KEY, code=0):
        """Runs a command with --json; gives the object of its last line."""
        done = subprocess.run(
            [str(binary()), *map(str, arguments), "--server", self.url, "--key", key, "--json"],
            capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout.splitlines()[-1])

    def publish(self, tmp_path, name, graph, *arguments):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(graph), encoding="utf-8")
        return self.cli("publish", file, "--name", name, *arguments)

    def app(self, name, *arguments):
        """An app key made by the CLI."""
        made = self.cli("keys", "create", "--app", "--name", name, *arguments)
        return App(self.url, made["app_key"], made["app_secret"])


@pytest.fixture(scope="session")
def darkroom():
    with Server(CONFIG) as server:
        yield Darkroom(server)


@pytest.fixture(scope="session")
def app(darkroom):
    return darkroom.app("shop")


@pytest.fixture(scope="session")
def older(tmp_path_factory):
    """For each of the SDK's two libraries a directory that, put before the installed packages, gives it the older one."""
    wanted = {}
    for line in (HERE / "older.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            library = "wizard" if line.startswith("dataclass-wizard") else "httpx"
            wanted.setdefault(library, []).append(line)
    places = {library: tmp_path_factory.mktemp(f"older-{library}") for library in wanted}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--target", str(place), *wanted[library]], stdin=subprocess.DEVNULL,
        )
        for library, place in places.items()
    ]
    assert [process.wait(300) for process in running] == [0] * len(running)
    return places
