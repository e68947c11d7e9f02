"""The calls of the product page's program for the API edition, in its order and with its libraries: two posts of a bare
workflow under one task id, then a watch of the sink that prints and commits. Address, token and service come from outside;
the page's loop has no end, this one ends after as many results as there were posts."""

import json
import sys

import requests
from eas_prediction import QueueClient

service_url, token, workflow_path = sys.argv[1:]
host, service = service_url.removeprefix("http://").split("/api/predict/")

with open(workflow_path, encoding="utf-8") as file:
    workflow = file.read()

posts = 2
for seed in range(posts):
    body = json.loads(workflow)
    answer = requests.post(
        f"{service_url}/api_prompt?task_id=txt2img_test",
        headers={"Authorization": token, "Content-Type": "application/json"},
        data=json.dumps(body),
        timeout=120,
    )
    print(answer.status_code, answer.text, answer.headers["X-Eas-Queueservice-Request-Id"])

sink = QueueClient(f"http://{host}", f"{service}/sink")
sink.set_token(token)
sink.init()

watcher = sink.watch(0, 1, auto_commit=False)
for count, item in enumerate(watcher.run(), 1):
    print(json.dumps({"index": item.index, "tags": dict(item.tags), "data": json.loads(item.data)}))
    sink.commit(item.index)
    if count == posts:
        break
watcher.close()
