"""Several images in one call, and a list of several in its result."""
from pathlib import Path

from speedpix import Client

from common import IMAGE, WORKFLOW, out, said

client = Client()
output = client.run(
    workflow_id=f"{WORKFLOW}-two", input={"first": IMAGE, "second": Path(IMAGE)}, alias_id="main",
)
assert isinstance(output["images"], list), output
for n, image in enumerate(output["images"]):
    image["url"].save(out("result.png" if n == 0 else f"more{n}.png"))
said(images=len(output["images"]))
