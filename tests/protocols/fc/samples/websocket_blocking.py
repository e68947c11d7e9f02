"""The WebSocket call in the library's other, blocking style; otherwise as in websocket_call.py."""

import json
from urllib.parse import urlencode

import websocket
from settings import OPTIONS, URL, WORKFLOW, report

ws = websocket.create_connection(URL.replace("http", "ws", 1) + "/api/serverless/ws?" + urlencode(OPTIONS))
ws.send(json.dumps(WORKFLOW))
while True:
    message = json.loads(ws.recv())
    print(message["type"])
    if message["type"] == "serverless_api":
        ws.close()
        report(message)
        break
