"""Runs are judged by the same facts at their end, from their directory and before they begin; sound
runs on unusual data raise no alarm."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ravine
from ravine import Recipe
from ravine.doctor.edits import Case
from ravine.doctor.examination import examine, examine_static
from ravine.doctor.experiments.experiment import SharedData
from ravine.doctor.finding import SHOWN, Finding
from ravine.doctor.findings.fit import Overfitting
from ravine.doctor.findings.labels import shows_signal
from ravine.doctor.judgement import judge, stretched
from ravine.doctor.measure.baseline import Baseline, baseline
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.curve import Curve
from ravine.doctor.verdict import verdict
from ravine.nn.build import build_loss

TABLE = Recipe(
    data={"source": "arrays", "batch": 32, "preprocess": ["standardize"]},
    model={"kind": "mlp", "hidden": [16]},
    optimizer={"kind": "adam", "lr": 0.02},
    stop={"after": "8ep"},
    threads=1,
)


def numbers(count: int = 1200) -> tuple[np.ndarray, np.ndarray]:
    """Points and the side of a plane on which they lie."""
    x = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] > 0).astype(np.int64)


@pytest.mark.parametrize(
    ("labels", "codes"),
    [
        (lambda y: y, []),
        (lambda y: np.roll(y, 1), ["labels_shifted", "no_signal"]),
        (lambda y: np.random.default_rng(1).permutation(y), ["no_signal"]),
    ],
)
def test_what_train_finds_is_what_the_doctor_finds_in_the_run(labels, codes, tmp_path):
    x, y = numbers()
    data = (x, labels(y))
    run = ravine.train(TABLE, data=data, out=tmp_path / "run", quiet=True)
    found = [finding["code"] for finding in run.findings]
    assert found == judge(run.directory, arrays=data).codes
    assert found[: len(codes)] == codes
    assert bool(found) == bool(codes)


def rare(told: float) -> tuple[np.ndarray, np.ndarray]:
    """A class of 3 % of the samples, which the inputs tell, or do not."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(1200, 4)).astype(np.float32)
    y = (draw.random(1200) < 0.03).astype(np.int64)
    x[:, 0] += 8 * y * told
    return x, y


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_a_rare_class_that_is_learned_is_no_alarm(weights, tmp_path):
    data, recipe = rare(told=True), TABLE.edit({"loss.class_weights": weights})
    run = ravine.train(recipe, data=data, out=tmp_path / "run", quiet=True)
    assert run.findings == []
    judged = judge(run.directory, arrays=data)
    assert (judged.verdict, [note.code for note in judged.notes]) == (
        "healthy",
        ["class_imbalance"],
    )


def test_a_rare_class_that_is_ignored_is_named_without_an_untried_remedy(tmp_path):
    data = rare(told=False)
    run = ravine.train(TABLE, data=data, out=tmp_path / "run", quiet=True)
    (found,) = [one for one in run.findings if one["code"] == "class_imbalance"]
    assert "of classes under 5% 0% are answered right" in found["evidence"]
    assert found["remedies"] == []
    before = next(one for one in examine(TABLE, arrays=data).findings if one.code == found["code"])
    assert before.advised == [], "it was tried, and does not help"


def test_a_rare_class_that_is_ranked_above_others_is_no_alarm_before_the_end(tmp_path):
    """Of 200 steps of a longer plan: few samples have more than even chances, and more may follow."""
    data = rare(told=0.25)
    found = examine(TABLE.edit({"stop.after": "40ep", "data.validation": 0.3}), arrays=data)
    assert found.verdict == "healthy", found.why
    assert [note.code for note in found.notes] == ["class_imbalance"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("class_imbalance", "it learns, but not the rare classes"),
        ("labels_invalid", "the program or its data contradict themselves"),
    ],
)
def test_ignored_rare_classes_are_no_contradiction(code, why):
    curve = Curve(
        TABLE, 1800, np.geomspace(2.3, 0.1, 1800), np.ones(1800), base=Baseline(2.3, 0.1, 2.3)
    )
    stretched(curve)
    case = Case(TABLE, "classification", 10, (4,))
    found = verdict([Finding(code, "labels", "…", strength=0.9)], Course(case, [curve]))
    assert (found.verdict, found.why) == ("sick", why)


