"""Started without waiting, waited for later."""
from speedpix import Client

from common import IMAGE, WORKFLOW, out, said

client = Client()
prediction = client.run(workflow_id=WORKFLOW, input={"image": IMAGE, "text": "cyberpunk"}, wait=False)
before = str(getattr(prediction.status, "value", prediction.status))
prediction = prediction.wait()
prediction.output["images"]["url"].save(out("result.png"))
said(id=prediction.id, before=before)
