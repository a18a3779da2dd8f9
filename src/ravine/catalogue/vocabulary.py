"""The vocabulary of technique signatures: numbers, texts and durations that check themselves."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, WithJsonSchema

from ravine.catalogue import durations
from ravine.errors import InputError

_T = TypeVar("_T")
MEMBER = "may differ between the members of one population"
STRUCTURAL = "is the same for all members of one population"

PerMember = Annotated[_T, MEMBER]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
# a running average's memory
Decay = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
# with more, building the modules alone takes minutes
LayerCount = Annotated[int, Field(strict=True, ge=1, le=10_000)]
Widths = Annotated[tuple[Count, ...], Field(max_length=10_000)]  # of layers, first to last
Integer = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Pair = Count | tuple[Count, Count]  # one number for both directions, or (height, width)
ColumnKind = Literal[  # what a column of a table is read as; the longer ones say how it is written
    "number", "numbers", "number 1,234.5", "number 1.234,5", "category", "flag", "text", "identifier",
    "date", "date d/m/Y", "date m/d/Y",
]  # fmt: skip
Columns = dict[Text, ColumnKind]  # column -> kind, of the columns that the recipe decides


def _duration(value: object) -> str:
    amount, unit = durations.parse(value)
    if unit == "%" and amount > 100:
        raise InputError("", got=value, expected="at most 100%")
    return durations.canonical(value)


_DURATION = {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ep|it|%)\s*$"}
Duration = Annotated[str, BeforeValidator(_duration), WithJsonSchema(_DURATION)]
