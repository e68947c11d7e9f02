"""The calls of the product page's program for a service without a queue: one post of {"prompt": …}, and at once one look at
history, both with the raw token; then, as one does who wants the pictures, further looks."""

import json
import sys
import time

import requests

service_url, token, workflow = sys.argv[1:]
headers = {"Authorization": token}

with open(workflow, encoding="utf-8") as file:
    graph = json.load(file)

answer = requests.post(f"{service_url}prompt", headers=headers, data=json.dumps({"prompt": graph}), timeout=60)
prompt_id = answer.json()["prompt_id"]
history = requests.get(f"{service_url}history/{prompt_id}", headers=headers, timeout=60)
print(json.dumps({"posted": answer.status_code, "looked": history.status_code}))

deadline = time.monotonic() + 120
while not history.json():
    if time.monotonic() > deadline:
        sys.exit("no history within two minutes")
    time.sleep(0.1)
    history = requests.get(f"{service_url}history/{prompt_id}", headers=headers, timeout=60)
print(json.dumps(history.json()[prompt_id]["outputs"]))
