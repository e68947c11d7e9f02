"""Makes the calls of the vendor's WebSocket sample; written anew, since its text is not ours to copy.

Reproduces: `websocket-client` on `/api/serverless/ws` of the same host, options in the query; on open the workflow is
sent as one text frame; each text frame that comes is one JSON object; at `serverless_api` the client closes by itself
with `ws.close()`.
"""

import json
from urllib.parse import urlencode

import websocket
from settings import OPTIONS, URL, WORKFLOW, report

results = []


def on_open(ws):
    ws.send(json.dumps(WORKFLOW))


def on_message(ws, text):
    message = json.loads(text)
    print(message["type"])
    if message["type"] == "serverless_api":
        results.append(message)
        ws.close()


def on_error(ws, error):
    raise error


address = URL.replace("http", "ws", 1) + "/api/serverless/ws?" + urlencode(OPTIONS)
websocket.WebSocketApp(address, on_open=on_open, on_message=on_message, on_error=on_error).run_forever()
report(results[0])
