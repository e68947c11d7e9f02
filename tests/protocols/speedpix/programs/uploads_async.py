"""Several calls at once under asyncio, each with its own upload."""
import asyncio

from speedpix import Client

from common import IMAGE, WORKFLOW, out, said


async def main():
    client = Client()
    file = await client.files.async_create(IMAGE)
    calls = [
        client.async_run(workflow_id=WORKFLOW, input={"image": image, "text": f"n{n}"})
        for n, image in enumerate([IMAGE, file.access_url, IMAGE])
    ]
    outputs = await asyncio.gather(*calls)
    for n, output in enumerate(outputs):
        await output["images"]["url"].async_save(out("result.png" if n == 0 else f"more{n}.png"))
    said(calls=len(outputs))


asyncio.run(main())
