"""Files with a structure of one's own, which `save` would not write."""

import json

import numpy as np
from safetensors.numpy import save_file

from graftax.files.saving import _HEADER

RELU = {"function": "jax.nn.relu"}


def container(name, layers=(RELU,), **fields):
    """The entry of a container; `labels` and `unset` are its own, all else are fields."""
    own = {key: fields.pop(key) for key in ("labels", "unset", "base") if key in fields}
    return {"module": f"graftax.{name}", "layers": list(layers), "fields": fields, **own}


def write(file, model, arrays=None):
    """A file of this structure, with a tensor `w` of four bytes unless told otherwise."""
    header = {"format": 1, "graftax": "0", "equinox": "0", "model": model}
    arrays = {"w": np.ones(1, np.float32)} if arrays is None else arrays
    save_file(arrays, file, {_HEADER: json.dumps(header)})
    return file
