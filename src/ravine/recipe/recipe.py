"""A recipe is frozen data that describes one run completely. A study is a list of
recipes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import tomli_w
from pydantic import BaseModel, Field

from ravine.catalogue import (
    FILES,
    Constraint,
    Count,
    Init,
    Integer,
    Loss,
    Metric,
    Model,
    Optimizer,
    PerMember,
    Schedule,
    Step,
    Text,
    as_table,
    find,
    held,
    known,
    per_member,
    table,
)
from ravine.catalogue.own import PREFIX
from ravine.catalogue.part import Part, table_class
from ravine.errors import InputError, ours_of, unknown
from ravine.recipe.sections import Average, Clip, Data, Ranks, Regularize, Several, Start, Stop
from ravine.storage.bounded import MOST_RECIPE, parse_json, parse_toml, read_text

MOST_THREADS = 1024  # with far more PyTorch ends the process


class Recipe(Part):
    """A complete description of one run.

    >>> recipe = Recipe(optimizer={"kind": "adam", "lr": 0.01})
    >>> recipe.optimizer.lr, recipe.edit({"optimizer.lr": 0.1}).optimizer.lr
    (0.01, 0.1)
    """

    name: Text = "untitled"
    seed: PerMember[Integer] = 0
    data: Data = Field(default_factory=Data)
    model: Model = "mlp"
    loss: Loss = "auto"
    step: Step | None = Field(
        None,
        description="how a batch becomes a loss, in Python of your own; none: model, then loss",
    )
    optimizer: PerMember[Optimizer] = "adam"
    schedule: PerMember[Schedule] = "constant"
    clip: Clip = Field(default_factory=Clip)
    constraint: PerMember[Constraint] | None = None
    regularize: Regularize = Field(default_factory=Regularize)
    average: Average = Field(default_factory=Average)
    start: Start = Field(default_factory=Start)
    stop: Stop = Field(default_factory=Stop)
    ranks: Ranks = Field(default_factory=Ranks)
    metrics: Annotated[tuple[Metric, ...], Field(max_length=100), Several()] = ()
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[Count, Field(le=MOST_THREADS)] | Literal["auto"] = "auto"

    # --- in and out -------------------------------------------------------------------------------

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        return cls(**parse_toml(text, "recipe"))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        found = parse_json(text, "recipe")
        if not isinstance(found, dict):
            repair = "the rows of a table are read one object a line, as .jsonl"
            raise InputError("recipe", got=found, expected="a JSON object", repair=repair)
        return cls(**found)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a ``.toml`` or ``.json`` file."""
        path = Path(path)
        text = read_text(path, MOST_RECIPE, encoding="utf-8-sig")
        try:
            return cls.from_json(text) if path.suffix == ".json" else cls.from_toml(text)
        except InputError as error:
            raise error.under(path.name) from None

    def to_dict(self, *, explicit: bool = False) -> dict[str, Any]:
        """Plain data; ``explicit`` leaves out fields that were left at their defaults."""
        return self.explicit() if explicit else self.model_dump(mode="json", exclude_none=True)

    def to_toml(self) -> str:
        """The explicit fields, as TOML; ``from_toml`` gives an equal recipe."""
        return tomli_w.dumps(self.to_dict(explicit=True))

    def to_json(self) -> str:
        """Every field, explicit or default, as JSON; ``from_json`` gives an equal recipe."""
        return json.dumps(self.to_dict(), indent=1)

    @property
    def hash(self) -> str:
        """sha256 of the canonical form: every default filled in, the name left out."""
        return _digest({path: value for path, value, _ in fields(self) if path != "name"})

    @property
    def program(self) -> str:
        """The hash of the structural fields: recipes that share it train as one population."""
        return _digest(
            {path: value for path, value, member in fields(self) if not member and path != "name"}
        )

    # --- editing ----------------------------------------------------------------------------------

    def edit(self, changes: Mapping[str, Any]) -> Recipe:
        """A copy with fields set by path, as ``--set`` does: ``{"optimizer.lr": 0.01,
        "model.layers.3.rate": 0.2}``.

        None is the default. ``optimizer.kind`` keeps those of the old kind's fields that the new
        one knows too and that were not at their default; ``optimizer`` replaces the whole. The
        order of the changes does not matter.
        """
        edited = self.to_dict(explicit=True)
        for path in changes:
            if path.split(".")[0] not in type(self).model_fields:
                raise _no_field(path, self)
        for path in sorted(changes, key=lambda path: (path.count("."), not path.endswith("kind"))):
            edited = _put(type(self), edited, path.split("."), changes[path], path)
        return type(self)(**edited)

    def get(self, path: str) -> Any:
        """The value at a path: ``recipe.get("optimizer.lr")``."""
        here: Any = self
        places = path.split(".")
        for i, place in enumerate(places):
            if isinstance(here, dict):
                return here[".".join(places[i:])]
            if isinstance(here, tuple):
                here = here[_index(here, place, path)]
            elif isinstance(here, BaseModel) and place in type(here).model_fields:
                here = getattr(here, place)
            else:
                raise unknown(
                    path, place, type(here).model_fields if isinstance(here, BaseModel) else ()
                )
        return here


