"""Name -> technique, for every kind: a closed table, read from the sources' own signatures without importing torch.

The contract, in four lines. Each file in ``FILES`` holds the techniques of one kind: every public function there is one,
its name the technique's name, its keyword-only arguments (with annotations from this module) the technique's fields,
its docstring the documentation. Anything that is not a technique has a name with a leading underscore or stands elsewhere.
To add a technique is to write that one function.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    WithJsonSchema,
    create_model,
)

from ravine import durations
from ravine.errors import InputError, unknown

FILES: dict[str, tuple[str, ...]] = {
    "source": ("data.sources",),
    "preprocess": ("data.preprocess",),
    "augment": ("data.augment",),
    "layer": ("nn.layers", "nn.convolution", "nn.normalization", "nn.recurrent", "nn.activations"),
    "initializer": ("nn.initializers",),
    "loss": ("nn.losses",),
    "metric": ("nn.metrics",),
    "model": ("nn.models",),
    "optimizer": ("optim.optimizers",),
    "schedule": ("optim.schedules",),
    "constraint": ("optim.constraints",),
}

_T = TypeVar("_T")
MEMBER = "may differ between the members of one population"

# The vocabulary of technique signatures.
PerMember = Annotated[_T, MEMBER]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1)]
Decay = Annotated[float, Field(strict=True, ge=0, lt=1)]  # a running average's memory, or a momentum
Whole = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Integer = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Pair = Count | tuple[Count, Count]  # one number for both directions, or (height, width)


def _duration(value: object) -> str:
    return durations.canonical(value)


Duration = Annotated[str, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": "^[0-9.]+ *(ep|it|%)$"})]


class Part(BaseModel):
    """A technique with its numbers, as it stands in a recipe: ``kind`` and the fields of that kind. Frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **fields: Any):
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise explain(error, type(self)) from None

    @property
    def arguments(self) -> dict[str, Any]:
        """Every field but ``kind``: what the technique's function is called with."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "kind"}


class _LossFields(Part):
    l1: Annotated[NonNegative, MEMBER] = Field(0.0, description="penalty l1 * sum |w| over weights; gradient l1 * sign(w)")
    l2: Annotated[NonNegative, MEMBER] = Field(0.0, description="penalty l2 * sum w^2 over weights; gradient 2 l2 w")
    lp: Annotated[NonNegative, MEMBER] = Field(0.0, description="penalty lp * sum |w|^p over weights")
    p: Annotated[float, Field(strict=True, ge=1), MEMBER] = Field(1.5, description="the order of the lp penalty")
    class_weights: Literal["balanced"] | tuple[NonNegative, ...] | None = Field(
        None, description="one weight a class, or balanced: N / (K n_k) from the training part"
    )


class _OptimizerFields(Part):
    decay: Annotated[Literal["weights", "all"], MEMBER] = Field(
        "weights", description="what weight decay touches: weights alone, or biases and normalisation too"
    )
    lookahead: Annotated[Whole, MEMBER] = Field(0, description="Lookahead (2019): synchronise slow weights every so many steps; 0 is off")
    lookahead_alpha: Annotated[Probability, MEMBER] = Field(0.5, description="Lookahead: the slow weights' step")
    accumulate: Count = Field(1, description="batches whose gradients are averaged into one step")


class _ScheduleFields(Part):
    warmup: Annotated[Duration, MEMBER] = Field("0it", description="steps before the schedule, from warmup_start * lr up to lr")
    warmup_kind: Annotated[Literal["linear", "constant"], MEMBER] = "linear"
    warmup_start: Annotated[Probability, MEMBER] = 0.0
    floor: Annotated[NonNegative, MEMBER] = Field(0.0, description="the multiplier never falls below this")


class _ModelFields(Part):
    init: Annotated[Any, BeforeValidator(lambda value: _init(value)), MEMBER] = Field(
        None, description="initialisers of weights and biases; none: each layer's own default", validate_default=True
    )


class Init(Part):
    """Initialisers for a model or a layer: each a name or a part of kind ``initializer``."""

    weights: Annotated[Any, BeforeValidator(lambda value: value and make("initializer", value))] = None
    biases: Annotated[Any, BeforeValidator(lambda value: value and make("initializer", value))] = None


def _init(value: Any) -> Init:
    if isinstance(value, Init):
        return value
    if isinstance(value, str):
        return Init(weights=value)
    return Init(**(value or {}))


COMMON: dict[str, type[Part]] = {
    "loss": _LossFields,
    "optimizer": _OptimizerFields,
    "schedule": _ScheduleFields,
    "model": _ModelFields,
}
ALWAYS_PER_MEMBER = ("optimizer", "schedule", "initializer", "constraint")


def _of(kind: str) -> Any:
    return Annotated[
        SerializeAsAny[Part],
        BeforeValidator(lambda value: make(kind, value)),
        WithJsonSchema({"$ref": f"#/$defs/{kind}"}),
    ]


Layer = _of("layer")
Layers = tuple[Layer, ...]
Initializer = _of("initializer")
Loss = _of("loss")

_VOCABULARY: dict[str, Any] = {
    name: value for name, value in globals().items() if not name.startswith("_") and name[0].isupper()
}


@dataclass(frozen=True)
class Technique:
    """One row of the catalogue."""

    kind: str
    name: str
    module: str
    doc: str
    fields: dict[str, tuple[Any, Any]]  # name -> (annotation, default or ...)

    @property
    def summary(self) -> str:
        return self.doc.strip().splitlines()[0] if self.doc.strip() else ""

    @property
    def part(self) -> type[Part]:
        return _part(self.kind, self.name)

    def function(self) -> Callable[..., Any]:
        """The technique itself; this imports its file, and with it torch."""
        return getattr(importlib.import_module(self.module), self.name)


@cache
def table(kind: str) -> dict[str, Technique]:
    """Every technique of one kind, by name."""
    if kind not in FILES:
        raise unknown("kind", kind, FILES)
    return {t.name: t for file in FILES[kind] for t in _read(kind, file)}


def find(kind: str, name: str) -> Technique:
    """The technique of that name; an unknown one is answered with the nearest."""
    rows = table(kind)
    if name not in rows:
        raise unknown("kind", name, rows)
    return rows[name]


def make(kind: str, value: Any) -> Part:
    """A validated part from a name, ``"name:argument"``, a table with ``kind``, or a part.

    >>> make("optimizer", "adam").kind
    'adam'
    """
    if isinstance(value, Part):
        value = {"kind": getattr(value, "kind", None), **value.model_dump(exclude_unset=True)}
    if isinstance(value, str):
        value = _from_text(kind, value)
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        raise InputError("", got=value, expected=f"the name of a technique ({kind}) or a table with kind = NAME")
    technique = find(kind, value["kind"])
    return technique.part(**value)


def _from_text(kind: str, text: str) -> dict[str, Any]:
    name, colon, argument = text.partition(":")
    if not colon:
        return {"kind": text}
    fields = find(kind, name).fields
    if not fields:
        raise InputError("", got=text, expected=f"{name} alone: it takes no argument")
    return {"kind": name, next(iter(fields)): argument}


@cache
def _part(kind: str, name: str) -> type[Part]:
    technique = find(kind, name)
    fields: dict[str, Any] = {"kind": (Literal[name], name), **technique.fields}  # type: ignore[valid-type]
    base = COMMON.get(kind, Part)
    return create_model(name, __base__=base, __doc__=technique.doc, **fields)


def _read(kind: str, file: str) -> list[Technique]:
    path = Path(__file__).parent.joinpath(*file.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        Technique(kind, node.name, f"ravine.{file}", inspect.cleandoc(ast.get_docstring(node) or ""), _fields(kind, node))
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


def _fields(kind: str, node: ast.FunctionDef) -> dict[str, tuple[Any, Any]]:
    fields = {}
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        assert argument.annotation is not None, f"{node.name}.{argument.arg} wants an annotation"
        annotation = eval(ast.unparse(argument.annotation), dict(_VOCABULARY))  # our own source, a closed vocabulary
        if kind in ALWAYS_PER_MEMBER:
            annotation = Annotated[annotation, MEMBER]
        fields[argument.arg] = (annotation, ... if default is None else ast.literal_eval(default))
    return fields


def explain(error: ValidationError, model: type[BaseModel]) -> InputError:
    """The first of pydantic's complaints, in Ravine's form."""
    first = error.errors()[0]
    where = ".".join(str(place) for place in first["loc"] if "[" not in str(place))
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause.under(where)
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        return unknown(where, str(first["loc"][-1]), known)
    if first["type"] == "missing":
        return InputError(where, expected="a value: it has no default", repair=f"set {where}")
    message = first["msg"]
    expected = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return InputError(where, got=first["input"], expected=expected)


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    for place in path:
        field = model.model_fields.get(str(place))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
