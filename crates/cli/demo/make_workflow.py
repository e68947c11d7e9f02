"""Draws the negative that `darkroom demo` develops: a sunset over mountains and a lake, colours inverted.

Only the standard library. Run it in this directory to make workflow.json, which is committed, again.
"""

import base64
import json
import math
import struct
import zlib

WIDTH, HEIGHT, HORIZON = 384, 256, 168
SUN = (250, 118)
SKY = [(0.00, (24, 22, 58)), (0.35, (96, 44, 104)), (0.62, (214, 86, 92)), (0.85, (250, 158, 84)), (1.00, (255, 214, 140))]
RIDGES = [  # base height above the horizon, roughness, frequency, phase, colour
    (62, 16, 0.021, 0.4, (132, 66, 106)),
    (40, 13, 0.034, 2.1, (84, 42, 84)),
    (18, 9, 0.055, 4.0, (44, 26, 58)),
]


def mix(a, b, t):
    return tuple(x + (y - x) * t for x, y in zip(a, b))


def sky(x, y):
    t = max(0.0, min(1.0, y / HORIZON))
    for (t0, c0), (t1, c1) in zip(SKY, SKY[1:]):
        if t <= t1:
            colour = mix(c0, c1, (t - t0) / (t1 - t0))
            break
    distance = math.hypot(x - SUN[0], y - SUN[1])
    glow = math.exp(-distance / 46)
    colour = mix(colour, (255, 226, 164), 0.75 * glow)
    disk = max(0.0, min(1.0, 21.5 - distance))
    return mix(colour, (255, 246, 218), disk)


def ridge(x, base, rough, frequency, phase):
    return base + sum(rough / k * math.sin(frequency * k * x + phase * k * k) for k in (1, 2, 3, 5, 9))


def above(x, y):
    colour = sky(x, y)
    for base, rough, frequency, phase, shade in RIDGES:
        inside = ridge(x, base, rough, frequency, phase) - (HORIZON - y)
        colour = mix(colour, mix(shade, sky(x, y), 0.12), max(0.0, min(1.0, inside + 0.5)))
    return colour


def pixel(x, y):
    if y < HORIZON:
        return above(x, y)
    depth = (y - HORIZON) / (HEIGHT - HORIZON)
    wave = math.sin(y * y * 0.013 + 3 * math.sin(x * 0.02)) * 5 * (0.15 + depth)
    mirrored = above(x + wave, max(0.0, HORIZON - 1 - (y - HORIZON) * 1.75))
    water = mix(mirrored, (22, 20, 52), 0.22 + 0.45 * depth)
    glint = math.exp(-abs(x - SUN[0] + wave * 2) / (7 + 26 * depth)) * (0.5 + 0.5 * math.sin(y * 1.1 + wave))
    return mix(water, (255, 220, 160), 0.42 * glint * (1 - 0.55 * depth))


def png(rows):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    raw = bytearray()
    before = bytes(WIDTH * 3)
    for row in rows:  # filter 2 (up): a gradient compresses best against the row above
        raw += b"\x02" + bytes((a - b) & 255 for a, b in zip(row, before))
        before = row
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(raw), 9)) + chunk(b"IEND", b"")


def main():
    rows = [
        bytes(255 - max(0, min(255, round(v))) for x in range(WIDTH) for v in pixel(x, y))
        for y in range(HEIGHT)
    ]
    negative = png(rows)
    uri = "data:image/png;base64," + base64.b64encode(negative).decode()
    node = lambda title, kind, **inputs: {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
    graph = {
        "1": node("Load the negative", "LoadImage", image=uri),
        "2": node("Develop", "ImageInvert", image=["1", 0]),
        "3": node(
            "Enlarge", "ImageScale", image=["2", 0], upscale_method="lanczos", width=WIDTH * 3, height=HEIGHT * 3, crop="disabled"
        ),
        "4": node("Save the print", "SaveImage", images=["3", 0], filename_prefix="darkroom-demo"),
    }
    with open("workflow.json", "w") as file:
        json.dump(graph, file, indent=1)
        file.write("\n")


main()
