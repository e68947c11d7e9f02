"""Makes the calls of the vendor's asynchronous sample; written anew, since its text is not ours to copy.

Reproduces: `X-Fc-Invocation-Type: Async` and a fresh uuid4 as `X-Fc-Trace-Id`; the answer to the submit is not looked
at; `GET /api/serverless/status?task_id=` once a second from the start, whose JSON array may be empty and is never
anything else; done when `[-1]["type"]` is `serverless_api`.
"""

import os
import time
import uuid

import requests
from settings import OPTIONS, URL, WORKFLOW, report

# The test gives an id that begins with a digit, which a uuid4 does more often than not.
task_id = os.environ.get("TASK_ID") or str(uuid.uuid4())
headers = {"X-Fc-Invocation-Type": "Async", "X-Fc-Trace-Id": task_id}
requests.post(URL + "/api/serverless/run", params=OPTIONS, json=WORKFLOW, headers=headers)

while True:
    messages = requests.get(URL + "/api/serverless/status", params={"task_id": task_id}).json()
    print(len(messages))
    if len(messages) > 0 and messages[-1]["type"] == "serverless_api":
        report(messages[-1])
        break
    time.sleep(1)
