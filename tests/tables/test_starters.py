"""Starters: what a path holds, the rules, the plan in minutes, the written recipe, and training from
it with one line."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ravine
from pictures import write_images
from ravine.app.cli import app
from ravine.app.doctor import _show
from ravine.catalogue import durations
from ravine.data.pipeline import Pipeline
from ravine.doctor.finding import Diagnosis, Finding
from ravine.engine.run import Run
from ravine.errors import InputError
from ravine.recipe import Data, Recipe
from ravine.starters.guess import guess
from ravine.starters.rules import LEAST_STEPS, RULES, Draft, Facts, batch_of, draft
from ravine.starters.sizing import CLOSING, MINUTES, Minutes, plan
from ravine.starters.start import RUNS, start, start_of_study
from ravine.starters.starter import starter
from ravine.training.train import train

KINDS = {
    "images": Facts("images", 300, (3, 48, 48), "classification", 3),
    "gray images": Facts("images", 5000, (1, 28, 28), "classification", 10, gray=True),
    "table": Facts("table", 800, (12,), "regression", 1),
    "classes": Facts("table", 20_000, (40,), "classification", 4),
    "text": Facts("text", 12_000, (64,), "sequence", 65),
    "texts": Facts("texts", 400, (80,), "classification", 2, words=80),
    "short texts": Facts("texts", 400, (9,), "classification", 2, words=9),
    "sequences": Facts("sequences", 400, (30, 4), "classification", 2),
}


# --- what lies there ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("houses.csv", "csv"),
        ("HOUSES.CSV", "csv"),
        ("a.tsv", "csv"),
        ("book.txt", "text"),
        ("notes.md", "text"),
        ("arrays.npz", "npz"),
        ("train-images-idx3-ubyte.gz", "idx"),
    ],
)
def test_files_are_told_by_their_names(name, kind, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    found = guess(tmp_path / name)
    assert found.source == {"kind": kind, "path": str(tmp_path / name)}
    assert found.words


def test_folders_are_told_by_what_they_hold(tmp_path):
    write_images(tmp_path / "photos")
    assert guess(tmp_path / "photos").source["kind"] == "folder"
    write_images(tmp_path / "parts" / "train")
    write_images(tmp_path / "parts" / "test")
    assert guess(tmp_path / "parts").words == "images of 2 classes"
    for name in ("a", "b"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        (tmp_path / "texts" / name / "1.txt").write_text("words")
    assert guess(tmp_path / "texts").source["kind"] == "texts"
    write_images(tmp_path / "named" / "images")
    rows = [f"{place}/{i}.png,{place}" for place in ("dark", "light") for i in range(8)]
    (tmp_path / "named" / "all.csv").write_text("\n".join(["file,kind", *rows]))
    assert guess(tmp_path / "named").source["kind"] == "folder"  # photos of images/dark/0.png
    (tmp_path / "named" / "all.csv").write_text(
        "\n".join(["file,kind", *(f"images/{r}" for r in rows)])
    )
    assert guess(tmp_path / "named").source["labels"] == "all.csv"


def test_a_folder_in_a_folder_is_found_as_archives_leave_it(tmp_path):
    write_images(tmp_path / "photos" / "photos")
    (tmp_path / "photos" / "__MACOSX" / "photos").mkdir(parents=True)
    assert guess(tmp_path / "photos").source["path"] == str(tmp_path / "photos" / "photos")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_texts_are_read_as_they_were_saved(encoding, tmp_path):
    content = "Größe und Maß, " * 200
    (tmp_path / "t.txt").write_bytes(content.encode(encoding))
    found = Pipeline(Data(source={"kind": "text", "path": str(tmp_path / "t.txt")}))
    assert set(found.classes) - {"\ufffd"} == set(content)


@pytest.mark.parametrize("count", [2, 4])
def test_very_few_photographs_are_a_batch(count, tmp_path):
    write_images(tmp_path / "photos", count=count)
    made = start(tmp_path / "photos", {"stop.after": "1ep"}).recipe
    assert made.data.batch <= Pipeline(made.data).size("train")


def test_a_path_where_nothing_lies_names_what_lies_beside_it(tmp_path):
    """A missing none.csv was asked "did you mean 'csv'?"."""
    (tmp_path / "houses.csv").write_text("a,y\n1,2\n")
    for wrong, said in (
        ("house.csv", r"did you mean '.*houses\.csv'\?$"),
        ("none.csv", "for each class$"),
        ("there/houses.csv", "there is no folder .*there$"),
    ):
        with pytest.raises(InputError, match=said):
            guess(tmp_path / wrong)
    with pytest.raises(InputError, match="did you mean 'digits'"):
        guess(Path("digts"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda at: None, "nothing at this place"),
        (lambda at: at.mkdir(), "neither images nor texts"),
        (lambda at: at.write_text("x"), "a file ending in"),
        (lambda at: (at.mkdir(), (at / "recipe.json").write_text("{}")), "a run directory"),
        (lambda at: (at.mkdir(), (at / "study.json").write_text("{}")), "a study's directory"),
        (
            lambda at: (at.mkdir(), Image.new("RGB", (4, 4)).save(at / "1.png")),
            r"1 image\(s\) without classes",
        ),
    ],
)
def test_what_is_no_data_is_refused_with_the_repair(make, said, tmp_path):
    make(tmp_path / "it")
    with pytest.raises(InputError, match=said):
        guess(tmp_path / "it")


# --- rules ----------------------------------------------------------------------------------------


def test_there_is_a_rule_for_every_kind():
    assert {facts.kind for facts in KINDS.values()} == set(RULES)


@pytest.mark.parametrize(("samples", "dropout"), [(4999, 0.2), (5000, None)])
def test_a_small_text_is_trained_with_dropout(samples, dropout):
    made = draft(Facts("text", samples, (64,), "sequence", 65))
    assert {one.get("dropout") for one in made.models} == {dropout}
    assert ("dropout" in made.why["model"]) is (dropout is not None)


@pytest.mark.parametrize(
    ("samples", "widest"), [(100, 128), (1400, 128), (15_700, 256), (10**6, 512)]
)
def test_a_text_network_has_no_more_weights_than_symbols(samples, widest):
    made = draft(Facts("text", samples, (64,), "sequence", 65))
    units = [one["units"] for one in made.models]
    assert units == sorted(units)
    assert units[-1] == widest


@pytest.mark.parametrize(("symbols", "ngrams"), [(65, [3, 4, 5]), (256, [3, 4, 5]), (257, None)])
def test_a_text_of_few_symbols_has_tables_of_ngrams(symbols, ngrams):
    made = draft(Facts("text", 12_000, (64,), "sequence", symbols))
    assert [one.get("ngrams") for one in made.models] == [ngrams] * len(made.models)
    assert ("in tables" in made.why.get("model", "")) == bool(ngrams)


def test_short_texts_are_trained_by_their_letters_too(tmp_path):
    """What comes in few texts then moves little."""
    for name, words in (("calm", "a quiet day"), ("loud", "shout"), ("long", "and on " * 40)):
        (tmp_path / name).mkdir()
        for i in range(5):
            (tmp_path / name / f"{i}.txt").write_text(words, encoding="utf-8")
    long = starter({"kind": "texts", "path": str(tmp_path)}, {"stop.after": "2ep"}).recipe
    source = {"kind": "texts", "path": str(tmp_path), "length": 9}
    short = starter(source, {"stop.after": "2ep"}).recipe
    ordered = starter(source, {"stop.after": "2ep", "model": "gru"}).recipe
    assert (long.data.source.subwords, long.model.units, long.optimizer.eps) == (False, 64, 1e-8)
    assert (short.data.source.subwords, short.model.units, short.optimizer.eps) == (True, 32, 3e-4)
    assert not ordered.data.source.subwords  # behind the words they would be no sequence


def test_fine_tuning_a_run_of_texts_reads_texts_as_it_did(tmp_path):
    for name, words in (("calm", "a quiet day"), ("loud", "shout")):
        (tmp_path / "texts" / name).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "texts" / name / f"{i}.txt").write_text(words, encoding="utf-8")
    source = {"kind": "texts", "path": str(tmp_path / "texts")}
    first = starter(source, {"stop.after": "2ep"}).recipe
    ravine.train(first, quiet=True, out=tmp_path / "run")
    edits = {"stop.after": "2ep", "start.weights": str(tmp_path / "run")}
    tuned = starter(source, edits).recipe
    assert first.data.source.subwords
    assert tuned.data.source == first.data.source
    ravine.train(tuned, quiet=True, out=tmp_path / "tuned")


@pytest.mark.parametrize("name", KINDS)
def test_every_field_of_a_draft_is_a_field_and_has_its_reason(name):
    made = draft(KINDS[name])
    texts = {"data.source": {"kind": "texts", "path": "texts"}}
    recipe = Recipe().edit(texts if KINDS[name].kind == "texts" else {}).edit(made.fields)
    for model in made.models:
        recipe.edit({"model": model})
    assert set(made.why) - {"model"} == set(made.fields)
    assert all(made.why.values())
    assert made.most_steps >= LEAST_STEPS


@pytest.mark.parametrize("samples", [20, 100, 300, 1000, 5000, 60_000])
def test_an_epoch_has_ten_batches_where_the_data_allow_it(samples):
    batch = batch_of(samples)
    assert 8 <= batch <= 128
    assert samples / batch >= 10 or batch == 8
    assert samples / (2 * batch) < 10 or batch == 128


def test_gray_images_are_not_mirrored():
    """Characters and digits change their meaning in a mirror."""
    kinds = [part["kind"] for part in draft(KINDS["gray images"]).fields["data.augment"]]
    assert "flip" not in kinds
    assert "flip" in [p["kind"] for p in draft(KINDS["images"]).fields["data.augment"]]


@pytest.mark.parametrize(
    ("samples", "task", "without"),
    [(800, "regression", False), (40_000, "regression", True), (40_000, "classification", False)],
)
def test_regressions_on_large_tables_have_no_dropout_and_finer_waves(samples, task, without):
    made = draft(Facts("table", samples, (12,), task, 1))
    assert made.models[0].get("dropout") == (0.0 if without else None)
    assert made.models[0].get("frequency") == (0.5 if without else None)
    assert ("dropout costs more" in made.why.get("model", "")) == without


# --- the plan -------------------------------------------------------------------------------------

MODELS = [{"kind": "small"}, {"kind": "middle"}, {"kind": "large"}]


@pytest.mark.parametrize("minutes", [0.5, 2.0, 30.0])
@pytest.mark.parametrize("step", [0.001, 0.02, 0.2])
@pytest.mark.parametrize("epoch_steps", [5, 40, 500])
def test_the_plan_fits_the_minutes(minutes, step, epoch_steps):
    flops = [1.0, 3.0, 9.0]
    made = Draft(models=MODELS)
    found = plan(made, [one * step * epoch_steps for one in flops], epoch_steps, Minutes(minutes))
    ratio = flops[MODELS.index(found.model)]
    steps = durations.steps(found.after, epoch_steps)
    assert steps * step * ratio <= 60 * minutes
    one_more = (steps + epoch_steps * (not found.after.endswith("it"))) * step * ratio
    assert one_more > 0.85 * 60 * minutes  # and uses them
    if found.model != MODELS[0]:  # a larger network only where it gets its steps
        assert steps >= 2 * LEAST_STEPS - epoch_steps


@pytest.mark.parametrize("minutes", [0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("spent", [0.5, 3.0, 8.0])
@pytest.mark.parametrize(("step", "epoch_steps"), [(0.002, 8), (0.02, 100), (0.1, 2000)])
def test_the_minutes_are_kept_within_a_tenth(minutes, spent, step, epoch_steps):
    """By a simulated clock: planning, whole epochs or steps, and what comes after."""
    given = Minutes(minutes, began=time.perf_counter() - spent)
    found = plan(Draft(models=MODELS[:1]), [step * epoch_steps], epoch_steps, given)
    seconds = spent + step * durations.steps(found.after, epoch_steps) + CLOSING
    assert 0.9 * 60 * minutes <= seconds <= 1.1 * 60 * minutes


def test_a_plan_that_came_late_still_trains():
    """Reading a long table on a busy machine may take all the minutes."""
    found = plan(Draft(models=MODELS[:1]), [1.0], 100, Minutes(0.5, began=time.perf_counter() - 60))
    assert durations.steps(found.after, 100) >= 700


def test_without_minutes_the_data_bound_the_plan():
    made = Draft(models=MODELS[:1], most_steps=1500)
    found = plan(made, [0.01], 10, Minutes(None))
    assert found.after == "150ep"
    assert "1,500 steps" in found.why_after


@pytest.mark.parametrize("minutes", [1.0, 15.0, 60.0, 600.0])
@pytest.mark.parametrize("step", [0.002, 0.02])
def test_the_runs_of_a_study_fit_its_minutes(minutes, step):
    """Each has its part of the time, but the least steps and at most what one run alone would take."""
    made = Draft(models=MODELS[:1])
    found = plan(made, [step * 40], 40, Minutes(minutes, runs=RUNS))
    steps = durations.steps(found.after, 40)
    part = 60 * min(minutes / RUNS, MINUTES)
    assert steps * step <= max(part, LEAST_STEPS * step)
    assert steps >= min(LEAST_STEPS, made.most_steps)
    assert (steps + 40) * step >= min(0.9 * part, made.most_steps * step)


def test_the_average_of_a_very_long_run_is_one(photos):
    """Rounded, its reach was the whole past: such a recipe was refused."""
    found = start(photos, {"stop.after": "1000000ep"}).recipe
    assert found.get("average.ema") == 0.9999


def test_a_study_with_minutes_stops_no_run(photos, monkeypatch):
    """Met as 'search photos/ --minutes 15: at least 89.8': each run was planned for 3 minutes."""
    monkeypatch.setattr("ravine.starters.starter.seconds_per_epoch", lambda program: 0.002)
    whole = start(photos, {"model": "softmax"}).recipe
    part = start_of_study(photos, {"model": "softmax"}, 0.5).recipe
    assert part.stop.minutes is None
    assert int(part.stop.after[:-2]) < int(whole.stop.after[:-2])
    assert start_of_study(photos, {"model": "softmax"}, None).recipe.stop.after == whole.stop.after


@pytest.mark.parametrize(
    ("costs", "measured", "width"),
    # Of a width, in parts of what one that gets its steps may cost; with four times the operations
    # a network need not cost four times as much.
    [
        ({8: 0.6}, [8], 8),
        ({8: 0.4, 16: 0.6}, [8, 16], 16),
        ({8: 0.4, 16: 1.1}, [8, 16], 8),
        ({8: 0.1, 16: 0.12, 32: 0.3, 64: 1.5}, [8, 16, 32, 64], 32),
    ],
)
def test_networks_are_measured_until_one_is_too_dear(costs, measured, width, photos, monkeypatch):
    seen = []

    def cost(program):
        seen.append(program.recipes[0].model.width)
        part = 0.97 * 57 * program.pipeline.epoch_steps / (4 * LEAST_STEPS)
        return 0.98 * costs[seen[-1]] * part  # planning itself takes a second or so of the minute

    monkeypatch.setattr("ravine.starters.starter.seconds_per_epoch", cost)
    assert starter({"kind": "folder", "path": str(photos)}, minutes=1.0).recipe.model.width == width
    assert seen == measured


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_minutes_must_be_above_zero(minutes):
    with pytest.raises(InputError, match="minutes"):
        Minutes(minutes)


# --- the whole ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    place = tmp_path_factory.mktemp("data") / "photos"
    write_images(place, count=12)
    return place


def test_the_written_recipe_is_the_recipe(photos):
    made = starter({"kind": "folder", "path": str(photos)}, {"stop.after": "2ep"})
    text = made.to_toml()
    assert Recipe.from_toml(text) == made.recipe
    for path, reason in made.why.items():
        assert f"# {reason}" in text, path
    assert made.recipe.stop.after == "2ep"
    assert made.recipe.data.source.arguments["size"] == (30, 40)


def test_what_a_person_chose_is_left_alone(photos):
    edits = {"model": "softmax", "optimizer.lr": 0.5, "data.batch": 4, "stop.after": "1ep"}
    made = starter({"kind": "folder", "path": str(photos)}, edits)
    assert made.recipe.model.kind == "softmax"
    assert (made.recipe.optimizer.lr, made.recipe.data.batch) == (0.5, 4)
    assert not {"model", "optimizer", "data.batch", "stop.after"} & set(made.why)


def test_the_data_are_read_once(photos, monkeypatch, tmp_path):
    from ravine.data.read import folders

    calls = []
    original = folders.load
    monkeypatch.setattr(folders, "load", lambda *a: calls.append(1) or original(*a))
    result = CliRunner().invoke(
        app, ["train", str(photos), "--epochs", "1", "--quiet", "--out", str(tmp_path / "run")]
    )
    assert result.exit_code == 0, result.output
    assert len(calls) == 1
    run = Run(tmp_path / "run")
    assert run.recipe.model.kind == "resnet9"
    written = Recipe.load(tmp_path / "run" / "recipe.toml")
    assert written == run.recipe
    assert "# " in (tmp_path / "run" / "recipe.toml").read_text()


def test_one_line_for_a_table(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 2))
    rows = [f"{a:.3f},{b:.3f},{3 * a - b:.3f}" for a, b in x]
    (tmp_path / "houses.csv").write_text("size,age,price\n" + "\n".join(rows) + "\n")
    command = ["train", str(tmp_path / "houses.csv"), "--target", "size", "--epochs", "2"]
    options = ["--lr", "0.01", "--batch", "16", "--seed", "3", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*command, *options, "--quiet"])
    assert result.exit_code == 0, result.output
    recipe = Run(tmp_path / "run").recipe
    assert recipe.data.source.arguments["target"] == "size"
    assert (recipe.optimizer.lr, recipe.data.batch, recipe.seed) == (0.01, 16, 3)
    assert recipe.stop.after == "2ep"


def test_a_path_that_is_no_data_ends_with_code_2(tmp_path):
    result = CliRunner().invoke(app, ["train", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert re.search("nothing at this place", result.output)
    assert not list(tmp_path.iterdir())


def test_facts_of_the_digits():
    from ravine.starters.starter import facts_of

    facts = facts_of(Pipeline(Data(source="digits")))
    assert (facts.kind, facts.gray, facts.outputs) == ("images", True, 10)


@pytest.mark.parametrize(
    ("rows", "classes", "monitor"),
    [(400, True, "val_loss"), (400, False, "val_loss"), (7000, True, "val_accuracy")],
)
def test_a_table_trains_an_ensemble(tmp_path, rows, classes, monitor):
    """The best epoch is kept; few validation rows choose it by their loss."""
    x = np.random.default_rng(0).normal(size=(rows, 3)).round(3)
    y = ["pq"[int(a * b > 0)] if classes else f"{a * b + c:.3f}" for a, b, c in x]
    lines = [f"{a},{b},{c},{t}" for (a, b, c), t in zip(x, y, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,y", *lines]))
    made = start(tmp_path / "t.csv", {"stop.after": "2ep"}, minutes=0.05).recipe
    assert made.model.kind == "tabular"
    assert made.data.preprocess[0].kind == "robust"
    assert (made.stop.best, made.stop.monitor) == (True, monitor)


def test_the_command_line_and_python_stop_within_the_minutes(photos):
    from ravine.app.options import starter_from
    from ravine.starters.start import start_with

    command = starter_from(photos, {"minutes": 0.05, "model": "softmax"}).recipe
    python = start_with(photos, "softmax", {"minutes": 0.05})[0].recipe
    assert 0 < command.stop.minutes < 0.05
    assert 0 < python.stop.minutes < 0.05


def test_the_written_recipe_holds_what_was_set_beside_the_starter(photos, tmp_path):
    import ravine

    run = ravine.train(
        str(photos),
        model="resnet9",
        width=2,
        epochs=1,
        quiet=True,
        doctor=False,
        out=tmp_path / "r",
    )
    assert Recipe.load(tmp_path / "r" / "recipe.toml") == run.recipe
    assert run.recipe.model.width == 2


def test_few_validation_texts_choose_the_epoch_by_their_loss(tmp_path):
    for name, word in (("a", "sun"), ("b", "rain")):
        (tmp_path / "t" / name).mkdir(parents=True)
        for i in range(30):
            (tmp_path / "t" / name / f"{i}.txt").write_text(f"{word} number {i}")
    made = start(tmp_path / "t", {"stop.after": "2ep"}).recipe
    assert (made.stop.best, made.stop.monitor) == (True, "val_loss")


# --- classes that are weighed ---------------------------------------------------------------------


def faults(path: Path) -> Path:
    """400 rows, of which 16 are of a class that one column tells nearly."""
    draw = np.random.default_rng(0)
    bad = np.arange(400) % 25 == 0
    heat = draw.normal(size=400) + 2 * bad
    rows = [
        f"{h:.3f},{n:.3f},{'bad' if b else 'ok'}"
        for h, n, b in zip(heat, draw.normal(size=400), bad, strict=True)
    ]
    path.write_text("\n".join(["heat,noise,state", *rows]))
    return path


def test_labels_are_not_smoothed_where_classes_are_weighed(tmp_path):
    """Weighed by class, the smoothed part of a rare class asks for it on every sample of the others."""
    path, edits = faults(tmp_path / "faults.csv"), {"stop.after": "1ep", "model": "linear"}
    smoothed = start(path, edits).recipe
    assert smoothed.loss.label_smoothing == 0.1
    weighed = start(path, edits | {"loss.class_weights": "balanced"})
    assert weighed.recipe.loss.class_weights == "balanced"
    assert not weighed.recipe.loss.label_smoothing
    assert "not smoothed" in weighed.to_toml()
    with pytest.raises(InputError, match=r"label_smoothing.*outweighs.*loss.label_smoothing=0"):
        train(smoothed.edit({"loss.class_weights": "balanced"}), quiet=True, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mild_weights_may_be_smoothed(tmp_path):
    recipe = start(faults(tmp_path / "faults.csv"), {"stop.after": "1ep", "model": "linear"}).recipe
    mild = recipe.edit({"loss.class_weights": [3.0, 1.0]})
    assert train(mild, quiet=True, out=tmp_path / "run").result["steps"] > 0


def test_a_rare_class_is_named_beside_what_one_answer_reaches(tmp_path):
    path = str(faults(tmp_path / "faults.csv"))
    words = ["train", path, "--epochs", "1", "--model", "linear", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, words)
    assert "\nalways 'ok' has 96.25 %, a linear model has" in done.stderr, done.output


@pytest.mark.parametrize(("code", "shown"), [("class_imbalance", True), ("lr_too_low", False)])
def test_a_healthy_diagnosis_still_says_that_a_class_is_rare(code, shown, capsys):
    note = Finding(code, "labels", "the rarest 4.9%", strength=0.4, what_to_do="More of them.")
    _show(Diagnosis("healthy", notes=[note], why="it learns"))
    assert (f"note: {code} (labels): the rarest 4.9%" in capsys.readouterr().err) is shown


@pytest.mark.parametrize(
    ("header", "named", "said"),
    [
        ("heat,noise,state", {}, "; target: state (the last column; --target names another)"),
        ("heat,y,state", {}, "; target: y (by its name; --target names another)"),
        ("heat,noise,state", {"data.source.target": "heat"}, ""),
    ],
)
def test_a_target_that_was_guessed_is_said(header, named, said, tmp_path):
    path = faults(tmp_path / "faults.csv")
    path.write_text(path.read_text().replace("heat,noise,state", header))
    edits = {"stop.after": "1ep", "model": "linear"} | named
    assert start(path, edits).found == f"{path}: a table{said}"
