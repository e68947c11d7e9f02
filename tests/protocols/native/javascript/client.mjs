// A program with @stable-canvas/comfyui-client, which knows the server's address alone: it uploads a picture, runs a graph
// that loads it, hears of its progress over the socket, and finds it in history. Prints what it saw as one line of JSON.
//
//     node client.mjs HOST[:PORT] PICTURE WORKFLOW [PATH]

import { readFile } from "node:fs/promises";
import { Client } from "@stable-canvas/comfyui-client";

const [host, picture, workflow, base = ""] = process.argv.slice(2);
const client = new Client({
  api_host: host,
  api_base: base,
  clientId: "a-javascript-program",
  WebSocket: globalThis.WebSocket,
  fetch: globalThis.fetch,
});
await client.connect({ polling: { enabled: false }, websocket: { enabled: true } });

const form = new FormData();
form.append("image", new Blob([await readFile(picture)], { type: "image/png" }), "from-javascript.png");
const uploaded = await (await client.fetchApi("/upload/image", { method: "POST", body: form })).json();

const prompt = JSON.parse(await readFile(workflow, "utf-8"));
for (const node of Object.values(prompt)) {
  if (node.class_type === "LoadImage") node.inputs.image = uploaded.name;
}
const steps = [];
const heard = [];
for (const type of ["execution_start", "executing", "executed", "execution_success"]) {
  client.on(type, (data) => heard.push([type, data?.node ?? data ?? null]));
}
const { prompt_id, images } = await client.enqueue(prompt, {
  progress: ({ value, max }) => steps.push([value, max]),
});
const { History } = await client.getHistory(100);
const entry = History.find((item) => item.prompt[1] === prompt_id);
const files = await Promise.all(
  images.map(async (image) => {
    const bytes = image.type === "buff" ? Buffer.from(image.data) : Buffer.from(await (await fetch(image.data)).arrayBuffer());
    return bytes.toString("hex");
  }),
);
const stats = await client.getSystemStats();
const nodes = await client.getNodeDefs();
await client.close();
console.log(
  JSON.stringify({
    uploaded,
    prompt_id,
    steps,
    heard,
    files,
    history: entry && { status: entry.status.status_str, outputs: entry.outputs },
    version: stats.system.comfyui_version,
    nodes: Object.keys(nodes).length,
  }),
);
process.exit(0);
