"""Weights that a person names: a safetensors file, a PyTorch checkpoint, or a name on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ravine.data.download import hub
from ravine.errors import InputError, first_line
from ravine.storage import bounded

CHECKPOINTS = (".pt", ".pth", ".bin", ".ckpt")
_INSIDE = ("state_dict", "model_state_dict", "model")  # where checkpoints keep the weights
_EXPECTED = "a run directory, a safetensors file, a PyTorch checkpoint of weights, or hf:OWNER/NAME"

_WEIGHTS_ALONE = (
    "Python objects in a file are never run; where you trust it, save its weights alone: "
    "torch.save(model.state_dict(), PATH)"
)


def read_weights(name: str) -> dict[str, Tensor]:
    """The tensors by name.

    PyTorch checkpoints are read with ``weights_only``: tensors and plain containers; a file that
    names any other Python object is refused, and nothing of it runs.

    Errors: no such file, a damaged one, one that holds more than weights.
    """
    path = hub.weights(name) if hub.is_hub(name) else Path(name)
    try:
        with bounded.open_file(path) as file:
            packed = file.read(2) == b"PK"
            file.seek(0)
            if path.suffix.lower() not in CHECKPOINTS:
                return load_file(path)
            if packed:  # whose records may be larger than they look
                bounded.open_zip(file, str(path))
                file.seek(0)
            return _state(torch.load(file, map_location="cpu", weights_only=True), path)
    except InputError as error:
        if error.where == "start.weights":
            raise
        raise InputError("start.weights", got=name, expected=_EXPECTED, repair=str(error)) from None
    except Exception as error:  # of an unpickler that met anything but weights, or a damaged file
        got, repair = str(path), first_line(error)
        if "weights_only" in str(error):  # PyTorch's own words advise to read it all the same
            got, repair = f"{path}, which is damaged or holds more than weights", _WEIGHTS_ALONE
        raise InputError("start.weights", got=got, expected=_EXPECTED, repair=repair) from None


def _state(found: Any, path: Path) -> dict[str, Tensor]:
    for inside in _INSIDE:
        if isinstance(found, dict) and isinstance(found.get(inside), dict):
            found = found[inside]
    if not isinstance(found, dict) or not any(isinstance(v, Tensor) for v in found.values()):
        raise InputError("start.weights", got=f"{path} without tensors by name", expected=_EXPECTED)
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    # DataParallel and Lightning put a prefix before every name.
    for prefix in ("module.", "model."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
