"""Two hundred jobs over five workers that are killed at random: each completes, and completes once."""

import json
import os
import pathlib
import random
import signal
import sys

import pytest

from darkroom_server import Server
from worker_calls import HANDLER, KEYS, SDKS, attempts, ended, run, runs_the_handler, wait_for

JOBS, WORKERS, KILLS = 200, 5, 5


@pytest.fixture
def ran(tmp_path):
    path = tmp_path / "ran"
    path.touch()
    return path


@pytest.mark.skipif(not pathlib.Path("/proc/self/cmdline").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("sdk", SDKS)
def test_two_hundred_jobs_complete_once_each_while_workers_are_killed(sdk, ran):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    config = KEYS + f"""
[endpoints.many]
kind = "worker"
python = {json.dumps(sys.executable)}
handler = {json.dumps(str(HANDLER))}
args = ["{sdk}", "sync"]
env = {{ RAN = {json.dumps(str(ran))} }}
[endpoints.many.scaling]
max_instances = {WORKERS}
[endpoints.many.limits]
max_attempts = 50
"""
    with Server(config) as server:
        jobs = {run(server, "many", {"kind": "nap", "n": n}): n for n in range(JOBS)}
        for kill in range(KILLS):

            def kill_one():
                """Kills whoever ran one of the last jobs, once so many have begun."""
                pids = [int(line.split()[1]) for line in ran.read_text().splitlines() if line.count(" ") == 1]
                if len(pids) < (kill + 1) * JOBS // (KILLS + 2):
                    return False
                alive = sorted({pid for pid in pids[-20:] if runs_the_handler(pid)})
                if alive:
                    os.kill(dice.choice(alive), signal.SIGKILL)
                return bool(alive)

            wait_for("a worker to kill", kill_one)
        for job, n in jobs.items():
            told = ended(server, "many", job)
            assert (told["status"], told["output"]) == ("COMPLETED", {"n": n}), (seed, told)
            *before, last = attempts(server, job)
            assert last == "done" and set(before) <= {"lost", "released"}, (seed, job, before, last)
