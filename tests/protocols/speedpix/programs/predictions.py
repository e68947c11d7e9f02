"""The traditional interface: create, wait, look at the error, get by id."""
from speedpix import Client

from common import IMAGE, WORKFLOW, out, said

client = Client()
prediction = client.predictions.create(workflow_id=WORKFLOW, input={"image": IMAGE, "text": "sunset"}, alias_id="main")
prediction = prediction.wait(polling_interval=0.2)
assert not prediction.error, prediction.error
prediction.output["images"]["url"].save(out("result.png"))
again = client.predictions.get(prediction.id)
said(again=str(getattr(again.status, "value", again.status)))
