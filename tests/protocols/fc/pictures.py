"""The input picture, the workflow that needs no model, and what must come out of it."""

import pathlib
import struct

from PIL import Image

PATH = pathlib.Path(__file__).parent / "data" / "input.png"


def workflow(image):
    """Loads `image` in whichever form, inverts it, makes it two by three times as large, saves it."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {
            "class_type": "ImageScale",
            "inputs": {
                "image": ["2", 0], "upscale_method": "nearest-exact", "width": 32, "height": 48, "crop": "disabled",
            },
        },
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "sample"}},
    }


def _f32(x):
    """Rounds to a 32-bit float, as every step of the original does."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def _inverted(value):
    """A sample's way through the original: to a float, 1 - x, back to a byte, which cuts and does not round."""
    return int(_f32(255 * _f32(1 - _f32(value / 255))))


def expected():
    """The picture that must come out."""
    source = Image.open(PATH).convert("RGB").point([_inverted(value) for value in range(256)] * 3)
    return source.resize((32, 48), Image.Resampling.NEAREST)
