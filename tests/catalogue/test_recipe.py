"""Recipes: whatever is valid survives TOML and JSON, equal recipes have one hash, and every error
names the repair."""

from __future__ import annotations

import string
import subprocess
import sys
import types
import typing
from pathlib import Path

import annotated_types
import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from ravine.catalogue import Holds, Init, Part, held, table
from ravine.catalogue.vocabulary import MOST
from ravine.errors import InputError
from ravine.recipe import Recipe, fields, from_keywords, json_schema, keyword_path, parse_value

# --- any valid recipe -----------------------------------------------------------------------------


def values(annotation, depth):
    """Any value that a field with this annotation takes, as a person would write it."""
    base, *marks = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) is typing.Annotated
        else (annotation,)
    )
    marks = [
        inner
        for mark in marks
        for inner in (mark.metadata if isinstance(mark, FieldInfo) else [mark])
    ]
    kind = next((mark.kind for mark in marks if isinstance(mark, Holds)), None)
    if kind:
        return parts(kind, depth)
    if typing.get_origin(base) in (typing.Union, types.UnionType):
        return st.one_of(*(values(option, depth) for option in typing.get_args(base)))
    if typing.get_origin(base) is typing.Annotated:
        return values(base, depth)
    if typing.get_origin(base) is typing.Literal:
        return st.sampled_from(typing.get_args(base))
    if typing.get_origin(base) is tuple:
        first, *more = typing.get_args(base)
        if more == [...]:
            least = next(
                (mark.min_length for mark in marks if isinstance(mark, annotated_types.MinLen)), 0
            )
            return st.lists(values(first, depth), min_size=least, max_size=2)
        return st.tuples(*(values(item, depth) for item in (first, *more))).map(list)
    if typing.get_origin(base) is dict:
        return st.dictionaries(*(values(item, depth) for item in typing.get_args(base)), max_size=2)
    if base is float:
        form = {"allow_nan": False, "allow_infinity": False, "allow_subnormal": False}
        return st.floats(**limits(marks), **form).map(
            lambda value: value + 0.0
        )  # -0.0 is stored as 0.0
    if base is int:
        return st.integers(limits(marks).get("min_value"), limits(marks).get("max_value", MOST))
    if base is str and any(isinstance(mark, BeforeValidator) for mark in marks):
        lengths = (
            len([mark for mark in marks if isinstance(mark, BeforeValidator)]) > 1
        )  # durations without %
        units = st.sampled_from(["ep", "it"] if lengths else ["ep", "it", "%"])
        return st.builds(
            "{}{}".format, st.decimals("0.001", 100, places=3).map(lambda d: format(d, "f")), units
        )
    if isinstance(base, type) and issubclass(base, Part):
        return tables(base, depth)
    return {bool: st.booleans(), str: st.text(min_size=1, max_size=8), type(None): st.none()}[base]


def limits(marks):
    found = {}
    for mark in marks:
        match mark:
            case annotated_types.Ge(x):
                found |= {"min_value": x}
            case annotated_types.Gt(x):
                found |= {"min_value": x, "exclude_min": True}
            case annotated_types.Le(x):
                found |= {"max_value": x}
            case annotated_types.Lt(x):
                found |= {"max_value": x, "exclude_max": True}
    return found


def whole(field):
    return typing.Annotated[field.annotation, field, *field.metadata]


def tables(part, depth):
    known = {
        name: values(whole(field), depth - 1)
        for name, field in part.model_fields.items()
        if name != "kind"
    }
    required = {name for name, field in part.model_fields.items() if field.is_required()}
    return st.fixed_dictionaries(
        {name: value for name, value in known.items() if name in required},
        optional={name: value for name, value in known.items() if name not in required},
    )


def nests(technique):
    return (
        any(held(whole(field)) for field in technique.part.model_fields.values())
        or technique.kind == "model"
    )


@st.composite
def parts(draw, kind, depth):
    names = sorted(name for name, row in table(kind).items() if depth > 0 or not nests(row))
    if not names:  # a kind of a person's own alone
        return {"kind": "own:pairs", "code": "ab"}
    name = draw(st.sampled_from(names))
    return {"kind": name, **draw(tables(table(kind)[name].part, depth))}


