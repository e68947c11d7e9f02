"""One server for the tests that do not stop it, and the official source distribution of the SDK."""

import os
import pathlib
import subprocess
import sys
import tarfile

import pytest

from darkroom_server import Server
from v2 import CONFIG, Api

SDIST = "comfy-sdk==0.5.0"


@pytest.fixture(scope="session")
def server():
    with Server(CONFIG) as running:
        yield running


@pytest.fixture(params=["", "/e/default"], ids=["root", "prefix"])
def api(server, request):
    """The embedded engine's endpoint, at the root and below its prefix."""
    return Api(server.url + request.param)


@pytest.fixture
def tests_api(server):
    """The endpoint whose nodes sleep and fail."""
    return Api(f"{server.url}/e/tests")


@pytest.fixture(scope="session")
def sdist(tmp_path_factory):
    """The directory of the SDK's source distribution, fetched as it is published."""
    home = tmp_path_factory.mktemp("sdist")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-binary", ":all:", SDIST],
        cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )
    if done.returncode != 0:
        why = f"{SDIST} cannot be had as its source: {done.stderr[-1000:]}"
        if os.environ.get("CI") in ("true", "1"):
            pytest.fail(why)
        pytest.skip(why)
    (archive,) = home.glob("comfy_sdk-*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(home, filter="data") if hasattr(tarfile, "data_filter") else files.extractall(home)
    (root,) = (path for path in pathlib.Path(home).iterdir() if path.is_dir())
    return root
