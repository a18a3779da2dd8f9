"""Name -> technique, for every kind: a closed table, read from the sources' own signatures without
importing torch.

The contract. Each file in ``FILES`` holds the techniques of one kind: every public
function there is one, its name the technique's name, its keyword-only arguments (annotated in the
words of ``vocabulary.py`` and the kinds below, or aliases of them in the same file) its fields, its docstring the documentation,
its decorators marks that say what it is (``find("optimizer", "adam").marks``).
Anything else starts with an underscore or is in another file. To add a technique is to write that one
function.
"""

from __future__ import annotations

import importlib
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from ravine import measures
from ravine.catalogue import vocabulary
from ravine.catalogue.own import (
    PREFIX,
    RECEIVES,
    Own,
    describe,
    holds_optimizer,
    in_place_of,
    missing,
)
from ravine.catalogue.part import Part
from ravine.catalogue.signatures import parse_value, signatures
from ravine.catalogue.vocabulary import (
    MEMBER,
    STRUCTURAL,
    Count,
    Decay,
    Duration,
    NonNegative,
    PerMember,
    Positive,
    Probability,
    Real,
    Whole,
)
from ravine.errors import InputError, unknown, unnamed_file

FILES: dict[str, tuple[str, ...]] = {
    "source": ("data.sources", "data.synthetic"),
    "preprocess": (
        "data.preprocessing.preprocess",
        "data.preprocessing.whitening",
        "data.preprocessing.distribution",
    ),
    "augment": ("data.augmentation.geometry", "data.augmentation.augment"),
    "layer": (
        "nn.layers",
        "nn.convolution",
        "nn.normalization",
        "nn.recurrent",
        "nn.attention",
        "nn.activations",
    ),
    "initializer": ("nn.initializers",),
    "loss": ("nn.loss.losses", "nn.loss.margins"),
    "metric": ("nn.metrics",),
    "model": (
        "nn.models.feedforward",
        "nn.models.resnet",
        "nn.models.sequences",
        "nn.models.characters",
        "nn.models.transformers",
        "nn.models.tabular",
        "nn.models.pretrained",
    ),
    "optimizer": ("optim.optimizers", "optim.adaptive", "optim.adam", "optim.layerwise"),
    "schedule": ("optim.schedules",),
    "constraint": ("optim.constraints",),
    "step": (),  # a person's own alone
}


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
Layers = Annotated[tuple[Layer, ...], BeforeValidator(vocabulary.few_layers)]
Initializer = Annotated[Any, Holds("initializer")]
Loss = Annotated[Any, Holds("loss")]
Metric = Annotated[Any, Holds("metric")]
Model = Annotated[Any, Holds("model")]
Optimizer = Annotated[Any, Holds("optimizer")]
Schedule = Annotated[Any, Holds("schedule")]
Constraint = Annotated[Any, Holds("constraint")]
Step = Annotated[Any, Holds("step")]


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
        "after the optimiser's step w = sign(w) max(|w| - lr * l1, 0) with the step's lr, and weights become "
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
    for name, value in (vars(vocabulary) | globals()).items()
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


@dataclass(frozen=True, eq=False)
class OwnTechnique(Technique):
    """A technique of a person's own; ``own`` is None where a recipe names it and nobody has
    brought it to this process."""

    own: Own | None = None

    @cached_property
    def part(self) -> type[Part]:
        return _make_part(self)

    def function(self) -> Callable[..., Any]:
        if self.own is None:
            raise missing(self.kind, self.name)
        return self.own.function


# (kind, "own:NAME") -> hash of the source -> technique; the last is the one that a name means
_OWN: dict[tuple[str, str], dict[str, OwnTechnique]] = {}


def enter(own: Own) -> OwnTechnique:
    """Put a person's object into the catalogue of this process."""
    common = COMMON.get(own.kind, Part).model_fields
    if own.name in table(own.kind) and own.kind == "metric":
        repair = f"give the function another name: def my_{own.name}(output, target): …"
        raise InputError("", got=own.name, expected="a new name", repair=repair)
    clash = [name for name in own.fields if name in common or name in ("kind", "code")]
    if own.contract and clash:
        expected = f"other names than those that every {own.kind} has"
        raise InputError(own.name, got=", ".join(clash), expected=expected)
    fields = {
        name: (Annotated[a, MEMBER] if own.kind in ALWAYS_PER_MEMBER else a, default)
        for name, (a, default) in own.fields.items()
        if name not in clash
    }
    if "torch" in own.marks and "lr" not in fields:
        # it says its own rates; the recipe's multiplies them
        fields["lr"] = (Annotated[Positive, MEMBER], 1.0)
    name, versions = PREFIX + own.name, _OWN.setdefault((own.kind, PREFIX + own.name), {})
    known = versions.pop(own.code, None)
    if known is None or known.own is None or known.own.target is not own.target:
        known = OwnTechnique(own.kind, name, "", own.doc, fields, own.marks, own)
    versions[own.code] = known  # the last
    return known


