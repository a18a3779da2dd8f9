"""docs/from-keras.md: every recipe in it is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ravine import Recipe

PAGE = (Path(__file__).parents[2] / "docs" / "from-keras.md").read_text(encoding="utf-8")
CELLS = re.findall(r"^\| .+? \| `([a-z]+ = .+?)`(?: \(.*\))? \|$", PAGE, flags=re.MULTILINE)


def test_every_row_has_a_recipe() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    rows += [line for line in PAGE.splitlines() if line.startswith("| ") and "`" not in line[:4]]
    assert len(CELLS) == len([row for row in rows if not row.startswith("| Keras")])


@pytest.mark.parametrize("text", CELLS)
def test_recipe(text: str) -> None:
    recipe = Recipe.from_toml(text)
    assert recipe != Recipe() or "batch" not in text
    section = text.partition(" ")[0]
    assert section in recipe.to_dict(explicit=True)