def test_a_finished_run_that_still_falls_is_too_short_whatever_its_rate():
    """Without an experiment nothing tells a rate that is too low from a plan that is too short."""
    losses = 2.3 - np.linspace(0, 0.5, 1800) ** 2 * 2
    curve = Curve(TABLE, 1800, losses, np.ones(1800), base=Baseline(2.3, 0.1, 2.3))
    stretched(curve)
    case = Case(TABLE, "classification", 10, (4,))
    found = verdict([], Course(case, [curve]))
    assert found.codes[0] == "too_few_epochs"
    assert "lr_too_low" not in found.codes


ADAMW = {"kind": "adamw", "lr": 0.02, "weight_decay": 0.05}


def test_ordinary_decoupled_decay_is_no_cause(tmp_path):
    x, y = numbers(300)
    data = (x, np.random.default_rng(1).permutation(y))
    run = ravine.train(
        TABLE.edit({"optimizer": ADAMW}), data=data, out=tmp_path / "run", quiet=True
    )
    found = [finding["code"] for finding in run.findings]
    assert "no_signal" in found
    assert "over_regularised" not in found


@pytest.mark.parametrize("after", ["3ep", "200ep"])
def test_decoupled_decay_that_holds_the_weights_down_is_shown_by_the_experiment(after):
    recipe = TABLE.edit({"optimizer": ADAMW | {"weight_decay": 40.0}, "stop.after": after})
    found = examine(recipe, arrays=numbers(), steps=60)
    assert found.codes[0] == "over_regularised"
    assert found.findings[0].advised[0]["edits"] == {"optimizer.weight_decay": 0.0}


PICTURES = TABLE.edit(
    {"data.augment": [{"kind": "brightness", "amount": 0.1}], "stop.after": "3ep"}
)


def sure_before(recipe: Recipe, x: np.ndarray, y: np.ndarray) -> set[str]:
    """What is sure before the first step."""
    _, found, _ = examine_static(recipe, SharedData(None, (x, y)))
    return {finding.code for finding in found if finding.strength >= SHOWN}


@pytest.mark.parametrize(
    ("of_class", "of_others", "named"),
    [(1.0, 0.0, False), (0.95, 0.0, False), (0.3, 0.0, True), (1.0, 0.1, True)],
)
def test_blank_pictures_are_no_fault_where_they_are_the_class(of_class, of_others, named):
    draw = np.random.default_rng(0)
    x, y = draw.random((400, 1, 8, 8)).astype(np.float32), np.arange(400) % 4
    blank = draw.random(400) < np.where(y == 1, of_class, of_others)
    x[blank] = 0.5
    assert ("blank_samples" in sure_before(PICTURES, x, y)) == named


def test_pictures_that_are_all_black_hold_no_signal_although_augmentation_changes_them():
    x, y = np.zeros((180, 3, 8, 8), dtype=np.float32), np.arange(180) % 3
    assert "no_signal" in sure_before(PICTURES, x, y)


SMOOTHED = [
    ({"kind": "cross_entropy"}, None, 3),
    ({"kind": "cross_entropy", "input": "probabilities"}, None, 3),
    ({"kind": "cross_entropy"}, [0.2, 1.0, 4.0], 3),
    ({"kind": "binary_cross_entropy"}, None, 1),
]


