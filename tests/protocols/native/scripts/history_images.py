"""A script in the manner of those that people write against ComfyUI: a socket under a random client id, one prompt, a wait
for `executing` without a node, then the images that history names, each by /view. Only urllib and websocket-client."""

import json
import sys
import urllib.parse
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

while True:
    message = socket.recv()
    if not isinstance(message, str):
        continue
    message = json.loads(message)
    if message["type"] == "executing":
        data = message["data"]
        if data["node"] is None and data["prompt_id"] == prompt_id:
            break
socket.close()

with urllib.request.urlopen(f"http://{address}/history/{prompt_id}") as answer:
    history = json.loads(answer.read())[prompt_id]
for node, output in history["outputs"].items():
    for image in output.get("images", []):
        query = urllib.parse.urlencode({key: image[key] for key in ("filename", "subfolder", "type")})
        with urllib.request.urlopen(f"http://{address}/view?{query}") as answer:
            print(json.dumps({"node": node, "png": answer.read().hex()}))
