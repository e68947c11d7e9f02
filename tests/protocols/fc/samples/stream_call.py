"""Makes the calls of the vendor's streaming sample; written anew, since its text is not ours to copy.

Reproduces: `stream=true` in the query; `requests` with `stream=True`; lines as bytes by `iter_lines`; a line counts
when it begins with `b"data: "` (one space), from its seventh byte on it is one JSON object; every other line is passed
over; the object of type `serverless_api` is the result, and it is the last.
"""

import json

import requests
from settings import OPTIONS, URL, WORKFLOW, report

result = None
with requests.post(
    URL + "/api/serverless/run", params={"stream": "true", **OPTIONS}, json=WORKFLOW, stream=True
) as response:
    for line in response.iter_lines():
        if line.startswith(b"data: "):
            message = json.loads(line[6:])
            assert result is None, "a message came after the result"
            print(message["type"])
            if message["type"] == "serverless_api":
                result = message
report(result)
