"""A DataFrame, or texts and their labels, given in Python, as a file that a recipe can name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ravine.data.download.cache import cache_root
from ravine.errors import InputError
from ravine.storage.files import atomic


def source_of(given: Any) -> dict[str, Any] | None:
    """The source of a DataFrame (pandas, polars, or what ``to_pandas`` turns into one), or of texts and
    their labels (``is_labelled_texts``): a CSV file in the cache, named by its content. None for anything else.

    Columns of the type category are read as categories, whatever they hold.

    >>> import pandas
    >>> source_of(pandas.DataFrame({"size": [1, 2], "kind": pandas.Categorical([3, 4])}))["columns"]
    {'kind': 'category'}
    """
    if is_labelled_texts(given):
        import pandas

        from ravine.data.read.reading import listed_texts  # it brings torch

        texts, labels = listed_texts(given[0]), list(given[1])
        if len(texts) != len(labels):
            got = f"{len(labels)} targets for {len(texts)} inputs"
            raise InputError("y", got=got, expected="as many targets as inputs")
        frame = pandas.DataFrame({"text": texts, "label": labels})
        fields = {"target": "label", "columns": {"text": "text"}}
        return (source_of(frame) or {}) | fields
    if not hasattr(given, "columns"):
        return None
    from ravine.data.tables.as_text import name_of, of_frame, pandas_of  # they bring pandas

    frame = pandas_of(given)
    if frame is None:
        return None
    text = of_frame(frame, "the DataFrame")
    place = cache_root() / "frames" / f"table-{hashlib.sha256(text).hexdigest()[:12]}.csv"
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic(place) as partial:
            partial.write_bytes(text)
    kinds = {name_of(name): "category" for name, kind in frame.dtypes.items() if kind == "category"}
    return {"kind": "csv", "path": str(place)} | ({"columns": kinds} if kinds else {})


def is_labelled_texts(given: Any) -> bool:
    """Whether it is a pair of texts, in a list, an array or a column, and of one label each.

    >>> is_labelled_texts((["so good", "so bad"], [1, 0])), is_labelled_texts(([[1.0]], [1]))
    (True, False)
    """
    if not isinstance(given, tuple) or len(given) != 2:
        return False
    from ravine.data.read.reading import listed_texts  # it brings torch

    texts = listed_texts(given[0])
    if not isinstance(texts, list) or not texts or not isinstance(texts[0], str):
        return False
    return isinstance(given[1], list | tuple | np.ndarray) or hasattr(given[1], "to_list")


def table_first(recipe: Any, data: Any, fields: Mapping[str, Any], model: Any) -> tuple[Any, Any]:
    """What stands for the recipe, and the data: a DataFrame whose ``target`` is a column, or texts and
    their labels for a network of Ravine's, are data that a recipe is made for."""
    frame = hasattr(data, "columns") and isinstance(fields.get("target"), str)
    texts = is_labelled_texts(data) and (model is None or isinstance(model, str | dict))
    return (data, None) if recipe is None and (frame or texts) else (recipe, data)
