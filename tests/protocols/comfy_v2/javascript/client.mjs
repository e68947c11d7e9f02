// A program with @comfyorg/sdk, which knows a base address and a key: every public method of its clients. Prints what it saw
// as one line of JSON.
//
//     COMFY_BASE_URL=… node client.mjs KEY PICTURE DIRECTORY

import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { Readable } from "node:stream";
import * as sdk from "@comfyorg/sdk";

const [key, picture, directory] = process.argv.slice(2);
const bytes = new Uint8Array(await readFile(picture));
const client = new sdk.Comfy({ apiKey: key, clientInfo: "tests" });
const called = new Map();
// Notes which methods and getters of an object are used.
const watched = (name, object) =>
  new Proxy(object, {
    get(target, property) {
      if (typeof property === "string" && !property.startsWith("_")) {
        if (!called.has(name)) called.set(name, new Set());
        called.get(name).add(property);
      }
      const value = Reflect.get(target, property, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
const graph = (image, colour) => ({
  1: image
    ? { class_type: "LoadImage", inputs: { image } }
    : { class_type: "EmptyImage", inputs: { width: 16, height: 16, batch_size: 1, color: colour } },
  2: { class_type: "ImageInvert", inputs: { image: ["1", 0] } },
  9: { class_type: "SaveImage", inputs: { images: ["2", 0], filename_prefix: "typescript" } },
});

const web = createServer((_, response) => response.end(Buffer.from(bytes)));
await new Promise((ready) => web.listen(0, "127.0.0.1", ready));
const assets = watched("AssetFactory", client.assets);
const unique = (n) => Uint8Array.from([...bytes, ...Buffer.from(`${directory} ${n}`)]);
await writeFile(path.join(directory, "disk.png"), unique(1));
const raw = [
  assets.fromFile(path.join(directory, "disk.png")),
  assets.fromBytes(unique(2), { filename: "bytes.png", contentType: "image/png" }),
  await assets.fromStream(Readable.from([Buffer.from(unique(3))]), { filename: "stream.png" }),
  await assets.fromUrl(`http://127.0.0.1:${web.address().port}/photo.png`),
];
web.close();
const brought = [];
for (const one of raw) {
  const asset = watched("Asset", one);
  const id = await asset.commit();
  const reference = await asset.asReference();
  const known = await assets.get(id);
  brought.push({
    id, same: asset.id === id && known.id === id && reference.info.id === id, filePath: asset.filePath, hash: await asset.hash(),
    createdNew: asset.createdNew, jobId: asset.jobId ?? null, expiresAt: asset.expiresAt ?? null,
  });
}

const workflows = watched("WorkflowFactory", client.workflows);
await writeFile(path.join(directory, "workflow.json"), JSON.stringify(graph(null, 0x112233)));
const fromFile = await workflows.fromFile(path.join(directory, "workflow.json"));
const withAsset = workflows.fromJson(graph("?"));
watched("Workflow", withAsset).setInput("1", "image", raw[1]);
const comfy = watched("Comfy", client);
const job = watched("Job", await comfy.submit(withAsset, { idempotencyKey: crypto.randomUUID(), apiKey: "comfyui-x" }));
const first = job.status;
const events = [];
for await (const event of job.events()) {
  events.push(event.kind === "statusChange" ? event.status : event.kind);
}
await job.refresh();
await job.wait(60_000);
await job.result();
const cancelled = (await job.cancel()).status;
const workflow = await job.getWorkflow();
const [output] = job.getOutputs("9").map((one) => watched("Output", one));
await output.toFile(path.join(directory, "out.png"));
const part = await output.toBytes({ range: [2, 5] });
const url = await output.getDownloadUrl();
const again = await watched("JobFactory", client.jobs).get(job.id);
const ran = await comfy.run(fromFile, { timeoutMs: 120_000 });
const ranText = await comfy.run(workflows.fromString(JSON.stringify(graph(null, 0x445566))));
// Of its own, the SDK's errors.
const refusals = [];
for (const attempt of [
  () => client.jobs.get(crypto.randomUUID()),
  () => client.submit(workflows.fromJson({})),
  () => client.submit(workflows.fromJson({ nodes: [], links: [], last_node_id: 1 })),
  () => assets.get(crypto.randomUUID()),
]) {
  refusals.push(await attempt().then(() => "nothing", (error) => error.constructor.name));
}
await watched("Asset", raw[0]).delete();
await assets.delete(brought[2].id);

const seen = {
  id: job.id, outputs: job.outputs.length, error: job.error, nodeId: output.nodeId, name: output.name, type: output.type,
  outputId: output.id, size: output.sizeBytes, contentType: output.contentType, jobId: output.jobId,
};
// Every member of the classes is used above.
const missing = [];
for (const [name, object] of Object.entries({
  Comfy: client, AssetFactory: client.assets, WorkflowFactory: client.workflows, JobFactory: client.jobs, Asset: raw[0],
  Job: ran, Output: ran.outputs[0], Workflow: fromFile,
})) {
  for (const member of Object.getOwnPropertyNames(Object.getPrototypeOf(object))) {
    // `adopt` is what the factories themselves fill a handle with.
    const isPrivate = ["constructor", "materialize", "bindOutput", "adopt"].includes(member);
    if (!isPrivate && !called.get(name)?.has(member)) missing.push(`${name}.${member}`);
  }
}
console.log(
  JSON.stringify({
    brought, first, events, cancelled, format: workflow.format, part: [...part], url: url.url, again: again.status,
    ran: [ran.status, ranText.status], refusals, seen,
    missing,
  }),
);
process.exit(0);
