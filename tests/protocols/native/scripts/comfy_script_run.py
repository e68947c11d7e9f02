"""A program for ComfyScript: nodes as functions, and the pictures of a prompt as Pillow's."""

import sys

from comfy_script.runtime import load

load(sys.argv[1])

from comfy_script.runtime import Workflow  # noqa: E402
from comfy_script.runtime.nodes import EmptyImage, ImageInvert, SaveImage  # noqa: E402

with Workflow(wait=True):
    saved = SaveImage(ImageInvert(EmptyImage(24, 16, 1, 0x112233)), "script")
for picture in saved.wait():
    print(picture.size, "#%02x%02x%02x" % picture.getpixel((5, 5)))
