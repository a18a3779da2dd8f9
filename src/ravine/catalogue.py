"""Name -> technique, for every kind: a closed table, read from the sources' own signatures without
importing torch.

The contract. Each file in ``FILES`` holds the techniques of one kind: every public
function there is one, its name the technique's name, its keyword-only arguments (annotated in this
module's vocabulary, or aliases of it in the same file) its fields, its docstring the documentation,
its decorators marks that say what it is (``find("optimizer", "adam").marks``).
Anything else is underscored or stands in another file. To add a technique is to write that one
function.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import tomllib
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from ravine import durations
from ravine.errors import InputError, unknown
from ravine.part import Part

FILES: dict[str, tuple[str, ...]] = {
    "source": ("data.sources", "data.synthetic"),
    "preprocess": ("data.preprocess", "data.whitening", "data.distribution"),
    "augment": ("data.geometry", "data.augment"),
    "layer": (
        "nn.layers",
        "nn.convolution",
        "nn.normalization",
        "nn.recurrent",
        "nn.attention",
        "nn.activations",
    ),
    "initializer": ("nn.initializers",),
    "loss": ("nn.losses", "nn.margins"),
    "metric": ("nn.metrics",),
    "model": ("nn.models", "nn.sequences", "nn.transformers", "nn.tabular"),
    "optimizer": ("optim.optimizers", "optim.adaptive", "optim.adam", "optim.layerwise"),
    "schedule": ("optim.schedules",),
    "constraint": ("optim.constraints",),
}

_T = TypeVar("_T")
MEMBER = "may differ between the members of one population"
STRUCTURAL = "is the same for all members of one population"

# The vocabulary of technique signatures.
PerMember = Annotated[_T, MEMBER]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Decay = Annotated[
    float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)
]  # a running average's memory
Whole = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Integer = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Pair = Count | tuple[Count, Count]  # one number for both directions, or (height, width)
ColumnKind = Literal[  # what a column of a table is read as; the longer ones say how it is written
    "number", "number 1,234.5", "number 1.234,5", "category", "flag", "text", "identifier",
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


@dataclass(frozen=True)
class Holds:
    """Marks a field that holds a part of this kind: read by ``make``, written with the part's own
    fields."""

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_plain_validator_function(lambda value: make(self.kind, value))

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"x-kind": self.kind}  # recipe.json_schema makes it a reference


Source = Annotated[Any, Holds("source")]
Preprocess = Annotated[Any, Holds("preprocess")]
Augment = Annotated[Any, Holds("augment")]
Layer = Annotated[Any, Holds("layer")]
Layers = tuple[Layer, ...]
Initializer = Annotated[Any, Holds("initializer")]
Loss = Annotated[Any, Holds("loss")]
Metric = Annotated[Any, Holds("metric")]
Model = Annotated[Any, Holds("model")]
Optimizer = Annotated[Any, Holds("optimizer")]
Schedule = Annotated[Any, Holds("schedule")]
Constraint = Annotated[Any, Holds("constraint")]


class Init(Part):
    """Initialisers for a model or a layer: names or parts of kind ``initializer``; one alone is for
    the weights."""

    weights: Initializer | None = None
    biases: Initializer | None = None

    @model_validator(mode="before")
    @classmethod
    def _weights_alone(cls, value: Any) -> Any:
        if isinstance(value, Part):
            value = value.explicit()
        return (
            {"weights": value}
            if isinstance(value, str) or (isinstance(value, dict) and "kind" in value)
            else value
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        return {"anyOf": [{"x-kind": "initializer"}, handler(core)]}


class _LossFields(Part):
    l1: PerMember[NonNegative] = Field(0.0, description="penalty l1 * sum |w| over weights")
    l1_step: PerMember[Literal["gradient", "proximal"]] = Field(
        "gradient",
        description="gradient: l1 * sign(w) is added to the gradient, and weights hover about zero; proximal: "
        "behind the optimiser's step w = sign(w) max(|w| - lr * l1, 0) with the step's lr, and weights become "
        "exactly zero. With momentum or an adaptive optimiser the penalty then stays out of its averages and "
        "divisions, as decoupled weight decay does: with momentum m it weighs as l1 * (1 - m) beside the loss",
    )
    l2: PerMember[NonNegative] = Field(
        0.0, description="penalty l2 * sum w^2 over weights; gradient 2 l2 w"
    )
    lp: PerMember[NonNegative] = Field(0.0, description="penalty lp * sum |w|^p over weights")
    p: PerMember[Annotated[Real, Field(ge=1)]] = Field(
        1.5,
        description="the order of the lp penalty; below 1 it is not convex and its gradient has no bound at zero, so it is refused",
    )
    class_weights: Literal["balanced"] | tuple[NonNegative, ...] | None = Field(
        None, description="one weight a class, or balanced: N / (K n_k) from the training part"
    )
    class_weights_divisor: Literal["weights", "samples"] = Field(
        "weights",
        description="what the sum of the weighted losses is divided by: the sum of the samples' weights, as "
        "PyTorch's mean, or the number of samples (so soft targets and several labels always)",
    )


class _OptimizerFields(Part):
    decay: PerMember[Literal["weights", "all"]] = Field(
        "weights",
        description="what weight decay touches: weights alone, or biases and normalisation too",
    )
    lookahead: PerMember[Whole] = Field(
        0, description="Lookahead (2019): steps between two slow steps; 0 is off"
    )
    lookahead_alpha: PerMember[Probability] = Field(
        0.5, description="Lookahead: the slow weights' step"
    )
    accumulate: Annotated[Count, STRUCTURAL] = Field(
        1, description="batches whose gradients make one step: the mean over all their samples"
    )


class _ScheduleFields(Part):
    warmup: PerMember[Duration] = Field(
        "0it", description="steps before the schedule, from warmup_start * lr up to lr"
    )
    warmup_kind: PerMember[Literal["linear", "constant"]] = "linear"
    warmup_start: PerMember[Probability] = 0.0
    floor: PerMember[NonNegative] = Field(0.0, description="the multiplier never falls below this")
    momentum_points: PerMember[tuple[tuple[Duration, Decay], ...]] = Field(
        (),
        description="the optimiser's momentum (or beta1) over the run: (place, value), joined by straight lines",
    )


class _LayerFields(Part):
    init: PerMember[Init] | None = Field(
        None, description="initialisers of this layer; none: the model's"
    )


class _ModelFields(Part):
    init: PerMember[Init] = Field(
        default_factory=Init, description="initialisers; none: each layer's own default"
    )


COMMON: dict[str, type[Part]] = {
    "layer": _LayerFields,
    "loss": _LossFields,
    "optimizer": _OptimizerFields,
    "schedule": _ScheduleFields,
    "model": _ModelFields,
}
ALWAYS_PER_MEMBER = ("optimizer", "schedule", "initializer", "constraint")

_VOCABULARY: dict[str, Any] = {
    name: value
    for name, value in globals().items()
    if not name.startswith("_") and name[0].isupper()
}


@dataclass(frozen=True)
class Technique:
    """One row of the catalogue."""

    kind: str
    name: str
    module: str
    doc: str
    fields: dict[str, tuple[Any, Any]]  # name -> (annotation, default or ...)
    marks: frozenset[str] = frozenset()  # the names of its decorators, such as "adaptive"

    @property
    def summary(self) -> str:
        return " ".join(self.doc.partition("\n\n")[0].split())

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
        raise (_named_file(name) if kind == "source" else None) or unknown("kind", name, rows)
    return rows[name]


def _named_file(name: str) -> InputError | None:
    """The error for a file or folder given as a source without saying what it is."""
    kinds = {".csv": "csv", ".tsv": "csv", ".txt": "text", ".npz": "npz", ".gz": "idx"}
    kind = kinds.get(Path(name).suffix.lower()) or ("folder" if "/" in name else None)
    if kind is None:
        return None
    return InputError(
        "kind", got=name, expected="the kind of data before it", repair=f"write {kind}:{name}"
    )


def make(kind: str, value: Any) -> Part:
    """A validated part from a name, ``"name:argument"``, a table with ``kind``, or a part.

    >>> make("optimizer", "adam").kind
    'adam'
    """
    if isinstance(value, Part) and value.technique is not None and value.technique.kind == kind:
        return value
    fields = as_table(kind, value)
    if not isinstance(fields, dict) or not isinstance(fields.get("kind"), str):
        raise InputError(
            "", got=value, expected=f"the name of a technique ({kind}) or a table with kind = NAME"
        )
    return find(kind, fields["kind"]).part(**fields)


def as_table(kind: str, value: Any) -> Any:
    """A part said shortly, at length: a name or ``"name:argument"`` as a table; a model's list of
    layers likewise."""
    if isinstance(value, Part):
        return value.explicit()
    if isinstance(value, str):
        name, colon, argument = value.partition(":")
        return (
            {"kind": value} if not colon else {"kind": name, **_first_field(kind, name, argument)}
        )
    if kind == "model" and isinstance(value, list | tuple):
        return {"kind": "layers", "layers": value}
    if kind == "model" and isinstance(value, dict) and "layers" in value:
        return {"kind": "layers", **value}
    return value


def _first_field(kind: str, name: str, argument: str) -> dict[str, Any]:
    fields = find(kind, name).fields
    if not fields:
        raise InputError(
            "", got=f"{name}:{argument}", expected=f"{name} alone: it takes no argument"
        )
    field, (annotation, _) = next(iter(fields.items()))
    try:
        TypeAdapter(annotation).validate_python(argument)
    except ValidationError:
        return {field: parse_value(argument)}
    return {field: argument}


def parse_value(text: str) -> Any:
    """A value as typed in ``--set key=value``: TOML where it is TOML, else the text itself; nothing
    is the default.

    >>> parse_value("0.1"), parse_value("true"), parse_value("5ep"), parse_value("")
    (0.1, True, '5ep', None)
    """
    try:
        table = tomllib.loads(f"x = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip() or None
    return table["x"] if set(table) == {"x"} else text


@cache
def _part(kind: str, name: str) -> type[Part]:
    technique = find(kind, name)
    fields: dict[str, Any] = {"kind": (Literal[name], name), **technique.fields}
    base, options = COMMON.get(kind, Part), {"technique": technique}
    return create_model(
        name, __base__=base, __doc__=technique.summary, __cls_kwargs__=options, **fields
    )


def _read(kind: str, file: str) -> Iterator[Technique]:
    path = Path(__file__).parent.joinpath(*file.split(".")).with_suffix(".py")
    vocabulary = dict(_VOCABULARY)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
            vocabulary |= _aliases(node, vocabulary)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            doc = inspect.cleandoc(ast.get_docstring(node) or "")
            fields = _fields(kind, node, vocabulary)
            marks = frozenset(d.id for d in node.decorator_list if isinstance(d, ast.Name))
            yield Technique(kind, node.name, f"ravine.{file}", doc, fields, marks)


def _aliases(node: ast.Assign, vocabulary: dict[str, Any]) -> dict[str, Any]:
    """``Average = Literal["macro", "micro"]`` in a file of techniques; what is no annotation is
    passed over."""
    try:
        value = eval(ast.unparse(node.value), dict(vocabulary))
    except (NameError, TypeError):
        return {}
    return {target.id: value for target in node.targets if isinstance(target, ast.Name)}


def _fields(
    kind: str, node: ast.FunctionDef, vocabulary: dict[str, Any]
) -> dict[str, tuple[Any, Any]]:
    fields = {}
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        assert argument.annotation is not None, f"{node.name}.{argument.arg} wants an annotation"
        annotation = eval(
            ast.unparse(argument.annotation), dict(vocabulary)
        )  # our own source, a closed vocabulary
        if kind in ALWAYS_PER_MEMBER:
            annotation = Annotated[annotation, MEMBER]
        fields[argument.arg] = (annotation, ... if default is None else ast.literal_eval(default))
    return fields


def per_member(field: FieldInfo, inherited: bool = False) -> bool:
    """Whether a field may differ between members; ``inherited``: whether the place where its part
    stands may."""
    options = typing.get_args(field.annotation)  # the mark may stand inside ``… | None``
    marks = [
        *field.metadata,
        *(mark for option in options for mark in getattr(option, "__metadata__", ())),
    ]
    return (inherited or MEMBER in marks) and STRUCTURAL not in marks


def held(annotation: Any) -> str | None:
    """The kind of the parts that a field with this annotation holds, if it holds parts."""
    own = (mark.kind for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Holds))
    inner = (held(inside) for inside in typing.get_args(annotation))
    return next((kind for kind in (*own, *inner) if kind), None)