def _put(
    cls: type[BaseModel], plain: dict[str, Any], places: list[str], value: Any, path: str
) -> dict[str, Any]:
    """The table ``plain``, to be read as a ``cls``, with the value at one place in it."""
    place, *inside = places
    if place not in cls.model_fields:
        raise unknown(path, place, set(cls.model_fields) - {"kind"})
    technique = getattr(cls, "technique", None)
    if place == "kind" and technique and value != technique.name:
        plain = _known_to(_class(technique.kind, value, path), cls, plain)
    if inside:
        field = cls.model_fields[place]
        here = plain.get(place, field.get_default(call_default_factory=True))
        value = _put_inside(field, here, inside, value, path)
    return {name: kept for name, kept in {**plain, place: value}.items() if kept is not None}


def _put_inside(field: Any, here: Any, places: list[str], value: Any, path: str) -> Any:
    """The content of a field (a list, a table, or nothing yet) with the value set at one place in
    it."""
    if isinstance(here, list | tuple):
        index = _index(here, places[0], path)
        inner = _put_inside(field, here[index], places[1:], value, path) if places[1:] else value
        return [*here[:index], inner, *here[index + 1 :]]
    kind = held(Annotated[field.annotation, field, *field.metadata])
    if kind:
        here = as_table(kind, here) or {}
        if "kind" not in here and places != ["kind"]:
            raise InputError(
                path, got=value, expected=f"a part of kind {kind} there", repair="set its kind too"
            )
        return _put(_class(kind, here.get("kind", value), path), here, places, value, path)
    if _is_mapping(field.annotation):
        return {**(here or {}), ".".join(places): value}
    part = table_class(field.annotation)
    if part is None:
        whole = path.removesuffix("." + ".".join(places))
        raise InputError(
            path, got=places[0], expected=f"no further name, for {whole} is a single value"
        )
    if isinstance(here, Part):
        here = here.explicit()
    elif isinstance(here, str) and part is Init:
        here = {"weights": here}
    return _put(part, here if isinstance(here, dict) else {}, places, value, path)


def _is_mapping(annotation: Any) -> bool:
    """Whether a field holds names of the user's own, as ``columns`` of a table."""
    return get_origin(annotation) is dict or any(map(_is_mapping, get_args(annotation)))


def _class(kind: str, name: str, path: str) -> type[Part]:
    try:
        return find(kind, name).part
    except InputError:
        raise unknown(path, name, known(kind)) from None


def _known_to(new: type[BaseModel], old: type[BaseModel], plain: dict[str, Any]) -> dict[str, Any]:
    def default(name: str) -> Any:
        return old.model_fields[name].get_default(call_default_factory=True)

    return {
        name: value
        for name, value in plain.items()
        if name in new.model_fields and value != default(name)
    }


def _index(here: list[Any] | tuple[Any, ...], place: str, path: str) -> int:
    if not place.isdecimal() or int(place) >= len(here):
        expected = (
            f"a place in the list, 0 to {len(here) - 1}" if here else "no place: the list is empty"
        )
        raise InputError(path, got=place, expected=expected)
    return int(place)


def keyword_path(name: str, recipe: Recipe) -> str:
    """The path of a field by its name alone: ``batch`` -> ``data.batch``, ``lr`` ->
    ``optimizer.lr``.

    Looked for in this order: the recipe itself, data, stop, optimizer, schedule, loss, model, clip,
    average, regularize, start, ranks, the source of the data.
    """
    short = {"epochs": "stop.after", "steps": "stop.after", "ema": "average.ema"}
    if name in short:
        return short[name]
    sections = (
        "data",
        "stop",
        "optimizer",
        "schedule",
        "loss",
        "model",
        "clip",
        "average",
        "regularize",
        "start",
        "ranks",
    )
    # train's own keywords beside the fields
    known = [*Recipe.model_fields, *short, "on_epoch", "on_step", "track", "out", "quiet"]
    if name in Recipe.model_fields:
        return name
    for section in sections:
        fields = type(getattr(recipe, section)).model_fields
        if name in fields and name != "kind":
            return f"{section}.{name}"
        known.extend(fields)
    of_source = set(type(recipe.data.source).model_fields) - {"kind", "path"}
    if name in of_source:
        return f"data.source.{name}"
    known.extend(of_source)
    own = type(recipe.step).model_fields if recipe.step is not None else {}
    if name in own and name not in ("kind", "code"):
        return f"step.{name}"
    known.extend(own)
    raise unknown("train", name, set(known) - {"kind"})


