"""Files of every kind that the SDK takes: a path as a text, a Path, an open file, and one that was uploaded by hand."""
import os
from pathlib import Path

import speedpix

from common import IMAGE, WORKFLOW, out, said

client = speedpix.Client()
assert os.path.isabs(IMAGE)
for n, given in enumerate([IMAGE, Path(IMAGE), open(IMAGE, "rb")]):
    output = client.run(workflow_id=WORKFLOW, input={"image": given, "text": "edit"})
    output["images"]["url"].save(out(f"result{n}.png"))
by_hand = client.files.create(IMAGE, filename="中文 名.png")
output = client.run(workflow_id=WORKFLOW, input={"image": by_hand.access_url, "text": "by hand"})
output["images"]["url"].save(out("result.png"))
said(key=by_hand.object_key)
