"""Texts: characters as tokens. Token 0 stands for a character that the training part does not
have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ravine.data.read.encoding import decoded
from ravine.data.source import Windows
from ravine.errors import InputError
from ravine.storage.bounded import MOST_TEXT, read_bytes

UNKNOWN = "\ufffd"


@dataclass
class Text:
    """A text that is still to be cut into parts."""

    content: str
    length: int
    where: str

    def cut(
        self, validation: float, test: float, seed: int
    ) -> tuple[dict[str, Windows], tuple[str, ...]]:
        """Contiguous parts, training first, test last, and the characters of the training part in
        order."""
        ends = len(self.content) - int(len(self.content) * test + 0.5)
        starts = ends - int(ends * validation + 0.5)
        pieces = {
            "train": self.content[:starts],
            "validation": self.content[starts:ends],
            "test": self.content[ends:],
        }
        characters = (UNKNOWN, *sorted(set(pieces["train"]) - {UNKNOWN}))
        parts = {}
        for name, piece in pieces.items():
            if not piece and name != "train":
                continue
            moving = name == "train"
            parts[name] = Windows(encode(piece, characters), self.length, seed, moving)
            if not len(parts[name]):
                needed = 2 * self.length if moving else self.length + 1
                raise InputError(
                    f"{self.where} ({name})",
                    got=f"{len(piece)} characters",
                    expected=f"at least {needed} for windows of length {self.length}",
                    repair="give a longer text or a smaller length",
                )
        return parts, characters


def encode(text: str, characters: tuple[str, ...]) -> Tensor:
    """Tokens of a text.

    >>> encode("abz", (UNKNOWN, "a", "b")).tolist()
    [1, 2, 0]
    """
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
    known = np.array([ord(c) for c in characters[1:]], dtype=np.int64)
    order = np.argsort(known)
    place = np.searchsorted(known[order], points).clip(max=len(known) - 1)
    tokens = np.where(known[order][place] == points, order[place] + 1, 0)
    return torch.from_numpy(tokens.astype(np.uint8 if len(characters) <= 256 else np.int32))


def read(path: Path) -> str:
    """A text in UTF-8, UTF-16 or Latin-1; its lines end in a line feed, whatever system wrote it."""
    found = decoded(read_bytes(path, MOST_TEXT), str(path))[0]
    return found.replace("\r\n", "\n").replace("\r", "\n")
