"""Faults that people make with their own data: each of bench/own_faults.py is named, and sound data
are left alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from ravine import Recipe, train
from ravine.doctor.edits import Case
from ravine.doctor.examination import examine
from ravine.doctor.experiments.experiment import SharedData
from ravine.doctor.finding import Finding
from ravine.doctor.findings.records import numbers_in_use
from ravine.doctor.findings.splits import distances
from ravine.doctor.measure.baseline import Baseline
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.curve import Curve
from ravine.doctor.measure.linear import LinearScore
from ravine.doctor.measure.untrained import inspect_program
from ravine.doctor.new_data import unlike_training
from ravine.doctor.table import as_tables, before_training, declaration, ranked
from ravine.doctor.verdict import verdict
from ravine.starters.start import start
from ravine.training.outcome import print_findings

BENCH = Path(__file__).parents[2] / "bench"


def _bench(name: str):
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    sys.path.insert(0, str(BENCH))
    try:
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCH))
    return module


FAULTS = _bench("own_faults").FAULTS
SEEN_IN_TRAINING = {
    "no_signal",
    "labels_shifted",
    "target_identifier",
    "inputs_unscaled",
    "targets_unscaled",
    "class_imbalance",
}


def static_codes(program) -> set[str]:
    """The codes of what is sure before the first step."""
    shared = SharedData(None, program.arrays)
    made = shared.program([program.recipe], [0])
    objective = made.population.objectives[0]
    looked = inspect_program(program.recipe, made.pipeline, objective.model, objective.loss)
    return {finding.code for finding in before_training(looked) if finding.strength >= 0.9}


QUICK = [
    name
    for name, (codes, _) in FAULTS.items()
    if not SEEN_IN_TRAINING & set(codes) and "numbered in another" not in name
]


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_in_data_is_named_before_the_first_step(name):
    codes, make = FAULTS[name]
    assert set(codes) & static_codes(make())


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in QUICK])
def test_a_fault_in_data_is_named(name):
    codes, make = FAULTS[name]
    program = make()
    found = examine(program.recipe, arrays=program.arrays)
    assert found.verdict == "sick"
    assert set(codes) & set(found.codes)


@pytest.mark.parametrize("task", ["digits", "table", "spend", "text", "chars"])
def test_sound_data_are_left_alone(task):
    assert not static_codes(getattr(_bench("planted"), task)())


@pytest.mark.parametrize(
    ("values", "row_numbers"),
    [
        (np.arange(200), True),
        (np.random.default_rng(0).permutation(200) * 2 + 1000, True),
        ((np.arange(200) - 99.5) / 57.7, True),
        (np.random.default_rng(0).choice(300, 150, replace=False), True),
        (np.random.default_rng(0).choice(2000, 150, replace=False), False),
        (np.random.default_rng(0).integers(0, 300, 200), False),
        (np.random.default_rng(0).normal(size=200), False),
        (np.arange(50), False),
    ],
)
def test_row_numbers_are_told_from_measurements(values, row_numbers):
    assert numbers_in_use(torch.tensor(values, dtype=torch.float32)) == row_numbers


def test_distances_of_distributions_are_scipys():
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(80, 3)), draw.normal(0.5, 2, size=(50, 3))
    a[:, 2], b[:, 2] = a[:, 2].round(), b[:, 2].round()  # many are equal
    wanted = [stats.ks_2samp(a[:, i], b[:, i]).statistic for i in range(3)]
    np.testing.assert_allclose(distances(torch.tensor(a), torch.tensor(b)), wanted, atol=1e-12)


NOISE = Recipe(
    data={"source": "arrays", "batch": 32},
    model={"kind": "mlp", "hidden": [32]},
    optimizer={"kind": "adam", "lr": 1e-3},
    stop={"after": "20ep"},
    threads=1,
)


def test_a_noisy_regression_is_not_called_stuck():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(3000, 8)).astype(np.float32)
    y = (0.25 * x[:, :1] + draw.normal(size=(3000, 1))).astype(np.float32)
    found = examine(NOISE, arrays=(x, y))
    assert (found.verdict, found.codes) == ("healthy", [])
    assert "may be noise" in found.why
    slow = examine(NOISE.edit({"optimizer.lr": 1e-7}), arrays=(x, y))
    assert slow.verdict != "healthy", "what learns nothing is not excused by noise"


def test_noisy_classes_are_not_called_stuck():
    """Of two classes that are nearly even, a weak signal takes less of the entropy than of the variance."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(3000, 8)).astype(np.float32)
    y = (draw.random(3000) < 1 / (1 + np.exp(-0.5 * x[:, 0]))).astype(np.int64)
    short = NOISE.edit({"stop.after": "2ep", "optimizer.lr": 1e-2})
    found = examine(short, arrays=(x, y))
    assert (found.verdict, found.codes) == ("healthy", [])
    slow = examine(short.edit({"optimizer.lr": 1e-7}), arrays=(x, y))
    assert slow.verdict == "sick"


