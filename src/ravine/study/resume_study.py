"""An interrupted study, continued from what its directory says."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from ravine.recipe import Recipe
from ravine.study.directory import read_about


def again(
    directory: str | Path, *, model: Any = None, data: Any = None, quiet: bool = False
) -> dict[str, Any]:
    """Enter a study again with its own recipe and options: what is finished is read, the rest is
    done."""
    about = read_about(Path(directory))
    function = getattr(import_module(f"ravine.study.{about['kind']}.study"), about["kind"])
    options = dict(about["options"])
    rest = {"model": model, "data": data, "out": directory, "quiet": quiet}
    if "runs" in options:  # a landscape
        from ravine.engine.run import Run

        runs = [
            Run(place, member, module=model)
            for place, member in zip(options.pop("runs"), options.pop("members"), strict=True)
        ]
        return function(*runs, **options, **rest)
    if "run" in options:
        return function(options.pop("run"), **options, **rest)
    return function(Recipe(**about["recipe"]), **options, **rest)
