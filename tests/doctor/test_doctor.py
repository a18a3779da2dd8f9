"""The doctor: planted faults are found, healthy twins raise no alarm, and looking changes no
number."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ravine
from ravine import Recipe
from ravine.app.cli import app
from ravine.doctor.declaration import Evidence
from ravine.doctor.edits import Case
from ravine.doctor.examination import examine, examine_static
from ravine.doctor.experiments.experiment import SharedData
from ravine.doctor.finding import Finding
from ravine.doctor.findings.fit import Overfitting
from ravine.doctor.judgement import judge, stretched
from ravine.doctor.measure.baseline import Baseline
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.curve import Curve
from ravine.doctor.table import as_tables, codes, declaration, ranked, remedies, symptoms
from ravine.engine.execution import pilot
from ravine.training.outcome import print_findings
from ravine.training.progress_bar import _metrics

BENCH = Path(__file__).parents[2] / "bench"
HEALTHY = Recipe(
    data={
        "source": "digits",
        "preprocess": [{"kind": "standardize", "per": "channel"}],
        "batch": 64,
    },
    model={
        "layers": [
            "flatten",
            {"kind": "dense", "units": 32},
            "relu",
            {"kind": "dense", "units": 10},
        ]
    },
    optimizer={"kind": "adam", "lr": 3e-3},
    stop={"after": "20ep"},
    threads=1,
)
LAYERS = HEALTHY.to_dict()["model"]["layers"]
FAULTS = {
    "lr_too_high": {"optimizer.lr": 30.0},
    "lr_too_low": {"optimizer.lr": 1e-7},
    "symmetric_init": {"model.init": {"weights": "zeros"}},
    "inputs_unscaled": {
        "data.preprocess": [{"kind": "rescale", "low": 0.0, "high": 1e5}],
        "optimizer": {"kind": "sgd", "lr": 0.01},
    },
    "loss_output_mismatch": {"model.layers": [*LAYERS, "softmax"]},
    "no_hidden_nonlinearity": {
        "model.layers": [layer for layer in LAYERS if layer["kind"] != "relu"]
    },
    "over_regularised": {"loss": {"kind": "cross_entropy", "l2": 1.0}},
}


def finding(code: str, where: str, text: str, remedies=(), strength: float = 1.0) -> Finding:
    return declaration(code).finding(Evidence(where, text, strength, remedies=remedies), None)


def test_a_healthy_recipe_raises_no_alarm():
    diagnosis = examine(HEALTHY)
    assert diagnosis.verdict == "healthy", diagnosis.codes
    assert not diagnosis.findings


def test_a_bag_of_words_is_linear_by_design(tmp_path):
    """Its vectors are a table, no layer of their own."""
    for label, words in (("sea", "the wave"), ("land", "the tree")):
        (tmp_path / label).mkdir()
        for i in range(40):
            (tmp_path / label / f"{i}.txt").write_text(f"{words} {i}")
    source = {"kind": "texts", "path": str(tmp_path)}
    recipe = Recipe(data={"source": source}, model={"kind": "word_bag", "units": 32})
    _, findings, _ = examine_static(recipe, SharedData())
    assert "no_hidden_nonlinearity" not in [found.code for found in findings]


def test_steps_are_counted_before_the_rate_is_blamed():
    """Adam's default rate, in 46 steps: a higher one gets further, a longer plan further still."""
    recipe = HEALTHY.edit({"optimizer.lr": 1e-3, "stop.after": "2ep"})
    diagnosis = examine(recipe)
    assert "lr_too_low" not in diagnosis.codes, diagnosis.codes
    assert diagnosis.verdict != "sick" or diagnosis.codes[0] in (
        "too_few_epochs",
        "batch_too_large",
    )
    low = examine(recipe.edit({"optimizer.lr": 1e-6}))
    assert low.codes[0] == "lr_too_low"


