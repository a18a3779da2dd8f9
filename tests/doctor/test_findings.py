"""A finding is declared once: looked for, ranked, remedied and documented from one class."""

from __future__ import annotations

import importlib.util
import math
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import ravine
from ravine import Recipe
from ravine.doctor import table
from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Case
from ravine.doctor.examination import _static, examine, examine_static
from ravine.doctor.experiments import beside_linear, whatif
from ravine.doctor.experiments.experiment import SharedData
from ravine.doctor.experiments.variants import Setting
from ravine.doctor.finding import Finding
from ravine.doctor.findings.fit import AugmentationDestructive, Overfitting, OverRegularised
from ravine.doctor.findings.initial import InitScale
from ravine.doctor.findings.learners import PENALTIES, _ridge
from ravine.doctor.findings.outputs import OutputRange
from ravine.doctor.findings.rates import LrTooHigh
from ravine.doctor.findings.records import TargetIdentifier
from ravine.doctor.judgement import stretched
from ravine.doctor.measure.baseline import Baseline, accuracy
from ravine.doctor.measure.course import Course
from ravine.doctor.measure.curve import Curve
from ravine.doctor.table import codes, declaration, declarations
from ravine.errors import InputError
from ravine.nn.answers import Answers

ROOT = Path(__file__).parents[2]
BLOBS = Recipe(
    model="softmax",
    data={"source": "blobs", "batch": 32},
    optimizer={"kind": "adam", "lr": 0.03},
    stop={"after": "10ep"},
    threads=1,
)


HINDERED = {
    "noise in a layer": {"model.layers.0.std": 4.0},
    "noise in weights": {"regularize.weight_noise": 5.0},
}


@pytest.mark.parametrize("name", HINDERED)
def test_noise_that_drowns_what_is_learned_is_named(name):
    layers = [{"kind": "gaussian_noise", "std": 0.0}, {"kind": "dense", "units": 16}, "relu"]
    layers.append({"kind": "dense", "units": 3})
    whole = BLOBS.edit(
        {"model": {"kind": "layers", "layers": layers}, "data.preprocess": ["standardize"]}
    )
    assert examine(whole).verdict == "healthy"
    found = examine(whole.edit(HINDERED[name]))
    assert found.codes[0] == "over_regularised"
    assert found.findings[0].advised[0]["edits"] == dict.fromkeys(HINDERED[name], 0.0)


def test_mixed_labels_are_examined():
    shapes = {"data": {"source": "digits", "batch": 64, "augment": [{"kind": "mixup"}]}}
    recipe = Recipe(**shapes, model={"kind": "mlp", "hidden": [8]}, threads=1)
    assert "not_shuffled" not in examine(recipe, steps=5).codes


WITHOUT = {"training samples": 0.56, "validation": 0.48}  # skill without augmentation


@pytest.mark.parametrize(
    ("augmented", "named"),
    [
        ({"training samples": 0.11, "validation": 0.10}, True),
        ({"training samples": 0.11, "validation": 0.40}, False),
        ({"training samples": 0.40, "validation": 0.10}, False),
    ],
)
def test_augmentation_is_judged_on_each_part_by_what_is_reached_there(
    augmented, named, monkeypatch
):
    def group(skills):
        parts = dict(zip(("probe", "validation"), skills, strict=True))
        return SimpleNamespace(
            curves=[None],
            objective=lambda member: nullcontext(),
            judge=lambda objective, part: (skills[part],),
            base=SimpleNamespace(skill=float),
            **parts,
        )

    groups = [group(augmented), group(WITHOUT)]
    ran = SimpleNamespace(groups=groups, advance=lambda *_, **__: None)
    monkeypatch.setattr(whatif, "Experiment", lambda *_, **__: ran)
    recipe = BLOBS.edit({"data.augment": ["noise"]})
    course = SimpleNamespace(
        trained=recipe, subject=Case(recipe, "classification", 3, (2,)), plain=True, skill=0.3
    )
    suspect = AugmentationDestructive.finding(
        Evidence("data.augment", "noise", 0.2), course.subject
    )
    extent = whatif.Extent(200, False, 1.0, 1.0, 1.0)
    found = whatif.try_remedy(Setting(course, None), suspect, extent, 0.3, 0.3, 1.0)
    assert found.counts(course) is named


