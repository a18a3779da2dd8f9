"""A recipe is frozen data that says all there is to say about one run. A study is a list of recipes."""

from __future__ import annotations

import hashlib
import json
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from ravine.catalogue import (
    FILES,
    MEMBER,
    Count,
    Decay,
    Duration,
    Flag,
    Integer,
    NonNegative,
    Part,
    PerMember,
    Positive,
    Probability,
    Real,
    Text,
    Whole,
    explain,
    find,
    make,
    table,
)
from ravine.errors import InputError, unknown


def _a(kind: str) -> Any:
    return BeforeValidator(lambda value: make(kind, value))


def _durations_only_ep_it(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        raise InputError("", got=value, expected="epochs (ep) or iterations (it)", repair="a percentage needs a whole")
    return value


Length = Annotated[Duration, BeforeValidator(_durations_only_ep_it)]


class Data(Part):
    """Where the examples come from and how they reach the network."""

    source: Annotated[SerializeAsAny[Part], _a("source")] = Field("digits", validate_default=True)
    validation: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(0.1, description="part of the training data")
    test: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(0.2, description="used where the source has no test part")
    batch: Count | Literal["full"] = 128
    last_batch: Literal["keep", "drop"] = Field("keep", description="the incomplete last batch of an epoch")
    order: Literal["shuffle", "fixed", "replacement"] = "shuffle"
    seed: Integer = Field(0, description="of the split, the order and the augmentation")
    preprocess: tuple[Annotated[SerializeAsAny[Part], _a("preprocess")], ...] = ()
    augment: tuple[Annotated[SerializeAsAny[Part], _a("augment")], ...] = ()
    bootstrap: Annotated[bool, Field(strict=True), MEMBER] = Field(
        False, description="each member weighs the samples as drawn with replacement by its own seed"
    )


class Clip(Part):
    """Gradient clipping; zero is off."""

    norm: PerMember[NonNegative] = Field(0.0, description="limit of the norm of the whole gradient")
    tensor_norm: PerMember[NonNegative] = Field(0.0, description="limit of the norm of each tensor's gradient")
    value: PerMember[NonNegative] = Field(0.0, description="limit of every entry's magnitude")


class Stop(Part):
    """When a run ends: at the first of these that is met."""

    after: PerMember[Length] = "10ep"
    patience: PerMember[Length] | None = Field(None, description="without improvement of the monitored metric")
    min_delta: PerMember[NonNegative] = Field(0.0, description="the least change that counts as improvement")
    monitor: PerMember[Text] = Field("val_loss", description="any metric: val_loss, val_accuracy, train_loss, …")
    mode: PerMember[Literal["auto", "min", "max"]] = "auto"
    target: PerMember[Real] | None = Field(None, description="stop once the monitored metric has reached it")
    minutes: PerMember[Positive] | None = None
    gradient_norm: PerMember[NonNegative] = Field(0.0, description="stop once the gradient's norm is below it")
    best: PerMember[Flag] | None = Field(None, description="end with the best weights seen; none: only with patience")


class Average(Part):
    """A running average of the weights, used for evaluation and kept as the run's model."""

    ema: PerMember[Decay] = Field(0.0, description="decay of the exponential average; 0 is off")
    swa: PerMember[Duration] | None = Field(None, description="average all epochs' ends from here on (SWA, 2018)")


class Regularize(Part):
    """What perturbs training besides dropout, penalties and augmentation."""

    weight_noise: PerMember[NonNegative] = Field(0.0, description="standard deviation of noise on the weights in each step's gradient")
    adversarial: PerMember[NonNegative] = Field(0.0, description="FGSM step on the inputs (2015); half the loss is on the perturbed batch")
    hard_negatives: PerMember[Probability] = Field(1.0, description="the fraction of each batch, hardest first, that is learned from")


class Start(Part):
    """Fine-tuning: where the weights come from and which of them move."""

    weights: Text | None = Field(None, description="a run directory or a safetensors file; none: from the initialisers")
    head: Literal["keep", "replace"] = "keep"
    freeze: tuple[Text, ...] = Field((), description="parameters by name or pattern, e.g. features.*")
    unfreeze: Duration | None = Field(None, description="from here on everything moves")
    depth_decay: PerMember[Probability] = Field(1.0, description="lr factor per layer from the output backwards")


class Recipe(Part):
    """All there is to say about one run.

    >>> recipe = Recipe(optimizer={"kind": "adam", "lr": 0.01})
    >>> recipe.optimizer.lr, recipe.edit({"optimizer.lr": 0.1}).optimizer.lr
    (0.01, 0.1)
    """

    name: str = "untitled"
    seed: PerMember[Integer] = 0
    data: Data = Data()
    model: Annotated[SerializeAsAny[Part], _a("model")] = Field("mlp", validate_default=True)
    loss: Annotated[SerializeAsAny[Part], _a("loss")] = Field("auto", validate_default=True)
    optimizer: Annotated[SerializeAsAny[Part], _a("optimizer"), MEMBER] = Field("adam", validate_default=True)
    schedule: Annotated[SerializeAsAny[Part], _a("schedule"), MEMBER] = Field("constant", validate_default=True)
    clip: Clip = Clip()
    constraint: Annotated[SerializeAsAny[Part], _a("constraint"), MEMBER] | None = None
    regularize: Regularize = Regularize()
    average: Average = Average()
    start: Start = Start()
    stop: Stop = Stop()
    metrics: tuple[Annotated[SerializeAsAny[Part], _a("metric")], ...] = ()
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | Literal["auto"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _layers_alone_are_a_model(cls, value: Any) -> Any:
        model = value.get("model") if isinstance(value, dict) else None
        if isinstance(model, dict) and "layers" in model and "kind" not in model:
            value = {**value, "model": {"kind": "layers", **model}}
        return value

    # --- in and out -----------------------------------------------------------------------------------------------

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        try:
            return cls(**tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise InputError("recipe", expected="TOML", repair=str(error)) from None

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a ``.toml`` or ``.json`` file."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("recipe", got=str(path), expected="a recipe file that can be read", repair=str(error)) from None
        try:
            return cls.from_json(text) if path.suffix == ".json" else cls.from_toml(text)
        except InputError as error:
            raise error.under(path.name) from None

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        try:
            return cls(**json.loads(text))
        except json.JSONDecodeError as error:
            raise InputError("recipe", expected="JSON", repair=str(error)) from None

    def to_dict(self, *, explicit: bool = False) -> dict[str, Any]:
        """Plain data; ``explicit`` leaves out whatever was not said."""
        return self.model_dump(mode="json", exclude_none=True, exclude_unset=explicit)

    def to_toml(self) -> str:
        return tomli_w.dumps(self.to_dict(explicit=True))

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    @property
    def hash(self) -> str:
        """sha256 of the canonical form: every default filled in, the name left out."""
        return _digest({key: value for key, value in self.to_dict().items() if key != "name"})

    @property
    def program(self) -> str:
        """The hash of the structural fields: recipes that share it train as one population."""
        return _digest(_structural(self))

    # --- editing --------------------------------------------------------------------------------------------------

    def edit(self, changes: Mapping[str, Any]) -> Recipe:
        """A copy with fields set by path, as ``--set`` does: ``{"optimizer.lr": 0.01, "model.layers.3.rate": 0.2}``.

        A new kind keeps those of the old kind's fields that it knows too.
        """
        plain = self.to_dict(explicit=True)
        for path, value in changes.items():
            _set(plain, path, value)
        return type(self)(**plain)

    def get(self, path: str) -> Any:
        """The value at a path: ``recipe.get("optimizer.lr")``."""
        here: Any = self
        for place in path.split("."):
            if isinstance(here, tuple) and place.isdigit() and int(place) < len(here):
                here = here[int(place)]
            elif isinstance(here, BaseModel) and place in type(here).model_fields:
                here = getattr(here, place)
            else:
                known = type(here).model_fields if isinstance(here, BaseModel) else ()
                raise unknown(path, place, known)
        return here


def keyword_path(name: str, recipe: Recipe) -> str:
    """The path of a field by its name alone: ``batch`` -> ``data.batch``, ``lr`` -> ``optimizer.lr``.

    Looked for in this order: the recipe itself, data, stop, optimizer, schedule, loss, model, clip, average, regularize, start.
    """
    short = {"epochs": "stop.after", "steps": "stop.after", "ema": "average.ema"}
    if name in short:
        return short[name]
    sections = ("data", "stop", "optimizer", "schedule", "loss", "model", "clip", "average", "regularize", "start")
    known = list(Recipe.model_fields) + list(short)
    if name in Recipe.model_fields:
        return name
    for section in sections:
        fields = type(getattr(recipe, section)).model_fields
        if name in fields and name != "kind":
            return f"{section}.{name}"
        known.extend(fields)
    raise unknown("train", name, set(known) - {"kind"})


def from_keywords(recipe: Recipe, keywords: Mapping[str, Any]) -> Recipe:
    """Apply ``train``'s keywords to a recipe; parts first, so that their own fields can follow.

    >>> from_keywords(Recipe(), {"lr": 0.1, "optimizer": "sgd", "epochs": 3}).stop.after
    '3ep'
    """
    parts = [k for k in keywords if k in Recipe.model_fields]
    for name in parts + [k for k in keywords if k not in Recipe.model_fields]:
        value = keywords[name]
        if name in ("epochs", "steps"):
            value = f"{value}{'ep' if name == 'epochs' else 'it'}"
        recipe = recipe.edit({keyword_path(name, recipe): value})
    return recipe


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, every technique of the catalogue included."""
    schema = Recipe.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for kind in FILES:
        rows = table(kind)
        for row in rows.values():
            own = row.part.model_json_schema()
            definitions.update(own.pop("$defs", {}))
            definitions[f"{kind}.{row.name}"] = own
        names = {"type": "string", "enum": sorted(rows)}
        definitions[kind] = {"anyOf": [names, *({"$ref": f"#/$defs/{kind}.{name}"} for name in sorted(rows))]}
    for field in ("model", "loss", "optimizer", "schedule", "constraint"):
        schema["properties"][field] = {"$ref": f"#/$defs/{field}"}
    return schema


def parse_value(text: str) -> Any:
    """The value in ``--set key=value``: TOML where it is TOML, else the text itself."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def fields(part: BaseModel, prefix: str = "", per_member: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """(path, value, whether it may differ per member) of every field, leaves only."""
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        member = per_member or _is_member(field)
        path = f"{prefix}{name}"
        items = list(enumerate(value)) if isinstance(value, tuple) else [(None, value)]
        if any(isinstance(item, BaseModel) for _, item in items):
            for index, item in items:
                yield from fields(item, f"{path}." if index is None else f"{path}.{index}.", member)
        else:
            yield path, value, member


def _is_member(field: Any) -> bool:
    options = typing.get_args(field.annotation)
    return MEMBER in field.metadata or any(MEMBER in getattr(option, "__metadata__", ()) for option in options)


def _structural(recipe: Recipe) -> dict[str, Any]:
    kept = {path: value for path, value, member in fields(recipe) if not member and path != "name"}
    kept["optimizer.accumulate"] = recipe.get("optimizer.accumulate")
    return json.loads(json.dumps(kept))


def _digest(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _set(plain: dict[str, Any], path: str, value: Any) -> None:
    *places, last = path.split(".")
    here: Any = plain
    for depth, place in enumerate(places):
        here = _step(here, place, path)
        if isinstance(here, str):
            raise InputError(path, got=value, expected=f"a table at {'.'.join(places[: depth + 1])}")
    if isinstance(here, list):
        _step(here, last, path)
        here[int(last)] = value
        return
    if last == "kind" and here.get("kind") != value and places:
        _keep_known(here, places[0], value)
    if value is None:
        here.pop(last, None)
    else:
        here[last] = value


def _step(here: Any, place: str, path: str) -> Any:
    if isinstance(here, list):
        if not place.isdigit() or int(place) >= len(here):
            raise InputError(path, got=place, expected=f"a number under {len(here)}, the place in the list")
        if isinstance(here[int(place)], str):
            here[int(place)] = {"kind": here[int(place)]}
        return here[int(place)]
    if isinstance(here.get(place), str):
        here[place] = {"kind": here[place]}
    return here.setdefault(place, {})


def _keep_known(here: dict[str, Any], kind: str, name: str) -> None:
    if kind in FILES:
        known = find(kind, name).part.model_fields
        for field in [f for f in here if f not in known]:
            del here[field]
