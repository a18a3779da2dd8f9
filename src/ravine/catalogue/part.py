"""A part of a recipe: frozen, validated fields, and errors that name the field in the recipe."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ravine.errors import InputError, nearest, unknown


class Part(BaseModel):
    """A technique with its numbers, as part of a recipe: ``kind`` and the fields of that kind.
    Frozen."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=()
    )
    technique: ClassVar[Any] = None  # its row of the catalogue, where it is one

    if TYPE_CHECKING:  # the fields of a technique are known when the program runs

        def __getattr__(self, name: str) -> Any: ...

    def __init_subclass__(cls, technique: Any = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.technique = technique

    def __init__(self, **fields: Any):
        try:
            super().__init__(**{name: plain(value) for name, value in fields.items()})
        except ValidationError as error:
            raise explain(error, type(self)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        repair = 'recipe.edit({"optimizer.lr": 0.1}) gives an edited copy'
        raise InputError(
            name, got=value, expected="no assignment: recipes are frozen", repair=repair
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """What the technique's function is called with: its own fields, not ``kind`` nor what is
        common to the kind."""
        return {
            name: getattr(self, name) for name in (self.technique.fields if self.technique else ())
        }

    def explicit(self) -> dict[str, Any]:
        """Plain data: the fields that were set, and every ``kind``; what was left to its default is
        left out."""
        own = dict.fromkeys(("kind", *self.technique.fields)) if self.technique else {}
        known = own | type(self).model_fields | (self.model_extra or {})
        names = [name for name in known if name in self.model_fields_set or name == "kind"]
        found = {name: _explicit(getattr(self, name)) for name in names}
        return {name: value for name, value in found.items() if value is not None}


def _explicit(value: Any) -> Any:
    if isinstance(value, Part):
        return value.explicit()
    return [_explicit(item) for item in value] if isinstance(value, tuple) else value


def plain(value: Any) -> Any:
    """Numbers, text, lists and tables from NumPy's and PyTorch's scalars and arrays, and from
    paths."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


_EXPECTED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a table",
    "finite_number": "a finite number",
    "string_too_short": "text that is not empty",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
    "dict_type": "names with a value each",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}


def explain(error: ValidationError, model: type[BaseModel]) -> InputError:
    """Pydantic's complaints about one field, in Ravine's form: a misspelt one before the one that
    is then missing."""
    found = sorted(error.errors(), key=lambda c: c["type"] != "extra_forbidden")
    complaints = [c for c in found if c["loc"][:1] == found[0]["loc"][:1]]
    causes = [c for c in complaints if isinstance(c.get("ctx", {}).get("error"), InputError)]
    # right type, wrong value
    of_value = [c for c in complaints if not c["type"].endswith(("_type", "literal_error"))]
    first: Any = (causes or of_value or complaints)[0]
    where = _where(first, model)
    if causes:
        return first["ctx"]["error"].under(where)
    if first["type"] == "extra_forbidden":
        return unknown(where, where, set(model.model_fields) - {"kind"})
    if first["type"] == "missing":
        return InputError(where, expected="a value: it has no default", repair=f"set {where}")
    alike = [first] if of_value else [c for c in complaints if _where(c, model) == where]
    expected = dict.fromkeys(_expected(c) for c in alike)
    repair = nearest(first["input"], re.findall(r"'(.*?)'", " ".join(expected)))
    return InputError(where, got=first["input"], expected=" or ".join(expected), repair=repair)


def _expected(complaint: Any) -> str:
    form = _EXPECTED.get(complaint["type"])
    if form is None:
        return complaint["msg"].removeprefix("Input should be ")
    return form.format(
        **{name: _readable(value) for name, value in complaint.get("ctx", {}).items()}
    )


def _readable(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _where(complaint: Any, model: type[BaseModel] | None) -> str:
    """The place in the recipe; pydantic's names for the branches of a union are left out."""
    places: list[str] = []
    named = False  # whether the next place is a name of the person's own
    for place in complaint["loc"]:
        own, named = named, False
        if isinstance(place, int) or (own and place):
            places.append(str(place))
        elif model is not None and (place in model.model_fields or not places):
            places.append(str(place))
            field = model.model_fields.get(place)
            model = table_class(field.annotation) if field else None
            named = field is not None and _of_names(field.annotation)
    return ".".join(places)


def _of_names(annotation: Any) -> bool:
    """Whether a field holds values by names that a person chooses, as ``columns`` does."""
    return any(typing.get_origin(one) is dict for one in (annotation, *typing.get_args(annotation)))


def table_class(annotation: Any) -> type[Part] | None:
    """The class of the tables that a field holds: ``Init`` of ``Annotated[Init, …] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next(
        (found for inside in typing.get_args(annotation) if (found := table_class(inside))), None
    )
