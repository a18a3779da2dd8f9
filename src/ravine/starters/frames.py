"""A DataFrame given in Python, as a file that a recipe can name."""

from __future__ import annotations

import hashlib
from typing import Any

from ravine.data.download.cache import cache_root
from ravine.storage.files import atomic


def source_of(given: Any) -> dict[str, Any] | None:
    """The source of a DataFrame (pandas, polars, or what ``to_pandas`` turns into one): a CSV file in
    the cache, named by its content. None for anything else.

    Columns of the type category are read as categories, whatever they hold.

    >>> import pandas
    >>> source_of(pandas.DataFrame({"size": [1, 2], "kind": pandas.Categorical([3, 4])}))["columns"]
    {'kind': 'category'}
    """
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
