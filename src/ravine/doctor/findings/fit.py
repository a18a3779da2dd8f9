"""Findings about how well the network fits: what holds it back, and what it learns by heart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ravine.catalogue import Part, find
from ravine.doctor.declaration import HINT, Declaration, Evidence, Kind
from ravine.doctor.edits import (
    Case,
    Edits,
    Remedies,
    is_standardized,
    last_weighted,
    layers_of,
    longer,
    narrowed,
    scale_inputs,
    tenth_of_plan,
)
from ravine.doctor.measure.course import MAJORITY, Course
from ravine.doctor.measure.untrained import Untrained
from ravine.doctor.remedies import (
    longer_plan,
    more_augmentation,
    normalisation,
    other_rate,
    scaled_inputs,
    weight_decay,
    wider_layers,
)
from ravine.engine.loop.stopping import keeps_best

FAR_OFF = 100.0  # a metric from which on places after the point say nothing


class OverRegularised(Declaration):
    code = "over_regularised"
    rank = 190
    title = "Penalties, dropout or noise are too strong."
    cause = "The penalties outweigh the data, or dropout and noise leave too little of the signal."
    leads_to = "The weights are held near zero, or what they could use is drowned."
    consequences = ("underfitting", "stuck")
    seen_by = (
        "the same steps with weaker penalties, less dropout and no noise get much further: in layers, "
        "in weights, against an adversary, or in labels (smoothing). Decoupled decay, as AdamW's, is "
        "measured by lr * decay over the plan, and named only where that experiment shows it."
    )
    what_to_do = "Smaller penalties, dropout of at most 0.5, less noise."
    kinds = frozenset({Kind.LIMIT, Kind.LEARNING})

    PENALTY, RATE = 1e-3, 0.6  # from which an experiment is made
    STRONG_PENALTY, STRONG_RATE = 0.05, 0.8
    # the sum of lr * decay over the plan, of decoupled decay: from which an experiment is made
    DECAY, STRONG_DECAY = 0.3, 3.0
    TRIED_AT_ONCE = 0.25  # strength above a hint's, but of no suspicion that is shown
    MILD = 0.2  # the dropout rate that is proposed
    NOISE = 0.3  # standard deviation of a layer of noise, from which an experiment is made
    SMOOTHING = 0.3  # of labels, likewise
    STRONG_NOISE = (("std", 1.0), ("weight_noise", 0.1))

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        recipe = program.recipe
        decay = recipe.optimizer.arguments.get("weight_decay") or 0.0
        coupled = 0.0 if _is_decoupled(recipe.optimizer) else decay
        penalty = max(recipe.loss.l2, recipe.loss.l1, coupled)
        layers = recipe.model.layers if recipe.model.kind == "layers" else ()
        rate = max((layer.rate for layer in layers if "dropout" in layer.kind), default=0.0)
        if penalty >= cls.PENALTY or rate >= cls.RATE:
            text = f"the largest penalty is {penalty:g}, the largest dropout rate {rate:g}"
            strong = penalty >= cls.STRONG_PENALTY or rate >= cls.STRONG_RATE
            yield Evidence("penalties and dropout", text, 0.35 if strong else HINT)
        elif noise := cls._noise(program.case):
            listed = ", ".join(f"{path} = {value}" for path, value in noise.items())
            strong = any(
                value >= limit
                for path, value in noise.items()
                for end, limit in cls.STRONG_NOISE
                if path.endswith(end)
            )
            yield Evidence("noise", f"training has {listed}", 0.35 if strong else HINT)

    @classmethod
    def given_course(cls, program: Untrained, course: Course) -> Iterator[Evidence]:
        """Decoupled decay takes lr * decay of the weights in each step, whatever the gradient: how much
        that is depends on the plan, and whether it harms, only an experiment says."""
        optimizer = program.recipe.optimizer
        decay = optimizer.arguments.get("weight_decay") or 0.0
        if not decay or not _is_decoupled(optimizer) or any(cls.before(program)):
            return
        by_lr = optimizer.arguments.get("decay_by", "lr") == "lr"
        taken = decay * course.total * (optimizer.arguments["lr"] if by_lr else 1.0)
        if taken >= cls.DECAY:
            text = (
                f"a decay of {decay:g} takes up to {-math.expm1(-taken):.0%} of the weights in "
                f"{course.total} steps"
            )
            yield Evidence("decay", text, cls.TRIED_AT_ONCE if taken >= cls.STRONG_DECAY else HINT)

    @classmethod
    def _noise(cls, case: Case) -> dict[str, float]:
        """What is added to signals, weights or labels, by its field."""
        recipe, found = case.recipe, {}
        for i, layer in enumerate(layers_of(recipe) or []):
            if layer["kind"] == "gaussian_noise" and layer.get("std", 0.0) >= cls.NOISE:
                found[f"model.layers.{i}.std"] = layer["std"]
        for name in ("weight_noise", "adversarial"):
            if value := getattr(recipe.regularize, name):
                found[f"regularize.{name}"] = value
        smoothing = recipe.loss.arguments.get("label_smoothing") or 0.0
        if smoothing >= cls.SMOOTHING:
            found["loss.label_smoothing"] = smoothing
        return found

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        loss = case.recipe.loss
        edits: Edits = {f"loss.{name}": 0.0 for name in ("l1", "l2") if getattr(loss, name)}
        if case.recipe.optimizer.arguments.get("weight_decay"):
            edits["optimizer.weight_decay"] = 0.0
        for i, layer in enumerate(layers_of(case.recipe) or []):
            if "dropout" in layer["kind"]:
                edits[f"model.layers.{i}.rate"] = min(cls.MILD, layer.get("rate", 0.5))
        edits |= dict.fromkeys(cls._noise(case), 0.0)
        if edits:
            yield edits, "weaker penalties, less dropout and noise"


def _is_decoupled(optimizer: Part) -> bool:
    """Whether an optimiser's decay does not pass through its gradient."""
    given = optimizer.arguments
    return "decay_by" in find("optimizer", optimizer.kind).fields or bool(given.get("decoupled"))


