"""A digest of data: the same name must mean the same rows when a run goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from ravine.data.source import Arrays, Split, Windows

WHOLE = 32 << 20  # bytes of a tensor that are digested whole; of a larger one, evenly spaced rows
ROWS = 4096


def digest(parts: Mapping[str, Split]) -> str:
    """sha256 of the raw rows and targets of all parts: whole where they are small, else a sample of
    evenly spaced rows. Of what is streamed the targets count, and the number of rows.

    >>> x, y = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 0])
    >>> digest({"train": Arrays(x, y)}) == digest({"train": Arrays(x, 1 - y)})
    False
    """
    found = hashlib.sha256()
    for name, part in sorted(parts.items()):
        found.update(f"{name} {len(part)}".encode())
        tensors = (
            [part.x, part.y]
            if isinstance(part, Arrays)
            else [part.tokens]
            if isinstance(part, Windows)
            else [getattr(part, "labels", None)]
        )
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                _update(found, tensor)
    return found.hexdigest()


def _update(found: hashlib._Hash, tensor: Tensor) -> None:
    found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    if tensor.nbytes > WHOLE:
        rows = max(1, min(ROWS, WHOLE // max(1, tensor[:1].nbytes)))
        tensor = tensor[torch.linspace(0, len(tensor) - 1, rows).long().to(tensor.device)]
    plain = tensor.detach().cpu().contiguous()
    found.update(plain.flatten().view(torch.uint8).numpy().data if plain.numel() else b"")
