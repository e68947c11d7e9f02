"""A task for ComfyUI as users of the SDK write it: the key as the module's own, the endpoint by its id, a workflow."""

import json
import sys

import ppio_gpus

ppio_gpus.api_key = sys.argv[1]
endpoint = ppio_gpus.Endpoint("0f43a6867e05fddd")
job = endpoint.run({
    "workflow": {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": 16711680}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "apple"}},
    },
    "output_node_id": "9",
})
first = job.status()
print(json.dumps({"first": first, "output": job.output(timeout=120), "last": job.status()}))
