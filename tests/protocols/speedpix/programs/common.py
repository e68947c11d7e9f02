"""What every program takes from its caller, and how it says what came out."""

import json
import os

WORKFLOW = os.environ["WORKFLOW_ID"]
OUT = os.environ["OUT"]
IMAGE = os.environ["IMAGE"]


def out(name):
    return os.path.join(OUT, name)


def said(**facts):
    print(json.dumps(facts))
