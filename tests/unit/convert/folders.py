"""Model directories for tests: the fixtures, and changes of them."""

import json
import struct
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parents[2] / "fixtures" / "convert"


def files_of(name):
    """As an upload names them."""
    folder = FIXTURES / name
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.*")}


def changed(files, name, folder, change):
    """The files with one of the JSON files changed: ``change(content)`` in place."""
    content = json.loads(files[name].read_text())
    change(content)
    path = folder / name.replace("/", "-")
    path.write_text(json.dumps(content))
    return {**files, name: path}


def write_tensors(path, tensors):
    """A safetensors file of F32 arrays."""
    header, at = {}, 0
    for name, array in tensors.items():
        end = at + 4 * array.size
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    data = b"".join(array.astype("<f4").tobytes() for array in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def ones(*shape):
    return np.ones(shape, np.float32)
