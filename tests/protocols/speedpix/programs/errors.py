"""What a program sees when something is wrong: at the call, in the run, and of its credentials."""

import httpx

from speedpix import Client, PredictionError

from common import IMAGE, WORKFLOW, said

client = Client()
seen = {}


def attempt(name, call):
    try:
        seen[name] = ["returned", repr(call())]
    except PredictionError as error:
        seen[name] = ["PredictionError", str(error), str(error.prediction.error_code)]
    except httpx.HTTPStatusError as error:
        seen[name] = ["HTTPStatusError", str(error.response.status_code),
                      error.response.headers.get("X-Ca-Error-Message", "")]
    except Exception as error:
        seen[name] = [type(error).__name__, str(error)]


attempt("workflow", lambda: client.run(workflow_id="nowhere", input={}))
attempt("alias", lambda: client.run(workflow_id=WORKFLOW, input={"image": IMAGE, "text": "x"}, alias_id="none"))
attempt("version", lambda: client.run(workflow_id=WORKFLOW, input={"image": IMAGE, "text": "x"}, version_id="v99"))
attempt("input", lambda: client.run(workflow_id=WORKFLOW, input={"imag": IMAGE, "text": "x"}))
attempt("missing", lambda: client.run(workflow_id=WORKFLOW, input={"text": "x"}))
attempt("path", lambda: client.run(workflow_id=WORKFLOW, input={"image": "./nope.jpg", "text": "x"}))
attempt("wrapped", lambda: client.run(WORKFLOW, {"input": {"text": "x"}}))
attempt("fails", lambda: client.run(workflow_id=f"{WORKFLOW}-fails", input={}))
attempt("secret", lambda: Client(client.app_key, "wrong", client.endpoint).run(workflow_id=WORKFLOW, input={}))
attempt("resource", lambda: client.run(workflow_id=WORKFLOW, input={"image": IMAGE, "text": "x"}, resource_config_id="none"))
said(**seen)