@pytest.fixture
def made_up(monkeypatch):
    """A finding that exists in this test alone: one class, and no other line anywhere."""
    monkeypatch.setattr(Declaration, "registered", dict(Declaration.registered))

    class UnluckySeed(Declaration):
        code = "unlucky_seed"
        rank = 4
        title = "The seed is unlucky."
        cause = "Thirteen brings bad luck."
        leads_to = "Nothing goes well."
        consequences = ("stuck",)
        seen_by = "the seed."
        what_to_do = "Another seed."
        kinds = frozenset({Kind.LEARNING})

        @classmethod
        def before(cls, program):
            if program.recipe.seed == 13:
                yield Evidence("seed", "the seed is 13", 0.95)

        @classmethod
        def during(cls, course):
            if course.loop is not None and course.loop.lr == 0.13:
                yield Evidence("lr", "the lr is 0.13", 0.95)

        @classmethod
        def remedies(cls, case, factor=None):
            yield {"seed": 14}, "the next seed"

    return UnluckySeed


def test_a_made_up_finding_is_detected_ranked_and_remedied(made_up):
    assert examine(BLOBS).verdict == "healthy"
    diagnosis = examine(BLOBS.edit({"seed": 13, "optimizer.lr": 1e-7}))
    assert diagnosis.codes[0] == "unlucky_seed"
    assert diagnosis.codes[1:]
    found = diagnosis.findings[0]
    assert [remedy["edits"] for remedy in found.remedies] == [{"seed": 14}]
    assert found.consequences[0] == "Nothing goes well."
    if "stuck" in diagnosis.codes:
        assert any(text.startswith("stuck: ") for text in found.consequences[1:])


def test_a_made_up_finding_is_documented(made_up):
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    page = build.findings()
    assert "### unlucky_seed\n\n**The seed is unlucky.** Thirteen brings bad luck." in page
    assert page.index("### unlucky_seed") < page.index("### labels_invalid")


def test_a_made_up_finding_is_watched(made_up):
    diagnosis = watched(lambda step: 1.0, lr=0.13)
    assert diagnosis.codes[0] == "unlucky_seed"


def test_every_declaration_says_all_that_it_must():
    assert [kind.rank for kind in declarations()] == sorted({kind.rank for kind in declarations()})
    for kind in declarations():
        for text in (kind.title, kind.cause, kind.leads_to, kind.seen_by, kind.what_to_do):
            assert text.endswith("."), (kind.code, text)
        assert kind.title[0].isupper()
        assert set(kind.consequences) <= set(codes()), kind.code
        if kind.opposite:
            assert declaration(kind.opposite).opposite == kind.code


def test_places_among_generic_remedies_are_taken_once():
    for attribute in ("generic", "sound"):
        places = [getattr(kind, attribute) for kind in declarations() if getattr(kind, attribute)]
        assert sorted(places) == list(range(1, len(places) + 1))


def test_an_unknown_code_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'lr_too_low'"):
        table.declaration("lr_to_low")