def test_a_remedy_is_advised_only_if_it_was_tried_and_helps_or_is_certain():
    diagnosis = examine(HEALTHY.edit({"optimizer.lr": 30.0}))
    advised = [remedy for finding in diagnosis.findings for remedy in finding.advised]
    assert advised
    assert all("%" in remedy["tried"] for remedy in advised if "certain" not in remedy)
    untried = [r for f in diagnosis.findings for r in f.remedies if r not in advised]
    assert untried, "of three symptoms some remedies do not help"
    softmax = examine(HEALTHY.edit(FAULTS["loss_output_mismatch"]))
    assert softmax.findings[0].advised[0]["edits"]["loss"]["kind"] == "cross_entropy"


def test_a_tanh_before_the_softmax_is_named_as_the_cap_on_probabilities():
    """By hand: scores of 1 and -1 give e / (e + 2/e) of three classes; a plain softmax gives 1."""
    loss = {"kind": "cross_entropy", "input": "probabilities"}
    capped = examine(HEALTHY.edit({"model.layers": [*LAYERS, "tanh", "softmax"], "loss": loss}))
    found = next(f for f in capped.findings if f.code == "loss_output_mismatch")
    k = LAYERS[-1]["units"]
    most = math.e / (math.e + (k - 1) / math.e)
    assert f"no probability can exceed {most:.2f}" in found.evidence
    layers = found.remedies[0]["edits"]["model.layers"]
    assert layers[-1]["kind"] == "dense"
    plain = examine(HEALTHY.edit({"model.layers": [*LAYERS, "softmax"], "loss": loss}))
    assert "loss_output_mismatch" not in plain.codes


@pytest.mark.parametrize("code", FAULTS)
def test_a_planted_fault_is_named_among_the_first(code):
    diagnosis = examine(HEALTHY.edit(FAULTS[code]))
    named = (
        diagnosis.codes[:3]
        if code != "no_hidden_nonlinearity"
        else diagnosis.codes + [n.code for n in diagnosis.notes]
    )
    assert code in named, (diagnosis.verdict, diagnosis.codes)
    for found in diagnosis.findings:
        assert found.code in codes()
        assert any(character.isdigit() for character in found.evidence)


def test_training_is_equal_to_the_bit_with_and_without(tmp_path):
    with_it = ravine.train(HEALTHY, epochs=3, out=tmp_path / "with", quiet=True)
    without = ravine.train(HEALTHY, epochs=3, out=tmp_path / "without", quiet=True, doctor=False)
    assert torch.equal(with_it.slots["theta"], without.slots["theta"])
    assert not without.events_of("finding")
    assert not with_it.events_of("doctor")


def test_a_finished_run_is_judged(tmp_path):
    good = ravine.train(HEALTHY, out=tmp_path / "good", quiet=True)
    assert judge(good.directory).verdict == "healthy"
    bad = ravine.train(HEALTHY, lr=30.0, epochs=3, out=tmp_path / "bad", quiet=True)
    diagnosis = judge(bad.directory)
    assert diagnosis.verdict == "sick"
    assert diagnosis.codes[0] == "lr_too_high"
    assert bad.events_of("finding")[0]["data"]["code"] == "lr_too_high"


def test_the_surer_of_two_opposites_stands():
    found = ranked(
        [
            finding("lr_too_low", "optimizer.lr", "1", strength=0.4),
            finding("lr_too_high", "optimizer.lr", "2", strength=0.6),
        ]
    )
    assert [finding.code for finding in found] == ["lr_too_high"]


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(HEALTHY.edit({"optimizer.lr": 30.0}).to_toml())
    result = CliRunner().invoke(app, ["doctor", "recipe.toml", "--json"])
    assert result.exit_code == 0
    said = json.loads(result.stdout.strip().splitlines()[-1])
    assert said["verdict"] == "sick"
    assert {"code", "where", "evidence", "cause", "consequences", "remedies"} <= set(
        said["findings"][0]
    )


