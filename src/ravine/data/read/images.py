"""Image files -> uint8 tensors [C, H, W]."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ravine.data.read.levels import MEASURED, Levels, Seen, clear, deep, levels_for, look
from ravine.errors import InputError
from ravine.storage import bounded

# A closed list: other formats of Pillow's are rare, and one of them (EPS) starts a program; TGA has no
# mark, so that any file may look like it, and an ICO may hold an image of another size than it says.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_GRAY = ("1", "L", "I;16", "I", "F", "LA", "La")
_MOST_PIXELS = 100_000_000  # of a size that a person chose
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
)  # what Pillow raises on broken files


def decode(
    file: Path | bytes,
    mode: str,
    size: tuple[int, int] | None = None,
    fit: str = "stretch",
    levels: Levels | None = None,
) -> Tensor:
    """One image as uint8 [C, H, W], in mode "L" or "RGB", upright, brought to (height, width) where
    given, as ``fit`` says (see ``sized``); ``levels``: what more than 8 bits and transparency become."""
    with _opened(file) as opened:
        turned = "exif" in opened.info or opened.format == "TIFF"
        upright = ImageOps.exif_transpose(opened) if turned else opened
        picture = (levels or Levels()).apply(upright).convert(mode)
        if size and picture.size != size[::-1]:
            picture = sized(picture, size, fit)
        pixels = torch.from_numpy(np.array(picture))  # [H, W] or [H, W, C]
    return pixels[None] if mode == "L" else pixels.movedim(2, 0)


@contextmanager
def _opened(file: Path | bytes) -> Iterator[Image.Image]:
    """An image of a known format whose pixels take no more memory than its file may."""
    with io.BytesIO(file) if isinstance(file, bytes) else bounded.open_file(file) as given:
        limit = bounded.allowance(given.seek(0, io.SEEK_END))
        given.seek(0)
        with Image.open(given, formats=FORMATS) as image:
            needed = image.width * image.height * (1 if image.mode in ("1", "L") else 4)
            if needed > limit:
                raise InputError(
                    "an image" if isinstance(file, bytes) else str(file),
                    got=f"{image.width:,} x {image.height:,} pixels",
                    expected=f"at most {bounded.amount(limit)} of them in a file of its size",
                )
            yield image


def chosen(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """The (height, width) that a person chose, if any; one picture of it fits into memory."""
    height, width = size if isinstance(size, tuple) else (size or 1, size or 1)
    if height * width > _MOST_PIXELS:
        expected = f"at most {_MOST_PIXELS:,} pixels a picture"
        raise InputError("data.source.size", got=size, expected=expected)
    return None if size is None else (height, width)


def sized(picture: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """The picture at (height, width). ``fit`` pad: its shape is kept, and its border's mean colour
    fills the rest; crop: its shape is kept, and what does not fit is cut off; stretch: resized as
    it comes."""
    to = size[::-1]  # Pillow's (width, height)
    if fit == "crop":
        return ImageOps.fit(picture, to, Image.Resampling.BILINEAR)
    if fit == "stretch":
        return picture.resize(to, Image.Resampling.BILINEAR)
    scale = min(to[0] / picture.width, to[1] / picture.height)
    inner = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture = picture.resize(inner, Image.Resampling.BILINEAR)
    if inner == to:
        return picture
    pixels = np.asarray(picture)
    edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    colour = np.concatenate([edge.reshape(len(edge), -1) for edge in edges]).mean(0).round()
    fill = tuple(int(value) for value in colour)
    whole = Image.new(picture.mode, to, fill if len(fill) > 1 else fill[0])
    whole.paste(picture, ((to[0] - inner[0]) // 2, (to[1] - inner[1]) // 2))
    return whole


class Header(NamedTuple):
    """What the header of an image file says."""

    size: tuple[int, int]  # (height, width) as seen upright
    gray: bool
    deep: str  # of more than 8 bits: whole or real numbers
    clear: bool  # parts may be transparent


def header(file: Path | bytes) -> Header | None:
    """What the header says, or None where the file is not an image."""
    try:
        with _opened(file) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            size = image.size if turned else image.size[::-1]
            return Header((size[0], size[1]), image.mode in _GRAY, deep(image), clear(image))
    except BROKEN:
        return None


def measure(files: Sequence[Path | bytes]) -> Levels:
    """What more than 8 bits and transparency become in a set with these pictures for training."""

    def one(file: Path | bytes) -> Seen:
        try:
            with _opened(file) as image:
                return look(image)
        except BROKEN:
            return Seen()

    with ThreadPoolExecutor() as pool:
        return levels_for(list(pool.map(one, files[:: len(files) // MEASURED + 1])))


def warn_deep(levels: Levels, headers: Iterable[Header], where: str) -> None:
    """A warning that says what the numbers of images of more than 8 bits are taken for."""
    counts = Counter(header.deep for header in headers)
    for kind, (low, high) in (("whole", levels.whole), ("real", levels.real)):
        if counts[kind]:
            warnings.warn(
                f"{where}: {counts[kind]} image(s) of {kind} numbers, more than 8 bits: {low:,} to {high:,} "
                "become 0 to 255, in new images too, as those for training suggest",
                stacklevel=2,
            )


def load(
    files: Sequence[Path | bytes],
    mode: str,
    size: tuple[int, int],
    fit: str = "stretch",
    levels: Levels | None = None,
) -> tuple[Tensor, list[int]]:
    """All images that can be decoded, uint8 [N, C, H, W], and the places of those that cannot."""
    out = torch.zeros(len(files), 1 if mode == "L" else 3, *size, dtype=torch.uint8)
    broken: list[int] = []

    def one(place: int) -> None:
        try:
            out[place] = decode(files[place], mode, size, fit, levels)
        except BROKEN:
            broken.append(place)

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(len(files)), chunksize=64))
    if broken:
        good = sorted(set(range(len(files))) - set(broken))
        out = out[good]
    return out, sorted(broken)


def warn_unreadable(files: Sequence[Path], root: Path) -> None:
    """One warning that names the files that were left out."""
    if files:
        names = ", ".join(str(file.relative_to(root)) for file in files[:10])
        more = f" and {len(files) - 10} more" if len(files) > 10 else ""
        warnings.warn(
            f"{root}: {len(files)} file(s) cannot be read as images and are left out: {names}{more}",
            stacklevel=2,
        )


@dataclass
class Survey:
    """What the headers of image files say."""

    headers: dict[Path, Header]  # of those that are images
    broken: list[Path]

    @property
    def gray(self) -> bool:
        """Whether all of them are."""
        return all(header.gray for header in self.headers.values())

    def median(self, files: Sequence[Path]) -> tuple[int, int]:
        """The median height and width of some of the files."""
        sizes = [self.headers[file].size for file in files]
        height, width = np.median(sizes, axis=0).round().astype(int).tolist()
        return height, width

    def levels(self, files: Sequence[Path], where: str) -> Levels:
        """What more than 8 bits and transparency become, by some of the files."""
        headers = self.headers
        found = measure([file for file in files if headers[file].deep or headers[file].clear])
        warn_deep(found, headers.values(), where)
        return found


def survey(files: Sequence[Path], where: str) -> Survey:
    """Read the headers of all files."""
    with ThreadPoolExecutor() as pool:
        found = dict(zip(files, pool.map(header, files, chunksize=64), strict=True))
    good = {file: seen for file, seen in found.items() if seen}
    if not good:
        raise InputError(where, got=f"{len(files)} file(s), none an image", expected="image files")
    return Survey(good, [file for file in files if file not in good])