@pytest.mark.parametrize(("fields", "weights", "outputs"), SMOOTHED)
def test_perfect_answers_to_smoothed_labels_have_a_skill_of_1(fields, weights, outputs):
    y = torch.tensor([0] * 90 + [1] * 6 + [2 if outputs == 3 else 1] * 4)
    loss = build_loss({**fields, "label_smoothing": 0.1}, "classification").double()
    if weights is not None:
        loss.class_weights = torch.tensor(weights, dtype=torch.float64)
    base = baseline(loss, y, outputs, "classification")
    table = torch.zeros(3, outputs, dtype=torch.float64, requires_grad=True)  # one answer a class
    steps = torch.optim.LBFGS([table], max_iter=200, line_search_fn="strong_wolfe")

    def value() -> torch.Tensor:
        steps.zero_grad()
        out = table.softmax(-1) if fields.get("input") == "probabilities" else table
        found = loss(out[y], y).mean()
        found.backward()
        return found

    steps.step(value)
    assert base.skill(float(value().detach())) == pytest.approx(1.0, abs=1e-4)
    assert base.skill(base.loss) == pytest.approx(0.0, abs=1e-9)


def test_a_perfect_run_with_smoothed_labels_and_a_rare_class_is_sound(tmp_path):
    loss = {"kind": "cross_entropy", "label_smoothing": 0.1}
    x, y = rare(told=True)
    run = ravine.train(TABLE.edit({"loss": loss}), data=(x, y), out=tmp_path / "run", quiet=True)
    assert run.result["val_accuracy"] == 1.0
    assert judge(run.directory, arrays=(x, y)).measured["skill"][0] > 0.8
    assert run.findings == []


MIRRORED = TABLE.edit(
    {"data.augment": [{"kind": "flip"}, {"kind": "shift", "pixels": 1}], "stop.after": "10ep"}
)


def sides(axis: int, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Noise that is brighter on one side along an axis: the class, or one by chance."""
    draw = np.random.default_rng(0)
    x, y = draw.random((300, 1, 8, 8)).astype(np.float32), draw.integers(0, 2, 300)
    dark = np.where(np.arange(8) < 4, 1.0, -1.0).reshape((8, 1) if axis == 0 else (1, 8))
    x += 0.5 * (2 * y - 1).reshape(-1, 1, 1, 1).astype(np.float32) * dark.astype(np.float32)
    return x, y if seed is None else np.random.default_rng(seed).permutation(y)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (sides(axis=1), "augmentation_destructive"),
        (sides(axis=0), None),
        (sides(axis=1, seed=1), "no_signal"),
    ],
    ids=["left and right", "above and below", "random labels"],
)
def test_mirror_images_that_turn_one_class_into_another_are_the_cause(data, found, tmp_path):
    run = ravine.train(MIRRORED, data=data, out=tmp_path / "run", quiet=True)
    codes = [finding["code"] for finding in run.findings]
    assert codes[:1] == ([found] if found else [])
    assert ("augmentation_destructive" in codes) == (found == "augmentation_destructive")
    judged = judge(run.directory, arrays=data)
    assert judged.codes == codes
    if found == "augmentation_destructive":
        assert run.findings[0]["remedies"][0]["edits"] == {"data.augment": []}


def ended(val_loss: list[float], samples: int, base: Baseline) -> Course:
    """A run that learned its training samples, with these validation losses."""
    losses = np.linspace(base.loss, base.floor + 0.05, 400)
    curve = Curve(TABLE, 400, losses, np.ones(400), base=base, val_loss=val_loss)
    curve.val_metric, curve.val_samples = [0.5] * len(val_loss), samples
    stretched(curve)
    return Course(Case(TABLE, "classification", 2, (4,)), [curve])


@pytest.mark.parametrize(("best", "samples", "shown"), [(0.62, 32, False), (0.62, 400, True)])
def test_what_was_learned_before_it_was_learned_by_heart_is_a_signal(best, samples, shown):
    course = ended([0.7, best, 0.75, 0.8], samples, Baseline(0.693, 0.5, 0.693))
    assert shows_signal(course) == shown


@pytest.mark.parametrize(("last", "alarm"), [(0.4, False), (0.5, True)])
def test_smoothing_does_not_change_how_much_validation_may_lose(last, alarm):
    val_loss = [0.6, 0.4, 0.3, 0.26, last, last]
    course = ended(val_loss, 12, Baseline(0.693, 0.5, 0.693, floor=0.1985))
    assert bool(Overfitting._worse(course)) == alarm
