"""The complete example: environment, upload, options of the call, every output saved, errors told."""
import os
from pathlib import Path

from speedpix import Client, PredictionError
from speedpix.helpers import FileOutput

from common import IMAGE, WORKFLOW, out, said


def save_all(value, name="result"):
    if isinstance(value, FileOutput):
        value.save(out(f"{name}.png"))
        return 1
    if isinstance(value, dict):
        return sum(save_all(item, name if key == "url" else name) for key, item in value.items())
    if isinstance(value, list):
        return sum(save_all(item, f"{name}{n}") for n, item in enumerate(value))
    return 0


def main():
    client = Client(os.getenv("SPEEDPIX_APP_KEY"), os.getenv("SPEEDPIX_APP_SECRET"), os.getenv("SPEEDPIX_ENDPOINT"))
    try:
        prediction = client.predictions.create(
            workflow_id=WORKFLOW, input={"image": Path(IMAGE), "text": "complete"}, version_id="v1",
            randomise_seeds=True, return_temp_files=True, resource_config_id="default",
        )
        prediction = prediction.wait()
        said(saved=save_all(prediction.output["images"]))
    except PredictionError as error:
        said(error=str(error))


main()