@pytest.mark.parametrize(
    ("half", "simple", "linear", "stuck"),
    [
        (0.93, 0.116, 0.64, False),
        (0.98, 0.116, 0.64, True),
        (0.93, 0.2, 0.64, True),
        (0.93, 0.116, 0.68, True),
    ],
    ids=["noise", "still rises", "others learn far more", "a linear model does better"],
)
def test_what_is_as_good_as_a_linear_model_and_settled_is_not_stuck(half, simple, linear, stuck):
    losses, base = np.full(200, 0.92), Baseline(1.0, 0.65, 2.5)
    measured = [2.0, (2.0 + half) / 2, half, (half + 0.92) / 2, 0.92]
    curve = Curve(NOISE, 200, losses, losses, [0, 50, 100, 150, 200], measured, base=base)
    curve.val_loss, curve.val_metric, curve.val_samples = [0.93], [0.65], 240
    course = Course(Case(NOISE, "classification", 12, (4,)), [curve], simple=lambda: simple)
    course.linear = lambda: LinearScore("accuracy", linear, 240, 2000)
    assert ("stuck" in verdict([], course).codes) == stuck


def test_what_learns_a_little_is_not_healthy_where_another_rate_gets_much_further():
    planted = _bench("planted")
    program = planted.digits().edit({"optimizer": {"kind": "sgd", "lr": 0.02}, "data.batch": 32})
    found = examine(program.recipe.edit({"stop.after": "5ep"}), arrays=program.arrays)
    assert found.measured["skill"][0] > 0.1, "it does learn"
    assert found.codes[:1] == ["lr_too_low"]


