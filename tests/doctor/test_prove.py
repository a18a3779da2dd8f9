"""The proof of cures: candidates, budget, halving, the paired test, what is written; the bench over
published cases."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ravine
from ravine import Recipe
from ravine.app.cli import app
from ravine.doctor import table
from ravine.doctor.cures import candidates as proposals
from ravine.doctor.cures import trial
from ravine.doctor.cures.candidate_runs import Budget, CandidateRuns, SampleHalves
from ravine.doctor.cures.scores import Score, lost, paired, score
from ravine.doctor.declaration import Kind
from ravine.doctor.edits import Case, layers_of
from ravine.doctor.examination import examine, examine_static
from ravine.doctor.experiments.experiment import SharedData
from ravine.doctor.finding import Diagnosis, Finding
from ravine.doctor.remedies import fewer_layers, scaled_inputs, wider_layers
from ravine.engine.rows.step import Stepper
from ravine.errors import InputError
from ravine.nn.answers import Answers

BENCH = Path(__file__).parents[2] / "bench"
DENSE = [{"kind": "dense", "units": 16}, "tanh", {"kind": "dense", "units": 3}]
BLOBS = Recipe(
    data={"source": "blobs", "batch": 32, "validation": 0.3},
    model={"layers": DENSE},
    optimizer={"kind": "sgd", "lr": 0.1},
    stop={"after": "4ep"},
    threads=1,
)
FAULTS = {"optimizer.lr": 1e-6}


def program(recipe: Recipe, arrays=None) -> Case:
    return examine_static(recipe, SharedData(None, arrays))[0]


def finding(code: str, recipe: Recipe) -> Finding:
    return Finding(code, "here", "1 of 1", table.remedies(code, program(recipe)))


def prove(recipe: Recipe, *codes: str, budget: float = 20.0) -> trial.Cure:
    return trial.prove(
        recipe, [finding(code, recipe) for code in codes], program(recipe), budget=budget
    )


# --- the whole trial ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cure():
    return prove(BLOBS.edit(FAULTS), "lr_too_low", "stuck")


def test_a_fault_is_cured_and_the_cure_trains(cure, tmp_path):
    assert cure.accepted
    assert cure.p < trial.AMPLE.level
    assert np.mean(cure.after) > np.mean(cure.before) + 0.2
    cured = Recipe.from_toml(cure.recipe)
    assert cured.data == BLOBS.data or "data.preprocess" in cure.edits or "data.batch" in cure.edits
    kept = ravine.train(cured, seed=77, quiet=True, doctor=False, out=tmp_path / "cured").result[
        "test_accuracy"
    ]
    left = ravine.train(
        BLOBS.edit(FAULTS), seed=77, quiet=True, doctor=False, out=tmp_path / "left"
    ).result["test_accuracy"]
    assert kept > left + 0.2


def test_the_trial_has_the_untouched_recipe_train_longer_and_compounds(cure):
    whys = [one["why"] for one in cure.tried]
    assert whys[0] == "the untouched recipe"
    assert "train twice as long" in whys
    assert any(len(one["edits"]) > 1 and "; " in one["why"] for one in cure.tried)
    rungs = [len(one["scores"]) for one in cure.tried]
    assert rungs.count(1) > rungs.count(2), "most end at the first rung"


def test_fresh_seeds_decide(cure):
    chosen_with = {BLOBS.seed + i for i in range(trial.AMPLE.seeds)}
    assert len(cure.seeds) >= 3
    assert not chosen_with & set(cure.seeds)
    assert len(cure.before) == len(cure.after) == len(cure.seeds)


@pytest.mark.parametrize("budget", [5.0, 8.0, 20.0])
@pytest.mark.parametrize("fault", [FAULTS, {"optimizer.lr": 0.03}], ids=["lr", "hard"])
def test_every_step_is_counted_and_the_budget_is_kept(monkeypatch, budget, fault):
    made = []
    one = Stepper.one

    def counted(self, *args, **kwargs):
        made.append(len(self.population))
        return one(self, *args, **kwargs)

    monkeypatch.setattr(Stepper, "one", counted)
    recipe = BLOBS.edit(fault)
    found = prove(recipe, "lr_too_low", "optimizer_unsuited", "too_few_epochs", budget=budget)
    unit = SharedData().steps(recipe)
    assert found.spent == pytest.approx(sum(made) / unit, abs=0.01)
    assert found.spent <= budget


def test_nothing_is_accepted_where_there_is_nothing_to_gain():
    drawn = np.random.default_rng(0)
    x, y = drawn.normal(size=(300, 4)).astype(np.float32), drawn.integers(0, 2, 300)
    recipe = BLOBS.edit(
        {"data.source": {"kind": "arrays", "task": "classification"}, "data.test": 0.0}
    )
    recipe = recipe.edit({"model.layers.2.units": 2})
    case = program(recipe, (x, y))
    found = trial.prove(
        recipe,
        [Finding("stuck", "loss", "0 of 1", table.remedies("stuck", case))],
        case,
        arrays=(x, y),
    )
    assert not found.accepted
    assert len(found.before) == len(found.after) == len(found.seeds)
    assert found.text.startswith("no verified cure")
    assert found.to_dict()["recipe"] is None
    assert Recipe.from_toml(found.to_dict()["best_try"])


def test_where_the_untouched_recipe_is_the_best_nothing_is_decided(monkeypatch):
    recipe = BLOBS.edit({"stop.after": "8ep", "optimizer.lr": 0.3})
    worse = {"optimizer.lr": 1e-7}
    move = (proposals.Move("stuck"),)
    monkeypatch.setattr(
        trial,
        "candidates",
        lambda case, *_, **__: [proposals.Candidate(move, worse, "worse", case.recipe.edit(worse))],
    )
    monkeypatch.setattr(trial, "nearby", lambda *_: [])
    found = prove(recipe)
    assert (found.accepted, found.p) == (False, 1.0)
    assert "nothing beat the untouched recipe" in found.text
    assert np.mean(found.before) > np.mean(found.after)
    assert len(found.before) == len(found.after) == len(found.seeds)
    assert found.spent < 4, "no seeds are spent on what is not better"


def test_a_cure_of_several_edits_says_which_are_needed(monkeypatch):
    """The rate alone holds this recipe back; what is changed beside it is not needed."""
    recipe = BLOBS.edit(FAULTS)
    rate = proposals.Move("lr_too_low", 0, None, (("optimizer.lr", 0.03),), "a higher rate")
    order = proposals.Move("not_shuffled", 0, None, (("data.order", "fixed"),), "in order")
    both = lambda case, *_, **__: [proposals.made_of(case, [order, rate])]  # noqa: E731
    monkeypatch.setattr(trial, "candidates", both)
    found = prove(recipe, budget=5)
    assert found.accepted
    assert set(found.edits) == {"optimizer.lr", "data.order"}
    assert {one["edit"]: one["needed"] for one in found.needed} == {
        "a higher rate": True,
        "in order": False,
    }
    assert found.spent <= 5
    assert sum("not needed: in order" in line for line in found.evidence) == 1


def test_too_small_a_budget_is_refused():
    with pytest.raises(InputError, match="at least 5 original runs"):
        prove(BLOBS, budget=4)


def test_a_module_given_in_python_is_cured_by_its_numbers():
    module = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    recipe = BLOBS.edit({"model": {"kind": "module", "name": "Sequential"}, **FAULTS})
    case, _, _ = examine_static(recipe, SharedData(module))
    found = trial.prove(
        recipe,
        [Finding("lr_too_low", "lr", "1e-6", table.remedies("lr_too_low", case))],
        case,
        module=module,
    )
    assert found.accepted
    assert not any(path.startswith("model") for path in found.edits)


def test_against_overfitting_an_ensemble_and_more_data_are_measured():
    found = prove(BLOBS.edit({"data.validation": 0.5}), "overfitting")
    assert [one["remedy"].split(":")[0] for one in found.also] == [
        f"an ensemble of {len(found.seeds)}",
        "more data",
    ]
    assert found.spent <= 20
    assert all(0 <= one["before"] <= 1 and 0 <= one["p"] <= 1 for one in found.also)
    assert len(found.besides) == 2


def test_a_table_too_small_to_hold_any_out_says_so():
    x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    recipe = Recipe(
        data={
            "source": {"kind": "arrays", "task": "regression"},
            "batch": 5,
            "validation": 0.0,
            "test": 0.0,
        },
        model={"layers": [{"kind": "dense", "units": 1}]},
        optimizer={"kind": "sgd", "lr": 1e-5},
        stop={"after": "20ep"},
        threads=1,
    )
    assert trial.held_out(recipe, SharedData(None, (x, 3 * x))) is recipe
    case = program(recipe, (x, 3 * x))
    low = Finding("lr_too_low", "lr", "1e-5", table.remedies("lr_too_low", case))
    found = trial.prove(recipe, [low], case, arrays=(x, 3 * x))
    assert found.accepted
    assert "training samples decide" in found.text


# --- candidates -----------------------------------------------------------------------------------


def test_candidates_are_different_recipes_in_the_findings_order():
    recipe = BLOBS.edit(FAULTS)
    case = program(recipe)
    found = proposals.candidates(
        case, [finding("lr_too_low", recipe), finding("inputs_unscaled", recipe)], 10
    )
    assert len({c.recipe.hash for c in found} | {recipe.hash}) == 11
    assert len(found[0].moves) == 2, "the compound of the first two findings stands first"
    assert {"optimizer.lr", "data.preprocess"} <= set(found[0].edits)


def test_a_compound_is_made_for_what_the_first_move_leaves():
    recipe = BLOBS.edit({"model.layers": [*DENSE, "softmax"]})
    made = proposals.made_of(
        program(recipe),
        [proposals.Move("loss_output_mismatch"), proposals.Move("no_hidden_nonlinearity")],
    )
    kinds = [layer["kind"] for layer in made.edits["model.layers"]]
    assert kinds == ["dense", "relu", "dense"], "neither move undoes the other"
    assert made.edits["loss"]["kind"] == "cross_entropy"


def test_a_later_move_replaces_what_lies_inside_it():
    made = proposals.made_of(
        program(BLOBS), [proposals.Move("lr_too_low"), proposals.Move("optimizer_unsuited")]
    )
    assert made.recipe.optimizer.kind == "adam"
    assert "optimizer.lr" not in made.edits


def test_the_second_wave_tries_rates_nearby_and_compounds():
    case = program(BLOBS)
    best, other = (
        proposals.made_of(case, [proposals.Move(code)])
        for code in ("lr_too_low", "inputs_unscaled")
    )
    found = proposals.nearby(case, best, [other], 4, {best.recipe.hash, other.recipe.hash})
    lr = best.recipe.optimizer.lr
    assert [c.recipe.optimizer.lr / lr for c in found] == pytest.approx([4, 0.25, 1, 1])
    assert width(layers_of(found[2].recipe)) > width(DENSE[::2])
    assert found[3].recipe.data.preprocess


IMAGES = Recipe(
    data={"source": "digits", "batch": 64, "validation": 0.2},
    stop={"after": "5ep"},
    threads=1,
    model={
        "layers": [
            {"kind": "conv", "channels": 16, "kernel": 3},
            "relu",
            "flatten",
            {"kind": "dense", "units": 10},
        ]
    },
)


def width(layers):
    return sum(layer.get("units", 0) + layer.get("channels", 0) for layer in layers)


@pytest.mark.parametrize("recipe", [BLOBS, IMAGES], ids=["table", "images"])
def test_the_whole_list_against_overfitting(recipe):
    edits = [one["edits"] for one in table.remedies("overfitting", program(recipe))]
    layers = [
        {layer["kind"] for layer in one["model.layers"]} for one in edits if "model.layers" in one
    ]
    paths = {path for one in edits for path in one}
    assert "stop.patience" in paths
    assert {"loss.l2", "optimizer.weight_decay"} & paths
    assert "data.augment" in paths
    assert any("dropout" in kinds for kinds in layers)
    assert any("batch_norm" in kinds for kinds in layers)
    assert min(width(one["model.layers"]) for one in edits if "model.layers" in one) < width(
        layers_of(recipe)
    )


@pytest.mark.parametrize("code", table.codes())
def test_every_remedy_gives_recipes_that_train(code):
    recipe = BLOBS.edit(
        {
            "data.augment": [{"kind": "noise"}],
            "loss.l2": 0.1,
            "data.order": "fixed",
            "optimizer.lr": 0.01,
        }
    )
    shared = SharedData()
    made = [recipe.edit(one["edits"]) for one in table.remedies(code, program(recipe))]
    apply_not = ("batch_too_small", "batch_too_large", "targets_unscaled", "frozen_weights")
    # in code of one's own, which no recipe changes
    apply_not += ("wrong_sign", "below_zero", "gradients_kept", "samples_mixed")
    apply_not += ("random_in_evaluation",)
    assert made or code in apply_not or Kind.DATA in table.declaration(code).kinds
    runs = CandidateRuns(shared, SampleHalves.of(shared.pipeline(recipe)), [0], Budget(1e9))
    places = runs.add(made)
    runs.advance(places, 0.1)
    for i in places:
        assert runs.outputs(i, deciding=False), made[i]


@pytest.mark.parametrize(
    ("kinds", "again"),
    [([], True), (["standardize"], False), (["standardize", "per_sample"], True)],
)
def test_inputs_are_standardised_where_it_is_not_the_last_thing_done(kinds, again):
    case = program(BLOBS.edit({"data.preprocess": [{"kind": kind} for kind in kinds]}))
    assert any("data.preprocess" in edits for edits, _ in scaled_inputs(case)) is again


def test_layers_are_widened_where_there_are_hidden_ones():
    ((edits, _),) = wider_layers(program(BLOBS))
    assert [layer.get("units") for layer in edits["model.layers"]] == [64, None, 3]
    assert not list(wider_layers(program(deep(0))))
    assert not list(wider_layers(program(BLOBS.edit({"model": "linear"}))))


def deep(hidden, kind="dense"):
    layers = [{"kind": "dense", "units": 5}, "sigmoid"] * hidden
    return BLOBS.edit({"model": {"layers": [*layers, {"kind": "dense", "units": 3}]}})


@pytest.mark.parametrize(("hidden", "left"), [(2, None), (4, None), (5, 3), (10, 3)])
def test_a_deep_stack_may_lose_layers(hidden, left):
    found = fewer_layers(program(deep(hidden)))
    kinds = [[layer["kind"] for layer in edits["model.layers"]] for edits, _ in found]
    assert kinds == ([] if left is None else [["dense", "sigmoid"] * left + ["dense"]])


def test_what_looks_odd_leads_a_proof_where_too_little_was_seen():
    """Ten sigmoid layers: after the examination nothing is sure, and yet the first candidates are
    those of starved layers."""
    recipe = deep(10).edit({"optimizer": {"kind": "sgd", "lr": 0.01}, "stop.after": "200ep"})
    diagnosis = examine(recipe, steps=40, seeds=1)
    assert diagnosis.verdict == "uncertain"
    assert "vanishing_gradient" in [finding.code for finding in diagnosis.leads]
    proposed = proposals.candidates(program(recipe), diagnosis.leads, 10)
    assert any("3 hidden layers in place of 10" in one.why for one in proposed)
    first = proposed[0]
    assert (
        len({path for move in first.moves for path, _ in move.edits}) > 1
    )  # two remedies that differ
    assert not Diagnosis("healthy", notes=diagnosis.notes).leads


def test_a_compound_tells_of_the_rate_that_counts():
    lower, adam, wider = (
        proposals.Move("lr_too_high"),
        proposals.Move("optimizer_unsuited"),
        proposals.Move("capacity_too_small"),
    )
    recipe = deep(2).edit({"optimizer": {"kind": "sgd", "lr": 0.1}})
    made = proposals.made_of(program(recipe), (lower, wider, adam))
    assert (
        made.why
        == "four times as many hidden units; Adam with lr 0.001, which finds the scale of each step itself"
    )
    assert made.recipe.optimizer.kind == "adam"
    assert (
        proposals.made_of(program(recipe), (lower, proposals.Move("lr_too_low", 0, 4.0))).why
        == "lr 0.04"
    )


def test_adam_is_given_a_rate_that_fits_the_length_of_the_plan():
    rates = {}
    for steps in (0, 30, 420, 100_000):
        case = Case(BLOBS, "classification", 3, (2,), steps)
        rates[steps] = table.remedies("optimizer_unsuited", case)[0]["edits"]["optimizer"]["lr"]
    assert rates == {0: 0.001, 30: 0.1, 420: 0.007, 100_000: 0.001}


@pytest.mark.parametrize(
    ("lr", "edits"),
    [(1e-6, {"optimizer.lr": 0.007}), (3.0, {"optimizer.lr": 0.007}), (0.003, None)],
)
def test_a_rate_of_adam_that_is_far_off_is_set_in_the_sound_recipe(lr, edits):
    recipe = BLOBS.edit({"optimizer": {"kind": "adam", "lr": lr}})
    case = Case(recipe, "classification", 3, (2,), 420)
    made = proposals.made_of(case, proposals._sound(case, activation=False))
    assert made.recipe.optimizer.kind == "adam"
    assert {k: v for k, v in made.edits.items() if k.startswith("optimizer")} == (edits or {})


# --- fields ---------------------------------------------------------------------------------------


def test_the_samples_that_choose_never_decide_and_are_never_trained_on():
    pipeline = SharedData().pipeline(BLOBS)
    rows = SampleHalves.of(pipeline)
    assert rows.part == "validation"
    assert not set(rows.choosing.tolist()) & set(rows.deciding.tolist())
    assert len(rows.choosing) + len(rows.deciding) == pipeline.size("validation")


def test_early_stopping_ends_with_the_best_epoch_and_saves_steps():
    drawn = np.random.default_rng(0)
    x, y = drawn.normal(size=(60, 30)).astype(np.float32), drawn.integers(0, 2, 60)
    arrays = (x[:30], y[:30], x[30:], y[30:])
    recipe = Recipe(
        data={"source": {"kind": "arrays", "task": "classification"}, "batch": 10},
        model={"layers": [{"kind": "dense", "units": 32}, "relu", {"kind": "dense", "units": 2}]},
        optimizer={"kind": "adam", "lr": 0.03},
        stop={"after": "40ep"},
        threads=1,
    )
    losses, spent = {}, {}
    for patience in (None, "3ep"):
        shared, budget = SharedData(None, arrays), Budget(1e9)
        stopped = recipe.edit({"stop.patience": patience})
        runs = CandidateRuns(shared, SampleHalves.of(shared.pipeline(stopped)), [0, 1, 2], budget)
        runs.advance(runs.add([stopped]), 1.0)
        y_val = torch.tensor(arrays[3])[runs.halves.choosing]
        losses[patience] = [
            float(torch.nn.functional.cross_entropy(o, y_val))
            for o in runs.outputs(0, deciding=False)
        ]
        spent[patience] = budget.spent
    assert all(stop < end for stop, end in zip(losses["3ep"], losses[None], strict=True))
    assert spent["3ep"] < spent[None] / 2


def test_averaged_weights_are_what_counts_where_a_recipe_averages():
    shared = SharedData()
    outputs = {}
    for ema in (0.0, 0.99):
        runs = CandidateRuns(shared, SampleHalves.of(shared.pipeline(BLOBS)), [0], Budget(1e9))
        runs.advance(runs.add([BLOBS.edit({"average.ema": ema})]), 1.0)
        outputs[ema] = runs.outputs(0, deciding=True)[0]
        again = runs.outputs(0, deciding=True)[0]
        assert torch.equal(outputs[ema], again), "looking changes nothing"
    assert not torch.allclose(outputs[0.0], outputs[0.99], atol=1e-3)


def test_half_of_the_samples_alone_are_learned_from():
    """Of two groups with opposite labels, the one without weight is not learned."""
    shared = SharedData()
    runs = CandidateRuns(shared, SampleHalves.of(shared.pipeline(BLOBS)), [0], Budget(1e9))
    runs.add([BLOBS])
    runs.weigh(0, 0.5)
    weights = runs._places[0][0].loop.stepper.sample_weights
    assert sorted(set(weights.flatten().tolist())) == [0.0, 2.0]
    assert float(weights.mean()) == pytest.approx(1.0, abs=0.02)
    runs.advance([0], 1.0)
    assert runs.scores(0)[0].metric > 0.5


def test_a_recipe_that_cannot_be_run_is_out_not_an_error():
    shared = SharedData()
    runs = CandidateRuns(shared, SampleHalves.of(shared.pipeline(BLOBS)), [0, 1], Budget(1e9))
    bad = BLOBS.edit(
        {
            "model.layers": [
                {"kind": "conv", "channels": 3, "kernel": 9},
                {"kind": "dense", "units": 3},
            ]
        }
    )
    good, out = runs.add([BLOBS, bad])
    runs.advance([good, out], 1.0)
    assert [one.value for one in runs.scores(out)] == [lost(1).value] * 2
    assert runs.scores(good)[0].value > 0.3


# --- scores and the test --------------------------------------------------------------------------


def test_scores_agree_with_scikit_learn():
    from sklearn.metrics import accuracy_score, r2_score

    generator = torch.Generator().manual_seed(0)
    shared = SharedData()
    pipeline = shared.pipeline(BLOBS)
    output = torch.randn(50, 3, generator=generator)
    y = torch.randint(0, 3, (50,), generator=generator)
    found = score(
        pipeline, Answers("classes", "softmax"), output, ravine.data.pipeline.Batch(output, y, y)
    )
    assert found.metric == pytest.approx(accuracy_score(y, output.argmax(1)))
    brier = (output.double().softmax(1) - torch.eye(3)[y]).square().sum(1)
    assert found.near == pytest.approx((1 - brier).numpy())
    x = np.linspace(0, 1, 50, dtype=np.float32)[:, None]
    real = BLOBS.edit({"data.source": {"kind": "arrays", "task": "regression"}, "data.test": 0.0})
    line = SharedData(None, (x, x)).pipeline(real)
    target, said = torch.randn(50, 1, generator=generator), torch.randn(50, 1, generator=generator)
    found = score(
        line,
        Answers("numbers", "values", units=line.target_units),
        said,
        ravine.data.pipeline.Batch(said, target, y),
    )
    assert found.metric == pytest.approx(r2_score(target, said), abs=1e-6)


@pytest.mark.parametrize(
    ("between", "within", "lucky"),
    [(0.0, 1.0, 0.0), (0.3, 1.0, 0.0), (0.3, 0.05, 0.0), (0.02, 0.1, 0.4)],
)
def test_the_paired_test_keeps_its_level(between, within, lucky):
    """Without a gain, with five seeds that vary, samples that vary, and seeds on which either
    program fails: under 5 %."""
    drawn = np.random.default_rng(0)
    n = 2000
    alarms = 0
    for _ in range(n):
        seeds = drawn.normal(size=(5, 1)) * between + lucky * drawn.choice([-1, 1], size=(5, 1))
        gains = seeds + drawn.normal(size=(1, 60)) * 0.3 + drawn.normal(size=(5, 60)) * within
        alarms += paired(gains) < trial.AMPLE.level
    assert alarms / n < 0.05


def test_a_seed_on_which_the_untouched_recipe_fails_wholly_is_no_outlier():
    gains = (
        np.array([[0.09], [0.10], [0.62], [0.08], [0.11]])
        + np.random.default_rng(0).normal(size=(5, 200)) * 0.2
    )
    assert paired(gains) < 0.001


def test_the_paired_test_finds_a_gain():
    drawn = np.random.default_rng(0)
    assert paired(0.3 + 0.05 * drawn.normal(size=(3, 1)) + 0.3 * drawn.normal(size=(3, 60))) < 0.001


def test_surer_probabilities_do_not_make_up_for_a_lower_metric():
    wins = [Score(np.array([1.0, 1, 1, 0] * 20), np.ones(80))] * 3
    loses = [Score(np.ones(80), np.full(80, -1.0))] * 3
    assert not trial._better(loses, wins, held_out=True, level=trial.AMPLE.level)[0]


# --- the command line -----------------------------------------------------------------------------


def test_the_command_writes_the_cured_recipe_with_its_evidence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("faulty.toml").write_text(BLOBS.edit(FAULTS).to_toml(), encoding="utf-8")
    runner = CliRunner()
    shown = runner.invoke(
        app, ["doctor", "faulty.toml", "--prove", "--out", "cured.toml", "--json"]
    )
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout.splitlines()[-1])["cure"]
    assert found["accepted"]
    assert {"edits", "before", "after", "seeds", "recipe", "spent", "p"} <= set(found)
    text = Path("cured.toml").read_text(encoding="utf-8")
    assert text.startswith("# verified cure: ")
    assert f"# seed {found['seeds'][0]}: " in text
    assert Recipe.load("cured.toml") == Recipe.from_toml(found["recipe"])
    again = runner.invoke(
        app, ["doctor", "faulty.toml", "--prove", "--out", "cured.toml", "--json"]
    )
    assert again.exit_code == 2, "a file is never overwritten"
    assert runner.invoke(app, ["train", "cured.toml", "--quiet", "--out", "run"]).exit_code == 0


def test_progress_is_told_and_grows():
    told: list[tuple[float, str]] = []
    recipe = BLOBS.edit(FAULTS)
    low = finding("lr_too_low", recipe)
    trial.prove(recipe, [low], program(recipe), report=lambda part, what: told.append((part, what)))
    parts = [part for part, _ in told]
    assert parts == sorted(parts)
    assert len(parts) > 10
    assert told[-1] == (1.0, "done")


# --- the bench ------------------------------------------------------------------------------------


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import cure_cases
    import doctor

    yield doctor, cure_cases
    for name in ("cure_cases", "doctor", "rivals", "keras_cases", "human_fixes", "published_data"):
        sys.modules.pop(name, None)


def layer(units, activation):
    return {"type": "dense", "units": units, "activation": activation}


@pytest.fixture
def cases(tmp_path):
    """Two programs in the format of published ones: with a data file and a fix, and without a
    fix."""
    drawn = np.random.default_rng(0)
    x = drawn.normal(size=(200, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    np.savez(tmp_path / "half.npz", x=x[:140], y=y[:140], x_val=x[140:], y_val=y[140:])
    one = {
        "id": "with-a-fix",
        "data": "half plane",
        "data_file": "half.npz",
        "layers": [layer(8, "relu"), layer(1, "sigmoid")],
        "optimizer": {"name": "sgd"},
        "lr": 1e-5,
        "batch_size": 20,
        "epochs": 10,
        "loss": "binary_crossentropy",
        "metric": "accuracy",
        "fault_labels": ["lr_too_low"],
        "is_control": False,
        "fixed": {"lr": 0.3},
    }
    other = {key: value for key, value in one.items() if key != "fixed"} | {"id": "without"}
    (tmp_path / "cases.json").write_text(json.dumps([one, other]), encoding="utf-8")
    return tmp_path / "cases.json"


def run_bench(bench, monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["doctor.py", *map(str, words)])
    bench.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_bench_proves_cases_and_goes_on_where_it_was(
    bench, cases, monkeypatch, capsys, tmp_path
):
    doctor, _ = bench
    words = [
        "--cases",
        cases,
        "--prove",
        "--budget",
        8,
        "--seeds",
        1,
        "--json",
        "--log",
        tmp_path / "log.jsonl",
        "--only",
        "with-",
    ]
    found = run_bench(doctor, monkeypatch, capsys, *words)
    fixed = found["rows"][0]["proof"]
    assert fixed["accepted"]
    assert fixed["recovered"] > 0.7
    assert fixed["spent"] <= 8
    assert fixed["random_spent"] <= 8
    assert {len(values) for values in fixed["by_seed"].values()} == {3}
    assert set(fixed["by_seed"]) == {
        "buggy",
        "best_try",
        "human_fixed",
        "random_search",
        "train_longer",
    }
    assert found["summary"]["judged"] == 1
    assert found["summary"]["accepted_worse"] == []
    monkeypatch.setattr(doctor, "examine_case", lambda *_: pytest.fail("done again"))
    assert run_bench(doctor, monkeypatch, capsys, *words)["rows"] == found["rows"]


@pytest.mark.parametrize(
    ("row", "lower", "recovered", "worse"),
    [
        ({"buggy": 0.5, "best_try": 0.95, "human_fixed": 1.0, "accepted": True}, False, 0.9, False),
        (
            {"buggy": 0.5, "best_try": 0.95, "human_fixed": 1.0, "accepted": False},
            False,
            0.0,
            False,
        ),
        ({"buggy": 0.5, "best_try": 0.4, "human_fixed": 1.0, "accepted": True}, False, -0.2, True),
        ({"buggy": 10.0, "best_try": 1.0, "human_fixed": 0.0, "accepted": True}, True, 0.9, False),
        (
            {"buggy": 0.5, "best_try": 0.9, "human_fixed": 0.505, "accepted": True},
            False,
            None,
            False,
        ),
    ],
)
def test_what_is_recovered(bench, row, lower, recovered, worse):
    _, cure_cases = bench
    row = {"recovered": None, "random_search": 0.7, "train_longer": 0.7, **row}
    found = cure_cases.judged(row, lower)
    assert found["recovered"] == (None if recovered is None else pytest.approx(recovered))
    assert found["worse"] is worse


def test_a_long_plan_is_shortened_with_its_fix_and_says_so(bench, cases):
    doctor, cure_cases = bench
    case = next(iter(doctor.load(cases)))
    shared = SharedData(None, case.arrays)
    assert cure_cases._too_long(case, shared, 20, 15) == 1
    assert cure_cases._too_long(case, shared, 20, 0.02) > 1
    short = cure_cases._shortened(case, 3)
    assert (short.recipe.stop.after, short.fixed.stop.after) == ("4ep", "4ep")
    assert cure_cases._shortened(case, 11) is None, "less than a tenth would be another case"