class AugmentationDestructive(Declaration):
    code = "augmentation_destructive"
    rank = 195
    title = "The augmentation is too strong."
    cause = "It removes what tells the classes apart."
    leads_to = "Training samples no longer look like those that the network will see."
    consequences = ("stuck", "overfitting", "underfitting")
    seen_by = (
        "trained with and without augmentation, both judged on samples as they are: without it the "
        "skill is over twice as high (where it learns all the same: over three times, or three quarters "
        "of the loss that is left go), on validation samples too. Of a run that learned nothing, or nothing "
        "that holds in validation, this experiment is made as well: some seconds, at its end too."
    )
    what_to_do = "Milder augmentation."
    kinds = frozenset({Kind.LIMIT, Kind.LEARNING})

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        if program.recipe.data.augment:
            kinds = ", ".join(part.kind for part in program.recipe.data.augment)
            yield Evidence("data.augment", f"samples are augmented by {kinds}", HINT)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield {"data.augment": []}, "without augmentation"
        parts = case.recipe.to_dict(explicit=True).get("data", {}).get("augment", [])
        others = [part for part in parts if part["kind"] != "flip"]
        if others != parts:
            yield (
                {"data.augment": others},
                "without mirror images: they may turn one class into another",
            )


class CapacityTooSmall(Declaration):
    code = "capacity_too_small"
    rank = 240
    title = "The network is too small for the task."
    cause = "A layer has too few units to carry what the outputs depend on."
    leads_to = "Training and validation loss both stay high."
    consequences = ("underfitting",)
    seen_by = (
        "a hidden layer of one unit, or of fewer than log2(classes) + 1, and a wider network gets much "
        "further; at a plan's end any network that does not learn."
    )
    what_to_do = "More units, then more layers."
    kinds = frozenset({Kind.LIMIT, Kind.LEARNING})
    generic = 7

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        narrow = min(program.weighted[:-1], key=lambda layer: layer.units, default=None)
        regression = program.task == "regression"
        if narrow is None or (regression and program.outputs > 1):
            return  # an autoencoder is narrow on purpose
        outputs = program.pipeline.outputs
        wanted = 1 if regression else math.log2(max(2, outputs)) + 1
        if narrow.units == 1 or narrow.units < wanted:
            units = f"{narrow.units} unit{'s' * (narrow.units > 1)}"
            text = f"layer {narrow.name} has {units} for {outputs} outputs"
            yield Evidence(f"layer {narrow.name}", text, 0.3 if narrow.units == 1 else HINT)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from wider_layers(case)


