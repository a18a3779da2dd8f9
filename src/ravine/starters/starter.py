"""A person's data -> the recipe to begin with, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ravine.catalogue import durations
from ravine.data.download.cache import data_root
from ravine.data.pipeline import Pipeline, read_ahead
from ravine.data.read.folders import median_size
from ravine.data.read.formats import find
from ravine.data.source import TARGET_NAMES, Arrays
from ravine.engine.programs import programs_of
from ravine.engine.weights import finetune, published
from ravine.engine.weights.heads import body_patterns, fitted_model
from ravine.engine.weights.stored import Stored
from ravine.nn.analysis.layer_table import summarise
from ravine.nn.build import build, layout
from ravine.nn.models.published import pair
from ravine.recipe import Recipe
from ravine.starters.epoch_time import seconds_per_epoch
from ravine.starters.rules import (
    LARGE_IMAGE,
    SMALL_IMAGE,
    TUNED_IMAGE,
    Draft,
    Facts,
    draft,
    tuned,
)
from ravine.starters.sizing import Minutes, Plan, plan
from ravine.starters.written import Starter

AVERAGED = 20  # the average of the weights reaches over this part of the run: 1/20
LEAST_CHOSEN_BY = 500  # validation samples, under which accuracy is too coarse to choose by
LEAST_AVERAGED = 200  # with fewer steps an average would lag
UNSMOOTHED = "labels are not smoothed: weighed by class, smoothing would ask for the rare classes"


def starter(
    source: Mapping[str, Any],
    edits: Mapping[str, Any] | None = None,
    minutes: float | None = None,
    found: str = "",
    runs: int = 1,
) -> Starter:
    """The recipe that fits the data of a source, a machine like this one and ``minutes``.

    ``source`` is a recipe's data.source; ``edits`` are fields that the person has chosen, by path:
    the rules leave them alone; ``found`` is kept as it is; so many ``runs`` are to fit into the
    minutes. Training the recipe gives what training the written file gives.

    >>> made = starter({"kind": "digits"}, minutes=0.1)
    >>> made.recipe.model.kind, made.recipe.data.batch
    ('resnet9', 64)
    """
    limit, edits = Minutes(minutes, runs), dict(edits or {})
    base, edits = _before(dict(source), edits)
    read_ahead(base.data, pipelines=3)  # to know the data, to time a step, and to train
    pipeline = Pipeline(base.data)
    facts = facts_of(pipeline)
    made = draft(facts)
    weighted = bool(edits.get("loss.class_weights"))
    if weighted and "label_smoothing" in made.fields.get("loss", {}):
        del made.fields["loss"], made.why["loss"]
        made.set("loss.kind", "cross_entropy", UNSMOOTHED)
    batch = edits.get("data.batch", made.fields["data.batch"])
    if batch != "full" and pipeline.size("train") % int(batch) == 1:
        left = "one sample would be left over, too few for batch normalisation"
        made.set("data.last_batch", "drop", left)
    if base.start.weights:
        _tune(made, facts, base, pipeline)
    else:
        made.models = _with_own(made.models, edits)
    if made.models[0].get("kind") != "word_bag" or base.start.weights:
        made.fields.pop("data.source.subwords", None)  # another network reads words in their order
    recipe = base.edit({"name": _name(source)} | _open(made.fields, edits)).edit(
        {path: value for path, value in edits.items() if not path.startswith("model")}
    )
    if recipe.data.source != base.data.source:
        read_ahead(recipe.data, pipelines=2)
    recipe, more = _planned(recipe, made, edits, limit)
    why = {
        path: reason
        for path, reason in _open(made.why | more, edits).items()
        if reason and not any(own.startswith(f"{path}.") for own in edits)
    }
    chosen = (
        _chosen_target(pipeline) if found and not base.data.source.arguments.get("target") else ""
    )
    return Starter(recipe.edit(edits), why, _title(source, facts), found + chosen)


def _chosen_target(pipeline: Pipeline) -> str:
    """Which column of a table was taken for the target, where the person has named none."""
    names = pipeline.preparation.facts.get("targets")
    if not names:
        return ""
    why = "by its name" if names[0].lower() in TARGET_NAMES else "the last column"
    return f"; target: {names[0]} ({why}; --target names another)"


def facts_of(pipeline: Pipeline) -> Facts:
    """The facts of data as they were read."""
    shape = pipeline.raw_shape
    if pipeline.data.source.kind in ("text", "shakespeare"):
        kind = "text"
    elif pipeline.data.source.kind == "texts":
        kind = "texts"
    elif len(shape) == 3:
        kind = "images"
    elif len(shape) == 2 or pipeline.vocabulary:
        kind = "sequences"
    else:
        kind = "table"
    return Facts(
        kind,
        pipeline.size("train"),
        tuple(shape),
        pipeline.task,
        pipeline.outputs,
        gray=len(shape) == 3 and shape[0] == 1,
        tied=_tied(pipeline) if kind == "table" and pipeline.task == "regression" else 0.0,
        words=pipeline.preparation.facts["texts"]["length"] if kind == "texts" else 0,
    )


def _tied(pipeline: Pipeline) -> float:
    """The share of training samples that have the most frequent target; 0 for several targets."""
    part = pipeline.part("train")
    if pipeline.outputs > 1 or not isinstance(part, Arrays):
        return 0.0
    return float(part.y.unique(return_counts=True)[1].max()) / len(part)


def _before(source: dict[str, Any], edits: dict[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """The data, and what the person has chosen; a network or weights that were trained before are
    then part of the recipe."""
    said = {p: value for p, value in edits.items() if p.startswith(("data.", "model", "start."))}
    asked = Recipe(data={"source": source}).edit(said)
    found = published.completed(finetune.with_stored_model(asked))
    if not found.start.weights:
        data = {path: value for path, value in said.items() if path.startswith("data.")}
        return Recipe(data={"source": _bounded(source, LARGE_IMAGE)}).edit(data), edits
    if "head" not in found.start.model_fields_set:
        found = found.edit({"start.head": "replace"})
    if finetune.is_run(found.start.weights):
        stored = Stored(str(found.start.weights)).recipe.data.source
        if stored.kind == source["kind"] and stored.kind in ("folder", "texts"):
            source = {k: v for k, v in stored.explicit().items() if k != "path"} | source
    elif source["kind"] == "folder":
        source = _bounded({"mode": "rgb"} | source, TUNED_IMAGE)
    kept = {path: value for path, value in edits.items() if not path.startswith("model")}
    return found.edit({"data.source": source} | kept), kept


def _tune(made: Draft, facts: Facts, base: Recipe, pipeline: Pipeline) -> None:
    """The draft for a network that was trained before; a published one of several image sizes."""
    part = base.model
    net = build(
        fitted_model(base, pipeline.outputs),
        pipeline.input_shape,
        pipeline.outputs,
        vocabulary=pipeline.vocabulary,
    )
    layers = 1 + max(entry.layer for entry in layout(net).entries)
    tuned(facts, made, body_patterns(net), layers)
    for given in (made.fields, made.why):  # its own was taken over
        given.pop("data.preprocess", None)
    if not finetune.is_run(base.start.weights) and part.kind not in published.KINDS:
        mean, std = published.image_statistics(str(base.start.weights))
        if facts.kind == "images" and pipeline.raw_shape[0] == len(mean) == len(std):
            scaled = [{"kind": "rescale"}, {"kind": "normalize", "mean": mean, "std": std}]
            made.set("data.preprocess", scaled, "as the images were that these weights learnt from")
    made.why |= {
        "start.weights": "training goes on from these weights",
        "start.head": f"a new last layer for {facts.outputs} outputs",
    }
    made.models = [part.explicit()]
    size = pair(part.size) if part.kind in published.KINDS else None
    if size and min(size) >= TUNED_IMAGE:  # smaller images are cheaper, and less is seen
        height, width = size
        sizes = [(height * k // 7, width * k // 7) for k in (3, 5)]
        made.models = [{**part.explicit(), "size": list(size)} for size in sizes] + made.models


def _planned(
    recipe: Recipe, made: Draft, edits: Mapping[str, Any], minutes: Minutes
) -> tuple[Recipe, dict[str, str]]:
    """The recipe with its network and its length."""
    if len(made.models) == 1 and "stop.after" in edits:  # nothing is left to be planned
        found, pipeline = Plan(made.models[0], edits["stop.after"], "", ""), Pipeline(recipe.data)
    else:
        found, pipeline = _measured_plan(recipe, made, minutes)
    held = pipeline.size("validation") if pipeline.has("validation") else 0
    fields: dict[str, Any] = {"model": found.model, "stop.after": found.after}
    said = filter(None, (found.why_model, made.why.get("model")))
    why = {"model": "; ".join(said), "stop.after": found.why_after}
    if minutes.to_fill:
        fields["stop.minutes"] = round(minutes.left / 60, 3)
        why["stop.minutes"] = f"what planning has left of {minutes}, less the report's part"
    if made.rate is not None:
        fields["optimizer"] = made.fields["optimizer"] | {"lr": made.rate(found.model)}
    steps = durations.steps(edits.get("stop.after", fields["stop.after"]), pipeline.epoch_steps)
    if made.averaged and steps >= LEAST_AVERAGED:
        fields["average.ema"] = min(0.9999, round(1 - AVERAGED / steps, 4))
        why["average.ema"] = f"an average over about 1/{AVERAGED} of the run has less noise"
    if pipeline.has("validation") and not (made.averaged and held < LEAST_CHOSEN_BY):
        # Of few samples the accuracy is coarse: many epochs share the best, the first of them early.
        counted = pipeline.task == "classification" and held >= LEAST_CHOSEN_BY
        counted = counted and not recipe.loss.class_weights  # which are not for the accuracy
        monitor = "val_accuracy" if counted else "val_loss"
        fields |= {"stop.best": True, "stop.monitor": monitor}
        why["stop.best"] = "the weights of the best epoch, by the validation part, are the result"
    return recipe.edit({"model": found.model} | _open(fields, edits)), why


def _measured_plan(recipe: Recipe, made: Draft, minutes: Minutes) -> tuple[Plan, Pipeline]:
    """A plan whose network was measured: from the cheapest on, each one that may fit. With k times
    the operations a network is taken to cost at least sqrt(k) times as much: the narrow ones leave
    much of a processor idle."""
    pipelines: dict[tuple[str, str], Pipeline] = {}
    # As for a long plan: the way to run it is then timed, not ruled.
    long = recipe.edit({"stop.after": f"{made.most_steps}it"})
    if made.averaged:
        long = long.edit({"average.ema": 0.99})
    seconds: list[float] = []
    flops: list[float] = []
    place = 0
    while place == len(seconds):
        trial = long.edit({"model": made.models[place]})
        program = programs_of([trial], test=False, pipelines=pipelines)[0]
        pipeline = program.pipeline
        flops = flops or [_flops(model, pipeline) for model in made.models]
        seconds.append(seconds_per_epoch(program))
        costs = seconds + [
            seconds[-1] * math.sqrt(one / flops[place]) for one in flops[place + 1 :]
        ]
        found = plan(made, costs, pipeline.epoch_steps, minutes)
        place = min(len(seconds), made.models.index(found.model))
    return found, pipeline


def _with_own(models: list[dict[str, Any]], edits: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The networks of the rules with what the person has chosen of them."""
    own = {path: value for path, value in edits.items() if path.startswith("model")}
    if not own:
        return models
    found = [Recipe(model=model).edit(own).to_dict(explicit=True)["model"] for model in models]
    return [model for i, model in enumerate(found) if model not in found[:i]]


