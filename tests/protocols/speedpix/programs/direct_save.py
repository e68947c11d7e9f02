"""The reference part's way: `output['images'].save(...)`, where the publisher chose bare addresses."""
from speedpix import Client

from common import IMAGE, WORKFLOW, out, said

client = Client()
output = client.run(workflow_id=f"{WORKFLOW}-url", input={"image": IMAGE, "text": "landscape"}, alias_id="main")
if "images" in output and hasattr(output["images"], "save"):
    output["images"].save(out("result.png"))
said(url=str(output["images"]))
