"""Where the samples call and what they send.

At the vendor each sample has the address of the function and the path of the exported workflow written in; here they
come from the environment, which is all that differs.
"""

import json
import os

#: "https://xxx.fcapp.run" at the vendor.
URL = os.environ["SERVERLESS_API_URL"]

with open(os.environ["WORKFLOW_FILE"], encoding="utf-8") as file:
    WORKFLOW = json.load(file)

#: Which of the optional query parameters are given: "output_oss,output_base64".
OPTIONS = {name: "true" for name in os.environ.get("OPTIONS", "").split(",") if name}


def report(result):
    """What the samples print: where each file went. The last line is the whole result, for the test."""
    for i in range(len(result["data"]["results"])):
        print(result["data"]["results"][i]["output"]["oss"]["object"])
    print(json.dumps(result))
