"""A recipe is frozen data that describes one run completely."""

from ravine.catalogue import parse_value
from ravine.recipe.recipe import (
    Recipe,
    check_ends,
    fields,
    from_keywords,
    json_schema,
    keyword_edit,
    keyword_path,
)
from ravine.recipe.sections import Data, Start

__all__ = [
    "Data",
    "Recipe",
    "Start",
    "check_ends",
    "fields",
    "from_keywords",
    "json_schema",
    "keyword_edit",
    "keyword_path",
    "parse_value",
]
