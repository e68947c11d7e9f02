"""A client that is closed when its work is done."""
import asyncio

from speedpix import Client

from common import IMAGE, WORKFLOW, out, said


async def main():
    async with Client() as client:
        output = await client.async_run(workflow_id=WORKFLOW, input={"image": IMAGE, "text": "forest"})
        await output["images"]["url"].async_save(out("result.png"))
        said(keys=sorted(output))


asyncio.run(main())