class Overfitting(Declaration):
    code = "overfitting"
    rank = 260
    title = "The network learns the training samples by heart."
    cause = "It has enough capacity and time to fit what is particular to single samples."
    leads_to = "Validation gets worse while training gets better."
    seen_by = (
        "validation was best early and has lost over 15 % of the constant predictor's loss since (5 %, "
        "where it ends worse than that predictor), while training went on falling: needs the run. Or "
        "training goes well, and validation is no better than the constant predictor, within the "
        "noise of so many samples."
    )
    what_to_do = "Early stopping, weight decay, dropout, augmentation, fewer units, more data."

    STRENGTH, CURED = 0.9, 0.4  # with the best weights kept it is only a note
    LOST, LOST_BELOW = 0.15, 0.05  # of validation skill since its best; where it ends under 0
    AHEAD, AHEAD_BELOW = 0.3, 0.5  # of training skill over validation skill
    FEWEST = 5  # epochs with validation
    OWN, HELD = (
        0.3,
        0.02,
    )  # metric of training, and skill of validation, where the latter is at chance

    @classmethod
    def while_learning(cls, course: Course) -> Iterator[Evidence]:
        yield from cls._worse(course) or cls._at_chance(course)

    @classmethod
    def _worse(cls, course: Course) -> list[Evidence]:
        """Whether validation gets worse while training gets better."""
        found = []
        for curve in course.curves:
            if len(curve.val_loss) < cls.FEWEST or not curve.finite:
                return []
            skills = [curve.base.skill(value) for value in curve.val_loss]
            best, last = int(np.argmax(skills)), skills[-1]
            # in units of the constant predictor's whole loss: smoothing makes no alarm likelier
            part = curve.base.reference / (curve.base.reference + curve.base.floor)
            lost, ahead = (part * (skill - last) for skill in (skills[best], curve.skill))
            below = lost > cls.LOST_BELOW and last < 0 and ahead > cls.AHEAD_BELOW
            found.append((lost, ahead, best, (lost > cls.LOST or below) and ahead > cls.AHEAD))
        if sum(late for *_, late in found) <= MAJORITY * len(found):
            return []
        lost, ahead, best, _ = sorted(found)[len(found) // 2]
        part = best / max(1, len(course.curves[0].val_loss) - 1)
        text = (
            f"validation loss was best after {part:.0%} of the run and has lost {lost:.0%} of the "
            f"constant predictor's since; training is ahead of it by {ahead:.0%}"
        )
        if keeps_best(course.recipe):
            text += "; the best epoch's weights are kept"
            return [Evidence("validation loss", text, cls.CURED)]
        return [Evidence("validation loss", text, cls.STRENGTH)]

    @classmethod
    def _at_chance(cls, course: Course) -> list[Evidence]:
        """Whether training goes well and validation is where the constant predictor is."""
        found = []
        for curve in course.finite:
            if not curve.val_metric or not curve.val_samples:
                return []
            # of classes, two standard errors of the most frequent one's share among so many samples
            share = curve.base.accuracy
            noise = 2 * (max(share * (1 - share), 0.0) / curve.val_samples) ** 0.5
            held = max(curve.val_metric)
            own = curve.metric_skill if curve.metric else curve.skill
            at_chance = held <= share + noise and curve.base.skill(min(curve.val_loss)) < cls.HELD
            found.append((held, own, share, at_chance and own > cls.OWN))
        if sum(one[-1] for one in found) <= MAJORITY * max(1, len(found)):
            return []
        held, own, share, _ = sorted(found)[len(found) // 2]
        text = (
            f"training reaches {own:.0%} of the way from the constant predictor to no error, but "
            f"validation {held:.3g} at best: the constant predictor's {share:.3g}, within the noise "
            f"of {course.curves[0].val_samples} validation samples"
        )
        return [Evidence("validation", text, cls.STRENGTH)]

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        """The whole list: early stopping, decay, dropout, capacity, augmentation, normalisation.

        More data and an ensemble help as well; neither is an edit of one recipe, so a trial
        measures them beside its cure.
        """
        if case.recipe.stop.patience is None:
            why = "stop early: keep the weights that were best in validation"
            yield {"stop.patience": tenth_of_plan(case)}, why
        yield from weight_decay(case)
        layers = layers_of(case.recipe)
        last = None if layers is None else last_weighted(layers)
        if layers and last:
            dropped = [*layers[:last], {"kind": "dropout", "rate": 0.5}, *layers[last:]]
            yield {"model.layers": dropped}, "dropout before the output layer"
            narrow = [narrowed(layer) if i < last else layer for i, layer in enumerate(layers)]
            yield {"model.layers": narrow}, "a smaller network: a quarter of the hidden units"
        yield from more_augmentation(case)
        yield from normalisation(case)


class BehindLinear(Declaration):
    code = "behind_linear"
    rank = 315
    title = "A linear model does better."
    cause = "Something keeps the network from what the inputs plainly hold."
    leads_to = "It ends behind a model that has one layer and trains in seconds."
    consequences = ("underfitting",)
    seen_by = (
        "at the plan's end a linear model of the standardised inputs, fitted to the same training part, "
        "makes at most three quarters of the network's validation error, and the difference is over "
        "three standard errors of so many samples. Of inputs of up to 1,024 numbers."
    )
    what_to_do = "Another rate, more steps, more units, weaker penalties; or the linear model."
    kinds = frozenset({Kind.SIGN})
    tried_later = True

    LEAST_ERROR = 0.05  # share of wrong answers, or of variance, under which nobody asks
    PART = 0.75  # of the network's error that the linear model may have
    NOISE = 3.0  # standard errors
    FEWEST_STEPS = 50
    STRENGTH, BESIDE = 0.9, 0.5

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        # where nothing is learned it is a consequence of what else is found
        yield from (replace(seen, strength=cls.BESIDE) for seen in cls.while_learning(course))

    @classmethod
    def while_learning(cls, course: Course) -> Iterator[Evidence]:
        reached = cls.reached(course)
        if reached is None or 1 - reached < cls.LEAST_ERROR:
            return
        linear = course.linear()
        if linear is None or 1 - linear.value > cls.PART * (1 - reached):
            return
        own, other, n = 1 - reached, 1 - linear.value, linear.samples
        if linear.metric == "accuracy":
            error = math.sqrt((own * (1 - own) + other * (1 - other)) / n)
            clear = own - other > cls.NOISE * error
        else:  # of a ratio of two mean squares
            clear = math.log(own / max(other, 1e-12)) > cls.NOISE * 2 / math.sqrt(n)
        if not clear:
            return
        shown = "accuracy" if linear.metric == "accuracy" else "R²"
        reaches = (
            f"{linear.model} of the standardised inputs, fitted to {linear.fitted:,} training "
            f"samples, has {linear.value:.3f}"
        )
        text = (
            f"validation {shown} is {_short(reached)} at the end; {reaches}: more than the noise of "
            f"{n:,} validation samples"
        )
        case = course.subject
        tried = tuple(
            {"edits": edits, "why": "a linear model", "tried": reaches}
            for edits in cls._linear(case)
        )
        yield Evidence("validation", text, cls.STRENGTH, remedies=(*tried, *cls.remedies_for(case)))

    @classmethod
    def reached(cls, course: Course) -> float | None:
        """The median validation metric of the weights that are kept, at a plan's end."""
        if course.loop is not None or not course.over or course.total < cls.FEWEST_STEPS:
            return None
        kept = max if keeps_best(course.recipe) else lambda values: values[-1]
        values = [kept(curve.val_metric) for curve in course.curves if curve.val_metric]
        known = len(values) == len(course.curves) and all(map(math.isfinite, values))
        return float(np.median(values)) if known else None

    @classmethod
    def _linear(cls, case: Case) -> Iterator[Edits]:
        if case.recipe.model.kind != "module":
            wanted = {"classification": "cross_entropy"}.get(case.task, "squared")
            edits: Edits = {"model": {"kind": "linear"}, "loss": {"kind": wanted}}
            yield edits if is_standardized(case, "inputs") else edits | scale_inputs(case)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from scaled_inputs(case)
        yield from other_rate(case, (10.0, 0.1))
        yield longer(case, 4), "train four times as long"
        yield from wider_layers(case)
        hidden = getattr(case.recipe.model, "hidden", None)
        if hidden:
            yield (
                {"model.hidden": [4 * units for units in hidden]},
                "four times as many hidden units",
            )
        yield from OverRegularised.remedies(case)
        yield from normalisation(case)


def _short(value: float) -> str:
    """Three places, or three digits of what is far off.

    >>> _short(0.7939), _short(-2584617372569.756)
    ('0.794', '-2.58e+12')
    """
    return f"{value:.3f}" if abs(value) < FAR_OFF else f"{value:.3g}"


class Underfitting(Declaration):
    code = "underfitting"
    rank = 320
    title = "The training loss is still high at the end."
    cause = "The network has not learned what the data hold."
    leads_to = "Its answers are little better than the constant predictor's."
    seen_by = "at the plan's end the training loss is over half of the constant predictor's, beside a cause."
    what_to_do = "Train longer, a larger network."
    kinds = frozenset({Kind.LOSS_ALONE})

    LOW = 0.5  # skill below which the loss is still high at a plan's end
    WORSE = -0.05  # skill below which it is worse than the constant predictor

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        skill = course.skill
        high = skill <= cls.WORSE or (skill < cls.LOW and course.over)
        if course.loop is None and high and math.isfinite(skill):
            curve = sorted(course.curves, key=lambda c: c.skill)[len(course.curves) // 2]
            text = (
                f"after {course.steps} steps the loss is {curve.loss[-1]:.4g}; the best constant "
                f"predictor has {curve.base.loss:.4g}"
            )
            yield Evidence("loss", text, 0.55)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from longer_plan(case)
        yield from wider_layers(case)
