"""A worker of either SDK, unmodified: `handler.py SDK MODE`. What a job does is said by its input."""

import asyncio
import os
import sys
import time

sdk, mode = sys.argv[1:3]
del sys.argv[1:]

if sdk == "runpod":
    import runpod
    start, progress = runpod.serverless.start, runpod.serverless.progress_update
else:
    import ppio_gpus
    start, progress = ppio_gpus.start, ppio_gpus.progress_update


def act(job):
    given = job["input"]
    kind = given.get("kind", "dict")
    with open(os.environ["RAN"], "a", encoding="utf-8") as ran:
        ran.write(f"{job['id']} {os.getpid()}\n")
    if kind == "raise":
        raise ValueError("boom 你好")
    if kind == "exit":
        sys.exit(3)
    if kind == "die":
        os.kill(os.getpid(), 9)
    if kind == "unserialisable":
        return {"v": object()}
    if kind == "sleep":
        time.sleep(given["seconds"])
        return {"slept": given["seconds"]}
    if kind == "progress":
        progress(job, {"pct": 10})
        while not os.path.exists(given["until"]):
            time.sleep(0.05)
        return {"done": True}
    if kind == "nap":
        time.sleep(0.02)
        return {"n": given["n"]}
    if kind == "token":
        return {"token": os.environ["RUNPOD_AI_API_KEY"], "worker": os.environ["RUNPOD_POD_ID"]}
    if kind == "huge":
        return {"data": "x" * given["size"]}
    if kind == "where":
        return {"cwd": os.getcwd(), "files": sorted(os.listdir(".")), "argv": sys.argv}
    return {
        "dict": {"echo": given, "zh": "你好"}, "str": "plain", "list": [1, 2, {"error": "inside"}], "none": None,
        "true": True, "empty": {}, "error": {"error": "invalid input"}, "error_plus": {"error": "partial", "images": ["a"]},
        "error_obj": {"error": {"code": 7}}, "error_falsy": {"error": ""}, "status_key": {"status": "IN_PROGRESS", "x": 1},
        "nan": {"v": float("nan")}, "refresh": {"refresh_worker": True, "a": 1},
    }[kind]


def sync(job):
    return act(job)


async def asynchronous(job):
    if job["input"].get("kind") == "sleep":
        with open(os.environ["RAN"], "a", encoding="utf-8") as ran:
            ran.write(f"{job['id']} {os.getpid()}\n")
        await asyncio.sleep(job["input"]["seconds"])
        return {"slept": job["input"]["seconds"]}
    if job["input"].get("kind") == "meet":
        at = job["input"]["at"]
        open(os.path.join(at, job["input"]["name"]), "w").close()
        while len(os.listdir(at)) < job["input"]["others"]:
            await asyncio.sleep(0.05)
        while not os.path.exists(job["input"].get("until", at)):
            await asyncio.sleep(0.05)
        return {"met": len(os.listdir(at))}
    return act(job)


def generator(job):
    yield "a"
    yield {"n": 1}
    kind = job["input"].get("kind")
    if kind == "raise":
        raise ValueError("gen boom")
    if kind == "error":
        yield {"error": "gen err"}
    for n in range(job["input"].get("more", 0)):
        yield n
    yield [1, 2]


async def async_generator(job):
    for n in range(2):
        yield {"i": n}


config = {
    "sync": {"handler": sync},
    "async": {"handler": asynchronous},
    "generator": {"handler": generator},
    "aggregate": {"handler": async_generator, "return_aggregate_stream": True},
    "refresh": {"handler": sync, "refresh_worker": True},
    "concurrent": {"handler": asynchronous, "concurrency_modifier": lambda current: 3},
}[mode]

if __name__ == "__main__":
    start(config)