@pytest.mark.parametrize("changes", [["--set", "optimizer.lr=1"], ["--seed", "3"]])
def test_a_run_cannot_be_changed(tmp_path, changes):
    run = ravine.train(HEALTHY, epochs=1, out=tmp_path / "run", quiet=True)
    result = CliRunner().invoke(app, ["doctor", str(run.directory), *changes])
    assert result.exit_code == 2
    assert f"{changes[0]}: got" in result.stderr


def test_a_run_that_went_back_and_learned_is_not_called_constant(tmp_path):
    x = _rows()
    recipe = Recipe(
        data={"source": "arrays", "batch": 32},
        model={"kind": "mlp", "hidden": [16]},
        threads=1,
        optimizer={"kind": "sgd", "lr": 20.0},
        stop={"after": "10ep", "on_trouble": "rollback"},
    )
    run = ravine.train(recipe, data=(x, x[:, :1] + x[:, 1:2]), out=tmp_path / "run", quiet=True)
    assert run.events_of("rollback")
    assert run.result["val_loss"] < 0.2
    diagnosis = judge(run.directory, arrays=(x, x[:, :1] + x[:, 1:2]))
    assert diagnosis.codes[0] == "lr_too_high"
    assert diagnosis.why == "the loss or its gradient was not a number"


# --- any module, any task -------------------------------------------------------------------------


class Perceptron(nn.Module):
    """A person's own module, not a list of layers."""

    def __init__(self, inputs: int, outputs: int, head: nn.Module | None = None, tokens: int = 0):
        super().__init__()
        self.embed = nn.Embedding(tokens, inputs) if tokens else None
        self.first, self.last = nn.Linear(inputs, 32), nn.Linear(32, outputs)
        self.head = head or nn.Identity()

    def forward(self, x):
        x = self.embed(x) if self.embed else x
        return self.head(self.last(torch.relu(self.first(x))))


class Characters(nn.Module):
    """A recurrent network over characters."""

    def __init__(self, head: nn.Module | None = None):
        super().__init__()
        self.embed, self.rnn, self.last = (
            nn.Embedding(6, 8),
            nn.GRU(8, 24, batch_first=True),
            nn.Linear(24, 6),
        )
        self.head = head or nn.Identity()

    def forward(self, x):
        return self.head(self.last(self.rnn(self.embed(x))[0]))


def _rows(n: int = 600) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)


def _classes():
    x = _rows()
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 0.5)


def _values():
    x = _rows()
    return x, (x[:, :1] * x[:, 1:2] + np.sin(x[:, 2:3])).astype(np.float32)


def _labels():
    x = _rows()
    return x, np.stack([x[:, 0] > 0, x[:, 1] + x[:, 2] > 0, x[:, 3] * x[:, 4] > 0], 1).astype(
        np.int64
    )


def _sequences():
    steps = (
        np.random.default_rng(0).choice([1, 1, 1, 2], size=(160, 9)).cumsum(1) % 6
    )  # mostly the next letter
    return steps[:, :-1], steps[:, 1:]


def _by_letter() -> Perceptron:
    return Perceptron(8, 6, tokens=6)


OWN = {  # task -> arrays, a healthy module, a sick one, edits of the sick recipe, the code
    "classification": (
        _classes,
        lambda: Perceptron(6, 3),
        lambda: Perceptron(6, 3, nn.Softmax(-1)),
        {},
        "loss_output_mismatch",
    ),
    "regression": (
        _values,
        lambda: Perceptron(6, 1),
        lambda: Perceptron(6, 1, nn.Sigmoid()),
        {},
        "output_range",
    ),
    "regression, a rate": (
        _values,
        lambda: Perceptron(6, 1),
        lambda: Perceptron(6, 1),
        {"optimizer.lr": 30.0},
        "lr_too_high",
    ),
    "multilabel": (
        _labels,
        lambda: Perceptron(6, 3),
        lambda: Perceptron(6, 3, nn.Softmax(-1)),
        {},
        "loss_output_mismatch",
    ),
    "multilabel, units": (
        _labels,
        lambda: Perceptron(6, 3),
        lambda: Perceptron(6, 2),
        {},
        "wrong_output_units",
    ),
    "sequence": (
        _sequences,
        Characters,
        lambda: Characters(nn.Softmax(-1)),
        {},
        "loss_output_mismatch",
    ),
    "sequence, a rate": (_sequences, _by_letter, _by_letter, {"optimizer.lr": 1e-7}, "lr_too_low"),
}


