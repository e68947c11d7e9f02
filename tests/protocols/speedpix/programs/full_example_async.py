"""The complete example under asyncio: upload, options of the call, every output saved, errors told."""
import asyncio
import os
from pathlib import Path

from speedpix import Client, PredictionError
from speedpix.helpers import FileOutput

from common import IMAGE, WORKFLOW, out, said


async def save_all(value, name="result"):
    if isinstance(value, FileOutput):
        await value.async_save(out(f"{name}.png"))
        return 1
    if isinstance(value, dict):
        return sum([await save_all(item, name if key == "url" else name) for key, item in value.items()])
    if isinstance(value, list):
        return sum([await save_all(item, f"{name}{n}") for n, item in enumerate(value)])
    return 0


async def main():
    key, secret = os.getenv("SPEEDPIX_APP_KEY"), os.getenv("SPEEDPIX_APP_SECRET")
    async with Client(key, secret, os.getenv("SPEEDPIX_ENDPOINT")) as client:
        try:
            prediction = await client.predictions.async_create(
                workflow_id=WORKFLOW, input={"image": Path(IMAGE), "text": "complete"}, version_id="v1",
                randomise_seeds=True, return_temp_files=True, resource_config_id="default",
            )
            prediction = await prediction.async_wait()
            said(saved=await save_all(prediction.output["images"]))
        except PredictionError as error:
            said(error=str(error))


asyncio.run(main())
