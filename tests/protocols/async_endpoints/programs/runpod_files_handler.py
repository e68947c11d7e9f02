"""A worker as its users write them, that keeps its files in the platform's bucket: by the job's id, under names, and in parts."""

import runpod
from runpod.serverless.utils import rp_upload


def handler(job):
    given = job["input"]
    with open("notes.txt", "w", encoding="utf-8") as notes:
        notes.write(given["prompt"])
    with open("large.bin", "wb") as large:
        large.write(bytes(range(256)) * (given.get("large_kib", 1) * 4))
    return {
        "image": rp_upload.upload_image(job["id"], "notes.txt"),
        "images": rp_upload.files(job["id"], ["notes.txt"]),
        "file": rp_upload.upload_file_to_bucket("large.bin", "large.bin", prefix=job["id"]),
        "memory": rp_upload.upload_in_memory_object("原始 raw.bin", b"\0\1\2", prefix=job["id"]),
    }


runpod.serverless.start({"handler": handler})