recipes = tables(Recipe, 3).map(lambda said: Recipe(**said))
few = settings(
    max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


# --- in and out -----------------------------------------------------------------------------------


@few
@given(recipes)
def test_round_trips_lose_nothing(recipe):
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert '\n "seed": ' in recipe.to_json()  # to be read by people: a line each, by depth
    assert Recipe(**recipe.to_dict()).hash == Recipe.from_toml(recipe.to_toml()).hash == recipe.hash


def rewritten(plain):
    """The same recipe said otherwise: keys in another order, whole floats as integers."""
    if isinstance(plain, dict):
        return {key: rewritten(value) for key, value in reversed(plain.items())}
    if isinstance(plain, list):
        return [rewritten(item) for item in plain]
    return int(plain) if isinstance(plain, float) and plain.is_integer() and plain != 1 else plain


@few
@given(recipes)
def test_equal_recipes_have_one_hash(recipe):
    same = Recipe(**rewritten(recipe.to_dict()))
    assert same == recipe
    assert (same.hash, same.program) == (recipe.hash, recipe.program)
    assert recipe.edit({"name": "another"}).hash == recipe.hash


def test_defaults_said_and_unsaid_are_one_recipe():
    adam = {"kind": "adam", "lr": Recipe().optimizer.lr}
    said = Recipe(seed=0, optimizer=adam, clip={"norm": 0}, stop={"after": "10.0 ep"})
    assert said == Recipe()
    assert said.hash == Recipe().hash
    assert Recipe(clip={"norm": -0.0}).hash == Recipe().hash
    assert Recipe(clip={"norm": 1}).hash == Recipe(clip={"norm": 1.0}).hash != Recipe().hash


def test_only_what_was_said_is_written():
    assert Recipe().to_toml() == ""
    assert (
        Recipe(optimizer="sgd").edit({"optimizer.lr": 0.5}).to_toml()
        == '[optimizer]\nkind = "sgd"\nlr = 0.5\n'
    )


def test_recipes_are_read_from_files(tmp_path):
    toml, other = tmp_path / "a.toml", tmp_path / "a.json"
    toml.write_text("\ufeffseed = 3\n", encoding="utf-8")
    other.write_text('{"seed": 3}', encoding="utf-8")
    assert Recipe.load(toml) == Recipe.load(other) == Recipe(seed=3)
    toml.write_text("[optimizer]\nkind = 'adam'\nlearning_rat = 1\n", encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"a\.toml\.optimizer\.learning_rat: got 'learning_rat'; expected one of .*lr",
    ):
        Recipe.load(toml)


def test_values_of_numpy_paths_and_tuples_are_plain():
    recipe = Recipe(
        seed=np.int64(3),
        optimizer={"kind": "adam", "lr": np.float64(0.1)},
        start={"weights": Path("run")},
    )
    assert recipe == Recipe.from_toml(recipe.to_toml())
    assert recipe.optimizer.lr == 0.1
    assert type(recipe.optimizer.lr) is float


def test_frozen():
    recipe = Recipe()
    for holder, name in [(recipe, "seed"), (recipe.optimizer, "lr"), (recipe.data, "batch")]:
        with pytest.raises(InputError, match=f"{name}: got 7; expected no assignment"):
            setattr(holder, name, 7)
    assert len({recipe, Recipe(), Recipe(seed=1)}) == 2


# --- programs and edits ---------------------------------------------------------------------------


def field_at(recipe, path):
    *places, last = path.split(".")
    while last.isdecimal():
        *places, last = places
    holder = recipe.get(".".join(places)) if places else recipe
    return type(holder).model_fields[last], holder


@settings(few, max_examples=80)
@given(recipes, st.data())
def test_program_changes_with_structural_fields_alone(recipe, data):
    path, old, member = data.draw(st.sampled_from(list(fields(recipe))))
    field, holder = field_at(recipe, path)
    kind = path.rpartition(".")[2] == "kind" and holder.technique.kind
    new = data.draw(
        parts(kind, 1).map(lambda part: part["kind"]) if kind else values(whole(field), 1)
    )
    assume(
        not kind
        or not any(field.is_required() for field in table(kind)[new].part.model_fields.values())
    )
    edited = recipe.edit({path: new})
    changed = edited.get(path) != old
    assert (edited.program != recipe.program) == (changed and not member and path != "name")
    assert (edited.hash != recipe.hash) == (changed and path != "name")
    others = {p: value for p, value, _ in fields(edited)}
    if not kind and not isinstance(old, tuple | None):
        assert all(others[p] == value for p, value, _ in fields(recipe) if p != path)


STRUCTURAL = {
    "data.source": "mnist",
    "data.validation": 0.2,
    "data.batch": 64,
    "data.seed": 1,
    "data.order": "fixed",
    "data.preprocess": ["standardize"],
    "data.augment": ["shift"],
    "model": "lenet",
    "loss": "squared",
    "precision": "float64",
    "optimizer.accumulate": 2,
}
PER_MEMBER = {
    "seed": 1,
    "optimizer": "sgd",
    "optimizer.lr": 0.1,
    "optimizer.weight_decay": 0.1,
    "schedule": "cosine",
    "schedule.warmup": "5%",
    "loss.l1": 0.1,
    "loss.l2": 0.1,
    "stop.after": "20ep",
    "stop.patience": "3ep",
    "model.init": "he_normal",
    "data.bootstrap": True,
    "constraint": "max_norm",
    "regularize.weight_noise": 0.1,
    "clip.norm": 1.0,
    "average.ema": 0.9,
}


@pytest.mark.parametrize("path", [*STRUCTURAL, *PER_MEMBER])
def test_what_is_structural(path):
    edited = Recipe().edit({path: (STRUCTURAL | PER_MEMBER)[path]})
    assert edited.hash != Recipe().hash
    assert (edited.program != Recipe().program) == (path in STRUCTURAL)


LAYERS = Recipe(model=[{"kind": "dense", "units": 32, "init": "he_normal"}, "relu", "dropout:0.5"])


@pytest.mark.parametrize(
    ("changes", "path", "value"),
    [
        ({"model.layers.2.rate": 0.2}, "model.layers.2.rate", 0.2),
        ({"model.layers.1.kind": "tanh"}, "model.layers.1.kind", "tanh"),
        ({"model.layers.1": "tanh"}, "model.layers.1.kind", "tanh"),
        (
            {"model.layers.0.init.weights.kind": "zeros"},
            "model.layers.0.init.weights.kind",
            "zeros",
        ),
        ({"model.layers.0.init": None}, "model.layers.0.init", None),
        ({"model.init.biases.kind": "zeros"}, "model.init.biases.kind", "zeros"),
        ({"optimizer.kind": "sgd", "optimizer.momentum": 0.5}, "optimizer.momentum", 0.5),
        ({"optimizer.momentum": 0.5, "optimizer.kind": "sgd"}, "optimizer.momentum", 0.5),
        ({"optimizer.lr": 0.5, "optimizer": "sgd"}, "optimizer.lr", 0.5),
        ({"constraint.kind": "max_norm"}, "constraint.kind", "max_norm"),
        ({"data.preprocess": "standardize"}, "data.preprocess.0.kind", "standardize"),
        ({"model.kind": "mlp"}, "model.kind", "mlp"),
        ({"data.source": "csv:a.csv", "data.source.target": "y"}, "data.source.target", "y"),
        ({"stop": {"patience": "3ep"}, "stop.after": "9ep"}, "stop.patience", "3ep"),
        (
            {"model.init": "he_normal", "model.init.biases": "zeros"},
            "model.init.weights.kind",
            "he_normal",
        ),
    ],
)
def test_edits(changes, path, value):
    edited = LAYERS.edit(changes)
    assert edited.get(path) == value
    assert Recipe.from_json(LAYERS.to_json()).edit(changes) == edited  # equal recipes, equal edits
    assert (
        Recipe(model=[{"kind": "dense", "units": 32, "init": "he_normal"}, "relu", "dropout:0.5"])
        == LAYERS
    )


def test_a_new_kind_keeps_what_was_chosen_not_what_was_default():
    chosen = Recipe(optimizer={"kind": "adam", "lr": 0.3, "weight_decay": 0.1, "beta1": 0.5})
    assert chosen.edit({"optimizer.kind": "sgd"}).optimizer.explicit() == {
        "kind": "sgd",
        "lr": 0.3,
        "weight_decay": 0.1,
    }
    full = Recipe.from_json(Recipe(optimizer="adadelta").to_json())
    assert full.edit({"optimizer.kind": "sgd"}) == Recipe(optimizer="sgd")


def test_keywords():
    keywords = {
        "lr": 0.1,
        "optimizer": "sgd",
        "epochs": 3,
        "batch": 32,
        "l2": 1e-4,
        "momentum": 0.9,
    }
    said = from_keywords(Recipe(), keywords)
    optimizer, loss = {"kind": "sgd", "lr": 0.1, "momentum": 0.9}, {"kind": "auto", "l2": 1e-4}
    assert said == Recipe(optimizer=optimizer, loss=loss, stop={"after": "3ep"}, data={"batch": 32})
    assert keyword_path("precision", Recipe()) == "precision"
    for name, ours in (("learning_rate", "lr"), ("batch_size", "batch"), ("max_epochs", "epochs")):
        with pytest.raises(InputError, match=f"did you mean '{ours}'"):
            from_keywords(Recipe(), {name: 3})
    with pytest.raises(InputError, match=r"train: got 'epoch'; .* did you mean .*'epochs'"):
        from_keywords(Recipe(), {"epoch": 3})


# --- errors ---------------------------------------------------------------------------------------

WRONG = [
    ({"optimizer.lrr": 1}, "optimizer.lrr: got 'lrr'; expected one of", "'lr'"),
    ({"learning_rate": 0.1}, "learning_rate: got 'learning_rate'", "did you mean 'optimizer.lr'"),
    ({"batch": 3}, "batch: got 'batch'", "did you mean 'data.batch'"),
    ({"max_epochs": 3}, "max_epochs: got 'max_epochs'", "write --epochs 3, in a recipe stop.after"),
    ({"epochs": 3}, "epochs: got 'epochs'", "write --epochs 3, in a recipe stop.after = '3ep'"),
    ({"optimzer.lr": 1}, "optimzer.lr: got 'optimzer'", "did you mean 'optimizer'"),
    ({"optimizer.kind": "adamm"}, "optimizer.kind: got 'adamm'", "'adam'"),
    ({"optimizer": "adamm"}, "optimizer.kind: got 'adamm'", "'adam'"),
    ({"model.layers.0.unts": 3}, "model.layers.0.unts: got 'unts'", "'units'"),
    ({"model.layers.7.units": 3}, "model.layers.7.units: got '7'", "0 to 2"),
    ({"model.layers.x.units": 3}, "model.layers.x.units: got 'x'", "0 to 2"),
    ({"model.layers.0": "dens"}, "model.layers.0.kind: got 'dens'", "'dense'"),
    (
        {"model.layers.0": {"kind": "dense", "unit": 3}},
        "model.layers.0.unit: got 'unit'",
        "'units'",
    ),
    (
        {"model.layers.0": "dense"},
        "model.layers.0.units: expected a value: it has no default",
        "set units",
    ),
    ({"model.layers.1": "relu:3"}, "model.layers.1: got 'relu:3'", "takes no argument"),
    (
        {"model.layers.2.rate": 1.5},
        "model.layers.2.rate: got 1.5; expected a number of at most 1",
        "",
    ),
    (
        {"model.layers.0.init": "he_norml"},
        "model.layers.0.init.weights.kind: got 'he_norml'",
        "'he_normal'",
    ),
    ({"model.init.weights.gain": 2}, "model.init.weights.gain: got 2", "kind"),
    ({"model": 3}, "model: got 3", "table with kind"),
    ({"data.batch": 0}, "data.batch: got 0; expected a number of at least 1", ""),
    ({"data.batch": 1.5}, "data.batch: got 1.5; expected a whole number or 'full'", ""),
    ({"data.batch": "ful"}, "data.batch: got 'ful'", "did you mean 'full'"),
    ({"data.order": "shufle"}, "data.order: got 'shufle'", "did you mean 'shuffle'"),
    (
        {"data.preprocess": ["standardise"]},
        "data.preprocess.0.kind: got 'standardise'",
        "'standardize'",
    ),
    ({"data.source": "minst"}, "data.source.kind: got 'minst'", "'mnist'"),
    ({"data.source.kind": "csv"}, "data.source.path: expected a value", ""),
    ({"data.validation": 1.0}, "data.validation: got 1.0; expected a number less than 1", ""),
    ({"data.validation": -0.1}, "data.validation: got -0.1; expected a number of at least 0", ""),
    ({"optimizer.lr": -1}, "optimizer.lr: got -1; expected a number greater than 0", ""),
    ({"optimizer.lr": "fast"}, "optimizer.lr: got 'fast'; expected a number", ""),
    ({"optimizer.lr": True}, "optimizer.lr: got True; expected a number", ""),
    ({"optimizer.lr": float("nan")}, "optimizer.lr: got nan; expected a finite number", ""),
    ({"optimizer.lr": float("inf")}, "optimizer.lr: got inf; expected a finite number", ""),
    ({"average.ema": float("nan")}, "average.ema: got nan; expected a finite number", ""),
    (
        {"start.depth_decay": float("nan")},
        "start.depth_decay: got nan; expected a finite number",
        "",
    ),
    ({"stop.after": 20}, "stop.after: got 20; expected a duration with its unit", 'write "20ep"'),
    ({"stop.after": "5%"}, "stop.after: got '5%'; expected epochs (ep) or iterations (it)", ""),
    ({"stop.after": "-3ep"}, "stop.after: got '-3ep'", ""),
    ({"stop.patience": "3"}, "stop.patience: got '3'", 'write "3ep"'),
    ({"stop": "3ep"}, "stop: got '3ep'; expected a table", ""),
    ({"ranks": 2}, "ranks: got 2; expected the fields", "torchrun --standalone --nproc-per-node 2"),
    ({"seed": 1.5}, "seed: got 1.5; expected a whole number", ""),
    ({"seed.x": 1}, "seed.x: got 'x'; expected no further name", "seed is a single value"),
    ({"name": ""}, "name: got ''; expected text that is not empty", ""),
    ({"threads": 0}, "threads: got 0; expected a number of at least 1", ""),
    ({"constraint": "maxnorm"}, "constraint.kind: got 'maxnorm'", "'max_norm'"),
    ({"metrics": ["acuracy"]}, "metrics.0.kind: got 'acuracy'", "'accuracy'"),
    ({"loss.l2": -1}, "loss.l2: got -1; expected a number of at least 0", ""),
    ({"loss.class_weights": "balance"}, "loss.class_weights: got 'balance'", "'balanced'"),
    (
        {"schedule": {"kind": "table", "values": []}},
        "schedule.values: got []; expected a list of at least 1",
        "",
    ),
    ({"device": "gpu"}, "device: got 'gpu'; expected 'auto', 'cpu' or 'cuda'", ""),
]


@pytest.mark.parametrize(("changes", "message", "repair"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_values_name_the_place_and_the_repair(changes, message, repair):
    with pytest.raises(InputError) as error:
        LAYERS.edit(changes)
    assert message in str(error.value)
    assert repair in str(error.value)
    assert error.value.exit_code == 2


def test_the_places_of_a_list_of_two_are_0_and_1():
    with pytest.raises(InputError, match="a place in the list, 0 to 1"):
        Recipe(model=["relu", "tanh"]).edit({"model.layers.5.units": 3})


def test_batches_that_grow_are_doubled_where_no_factor_is_said():
    assert Recipe(data={"grow": {"milestones": ["1ep"]}}).data.grow.factor == 2


@pytest.mark.parametrize("said", ["0ep", "0it"])
def test_a_run_of_no_length_is_refused(said):
    with pytest.raises(InputError, match="a duration longer than 0"):
        Recipe(stop={"after": said})


def holders(part, prefix=""):
    """Every table of a recipe, with the path that leads there."""
    yield prefix, part
    for name in type(part).model_fields:
        value = getattr(part, name)
        for index, item in enumerate(value) if isinstance(value, tuple) else [(None, value)]:
            if isinstance(item, Part):
                yield from holders(
                    item, f"{prefix}{name}." if index is None else f"{prefix}{name}.{index}."
                )


@few
@given(recipes, st.data())
def test_a_misspelt_key_is_answered_with_the_right_one_at_every_depth(recipe, data):
    known = [
        (prefix, name, part) for prefix, part in holders(recipe) for name in type(part).model_fields
    ]
    prefix, name, holder = data.draw(
        st.sampled_from([place for place in known if len(place[1]) > 4])
    )
    at, letter = (
        data.draw(st.integers(1, len(name) - 1)),
        data.draw(st.sampled_from(string.ascii_lowercase)),
    )
    wrong = name[:at] + letter + name[at + 1 :]
    assume(wrong not in type(holder).model_fields)
    plain = recipe.to_dict()
    here = plain
    for place in prefix.split(".")[:-1]:
        here = here[int(place)] if isinstance(here, list) else here[place]
    here[wrong] = 1
    for attempt in (lambda: Recipe(**plain), lambda: recipe.edit({prefix + wrong: 1})):
        with pytest.raises(InputError) as error:
            attempt()
        assert str(error.value).startswith(f"{prefix}{wrong}: got {wrong!r}")
        assert repr(name) in str(error.value).split("did you mean")[1]


@pytest.mark.parametrize("text", ["[]", "3", "{", '{"seed": "x"}', '{"seed": 1, "sed": 2}'])
def test_wrong_json_is_one_message(text):
    with pytest.raises(InputError):
        Recipe.from_json(text)


def test_parse_value():
    typed = {
        "0.01": 0.01,
        "3": 3,
        "true": True,
        "[1, 2]": [1, 2],
        "sgd": "sgd",
        "5ep": "5ep",
        "": None,
        '"3"': "3",
    }
    typed["1\ny = 2"] = "1\ny = 2"
    assert {text: parse_value(text) for text in typed} == typed


# --- the schema -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema():
    found = json_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@few
@given(recipes)
def test_the_schema_takes_every_valid_recipe(schema, recipe):
    schema.validate(recipe.to_dict())
    schema.validate(recipe.to_dict(explicit=True))


def test_the_schema_takes_what_people_write(schema):
    schema.validate(
        {"model": [{"kind": "relu"}, "tanh", "dropout:0.5"], "data": {"preprocess": "center"}}
    )
    schema.validate({"model": {"layers": ["relu"], "init": "he_normal"}, "stop": {"after": "3 ep"}})


@pytest.mark.parametrize(
    "plain",
    [
        {"optimizer": {"kind": "adam", "lr": -1}},
        {"optimizer": {"kind": "adam", "lrr": 1}},
        {"optimizer": {"lr": 1}},
        {"optimizer": "adamm"},
        {"optimzer": "adam"},
        {"stop": {"after": 20}},
        {"stop": {"after": "20"}},
        {"seed": 1.5},
        {"model": {"layers": [{"kind": "dense"}]}},
        {"model": {"kind": "mlp", "layers": []}},
        {"data": {"batch": 0}},
    ],
)
def test_the_schema_refuses_what_recipes_refuse(schema, plain):
    assert not schema.is_valid(plain)
    with pytest.raises(InputError):
        Recipe(**plain)


def test_recipes_are_read_without_torch_and_numpy():
    code = "import ravine.recipe as r, sys; r.Recipe(); r.json_schema(); print({'torch', 'numpy'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


def test_init_is_a_name_a_part_or_a_table():
    init = Init(weights="he_normal")
    forms = ["he_normal", {"kind": "he_normal"}, {"weights": "he_normal"}, init, init.weights]
    assert len({Recipe(model={"kind": "mlp", "init": form}).hash for form in forms}) == 1
