"Checkpoints written by hand, with the checksum that belongs to them."
import json
from pathlib import Path

from safetensors.torch import save

from s8fast.training import checkpoint


def read_parts(path):
    "A checkpoint's tensors by name, and the rest."
    return checkpoint._load(path)


def write_parts(path, tensors, plain):
    "A checkpoint of these parts, whatever they are."
    text = json.dumps(plain, allow_nan=False)
    digest = checkpoint._digest(tensors, text)
    Path(path).write_bytes(save(tensors, dict(plain=text, sha256=digest)))


def forge(path, change):
    "Write a checkpoint again after `change(tensors, plain)`."
    tensors, plain = read_parts(path)
    change(tensors, plain)
    write_parts(path, tensors, plain)