@pytest.mark.parametrize("name", OWN)
def test_any_module_and_any_task(name):
    arrays, healthy, sick, edits, code = OWN[name]
    data = {"source": "arrays", "batch": 32}
    recipe = Recipe(
        data=data, optimizer={"kind": "adam", "lr": 1e-2}, stop={"after": "20ep"}, threads=1
    )
    twin = examine(recipe, module=healthy, arrays=arrays())
    assert twin.verdict == "healthy", (twin.codes, twin.why)
    found = examine(recipe.edit(edits), module=sick, arrays=arrays())
    assert found.verdict == "sick"
    assert code in found.codes[:2], found.codes


# --- the planted faults ---------------------------------------------------------------------------


def _planted():
    spec = importlib.util.spec_from_file_location("planted", BENCH / "planted.py")
    sys.path.insert(0, str(BENCH))
    try:
        module = importlib.util.module_from_spec(spec)
        sys.modules["planted"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCH))
    return module


planted = _planted()


def without_files(monkeypatch):
    """Digits in the place of MNIST, so that no file is needed."""
    monkeypatch.setattr(planted, "mnist", planted.digits)
    for tasks in ("CLASSES", "ANY"):
        monkeypatch.setitem(getattr(planted, tasks), "mnist", planted.digits)


@pytest.mark.parametrize("task", ["digits", pytest.param("mnist", marks=pytest.mark.data("mnist"))])
def test_every_code_is_planted_on_three_tasks(task, monkeypatch):
    if task == "digits":
        without_files(monkeypatch)
    assert {*planted.PLANTS, *planted.IN_OWN_CODE} == set(codes())
    for code, make in planted.PLANTS.items():
        assert len({task for task, _, _ in make()}) >= 3, code


@pytest.mark.parametrize("code", planted.PLANTS)
def test_every_code_can_be_found(code, monkeypatch):
    without_files(monkeypatch)
    programs = {
        task: sick for task, sick, _ in planted.PLANTS[code]() if task in ("digits", "table")
    }
    sick = programs.get("table") or programs["digits"]
    if code in ("vanishing_gradient", "stuck"):  # followed to the plan's end, beside many variants
        sick = sick.edit({"stop.after": "7ep"})
    found = planted.diagnose(sick, seed=0)
    assert found.verdict == "sick", found.why
    assert code in found.codes, found.codes


def test_a_step_that_fails_is_examined_on_a_machine_that_was_not_measured(monkeypatch):
    """As in an empty home: what measures the machine first meets the fault first."""
    monkeypatch.setattr(pilot.profile, "missing", lambda *sections: list(sections))
    monkeypatch.setattr(pilot.timing, "worth_it", lambda *_: True)
    arrays, _, sick, edits, code = OWN["multilabel, units"]
    recipe = Recipe(
        data={"source": "arrays", "batch": 32}, optimizer="adam", stop={"after": "20ep"}
    )
    assert code in examine(recipe.edit(edits), module=sick, arrays=arrays()).codes


def test_a_plan_of_few_steps_is_not_called_stuck(tmp_path):
    short = ravine.train(HEALTHY, lr=1e-4, epochs=1, batch=512, out=tmp_path / "short", quiet=True)
    diagnosis = judge(short.directory)
    assert "stuck" not in diagnosis.codes
    assert diagnosis.verdict == "uncertain" or diagnosis.codes == ["too_few_epochs"]
    found = examine(HEALTHY.edit({"stop.after": "1ep", "data.batch": 256, "optimizer.lr": 1e-3}))
    assert "too_few_epochs" in found.codes


