"""What a program sees under asyncio when something is wrong."""
import asyncio

import httpx

from speedpix import Client, PredictionError

from common import IMAGE, WORKFLOW, said

GOOD = {"image": IMAGE, "text": "x"}


async def attempt(call):
    try:
        return ["returned", repr(await call)]
    except PredictionError as error:
        return ["PredictionError", str(error), str(error.prediction.error_code)]
    except httpx.HTTPStatusError as error:
        return ["HTTPStatusError", str(error.response.status_code), error.response.headers.get("X-Ca-Error-Message", "")]
    except Exception as error:
        return [type(error).__name__, str(error)]


async def main():
    client = Client()
    calls = {
        "workflow": client.async_run(workflow_id="nowhere", input={}),
        "alias": client.async_run(workflow_id=WORKFLOW, input=GOOD, alias_id="none"),
        "version": client.async_run(workflow_id=WORKFLOW, input=GOOD, version_id="v99"),
        "input": client.async_run(workflow_id=WORKFLOW, input={"imag": IMAGE, "text": "x"}),
        "missing": client.async_run(workflow_id=WORKFLOW, input={"text": "x"}),
        "path": client.async_run(workflow_id=WORKFLOW, input={"image": "./nope.jpg", "text": "x"}),
        "wrapped": client.async_run(WORKFLOW, {"input": {"text": "x"}}),
        "fails": client.async_run(workflow_id=f"{WORKFLOW}-fails", input={}),
        "secret": Client(client.app_key, "wrong", client.endpoint).async_run(workflow_id=WORKFLOW, input={}),
        "resource": client.async_run(workflow_id=WORKFLOW, input=GOOD, resource_config_id="none"),
    }
    seen = await asyncio.gather(*[attempt(call) for call in calls.values()])
    said(**dict(zip(calls, seen)))


asyncio.run(main())
