"""Programs in JavaScript with packages of their own, run by the Node.js that stands beside this Python."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

LIMIT_S = 300
# How npm says that no package index can be reached from here.
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ERR_SOCKET_TIMEOUT")


def beside(name):
    """A program of this environment, else of the machine."""
    return shutil.which(name, path=str(pathlib.Path(sys.executable).parent)) or shutil.which(name)


def with_packages(program, home):
    """`home` with the program and the packages that it names; fetched by npm, without running anything of theirs."""
    for file in program.iterdir():
        if file.is_file():
            shutil.copy(file, home)
    npm = beside("npm")
    done = npm and subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=60000"],
        cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
        env={**os.environ, "PATH": f"{pathlib.Path(npm).parent}:{os.environ['PATH']}"},
    )
    if not done or done.returncode != 0:
        said = done.stderr[-1000:] if done else "no npm"
        why = f"the packages of {program} cannot be had: {said}"
        # What lacks is no fault of the house; packages that are there and cannot be installed are.
        if done and not any(code in done.stderr for code in NO_NETWORK) and os.environ.get("CI") in ("true", "1"):
            pytest.fail(f"{why} (CI is set: this client is part of what is promised)")
        pytest.skip(why)
    return home
