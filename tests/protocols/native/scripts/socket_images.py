"""The same for pictures that come over the socket alone: a binary frame belongs to the node that `executing` named last, and
its first eight bytes are no part of the picture."""

import json
import sys
import urllib.request
import uuid

import websocket

address, workflow = sys.argv[1:]
client_id = str(uuid.uuid4())

with open(workflow, encoding="utf-8") as file:
    graph = json.load(file)

socket = websocket.WebSocket()
socket.connect(f"ws://{address}/ws?clientId={client_id}")

body = json.dumps({"prompt": graph, "client_id": client_id}).encode()
with urllib.request.urlopen(urllib.request.Request(f"http://{address}/prompt", data=body)) as answer:
    prompt_id = json.loads(answer.read())["prompt_id"]

node = ""
while True:
    message = socket.recv()
    if isinstance(message, str):
        message = json.loads(message)
        if message["type"] == "executing" and message["data"]["prompt_id"] == prompt_id:
            node = message["data"]["node"]
            if node is None:
                break
    elif graph.get(node, {}).get("class_type") == "SaveImageWebsocket":
        print(json.dumps({"node": node, "png": message[8:].hex()}))
socket.close()
