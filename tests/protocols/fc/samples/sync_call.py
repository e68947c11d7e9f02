"""Makes the calls of the vendor's synchronous sample; written anew, since its text is not ours to copy.

Reproduces: `POST /api/serverless/run` by `requests` with the bare API-format workflow as the JSON body and the output
options in the query; no credentials; the answer's `["data"]["results"][i]["output"]["oss"]["object"]` is read without
asking whether it is there.
"""

import requests
from settings import OPTIONS, URL, WORKFLOW, report

response = requests.post(URL + "/api/serverless/run", params=OPTIONS, json=WORKFLOW)
report(response.json())