def test_what_is_at_chance_on_validation_is_not_healthy():
    """Few pictures of noise and a network that learns them by heart: training alone looks well."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(150, 60)).astype(np.float32)
    y = (x[:, 0] + 0.3 * draw.normal(size=150) > 0).astype(np.int64)
    x[:, 0] *= 0.05  # there is a signal, but too faint for this network
    recipe = NOISE.edit({"stop.after": "150ep", "optimizer.lr": 3e-3, "data.preprocess": []})
    recipe = recipe.edit({"data.validation": 0.4, "data.test": 0.0, "data.batch": 16})
    found = examine(recipe, arrays=(x, y))
    assert found.measured["skill"][0] > 0.5
    assert (found.verdict, found.codes) == ("sick", ["overfitting"])
    assert "noise of 60 validation samples" in found.findings[0].evidence


@pytest.mark.parametrize("kind", ["standardize", "robust"])
def test_new_data_in_other_units_are_named(kind):
    draw = np.random.default_rng(0)
    x = draw.normal((45, 52_000, 0), (12, 9_000, 1), size=(400, 3))
    y = (x[:, 0] > 45).astype(np.int64)
    recipe = NOISE.edit({"data.preprocess": [kind], "model.hidden": [4], "stop.after": "1ep"})
    pipeline = SharedData(None, (x.astype(np.float32), y)).pipeline(recipe)
    new = draw.normal((45, 52_000, 0), (12, 9_000, 1), size=(60, 3)).astype(np.float32)
    assert unlike_training(pipeline, new) == []
    assert unlike_training(pipeline, new[:1]) == []
    scaled = (new - new.mean(0)) / new.std(0)
    named = unlike_training(pipeline, scaled)
    assert [text.partition(":")[0] for text in named] == ["input feature 0", "input feature 1"]
    other = new * np.array([1, 0.001, 1], dtype=np.float32)
    assert [text.partition(":")[0] for text in unlike_training(pipeline, other)] == [
        "input feature 1"
    ]
    raw = SharedData(None, (x.astype(np.float32), y)).pipeline(recipe.edit({"data.preprocess": []}))
    assert unlike_training(raw, scaled) == [], "nothing is known of its training data"


@pytest.mark.parametrize(("rare", "said"), [(8, False), (160, True)])
def test_of_a_handful_of_rare_samples_no_signal_is_not_said(rare, said, tmp_path):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(400, 6)).astype(np.float32), np.zeros(400, dtype=np.int64)
    y[draw.choice(400, rare, replace=False)] = 1
    run = train(NOISE.edit({"stop.after": "20ep"}), data=(x, y), quiet=True, out=tmp_path / "run")
    assert ("no_signal" in [one["code"] for one in run.findings]) == said


def test_a_series_in_time_is_said_to_be_divided_at_random(tmp_path):
    draw = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=400).strftime("%Y-%m-%d")
    frame = pd.DataFrame({"day": days, "rain": draw.normal(size=400).round(3)})
    for level in (draw.normal(0, 1, 400).cumsum(), draw.normal(0, 1, 400)):
        frame.assign(level=level.round(3)).to_csv(tmp_path / "t.csv", index=False)
        source = {"kind": "csv", "path": str(tmp_path / "t.csv"), "target": "level"}
        recipe = NOISE.edit({"data.source": source})
        found = [f for f in examine(recipe).findings if f.code == "identifier_feature"]
        shown = " ".join(f.evidence for f in found)
        assert ("later rows" in shown) == (abs(np.corrcoef(level[1:], level[:-1])[0, 1]) > 0.5)


def test_a_line_through_numbers_in_equal_steps_is_no_row_number():
    x = np.linspace(-1, 1, 240, dtype=np.float32)[:, None]
    recipe = NOISE.edit({"optimizer.lr": 1e-2, "stop.after": "30ep"})
    assert "target_identifier" not in examine(recipe, arrays=(x, 2 * x + 1)).codes
    assert "target_identifier" not in examine(recipe, arrays=(x[:120], 2 * x[:120] + 1)).codes


COPIES = {"conflicting_labels", "duplicated_samples", "validation_leak"}


def notes(again: int) -> pd.DataFrame:
    """Sentences of two kinds, a tenth of them empty; the last ``again`` rows are copies."""
    rng = np.random.default_rng(3)
    words = [
        "win",
        "money",
        "now",
        "free",
        "offer",
        "the",
        "a",
        "to",
        "see",
        "you",
        "lunch",
        "report",
        "meeting",
    ]
    label = rng.integers(0, 2, 300)
    texts = [" ".join(rng.choice(words[5 * y : 8 + 5 * y], 12)) for y in label]
    frame = pd.DataFrame({"note": texts, "label": np.where(label, "spam", "ham")})
    frame.loc[rng.random(300) < 0.1, "note"] = ""
    return pd.concat([frame, frame[frame["note"] != ""].head(again)])


@pytest.mark.parametrize(("again", "found"), [(0, set()), (80, COPIES - {"conflicting_labels"})])
def test_empty_cells_and_texts_of_the_same_words_are_no_copies(again, found, tmp_path):
    """Rows of texts were compared by a few of their thousands of features, most of which are 0."""
    assert codes_of_file(notes(again), tmp_path) & COPIES == found


def codes_of_file(frame: pd.DataFrame, folder: Path) -> set[str]:
    """The codes of all that is found in a file before the first step, notes too."""
    frame.to_csv(folder / "rows.csv", index=False)
    recipe = start(folder / "rows.csv", {"stop.after": "1ep"}).recipe
    made = SharedData(None, None).program([recipe], [0])
    objective = made.population.objectives[0]
    looked = inspect_program(recipe, made.pipeline, objective.model, objective.loss)
    return {finding.code for finding in before_training(looked)}


TWO_KINDS = np.array(["p", "q"])


def fine(rows: int = 200) -> pd.DataFrame:
    """Four numbers of three decimals, and a class."""
    draw = np.random.default_rng(5)
    frame = pd.DataFrame(draw.normal(size=(rows, 4)).round(3), columns=list("abcd"))
    return frame.assign(y=TWO_KINDS[(frame.a + draw.normal(size=rows) > 0).astype(int)])


def speeds(rows: int = 2000) -> pd.DataFrame:
    """Two coarse columns, and a class that the first decides."""
    draw = np.random.default_rng(5)
    speed = draw.normal(100, 20, rows).round(1)
    frame = pd.DataFrame({"speed": speed, "wind": draw.integers(0, 4, rows)})
    return frame.assign(y=TWO_KINDS[(speed > 100).astype(int)])


def cities(rows: int = 6000) -> pd.DataFrame:
    """Names, so many that the reader takes rare ones together, a number, and a number as target."""
    draw = np.random.default_rng(5)
    name = draw.integers(0, 400, rows)
    frame = pd.DataFrame({"city": [f"c{i}x" for i in name], "z": draw.normal(size=rows).round(3)})
    return frame.assign(y=(name / 100 + draw.normal(size=rows)).round(3))


def measured_again() -> pd.DataFrame:
    """120 plans, each carried out five times, with five results."""
    draw = np.random.default_rng(5)
    plans = np.repeat(draw.uniform(size=(120, 4)).round(3), 5, 0)
    frame = pd.DataFrame(plans, columns=list("abcd"))
    return frame.assign(y=(plans.sum(1) + draw.normal(0, 0.1, len(plans))).round(3))


def same_answer_to_all() -> pd.DataFrame:
    """Answers to eight questions; every seventh person ticks one and the same column throughout."""
    draw = np.random.default_rng(5)
    answers = draw.integers(1, 6, (700, 8))
    answers[:100] = draw.choice([1, 3, 5], 100)[:, None]
    frame = pd.DataFrame(answers).add_prefix("question ")
    return frame.assign(y=TWO_KINDS[(answers.mean(1) > 3).astype(int)])


def of_cities() -> pd.DataFrame:
    """All columns say which of 80 cities it is; the class is one of people's."""
    draw = np.random.default_rng(5)
    north, of = draw.uniform(40, 50, 80).round(4), draw.integers(0, 80, 1000)
    frame = pd.DataFrame(
        {"city": [f"c{i}" for i in of], "north": north[of], "west": 90 - north[of]}
    )
    return frame.assign(y=TWO_KINDS[(frame.north + draw.normal(0, 2, 1000) > 45).astype(int)])


