"""A worker as its users write them: a check before it starts, progress, uploads to two buckets, an error."""

import os

import runpod
from runpod.serverless.utils import rp_upload


@runpod.serverless.register_fitness_check
def model_is_there():
    if os.environ.get("MODEL") == "missing":
        raise RuntimeError("there is no model 模型")


def handler(job):
    given = job["input"]
    if not given.get("prompt"):
        return {"error": "prompt is required"}
    runpod.serverless.progress_update(job, "50%")
    with open("notes.txt", "w", encoding="utf-8") as notes:
        notes.write(given["prompt"])
    own = job["s3Config"]
    return {
        "image": rp_upload.upload_image(job["id"], "notes.txt", bucket_name="results"),
        "images": rp_upload.files(job["id"], ["notes.txt"]),
        "file": rp_upload.upload_file_to_bucket("notes.txt", "notes.txt", own, own["bucketName"], prefix=job["id"]),
        "memory": rp_upload.upload_in_memory_object("raw.bin", b"\0\1\2", own, own["bucketName"], prefix=job["id"]),
        "bucket": rp_upload.bucket_upload(job["id"], ["notes.txt"], own),
    }


runpod.serverless.start({"handler": handler})