def adopt(kind: str, target: Any) -> dict[str, Any]:
    """A person's object as a table of a recipe; one that was registered is that technique."""
    entered = (t for (of, _), found in _OWN.items() if of == kind for t in found.values())
    same = (each for each in entered if each.own and each.own.target is target)
    own = next(same, None) or enter(describe(kind, target))
    return {"kind": own.name, "code": own.own.code if own.own else None}


def known(kind: str) -> dict[str, Technique]:
    """Every technique of one kind in this process: the package's, then a person's own."""
    own = {name: list(versions.values())[-1] for (of, name), versions in _OWN.items() if of == kind}
    return {**table(kind), **own}


@cache
def table(kind: str) -> dict[str, Technique]:
    """Every technique of the package of one kind, by name."""
    if kind not in FILES:
        raise unknown("kind", kind, FILES)
    return {t.name: t for file in FILES[kind] for t in _techniques(kind, file)}


def find(kind: str, name: str, code: str | None = None) -> Technique:
    """The technique of that name; an unknown one is answered with the nearest. ``code``: of several
    of a person's own with that name the one with this source."""
    rows = table(kind)
    if name.startswith(PREFIX):
        versions = _OWN.get((kind, name))
        if versions is None:
            return _absent(kind, name)
        return versions.get(code or "") or list(versions.values())[-1]
    if name not in rows:
        raise (unnamed_file(name) if kind == "source" else None) or unknown(
            "kind", name, known(kind)
        )
    return rows[name]


@cache
def _absent(kind: str, name: str) -> OwnTechnique:
    return OwnTechnique(kind, name, "", "", {})


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
            "",
            got=value,
            expected=f"the name of a technique ({kind}), a table with kind = NAME, or "
            f"{RECEIVES[kind]}",
            repair=in_place_of(kind, value),
        )
    found = find(kind, fields["kind"], fields.get("code"))
    if isinstance(found, OwnTechnique) and found.own is not None:
        fields = {"code": found.own.code, **fields}
    part = found.part(**fields)
    if kind == "metric" and found.name.startswith(PREFIX):
        measures.declare(found.name.removeprefix(PREFIX), part.better)
    return part


def as_table(kind: str, value: Any) -> Any:
    """The table of a part that was written shortly: a name or ``"name:argument"`` as a table; a model's list of
    layers likewise."""
    if isinstance(value, Part):
        return value.explicit()
    if callable(value) or hasattr(value, "param_groups") or holds_optimizer(kind, value):
        return adopt(kind, value)
    if isinstance(value, str):
        own = PREFIX if value.startswith(PREFIX) else ""
        name, colon, argument = value.removeprefix(own).partition(":")
        name = own + name
        return {"kind": name, **(_first_field(kind, name, argument) if colon else {})}
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


@cache
def _part(kind: str, name: str) -> type[Part]:
    return _make_part(find(kind, name))


def _make_part(technique: Technique) -> type[Part]:
    name = technique.name
    fields: dict[str, Any] = {"kind": (Literal[name], name), **technique.fields}
    options: dict[str, Any] = {"technique": technique}
    if isinstance(technique, OwnTechnique):
        fields |= {"code": (str | None, Field(None, description="sha256 of the source"))}
        if technique.kind == "metric":
            better = technique.own.better if technique.own else None
            fields |= {"better": (Literal["min", "max"] | None, better)}
        if technique.own is None:  # its fields are not known here; what is stored is kept
            options |= {"extra": "allow"}
    base = COMMON.get(technique.kind, Part)
    return create_model(
        name, __base__=base, __doc__=technique.summary, __cls_kwargs__=options, **fields
    )


def _techniques(kind: str, file: str) -> Iterator[Technique]:
    own = (MEMBER,) if kind in ALWAYS_PER_MEMBER else ()
    for name, doc, fields, marks in signatures(file, _VOCABULARY, own):
        yield Technique(kind, name, f"ravine.{file}", doc, fields, marks)


def per_member(field: FieldInfo, inherited: bool = False) -> bool:
    """Whether a field may differ between members; ``inherited``: whether the place where its part
    stands may."""
    options = typing.get_args(field.annotation)  # the mark may be inside ``… | None``
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
