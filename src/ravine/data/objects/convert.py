"""Anything array-like -> a tensor, as it came: bytes stay bytes, doubles stay doubles."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.errors import InputError

# a time step without a target, as in torch.nn.CrossEntropyLoss(ignore_index=-100)
PADDED_TARGET = -100
_WIDER = {"u2": "i4", "u4": "i8", "u8": "i8", "f2": "f4", "f16": "f8"}


def tensor(value: Any, where: str, *, padding: int = 0) -> Tensor | np.ndarray:
    """A dense tensor in main memory; text stays a numpy array of ``str``.

    Sequences of different lengths are padded: whole numbers with ``padding``, other numbers with
    NaN.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value if value.layout == torch.strided else value.to_dense()
        if value.is_complex():
            raise InputError(where, got=str(value.dtype), expected="real numbers")
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if hasattr(value, "toarray"):
        raise InputError(
            where, got=type(value).__name__, expected="a dense array", repair="use .toarray()"
        )
    if hasattr(value, "to_numpy"):
        value = _of_frame(value, where)
    if isinstance(value, (list, tuple)):
        lengths = {
            len(item)
            for item in value
            if isinstance(item, (Sequence, np.ndarray, Tensor)) and not isinstance(item, str)
        }
        if len(lengths) > 1:
            return _padded([tensor(item, where) for item in value], where, padding)
        if value and isinstance(value[0], Tensor):
            return torch.stack([item.detach().cpu() for item in value])
    return _from_numpy(value, where)


def _of_frame(value: Any, where: str) -> np.ndarray:
    """The array of a DataFrame or Series (pandas, polars, …); missing numbers are NaN, columns of
    text an error."""
    array = value.to_numpy()
    kinds: Any = getattr(value, "dtypes", None)
    if array.dtype.kind != "O" or array.ndim != 2 or not hasattr(kinds, "items"):
        return array if array.dtype.kind != "O" or array.ndim != 1 else _without_gaps(value, array)
    strange = [name for name, kind in kinds.items() if getattr(kind, "kind", "O") not in "biuf"]
    if strange:
        raise InputError(
            where,
            got=f"{len(strange)} column(s) that hold no numbers: {', '.join(map(str, strange[:5]))}",
            expected="columns of numbers",
            repair="drop or encode them (pandas.get_dummies), or ravine.train(frame, target=NAME), which "
            "reads them",
        )
    return value.to_numpy(dtype=np.float64, na_value=np.nan)


def _without_gaps(value: Any, array: np.ndarray) -> np.ndarray:
    """A column of pandas' own number types, which may miss values."""
    numbers = getattr(getattr(value, "dtype", None), "kind", "O") in "biuf"
    return value.to_numpy(dtype=np.float64, na_value=np.nan) if numbers else array


def images(x: Tensor) -> Tensor:
    """Bytes in the layouts of image files as [N, C, H, W]: [N, H, W] gets its channel, [N, H, W, C]
    has it moved."""
    if x.dtype != torch.uint8:
        return x
    if x.ndim == 3:
        return x[:, None]
    behind = x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4)
    return x.movedim(3, 1).contiguous() if behind else x


def _from_numpy(value: Any, where: str) -> Tensor | np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(where, expected="rows of equal shape", repair=str(error)) from None
    if array.dtype.kind == "O":
        array = _plain(array, where)
    if array.dtype.kind in "US":
        return array.astype(str)
    if array.dtype.kind not in "biuf":
        raise InputError(where, got=f"an array of {array.dtype}", expected="numbers")
    kind = _WIDER.get(array.dtype.str[1:], array.dtype.str[1:])
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        kind = "f8"  # as Python's own numbers of that size
    array = (
        np.ascontiguousarray(array, dtype=np.dtype(kind))
        if array.ndim
        else np.asarray(array, dtype=kind)
    )
    with warnings.catch_warnings():
        # mapped files: nothing here writes to them
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)


def _plain(array: np.ndarray, where: str) -> np.ndarray:
    """An array of Python objects, as pandas gives for text and mixed columns, as text or
    numbers."""
    if all(isinstance(item, str) for item in array.flat):
        return array.astype(str)
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(
            where,
            got=f"an array of objects such as {next(iter(array.flat))!r}",
            expected="numbers",
            repair="encode them as numbers first",
        ) from None


def _padded(items: list[Any], where: str, padding: int) -> Tensor:
    if (
        any(not isinstance(item, Tensor) for item in items)
        or len({item.shape[1:] for item in items}) > 1
    ):
        raise InputError(
            where, expected="rows of equal shape, or sequences [T, ...] that differ in T alone"
        )
    if any(len(item) == 0 for item in items):
        raise InputError(
            where, got="a sequence of length 0", expected="at least one time step in each"
        )
    whole = not items[0].is_floating_point()
    if whole and any((item == padding).any() for item in items):
        raise InputError(
            where,
            got=f"the token {padding} in sequences of different lengths",
            expected=f"tokens other than {padding}, which is the padding",
            repair="add 1 to each",
        )
    if not whole and items[0].ndim == 1:
        items = [item[:, None] for item in items]
    fill = float(padding) if whole else float("nan")
    return torch.nn.utils.rnn.pad_sequence(
        [item.long() if whole else item for item in items], batch_first=True, padding_value=fill
    )


def value_of(value: Any) -> Tensor:
    """A tensor from what a Dataset gives: tensors, arrays, numbers, Pillow images (bytes [C, H,
    W])."""
    from PIL import Image

    if isinstance(value, Image.Image):
        pixels = np.array(value if value.mode in ("L", "RGB") else value.convert("RGB"))
        return torch.from_numpy(
            pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()
        )
    if isinstance(value, str):
        raise InputError(
            "data",
            got=f"the text {value!r} in a sample",
            expected="numbers or images",
            repair="make it tokens in the Dataset; folders of texts by class: texts:FOLDER",
        )
    if isinstance(value, float):
        return torch.tensor(value)
    found = tensor(value, "data")
    assert isinstance(found, Tensor)
    return found
