"""A recipe as TOML with the reason of each choice beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ravine.recipe import Recipe


@dataclass(frozen=True)
class Starter:
    """The recipe, the reason of each of its fields by path, and what was found, for people."""

    recipe: Recipe
    why: dict[str, str]
    title: str
    found: str = ""

    def to_toml(self) -> str:
        """The recipe as a file that a person edits: each choice with its reason."""
        return written(self.recipe, self.why, self.title)


def written(recipe: Recipe, why: Mapping[str, str], title: str) -> str:
    """The recipe's explicit fields, each with its reason as a comment above it; ``Recipe.from_toml``
    gives an equal recipe.

    >>> print(written(Recipe(seed=3, data={"batch": 8}), {"data.batch": "ten an epoch"}, "Digits"))
    # Digits
    seed = 3
    <BLANKLINE>
    [data]
    # ten an epoch
    batch = 8
    """
    lines = [f"# {line}" for line in title.splitlines()]
    table, depth = "", 0
    for line in recipe.to_toml().splitlines():
        if depth == 0 and line.startswith("["):
            table = line.strip("[]")
            lines += _comment(why.get(table))
        elif depth == 0 and "=" in line:
            key = line.partition("=")[0].strip()
            lines += _comment(why.get(f"{table}.{key}" if table else key))
        depth += line.count("[") + line.count("{") - line.count("]") - line.count("}")
        lines.append(line)
    return "\n".join(lines).strip() + "\n"


def _comment(reason: str | None) -> list[str]:
    return [f"# {reason}"] if reason else []
