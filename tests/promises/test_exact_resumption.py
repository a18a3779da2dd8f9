"""N steps are k steps, an end of the process, a resumption and the rest: to the bit, whatever is trained."""

from __future__ import annotations

import contextlib
import shutil
import warnings

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import ravine
import trials
from ravine import Recipe
from ravine.catalogue import table
from ravine.engine.loop import loop
from ravine.engine.loop.halving import Halving
from ravine.errors import InputError

EXACT = "Resume is exact"
TEXT = "to be or not to be, that is the question: whether tis nobler in the mind to suffer\n" * 12
CONV = [
    {"kind": "conv", "channels": 2, "kernel": 3, "padding": "same"},
    "batch_norm",
    "relu",
    {"kind": "maxpool", "size": 2},
    "flatten",
    {"kind": "dropout", "rate": 0.3},
    {"kind": "dense", "units": 10},
]
NOISY = [
    {"kind": "dense", "units": 5},
    "layer_norm",
    "tanh",
    {"kind": "gaussian_noise"},
    {"kind": "dense", "units": 3},
]
AUGMENTS = ("flip", "shift", "rotate", "zoom", "brightness", "noise", "erase", "mixup", "cutmix")
OF_IMAGES = st.sampled_from([
    {"kind": "mlp", "hidden": [6], "dropout": 0.3},
    {"kind": "maxout_mlp", "hidden": [4]},
    {"kind": "layers", "layers": CONV},
    {"kind": "softmax"},
])  # fmt: skip
OF_TABLES = st.sampled_from([
    {"kind": "mlp", "hidden": [5, 4], "dropout": 0.2},
    {"kind": "layers", "layers": NOISY},
    {"kind": "softmax"},
])  # fmt: skip
OF_TEXTS = st.sampled_from([
    {"kind": "char_lstm", "units": 6, "layers": 1, "dropout": 0.2},
    {"kind": "char_gru", "units": 5, "layers": 2},
])  # fmt: skip
SCHEDULES = st.sampled_from([
    "constant", "cosine", "one_cycle", "warm_restarts", "linear", "exponential", "triangular",
    {"kind": "cosine", "warmup": "20%"},
    {"kind": "on_plateau", "patience": "1ep", "factor": 0.5},
    {"kind": "multistep", "milestones": ["1ep", "2ep"]},
])  # fmt: skip


@st.composite
def programs(draw):
    """Recipes of one program, how they are trained, and the steps after which the process ends."""
    kind = draw(st.sampled_from(["table", "table", "images", "text"]))
    data = {
        "table": {"source": {"kind": "blobs", "samples": 220}, "batch": draw(st.sampled_from([32, 60]))},
        "images": {"source": "digits", "batch": 512, "augment": draw(st.lists(st.sampled_from(AUGMENTS), max_size=2, unique=True))},
        "text": {"source": {"kind": "text", "path": "TEXT", "length": 8}, "batch": 8},
    }[kind]  # fmt: skip
    if kind == "table" and draw(st.booleans()):
        data["grow"] = {"milestones": ["1ep"], "factor": 2.0}
    data["order"] = draw(st.sampled_from(["shuffle", "shuffle", "fixed", "replacement"]))
    model = draw({"table": OF_TABLES, "images": OF_IMAGES, "text": OF_TEXTS}[kind])
    kinds = draw(st.lists(st.sampled_from(sorted(table("optimizer"))), min_size=1, max_size=3))
    accumulate = draw(st.sampled_from([1, 1, 2]))
    epochs = draw(st.lists(st.integers(1, 3), min_size=len(kinds), max_size=len(kinds)))
    average = draw(st.sampled_from([{}, {"ema": 0.8}, {"swa": "1ep"}]))
    trouble = draw(st.sampled_from(["stop", "rollback", "report"]))
    schedule = draw(SCHEDULES)
    best = draw(st.booleans())
    recipes = []
    for member, (optimizer, after) in enumerate(zip(kinds, epochs, strict=True)):
        huge = trouble != "stop" and draw(st.booleans())
        recipes.append({
            "seed": member,
            "data": data,
            "model": model,
            "optimizer": {"kind": optimizer, "lr": 1e30 if huge else 0.01, "accumulate": accumulate},
            "schedule": schedule,
            "average": average,
            "stop": {"after": f"{after}ep", "best": best, "on_trouble": trouble, "rollbacks": 2},
            "clip": {"norm": draw(st.sampled_from([0.0, 1.0]))},
            "regularize": {"weight_noise": draw(st.sampled_from([0.0, 0.01]))},
            "threads": 1,
        })  # fmt: skip
    how = {"width": draw(st.sampled_from([None, 1, 2]))} if len(kinds) > 1 else {}
    if len(kinds) > 1 and draw(st.booleans()):
        how["halving"] = Halving(first="1ep", eta=2)
    ends = draw(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=2))
    return recipes, how, ends


