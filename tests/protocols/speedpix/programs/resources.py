"""Shared and dedicated resources, by run and by prediction."""
from speedpix import Client

from common import IMAGE, WORKFLOW, out, said

client = Client()
shared = client.run(workflow_id=f"{WORKFLOW}-plain", input={"image": IMAGE}, alias_id="main")
dedicated = client.predictions.create(
    workflow_id=f"{WORKFLOW}-plain", input={"image": IMAGE}, alias_id="main", resource_config_id="dedicated",
)
dedicated = dedicated.wait()
dedicated.output["images"]["url"].save(out("result.png"))
shared["images"]["url"].save(out("second.png"))
said(job=dedicated.id)
