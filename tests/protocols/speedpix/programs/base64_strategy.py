"""A small file inside the request; only predictions take the strategy."""
from speedpix import Client

from common import IMAGE, WORKFLOW, out, said

client = Client()
prediction = client.predictions.create(
    workflow_id=WORKFLOW, input={"image": IMAGE, "text": "thumb"}, file_encoding_strategy="base64",
)
assert prediction.input["image"].startswith("data:image/png;base64,"), prediction.input
prediction = prediction.wait()
prediction.output["images"]["url"].save(out("result.png"))
said(ok=True)