def test_no_list_of_codes_outside_the_declarations():
    """Families name their own codes and consequences; elsewhere a code is its class."""
    for file in (ROOT / "src" / "ravine").rglob("*.py"):
        if "findings" in file.parts:
            continue
        text = re.sub(r'""".*?"""', "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        named = [code for code in codes() if f'"{code}"' in text]
        assert not named, f"{file.name} names {named}"


@pytest.mark.parametrize(
    ("losses", "named"),
    [
        # eleven batches of a network that does not move, the last one of 13 samples
        ([3.66, 3.9, 3.43, 3.71, 3.8, 3.5, 3.62, 3.87, 3.55, 3.7, 4.41], False),
        ([2.3, 2.9, 4.1, 7.7, 13.0, 24.0, 41.0, 77.0, 130.0, 240.0, 410.0], True),
        ([2.3, 1.8, 1.5, 6.0, 9.0, 11.0, 12.0, 12.5, 13.0, 13.2, 13.3], True),
    ],
    ids=["noise", "diverging", "thrown off"],
)
def test_a_short_run_whose_batches_differ_has_no_rate_that_is_too_high(losses, named):
    curve = Curve(Recipe(), 11, np.array(losses), base=Baseline(2.3, 0.0, 2.3))
    stretched(curve)
    found = list(LrTooHigh.during(Course(None, [curve])))
    assert bool(found) == named


# --- losses that do not fall ------------------------------------------------------------------------


def watched(loss_at, lr: float = 0.05, steps: int = 300):
    """The diagnosis of a loop whose losses are given, on a network that works."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    eye = ravine.watch(net, optimizer)
    for step in range(steps):
        net(torch.randn(32, 4)).square().mean().backward()
        eye.step(loss_at(step))
        optimizer.step()
        optimizer.zero_grad()
    return eye.diagnose()


@pytest.mark.parametrize(
    "loss_at",
    [
        lambda step: 0.69 + 0.003 * step,  # a generator whose discriminator learns
        lambda step: 5.5 - 0.0005 * step,  # a contrastive loss near log(batch)
        lambda step: 1.0 + 0.1 * ((7919 * step) % 101 / 100 - 0.5),  # a regression of noise
        lambda step: 1.4 + 0.6 * (-1) ** (step // 15),  # an adversarial pair
        lambda step: 1.0,
    ],
    ids=["generator", "contrastive", "noise", "pair", "constant"],
)
def test_a_loss_alone_makes_no_alarm(loss_at):
    assert watched(loss_at).verdict != "sick"


@pytest.mark.parametrize(
    "loss_at",
    [
        lambda step: -0.01 * step,
        lambda step: 300 - 400 * (1 - math.exp(-step / 60)),  # a likelihood of many dimensions
        lambda step: 1.4 - 0.02 * step,  # a spread that shrinks by as much in each step
        lambda step: -2 / (1 + math.exp(-(step - 150) / 20)),  # a similarity that is found late
    ],
    ids=["line", "likelihood", "spread", "similarity"],
)
def test_negative_losses_that_fall_are_healthy(loss_at):
    assert watched(loss_at).verdict == "healthy"


def test_a_loss_that_runs_below_zero_ever_faster_is_named():
    found = watched(lambda step: -2.3 - 1e-3 * step**2)
    assert found.verdict == "sick"
    assert found.codes == ["below_zero"]


@pytest.mark.parametrize(("held", "found"), [(0.59, True), (0.61, False)])
def test_two_standard_errors_over_the_most_frequent_class_are_chance(held, found):
    curve = SimpleNamespace(
        base=SimpleNamespace(accuracy=0.5, skill=lambda loss: 0.0),
        **{"val_metric": [held], "val_loss": [0.7], "val_samples": 100},
        **{"metric": [0.99], "metric_skill": 0.98},
    )
    course = SimpleNamespace(finite=[curve], curves=[curve])
    assert bool(Overfitting._at_chance(course)) is found


def test_accuracy_is_the_share_of_right_answers_of_those_that_count():
    output = torch.eye(3)[torch.tensor([0, 0, 2, 1, 1])]
    answers = Answers("classes", "softmax")
    assert accuracy(output, torch.tensor([0, 1, 1, 1, -1]), "classification", answers) == 0.5


def test_a_softmax_reaches_targets_that_sum_to_one():
    shares = torch.softmax(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), -1)
    assert not list(OutputRange._sums(shares))
    assert list(OutputRange._sums(2 * shares))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OutputRange, "LOST", 0.0)
        assert not list(OutputRange._sums(torch.eye(3).repeat(9, 1))), "nothing is lost"


@pytest.mark.parametrize("shape", [(30, 4), (4, 30)])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_ridge_regression_solves_its_normal_equations(shape, penalty):
    """Whichever system is the smaller: of the features or of the samples."""
    draw = torch.Generator().manual_seed(0)
    x, t = (torch.randn(*size, generator=draw).double() for size in (shape, (shape[0], 2)))
    weights = _ridge(x, t, penalty)
    scale = penalty * float((x @ x.T).diagonal().mean())
    assert torch.allclose(x.T @ (t - x @ weights), scale * weights, atol=1e-9)


def test_many_samples_of_few_features_are_a_small_system(monkeypatch):
    solved = []
    solve = torch.linalg.solve
    monkeypatch.setattr(torch.linalg, "solve", lambda a, b: solved.append(a.shape) or solve(a, b))
    _ridge(torch.randn(500, 3).double(), torch.randn(500, 1).double(), 1.0)
    assert solved == [(3, 3)]


def test_an_untrained_network_of_usual_scale_has_no_finding_about_its_weights():
    program, _, _ = _static(BLOBS.edit({"model": {"kind": "mlp", "hidden": [16]}}), SharedData())
    assert program.weighted[-1].input_std > 0
    assert not list(InitScale.before(program))


def test_a_small_training_part_is_looked_at_whole():
    x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    data = {"source": "arrays", "batch": 64, "last_batch": "drop", "validation": 0.0, "test": 0.0}
    recipe = BLOBS.edit({"data": data})
    program, _, _ = _static(recipe, SharedData(None, (x, (x[:, 0] > 0).astype(int))))
    assert len(program.probe.x) == 64


@pytest.mark.parametrize(("side", "samples"), [(22, 256), (23, 64)])
def test_fewer_large_samples_are_run_before_training(side, samples):
    x = np.random.default_rng(0).normal(size=(300, 1, side, side)).astype("float32")
    recipe = BLOBS.edit({"data": {"source": "arrays", "validation": 0.0, "test": 0.0}})
    program, _, _ = _static(recipe, SharedData(None, (x, (x[:, 0, 0, 0] > 0).astype(int))))
    assert len(program.seen.outputs) == samples


def test_several_targets_of_a_sample_are_no_row_numbers():
    program = SimpleNamespace(targets=torch.arange(200.0).view(100, 2), task="regression")
    assert not list(TargetIdentifier.given_course(program, None))


def test_a_weaker_penalty_is_none():
    case = examine_static(BLOBS.edit({"optimizer.weight_decay": 0.5}), SharedData())[0]
    (edits, _), *_ = OverRegularised.remedies(case)
    assert edits["optimizer.weight_decay"] == 0


def test_a_lower_rate_does_not_stand_for_the_whole_plan():
    """Of multiples of the rate that reach 0.9, 0.3 and 0.2, the lower one is no longer plan."""
    skills = {0.1: 0.9, 1.4: 0.3, 10.0: 0.2}
    course = SimpleNamespace(skill_at=lambda share: 0.25, steps=100)
    setting = SimpleNamespace(
        course=course,
        at_rate=lambda factor: factor,
        curves=lambda rates, steps, seconds: [SimpleNamespace(skill=skills[f]) for f in rates],
    )
    extent = whatif.Extent(100, few=False, ahead=1.0, rate_seconds=1.0, suspect_seconds=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whatif, "factors", lambda course, few: list(skills))
        rates = whatif._Rates.tried(setting, extent)
    assert (rates.projected, rates.stands_for_plan) == (0.3, 1.4)


def test_a_curve_is_measured_at_every_sixteenth_of_its_steps():
    curve = Curve(Recipe(), 160, np.arange(160.0), base=Baseline(2.3, 0.0, 2.3))
    stretched(curve)
    assert curve.at == [0, *range(10, 161, 10)]
    assert curve.loss[-1] == 154.5, "the mean of the last ten"


def test_a_full_batch_is_taken_to_have_256_samples():
    work = {"shared": None, "work": 1e6}
    full, equal, larger = (
        Setting(SimpleNamespace(trained=Recipe(data={"batch": size}), steps=10), **work).expected()
        for size in ("full", 256, 257)
    )
    assert full == equal < larger


def test_beside_a_linear_model_four_remedies_that_help_are_trained():
    setting = SimpleNamespace(
        edited=lambda edits: edits,
        shared=SimpleNamespace(steps=lambda recipe: 1),
        expected=lambda steps: 1e-9,
        seconds=1.0,
        curves=lambda *_, **__: [SimpleNamespace(val_metric=[0.1])],
    )
    linear = {"edits": "linear", "why": "", "tried": "it reaches 0.1"}
    others = [{"edits": place, "why": ""} for place in range(8)]
    behind = Finding("behind_linear", "run", "so it is", (*others, linear))
    found = beside_linear._tried(setting, behind, 0.0, 0.1)
    assert [remedy["edits"] for remedy in found.remedies] == [0, 1, 2, 3, "linear"]
    assert found.evidence == "so it is"
