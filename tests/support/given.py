"""Data as people give them in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset


class Rows(Dataset):
    """A Dataset whose samples a function makes of their numbers."""

    def __init__(self, give: Callable[[int], Any], count: int = 60):
        self.give, self.count = give, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        return self.give(i)
