"""The vocabulary of technique signatures: numbers, texts and durations that check themselves."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from ravine.catalogue import durations
from ravine.errors import InputError

_T = TypeVar("_T")
MEMBER = "may differ between the members of one population"
STRUCTURAL = "is the same for all members of one population"

PerMember = Annotated[_T, MEMBER]
SMALLEST = sys.float_info.min  # under it processors in training count a number as zero


def _flushed(value: float) -> float:
    return 0.0 if abs(value) < SMALLEST else value  # -0.0 is 0.0 too


def _above_zero(value: float) -> float:
    if value < SMALLEST:
        raise PydanticCustomError("greater_than", "too small", {"gt": 0})
    return value


Real = Annotated[float, Field(strict=True, allow_inf_nan=False), AfterValidator(_flushed)]
Positive = Annotated[
    float, Field(strict=True, gt=0, allow_inf_nan=False), AfterValidator(_above_zero)
]
NonNegative = Annotated[
    float, Field(strict=True, ge=0, allow_inf_nan=False), AfterValidator(_flushed)
]
Probability = Annotated[
    float, Field(strict=True, ge=0, le=1, allow_inf_nan=False), AfterValidator(_flushed)
]
# a running average's memory
Decay = Annotated[
    float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False), AfterValidator(_flushed)
]
MOST = 10**18  # of anything that is counted: a number of 64 bits


def _countable(value: int) -> int:
    if value > MOST:  # no bound of a field: messages and pages need not state it
        raise PydanticCustomError("less_than_equal", "too large", {"le": MOST})
    return value


Whole = Annotated[int, Field(strict=True, ge=0), AfterValidator(_countable)]
Count = Annotated[int, Field(strict=True, ge=1), AfterValidator(_countable)]
# with more layers, building the modules alone takes minutes
LayerCount = Annotated[int, Field(strict=True, ge=1, le=256)]  # recurrent ones, blocks
ResidualDepth = Annotated[int, Field(strict=True, ge=1, le=1202)]  # the deepest that was published
MOST_LAYERS = 1000
Widths = Annotated[tuple[Count, ...], Field(max_length=MOST_LAYERS)]  # of layers, first to last
Integer = Annotated[int, Field(strict=True)]
Order = Annotated[int, Field(strict=True, ge=1, le=16)]  # how many symbols an n-gram has
Orders = Annotated[tuple[Order, ...], Field(max_length=8)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Pair = Count | tuple[Count, Count]  # one number for both directions, or (height, width)
ColumnKind = Literal[  # what a column of a table is read as; the longer ones say how it is written
    "number", "numbers", "number 1,234.5", "number 1.234,5", "category", "flag", "text", "identifier",
    "group", "order", "date", "date d/m/Y", "date m/d/Y",
]  # fmt: skip
Columns = dict[Text, ColumnKind]  # column -> kind, of the columns that the recipe decides


def _duration(value: object) -> str:
    amount, unit = durations.parse(value)
    if unit == "%" and amount > 100:
        raise InputError("", got=value, expected="at most 100%")
    return durations.canonical(value)


_DURATION = {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ep|it|%)\s*$"}
Duration = Annotated[str, BeforeValidator(_duration), WithJsonSchema(_DURATION)]


def few_layers(value: Any) -> Any:
    """The same list of layers, if it holds no more of them than a network may, those within others
    counted; before any of them is looked at."""
    count, level = 0, [value]
    while level:
        inner = [one for each in level for one in _inside(each)]
        count += sum(len(each) for each in level if isinstance(each, list | tuple))
        if count > MOST_LAYERS:
            expected = f"at most {MOST_LAYERS:,} in a network"
            raise InputError("", got=f"{count:,} layers or more", expected=expected)
        level = inner
    return value


def _inside(value: Any) -> list[Any]:
    found = value.values() if isinstance(value, dict) else value
    every = isinstance(value, dict | list | tuple)
    return [one for one in found if isinstance(one, dict | list | tuple)] if every else []