def _no_field(path: str, recipe: Recipe) -> InputError:
    """The error for a path that begins with no field of a recipe; with the right one, where a
    section has a field of this name, or of the name that another library gives it."""
    name = path.split(".")[0]
    error = unknown(path, name, Recipe.model_fields)
    for ours in (name, *ours_of(name)):
        with contextlib.suppress(InputError):
            right = keyword_path(ours, recipe) + path[len(name) :]
            expected = "a path that begins with a section"
            repair = f"did you mean {right!r}?"
            if "epochs" in (name, ours):
                repair = "write --epochs 3, in a recipe stop.after = '3ep'"
            return InputError(path, got=name, expected=expected, repair=repair)
    return error


def from_keywords(recipe: Recipe, keywords: Mapping[str, Any]) -> Recipe:
    """Apply ``train``'s keywords to a recipe; parts first, so that their own fields can follow.

    >>> from_keywords(Recipe(), {"lr": 0.1, "optimizer": "sgd", "epochs": 3}).stop.after
    '3ep'
    """
    check_ends(keywords)
    parts = [k for k in keywords if k in Recipe.model_fields]
    for name in parts + [k for k in keywords if k not in Recipe.model_fields]:
        recipe = recipe.edit(keyword_edit(name, keywords[name], recipe))
    return recipe


def check_ends(keywords: Iterable[str]) -> None:
    """Refuse keywords that say twice when a run ends."""
    ends = [k for k in keywords if k in ("epochs", "steps", "after")]
    if len(ends) > 1:
        expected = "one of them: they all say when the run ends"
        raise InputError("train", got=" and ".join(ends), expected=expected)


def keyword_edit(name: str, value: Any, recipe: Recipe) -> dict[str, Any]:
    """A keyword of ``train`` as an edit of a recipe. ``target`` is a column's name, or the value
    of the metric at which the run ends.

    >>> keyword_edit("epochs", 3, Recipe())
    {'stop.after': '3ep'}
    """
    if name in ("epochs", "steps"):
        value = f"{value}{'ep' if name == 'epochs' else 'it'}"
    if name == "target" and isinstance(value, str):
        return {"data.source.target": value}
    return {keyword_path(name, recipe): value}


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, every technique of the catalogue included."""
    schema = Recipe.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for kind in FILES:
        names = "|".join([*sorted(table(kind)), f"{PREFIX}.+"])
        own_part = {"properties": {"kind": {"type": "string", "pattern": f"^{PREFIX}"}}}
        choices: list[dict[str, Any]] = [
            {"type": "string", "pattern": f"^({names})(:.*)?$"},
            {"type": "object", "required": ["kind"], **own_part},
        ]
        for name, row in sorted(known(kind).items()):
            own = row.part.model_json_schema()
            definitions.update(own.pop("$defs", {}))
            unnamed = (kind, name) == ("model", "layers")  # a list of layers says what it is
            own["required"] = [*own.get("required", ()), *([] if unnamed else ["kind"])]
            definitions[f"{kind}.{name}"] = own
            choices.append({"$ref": f"#/$defs/{kind}.{name}"})
        definitions[kind] = {"anyOf": choices}
    definitions["model"]["anyOf"].append({"type": "array", "items": {"x-kind": "layer"}})
    linked = json.dumps(schema).replace('"x-kind": "', '"$ref": "#/$defs/')
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **json.loads(linked)}


def fields(
    part: BaseModel, prefix: str = "", inherited: bool = False
) -> Iterator[tuple[str, Any, bool]]:
    """(path, value, whether it may differ per member) of every field, leaves only."""
    for name, member in _members_fields(type(part), inherited):
        value, path = getattr(part, name), f"{prefix}{name}"
        items = list(enumerate(value)) if isinstance(value, tuple) else [(None, value)]
        if any(isinstance(item, BaseModel) for _, item in items):
            for index, item in items:
                yield from fields(item, f"{path}." if index is None else f"{path}.{index}.", member)
        else:
            yield path, value, member


@functools.cache
def _members_fields(kind: type[BaseModel], inherited: bool) -> list[tuple[str, bool]]:
    """(name, whether it may differ per member) of the fields of a class: hashes of thousands of recipes
    ask for them."""
    return [(name, per_member(field, inherited)) for name, field in kind.model_fields.items()]


def _digest(leaves: dict[str, Any]) -> str:
    """A float is written as Python writes it; minus zero is zero."""
    plain = {
        path: value + 0.0 if isinstance(value, float) else value for path, value in leaves.items()
    }
    return hashlib.sha256(
        json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