@pytest.mark.parametrize(
    ("make", "times"), [(fine, 2), (fine, 3), (fine, 10), (speeds, 5), (cities, 3)]
)
def test_a_file_of_rows_that_are_there_several_times_is_named(make, times, tmp_path):
    frame = pd.concat([make(200)] * times).sample(frac=1, random_state=0)
    assert codes_of_file(frame, tmp_path) & COPIES == {"duplicated_samples", "validation_leak"}


@pytest.mark.parametrize(
    "make", [fine, speeds, cities, measured_again, same_answer_to_all, of_cities]
)
def test_rows_that_repeat_by_chance_are_no_copies(make, tmp_path):
    assert not codes_of_file(make(), tmp_path) & COPIES


def test_rare_categories_of_a_random_split_are_no_mismatch(tmp_path):
    """Most of hundreds of categories are not in the validation part at all."""
    draw = np.random.default_rng(9)
    part = draw.integers(0, 600, 3000)
    frame = pd.DataFrame({"part": [f"K{i}-{'ab'[i % 2]}" for i in part]})
    frame = frame.assign(z=draw.normal(size=3000).round(2), y=draw.normal(size=3000) + part / 100)
    assert "split_mismatch" not in codes_of_file(frame, tmp_path)


def test_training_names_labels_that_are_shifted_and_advises_no_larger_network(tmp_path):
    x = np.random.default_rng(21).normal(size=(1500, 4)).astype(np.float32)
    y = np.roll(x @ np.array([[1], [2], [-1], [0.5]], dtype=np.float32), 1, axis=0)
    recipe = NOISE.edit({"stop.after": "5ep", "data.validation": 0.15})
    run = train(recipe, data=(x, y), out=tmp_path / "run", quiet=True)
    first, *others = [event["data"]["code"] for event in run.events_of("finding")]
    assert first == "labels_shifted"
    assert {"stuck", "underfitting"} <= set(others) <= set(declaration(first).consequences)


def test_where_nothing_is_learned_a_larger_network_is_no_advice(capsys):
    found = ranked(
        [Finding(code, "loss", "0", strength=0.55) for code in ("underfitting", "stuck")]
    )
    print_findings(as_tables(found))
    said = capsys.readouterr()
    assert "follows from stuck" in said.out + said.err
    assert "larger network" not in said.out + said.err