def _flops(model: Mapping[str, Any], pipeline: Pipeline) -> float:
    net = build(dict(model), pipeline.input_shape, pipeline.outputs, vocabulary=pipeline.vocabulary)
    found = summarise(net, pipeline.input_shape, vocabulary=pipeline.vocabulary)
    return max(float(found["flops"]), 1.0)


def _bounded(source: dict[str, Any], longest: int) -> dict[str, Any]:
    """Photographs from a folder at a size that a processor can train on; their shape is kept."""
    if source["kind"] == "folder" and "size" not in source:
        place = find(source["path"], data_root(), "a folder", folder=True)
        height, width = median_size(place, source.get("labels"), source.get("target"))
        scale = min(1.0, longest / max(height, width))
        if max(height, width) > SMALL_IMAGE:
            source["size"] = [max(8, round(height * scale)), max(8, round(width * scale))]
    return source


def _open(fields: Mapping[str, Any], edits: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that no person has chosen as a whole: a chosen ``optimizer.lr`` leaves the rules'
    optimizer, a chosen ``optimizer.kind`` does not."""
    return {
        path: value
        for path, value in fields.items()
        if not any(own in (path, f"{path}.kind") or path.startswith(f"{own}.") for own in edits)
    }


def _name(source: Mapping[str, Any]) -> str:
    return Path(str(source.get("path", source["kind"]))).stem or str(source["kind"])


def _title(source: Mapping[str, Any], facts: Facts) -> str:
    shape = " x ".join(map(str, facts.shape))
    what = {"table": "columns", "text": "characters a window"}.get(facts.kind, f"{facts.kind}")
    return (
        f"{_name(source)}: {facts.samples:,} samples for training ({shape} {what}), {facts.task}\n"
        "Made by ravine from the data and this machine's speed; edit and train it again."
    )
