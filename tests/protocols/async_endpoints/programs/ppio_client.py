"""A client as its users write them; the address and the key come from the environment that the SDK reads."""

import json
import sys

import ppio_gpus

endpoint = ppio_gpus.Endpoint(sys.argv[1])
job = endpoint.run({"prompt": "a red apple 苹果"})
output = job.output(timeout=120)
wrong = endpoint.run({"input": {"prompt": ""}})
assert wrong.output(timeout=120) is None
print(json.dumps({"status": job.status(), "output": output, "wrong": wrong.status(), "health": endpoint.health()}))
