"""Runs programs side by side, each in a process of its own that is split off once the SDK is there: starting Python and
importing is most of the work of a short program.

Takes a JSON list of {name, source, cwd, env} from stdin. What a program prints goes to `printed` in its directory, what it ends
with to the JSON object that this prints; files of its results are saved there as seen_*.png, and `seen.json` names its tasks.
"""

import json
import os
import sys
import time
import traceback

import asyncio  # noqa: F401
import httpx  # noqa: F401
from speedpix import Prediction
from speedpix.helpers import FileOutput


def files_of(value, name):
    """Every file in a result, with a name."""
    if isinstance(value, FileOutput):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from files_of(item, f"{name}_{key}")
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from files_of(item, f"{name}{n}")


def look(found):
    """Saves what the program has in its hands at its end; what it did not wait for is waited for."""
    tasks = {}
    for name, value in list(found.items()):
        if isinstance(value, Prediction):
            # One that has an end is over.
            value = value if value.output is not None else value.wait()
            tasks[name] = value.id
            assert not value.error, value.error
            value = value.output
        if name.startswith(("output", "result", "prediction", "first", "second", "dedicated", "shared")):
            for place, file in files_of(value, name):
                file.save(f"seen_{place}.png")
    with open("seen.json", "w", encoding="utf-8") as out:
        json.dump(tasks, out)


def run(one):
    os.chdir(one["cwd"])
    os.environ.update(one["env"])
    printed = os.open("printed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    variables = {"__name__": "__main__"}
    exec(compile(one["source"], one["name"], "exec"), variables)
    look(variables.get("RESULT") or variables)


def main():
    running = {}
    for one in json.load(sys.stdin):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(one)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        running[child] = one["name"]
        # Not all at the same moment: they compute most when they begin.
        time.sleep(0.05)
    ended = {}
    while running:
        child, status = os.wait()
        ended[running.pop(child)] = os.waitstatus_to_exitcode(status)
    print(json.dumps(ended))


main()