class Ended(Exception):
    """Stands for the process's end."""


def _ending_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Each step is a block, and after so many of them the process ends: some had a snapshot."""
    block, last = loop.TrainingLoop._block, loop.TrainingLoop._block_end
    done = iter(range(1, steps + 1))

    def counted(self, to):
        block(self, to)
        if next(done, 0) == steps:
            raise Ended

    patch.setattr(loop.TrainingLoop, "_block", counted)
    patch.setattr(loop.TrainingLoop, "_block_end", lambda self: min(last(self), self.step + 1))
    patch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)


def check(program, folder) -> bool:
    """Whether the parts go together; then the resumed run is held against the whole one."""
    given_, how, ends = program
    (folder / "text.txt").write_text(TEXT)
    for one in given_:
        source = one["data"]["source"]
        if isinstance(source, dict) and source.get("path"):
            source["path"] = str(folder / "text.txt")
    try:
        recipes = [Recipe(**one) for one in given_]
        ravine.train_many(recipes, out=folder / "whole", quiet=True, **how)
    except InputError:
        return False
    steps = trials.steps(folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        _ending_after(patch, max(1, round(ends[0] * steps)))
        with contextlib.suppress(Ended):
            ravine.train_many(recipes, out=folder / "cut", quiet=True, **how)
    for end in ends[1:]:
        with pytest.MonkeyPatch.context() as patch:
            _ending_after(patch, max(1, round(end * steps)))
            with contextlib.suppress(Ended):
                ravine.resume(folder / "cut", quiet=True)
    ravine.resume(folder / "cut", quiet=True)
    whole, cut = trials.numbers(folder / "whole"), trials.numbers(folder / "cut")
    assert len(whole) == len(cut)
    for member, (left, right) in enumerate(zip(whole, cut, strict=True)):
        for name in left:
            assert left[name] == right[name], f"{name} of member {member}"
    return True


def _tried(tmp_path_factory, examples: int, number: int) -> int:
    tried = []

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(program=programs())
    def every(program):
        folder = tmp_path_factory.mktemp("exact")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tried.append(check(program, folder))
        shutil.rmtree(folder)

    every()
    return sum(tried)


def test_a_few_programs_resume_to_the_bit(tmp_path_factory):
    assert _tried(tmp_path_factory, 4, 0) >= 2


def test_ended_where_all_members_have_ended_and_the_next_have_no_snapshot(tmp_path):
    """The members that wait are not forgotten: they take over the rows again."""
    trials.four(tmp_path / "whole")
    refill = loop.TrainingLoop._refill

    def ended(self, leaving=0):
        if leaving:
            raise Ended
        return refill(self, leaving)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.TrainingLoop, "_refill", ended)
        with pytest.raises(Ended):
            trials.four(tmp_path / "cut")
    trials.four(tmp_path / "cut")
    assert trials.numbers(tmp_path / "cut") == trials.numbers(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 9))
def test_programs_of_every_kind_resume_to_the_bit(tmp_path_factory, counted, part):
    """Drawn programs (tables, images, texts; models, all optimisers, schedules, accumulation, augmentation,
    dropout, noise, averages, growing batch, plateau, roll-back, halving, width), ended after any step, once or
    twice, and resumed: losses, metrics, results, weights and slots are bit-equal to the uninterrupted run's.

    Broken: a snapshot without the average's weights (seen by the quick test of the same file).
    """
    tried = _tried(tmp_path_factory, 40, part)
    counted(EXACT, tried, tried)
