"""Each promise is counted: how many trials, how many passed.

With RAVINE_COUNTS=FILE the counts, and what the tests' docstrings say, are merged into that JSON file, of
which docs/build.py makes docs/reliability.md (``make promises``).
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from filelock import FileLock

Counted = Callable[[str, int, int, Sequence[str]], None]


@pytest.fixture
def counted(request: pytest.FixtureRequest) -> Counted:
    """Count the trials of a promise; the test fails where one did not pass."""

    def count(promise: str, trials: int, passed: int, wrong: Sequence[str] = ()) -> None:
        print(f"{promise}: {request.node.name}: {passed} of {trials} trials passed")
        if place := os.environ.get("RAVINE_COUNTS"):
            _store(Path(place), request, promise, trials, passed)
        assert passed == trials > 0, "\n".join(wrong[:20])

    return count


def _store(
    place: Path, request: pytest.FixtureRequest, promise: str, trials: int, passed: int
) -> None:
    proof, _, broken = (inspect.getdoc(request.function) or "").partition("\n\n")
    file = request.path.relative_to(request.config.rootpath).as_posix()
    test = f"{file}::{request.function.__name__}"
    with FileLock(f"{place}.lock"):
        found = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
        said = found.setdefault(promise, {}).setdefault(test, {"parts": {}})
        said |= {"proof": " ".join(proof.split()), "broken": " ".join(broken.split())}
        said["parts"][request.node.name] = [trials, passed]
        said["parts"] = dict(sorted(said["parts"].items()))
        text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False)
        place.write_text(text + "\n", encoding="utf-8")
