"""The SDK's own test suite against the real server, where nothing differs but endpoint and token."""

import os
import pathlib
import subprocess
import sys

from darkroom_server import Server
from queue_server import CONFIG, TOKEN, Echo, host

HERE = pathlib.Path(__file__).parent
# Ten times is the promise; a developer waits for two.
RUNS = int(os.environ.get("EAS_SUITE_RUNS", "10" if os.environ.get("CI") else "2"))
LIMIT_S = 600


def run_suite(server, *more):
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    done = subprocess.run(
        [sys.executable, str(HERE / "sdk_suite.py"), host(server), TOKEN, *more],
        env={**os.environ, "PYTHONPATH": path, "NO_PROXY": "*"},
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )
    assert done.returncode == 0, done.stderr[-16000:] + server.log()[-4000:]


def test_the_sdks_own_tests_pass_again_and_again():
    with Server(CONFIG) as server:
        Echo(server).start()
        for _ in range(RUNS):
            run_suite(server)


def test_the_sdks_own_tests_pass_while_the_server_is_killed_between_them():
    with Server(CONFIG) as server:
        Echo(server).start()
        run_suite(server, str(server.process.pid))