# --- how findings are ranked and told -------------------------------------------------------------

LOWER = {"edits": {"optimizer.lr": 0.01}, "why": "a lower rate", "tried": "9 steps reach 50 %"}
HIGHER = {"edits": {"optimizer.lr": 10.0}, "why": "a higher rate", "tried": "9 steps reach 9 %"}
CLIP = {"edits": {"clip.norm": 1.0}, "why": "clip", "tried": "9 steps reach 8 %"}
UNTRIED = {"edits": {"clip.norm": 2.0}, "why": "clip less"}


@pytest.mark.parametrize("cause", ["targets_unscaled", "lr_too_high", "init_scale"])
def test_a_sure_sign_stands_under_its_cause(cause):
    signs = [
        finding("exploding_gradient", "gradient", "1", strength=0.9),
        finding("non_finite", "loss", "2", strength=0.9),
    ]
    order = [
        finding.code for finding in ranked([*signs, finding(cause, "there", "3", strength=0.7)])
    ]
    assert order.index(cause) < order.index("exploding_gradient")
    suspected = ranked([*signs, finding(cause, "there", "3", strength=0.4)])
    assert [finding.code for finding in suspected][-1] == cause


def test_no_remedy_contradicts_the_finding_about_the_rate():
    told_of = as_tables(
        [
            finding("lr_too_high", "lr", "1", (LOWER,), strength=0.95),
            finding("exploding_gradient", "gradient", "2", (UNTRIED, CLIP, LOWER)),
            finding("stuck", "loss", "3", (HIGHER,), strength=0.5),
        ]
    )
    assert [list(finding["remedies"]) for finding in told_of] == [[LOWER], [CLIP], []]


def test_a_consequence_is_told_as_one(capsys):
    found = ranked(
        [
            finding("lr_too_high", "lr", "the lr is 5", (LOWER,), strength=0.95),
            finding("stuck", "loss", "the loss is 3", strength=0.5),
        ]
    )
    print_findings(as_tables(found))
    said = " ".join(capsys.readouterr().err.split())
    assert "It follows from lr_too_high: repair that first." in said
    assert said.count("the loss is 3") == 1
    assert "--set optimizer.lr=0.01" in said


def test_remedies_do_not_repeat_themselves():
    case = Case(HEALTHY, "classification", 10, (1, 8, 8))
    for code in codes():
        edited = [HEALTHY.edit(remedy["edits"]).hash for remedy in remedies(code, case)]
        assert len(edited) == len(set(edited)), code


