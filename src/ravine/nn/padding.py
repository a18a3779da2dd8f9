"""How long padded sequences are."""

from __future__ import annotations

from torch import Tensor


def lengths_of(x: Tensor, padding: int = 0) -> Tensor:
    """The length [B] of each sequence, up to its last step that is not padding: whole numbers [B, T]
    other than ``padding``, rows of [B, T, F] that are not all zeros. At least 1.

    >>> import torch
    >>> lengths_of(torch.tensor([[3, 0, 2, 0], [0, 0, 0, 0]])).tolist()
    [3, 1]
    """
    used = x != padding if x.dim() == 2 else (x != 0).any(-1)  # [B, T]
    lengths = used.shape[1] - used.flip(1).int().argmax(1)
    return lengths.where(used.any(1), 1)
