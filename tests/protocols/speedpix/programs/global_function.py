"""The global functions, with a client and with the one from the environment, sync and under asyncio."""
import asyncio

import speedpix

from common import IMAGE, WORKFLOW, out, said

first = speedpix.run(workflow_id=WORKFLOW, input={"image": IMAGE, "text": "magic"}, client=speedpix.Client())
second = asyncio.run(speedpix.async_run(workflow_id=WORKFLOW, input={"image": IMAGE, "text": "magic"}))
first["images"]["url"].save(out("result.png"))
second["images"]["url"].save(out("second.png"))
said(same=open(out("result.png"), "rb").read() == open(out("second.png"), "rb").read())