def _price(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    x = _rows(n)
    return x, (2e5 + 8e4 * x[:, :1] + 2e4 * x[:, 1:2]).astype(np.float32)


def test_prices_as_they_are_are_the_cause_and_shown_so(tmp_path):
    recipe = Recipe(
        data={"source": "arrays", "batch": 32},
        model={"kind": "mlp", "hidden": [32, 32]},
        threads=1,
        optimizer={"kind": "adam", "lr": 1e-3},
        stop={"after": "20ep"},
    )
    found = examine(recipe, arrays=_price())
    assert found.codes[0] == "targets_unscaled"
    assert "first remedy" in found.findings[0].evidence
    assert "{" not in found.findings[0].evidence
    texts = {finding.code: finding.evidence for finding in found.findings}
    assert "times the last one's" not in texts.get("exploding_gradient", "")
    run = ravine.train(recipe, data=_price(), out=tmp_path / "run", quiet=True)
    assert judge(run.directory, arrays=_price()).codes[0] == "targets_unscaled"


@pytest.mark.parametrize(
    ("column", "suspected"),
    [
        (lambda n: np.full(n, 1e-4) * np.arange(n) / n, True),
        (lambda n: (np.arange(n) == 7) * 0.5, False),  # nearly always 0: sparse, not small
        (lambda n: np.linspace(-0.5, 0.5, n), False),
        (lambda n: np.zeros(n), False),
    ],
    ids=["tiny", "sparse", "usual", "constant"],
)
def test_one_tiny_feature_is_suspected(column, suspected):
    x, y = _classes()
    x = (0.5 * x / np.abs(x).max()).astype(np.float32)
    x[:, 3] = column(len(x))
    recipe = HEALTHY.edit({"data": {"source": "arrays", "batch": 32}, "model": "mlp"})
    _, found, _ = examine_static(recipe, SharedData(None, (x, y)))
    evidence = [f.evidence for f in found if f.code == "inputs_unscaled"]
    assert ["input feature 3 has a root mean square" in text for text in evidence] == (
        [True] if suspected else []
    )


# --- courses as they may go -----------------------------------------------------------------------


def _course(losses, measured, val_loss=()) -> Course:
    curve = Curve(
        HEALTHY,
        len(losses),
        np.asarray(losses, float),
        np.ones(len(losses)),
        list(range(0, len(losses) + 1, len(losses) // 8)),
        list(measured),
        val_loss=list(val_loss),
        base=Baseline(1.0, 0.3, 1.0),
    )
    return Course(Case(HEALTHY, "classification", 10, (1, 8, 8)), [curve])


def test_the_noise_of_batches_is_no_oscillation():
    noisy = 1.2 + 0.5 * (np.arange(200) // 10 % 2)
    falling, jumping = np.linspace(1.4, 1.2, 9), 1.2 + 0.2 * (np.arange(9) % 2)
    assert "oscillating" not in [finding.code for finding in symptoms(_course(noisy, falling))]
    assert "oscillating" in [finding.code for finding in symptoms(_course(noisy, jumping))]


def test_stuck_where_it_began_says_so():
    found = {f.code: f.evidence for f in symptoms(_course(np.full(200, 7.0), np.full(9, 7.0)))}
    assert found["stuck"] == "the loss began at 7 and is 7 after 200 steps"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (slice(40, 200), "from step 40 on"),
        (slice(40, 50), "at 10 of 200 steps, the first of them 40"),
    ],
)
def test_when_the_loss_was_not_a_number(bad, said):
    losses = np.full(200, 2.0)
    losses[bad] = np.nan
    course = _course(losses, np.full(9, 2.0))
    course.curves[0].norms[:] = np.inf  # of runs only means over epochs are known
    found = {f.code: f.evidence for f in symptoms(course)}
    assert found["non_finite"] == f"the loss or its gradient is not a number {said}"
    assert "exploding_gradient" not in found


@pytest.mark.parametrize(("loss", "shown"), [(0.25, "loss 0.250"), (1.4e37, "loss 1.4e+37")])
def test_the_bar_keeps_its_width_when_the_loss_explodes(loss, shown):
    assert _metrics(SimpleNamespace(metrics={"train_loss": loss}))["loss"] == shown


@pytest.mark.parametrize(
    ("val_loss", "alarm"),
    [
        ([1.0, 0.95, 1.0, 1.02, 1.04], True),  # by heart, and worse than the constant predictor
        ([1.0, 0.6, 0.5, 0.6, 0.7], True),
        ([1.0, 0.6, 0.5, 0.55, 0.6], False),  # a small turn, far above it
        ([1.0, 1.01, 1.0, 1.01, 1.02], False),  # never better
    ],
)
def test_validation_that_turns(val_loss, alarm):
    learned = np.linspace(1.0, 0.01, 200)
    course = _course(learned, [*learned[::25].tolist(), 0.01], val_loss)
    assert bool(list(Overfitting.while_learning(course))) == alarm


@pytest.mark.parametrize("steps", [1, 2, 7, 12, 19, 40])
def test_a_run_of_few_steps_is_measured_everywhere(steps):
    """Without a gap that would count as a loss far above the constant predictor's."""
    curve = Curve(Recipe(), steps, np.linspace(1.0, 0.5, steps))
    stretched(curve)
    assert np.isfinite(curve.loss).all()
    assert curve.loss == sorted(curve.loss, reverse=True)
    assert curve.at[-1] == steps
