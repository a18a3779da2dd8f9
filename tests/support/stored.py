"""What tests change in a run directory, signed again as Ravine would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ravine.rundir.mark import signed


def edit(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    place = Path(run) / "recipe.json"
    about = json.loads(place.read_text(encoding="utf-8"))
    for name in ("sha256", "mark"):
        del about[name]
    change(about)
    place.write_text(json.dumps(signed(about)), encoding="utf-8")
