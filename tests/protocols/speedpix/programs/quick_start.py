"""The five-minute start: a client from keys, one run, the first image saved by `output['images']['url']`."""
import os

from speedpix import Client

from common import IMAGE, WORKFLOW, out, said

client = Client(
    app_key=os.environ["SPEEDPIX_APP_KEY"], app_secret=os.environ["SPEEDPIX_APP_SECRET"],
    endpoint=os.environ["SPEEDPIX_ENDPOINT"],
)
output = client.run(workflow_id=WORKFLOW, input={"image": IMAGE, "text": "一幅美丽的山水画"})
output["images"]["url"].save(out("result.png"))
said(keys=sorted(output))
