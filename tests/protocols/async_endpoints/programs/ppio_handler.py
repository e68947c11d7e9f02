"""A worker as its users write them: progress, an upload, an error."""

import struct
import time
import zlib

import ppio_gpus


def png(color):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixel = zlib.compress(b"\0" + bytes(color))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def handler(job):
    given = job["input"]
    if not given.get("prompt"):
        return {"error": "prompt is required"}
    for percent in (10, 50, 90):
        ppio_gpus.progress_update(job, {"status": "generating", "progress": percent})
        time.sleep(0.05)
    with open("apple.png", "wb") as image:
        image.write(png((255, 0, 0)))
    with open("notes.txt", "w", encoding="utf-8") as notes:
        notes.write(given["prompt"])
    first = ppio_gpus.upload_image(job["id"], "apple.png")
    others = ppio_gpus.upload_images(job["id"], ["apple.png"])
    text = ppio_gpus.upload_file("notes.txt", "notes.txt", prefix=job["id"])
    raw = ppio_gpus.upload_bytes("raw.bin", b"\0\1\2", prefix=job["id"], content_type="application/octet-stream")
    return {"images": [{"filename": "apple.png", "url": url} for url in [first, *others]], "text": text, "raw": raw}


ppio_gpus.start({"handler": handler})
