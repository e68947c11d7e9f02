"""The workflow of the page's test case from nodes without a model, and what must come out of it."""

import io
import struct

from PIL import Image, ImageChops


def workflow(image="example.png", kind="ImageInvert"):
    """Inputs 1.image and 6.text, output 10.images: loads, inverts, saves under the text as a name."""
    middle = {
        "ImageInvert": {"image": ["1", 0]},
        "ImageFlip": {"image": ["1", 0], "flip_method": "x-axis: vertically"},
    }[kind]
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": kind, "inputs": middle},
        "6": {"class_type": "TestText", "inputs": {"text": "stored"}},
        "10": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": ["6", 0]}},
    }


def png(width=24, height=16, seed=1):
    """A picture in which every pixel says where it is."""
    picture = Image.new("RGB", (width, height))
    picture.putdata([((x * 7 + seed) % 256, y * 11 % 256, (x + y) * 5 % 256) for y in range(height) for x in range(width)])
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def _f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def inverted(source):
    """A sample's way through the original: to a float, 1 - x, back to a byte, which cuts and does not round."""
    table = [int(_f32(255 * _f32(1 - _f32(value / 255)))) for value in range(256)]
    return read(source).point(table * 3)


def read(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def same(data, expected):
    """Whether a file is that picture, pixel by pixel."""
    picture = read(data)
    return picture.size == expected.size and ImageChops.difference(picture, expected).getbbox() is None
