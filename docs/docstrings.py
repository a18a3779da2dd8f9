"""Docstrings of the API page as the catalogue shows them: examples are code, formulas keep their lines."""

from __future__ import annotations

from typing import Any

import griffe

from ravine.catalogue.reference import markdown


class Docstrings(griffe.Extension):
    """Named in mkdocs.yml."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
