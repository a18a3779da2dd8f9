"""The pilot: rules where precision and threads are given, timing where they are not, and what is
remembered."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

import ravine
from ravine import Recipe
from ravine.data.pipeline import Pipeline
from ravine.engine.execution import device, pilot, profile, timing
from ravine.engine.execution.execution import Execution
from ravine.engine.programs import populate

CONV = [
    {"kind": "conv", "channels": 2, "kernel": 3},
    {"kind": "batch_norm"},
    "relu",
    "flatten",
    {"kind": "dense", "units": 10},
]
LSTM = [
    {"kind": "reshape", "to": [8, 8]},
    {"kind": "lstm", "units": 64},
    {"kind": "dense", "units": 10},
]
RECURRENT = {
    "precision": "float32",
    "threads": 2,
    "model": {"layers": LSTM},
    "data": {"source": "digits", "batch": 128},
}
DROPPED = {"layers": [*LSTM[:2], {"kind": "dropout", "rate": 0.5}, LSTM[2]]}


def profile_of(dense=1.0, conv=1.0, recurrent=1.0, parts=1.2, threads=1.5, last=1.0):
    """A machine on which bfloat16 and the other choices are so many times as fast; dense layers in
    bfloat16 from 256 units on."""
    layers = {
        str(n): {"float32": dense if n >= 256 else 0.5, "bfloat16": 1.0} for n in profile.UNITS
    }
    gains = {
        str(n): {"one thread": threads if n >= 128 else 0.9, "all threads": 1.0}
        for n in profile.UNITS
    }
    shape = {
        f"{precision} {layout} {step}": speed * (last if layout == "channels_last" else 1.0)
        for precision, speed in (("float32", conv), ("bfloat16", 1.0))
        for layout in ("channels_last", "contiguous")
        for step in ("forward", "backward data", "backward weights")
    }
    lstm = {"float32": recurrent, "bfloat16": 1.0}
    divided = {f"{name} together": parts for name in lstm}
    divided |= {f"{name} in parts": 1.0 for name in lstm}
    sections = {
        "dense": layers,
        "threads": gains,
        "convolution": dict.fromkeys(profile._CONVOLUTIONS, shape),
        "recurrent": {str(n): lstm for n in profile._RECURRENT},
        "parts": {str(n): divided for n in profile._RECURRENT},
    }
    if parts is None:
        del sections["parts"]
    return profile.Profile(sections)


@pytest.mark.parametrize(
    ("dense", "lowered"), [(2.0, "dense layers from 65,536"), (1.0, "dense layers of no size")]
)
def test_the_profile_shows_every_measurement(dense, lowered):
    held = profile_of(dense)
    said = held.lines()
    assert lowered in said[0]
    for section, measured in held.sections.items():
        assert any(line.startswith(section) for line in said)
        for name in measured:
            assert any(line.startswith(f"  {name}") for line in said)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """The machine's profile, which no test measures by itself."""

    def use(found):
        monkeypatch.setattr(pilot, "_profile", lambda work: found)
        monkeypatch.setattr(pilot, "_unmeasured", lambda *_: False)

    use(profile_of())
    monkeypatch.setattr(pilot, "has_bfloat16", lambda device: True)
    return use


def prepared(members: int = 1, **fields):
    said = {"model": {"layers": CONV}, "stop": {"after": "5000it"}, **fields}
    many = [Recipe(seed=i, **said) for i in range(members)]
    dtype = torch.float64 if many[0].precision == "float64" else torch.float32
    pipeline = Pipeline(many[0].data, dtype=dtype)
    rows = populate(many, pipeline, None, device=torch.device("cpu"), dtype=dtype)
    return rows, pilot.prepare(rows, many[0], pipeline)


def execution_of(run):
    data = next(event["data"] for event in run.events if event["kind"] == "execution")
    return Execution.from_dict(data)


def refuse(*args, **kwargs):
    raise AssertionError("nothing is to be timed")


@pytest.mark.parametrize(
    ("members", "fields", "expected"),
    [
        (
            1,
            {"precision": "float32", "threads": 1},
            {"way": "one by one", "memory_format": "channels_last"},
        ),
        (
            4,
            {"precision": "float32", "threads": 2},
            {"way": "members on threads", "threads": 2},
        ),
        (
            1,
            {"precision": "float64", "threads": 1},
            {"precision": "float64", "memory_format": "contiguous"},
        ),
        (
            1,
            {"precision": "bfloat16", "threads": 1},
            {"precision": "bfloat16", "memory_format": "channels_last"},
        ),
        (
            3,
            {"precision": "float32", "threads": 1, "model": {"kind": "mlp", "activation": "tanh"}},
            {"way": "dense", "memory_format": "contiguous"},
        ),
        (
            3,
            {"precision": "float32", "threads": 1, "model": {"kind": "mlp", "norm": "batch"}},
            {"way": "mapped"},
        ),
        (1, {"stop": {"after": "20it"}}, {"way": "one by one"}),
        (1, RECURRENT, {"way": "parts on threads", "threads": 2, "step_threads": 1}),
        (2, RECURRENT, {"way": "members on threads", "threads": 2, "step_threads": 2}),
        (1, RECURRENT | {"threads": 1}, {"way": "one by one"}),
        (1, RECURRENT | {"data": {"source": "digits", "batch": 127}}, {"way": "one by one"}),
        (1, RECURRENT | {"model": DROPPED}, {"way": "one by one"}),
        (1, RECURRENT | {"regularize": {"hard_negatives": 0.5}}, {"way": "one by one"}),
    ],
)
def test_given_precision_and_threads_or_a_short_run_the_rules_decide(
    members, fields, expected, monkeypatch
):
    monkeypatch.setattr(timing, "fastest", refuse)
    _, execution = prepared(members, **fields)
    assert {name: getattr(execution, name) for name in expected} == expected
    assert execution == prepared(members, **fields)[1]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_choice_is_timed_once_and_then_remembered(monkeypatch, two_threads):
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (0.5, 0.5, 0.5))
    rows, first = prepared(precision="float32")
    assert any("timed here: float32 x2" in why for why in first.why)
    fresh, _ = prepared(precision="float32", threads=1)
    for name, stacked in rows.buffers.items():
        assert torch.equal(stacked, fresh.buffers[name]), f"timing has changed {name}"
    assert torch.equal(rows.theta, fresh.theta)
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(timing, "fastest", refuse)
    assert prepared(precision="float32")[1] == first


def test_parts_of_a_batch_are_timed_against_the_whole(monkeypatch, two_threads):
    given = {name: value for name, value in RECURRENT.items() if name != "threads"}
    _, execution = prepared(**given)
    told = next(why for why in execution.why if "timed here" in why)
    for way in ("x2 in parts", "x2 ", "x1 "):
        assert f"float32 {way}" in told


def test_a_run_in_parts_that_is_extended_goes_on_in_parts(tmp_path, two_threads):
    recipe = Recipe(**RECURRENT, stop={"after": "3ep"})
    whole = ravine.train(recipe, out=tmp_path / "whole", quiet=True, doctor=False)
    first = ravine.train(
        recipe.edit({"stop.after": "2ep"}), out=tmp_path / "first", quiet=True, doctor=False
    )
    assert "parts of the batch on 2 threads" in execution_of(first).sentence()
    (extended,) = ravine.resume(tmp_path / "first", after="3ep", quiet=True)
    assert execution_of(extended).way == "parts on threads"
    for name, value in whole.model.state_dict().items():
        assert torch.equal(extended.model.state_dict()[name], value), name


def test_a_busy_machine_remembers_nothing(monkeypatch, two_threads):
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (1e3, 1.0, 1.0))
    monkeypatch.setattr(timing, "remembered", lambda *program: None)
    monkeypatch.setattr(timing, "remember", refuse)
    _, execution = prepared(precision="float32")
    assert any("timed here" in why for why in execution.why)


def timed(monkeypatch, cost: dict[str, list[float]]) -> tuple[int, list[float]]:
    """``fastest`` with a clock of our own: cost gives each candidate's seconds, round by round, the
    first to warm up."""
    clock, now = [0.0], []
    rounds = {name: iter(seconds) for name, seconds in cost.items()}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def step() -> None:
        clock[0] += next(rounds[now[-1]])

    return timing.fastest(list(cost), now.append, step)


def test_the_fastest_in_every_round_is_taken(monkeypatch):
    cost = {
        "rule": [1.0, 0.10, 0.11, 0.10, 0.10],
        "near": [0.1, 0.095, 0.1, 0.095, 0.095],
        "fast": [0.1, 0.05, 0.05, 0.06, 0.05],
    }
    place, least = timed(monkeypatch, cost)
    assert place == 2
    assert least == pytest.approx([0.10, 0.095, 0.05])
    assert timed(monkeypatch, {name: cost[name] for name in ("rule", "near")})[0] == 0, (
        "a twentieth is noise"
    )


def test_a_busy_moment_decides_nothing(monkeypatch):
    cost = {"rule": [1.0, 0.5, 0.5, 0.05, 0.5], "other": [1.0, 0.1, 0.1, 0.1, 0.1]}
    assert timed(monkeypatch, cost)[0] == 0


def test_what_is_remembered_belongs_to_the_program(tmp_path):
    assert timing.remembered("program", 1) is None
    timing.remember({"threads": 1}, "program", 1)
    assert timing.remembered("program", 1) == {"threads": 1}
    assert timing.remembered("program", 2) is None
    for path in (tmp_path / "cache").rglob("*.json"):
        path.write_text("{")
    assert timing.remembered("program", 1) is None


# --- the machine's profile ------------------------------------------------------------------------

MLP = {"kind": "mlp", "hidden": [256, 256]}


@pytest.mark.parametrize(
    ("machine", "fields", "expected"),
    [
        ({"conv": 1.05}, {"model": {"layers": CONV}}, {"precision": "float32"}),
        ({"conv": 1.9}, {"model": {"layers": CONV}}, {"precision": "bfloat16"}),
        ({"conv": 0.7, "dense": 3.0}, {"model": {"layers": CONV}}, {"precision": "float32"}),
        ({"recurrent": 1.6}, {"model": {"layers": LSTM}}, {"precision": "bfloat16"}),
        ({"recurrent": 0.9}, {"model": {"layers": LSTM}}, {"precision": "float32"}),
        ({"dense": 1.5}, {"model": MLP}, {"precision": "bfloat16", "lowered_from": 256**2}),
        ({"dense": 1.05}, {"model": MLP}, {"precision": "float32"}),
        (
            {"dense": 1.5},
            {"model": {"kind": "mlp", "hidden": [32]}},
            {"precision": "float32"},
        ),
        ({"last": 2.0}, {"model": {"layers": CONV}}, {"memory_format": "contiguous"}),
        ({"last": 1.05}, {"model": {"layers": CONV}}, {"memory_format": "channels_last"}),
    ],
)
def test_the_machines_profile_decides(machine, fields, expected, measured):
    measured(profile_of(**machine))
    _, execution = prepared(**fields, threads=1, stop={"after": "20it"})
    assert {name: getattr(execution, name) for name in expected} == expected
    if expected.get("precision") == "bfloat16":
        assert "times as fast in bfloat16 here" in execution.why[0]


def test_threads_that_gain_nothing_are_not_taken(measured, two_threads):
    wide = {"model": MLP, "data": {"source": "digits", "batch": 256}, "stop": {"after": "20it"}}
    for gain, count in ((1.5, 2), (0.8, 1)):
        measured(profile_of(threads=gain))
        assert prepared(**wide)[1].threads == count


@pytest.mark.parametrize(
    ("parts", "precision", "units", "divided"),
    [
        (None, "bfloat16", 64, 1), (None, "float32", 64, 0), (None, "bfloat16", 16, 0),
        (1.2, "float32", 64, 1), (0.9, "bfloat16", 64, 0),
    ],
)  # fmt: skip
def test_a_recurrent_batch_is_divided_where_that_is_faster_in_its_precision(
    parts, precision, units, divided, measured, two_threads
):
    measured(profile_of(parts=parts, recurrent=2.0 if precision == "bfloat16" else 1.0))
    times = {"float32 together": 4.0, "float32 in parts": 5.0, "bfloat16 together": 3.0}
    held = profile.Profile({"parts": {"64": times, "32": {}, "128": {}}})
    assert (held.parts_gain(64, "float32"), held.parts_gain(64, "bfloat16")) == (0.8, None)
    layers = [LSTM[0], {"kind": "lstm", "units": units}, LSTM[2]]
    plan = {"data": {"source": "digits", "batch": 128}, "stop": {"after": "20it"}}
    assert (prepared(model={"layers": layers}, **plan)[1].way == "parts on threads") == divided


def test_a_machine_that_was_not_measured_rounds_nothing_without_tiles(measured, monkeypatch):
    measured(None)
    monkeypatch.setattr(profile, "profile", refuse)
    for tiles, precision in ((False, "float32"), (True, "bfloat16")):
        monkeypatch.setattr(pilot, "has_tiles", lambda device, tiles=tiles: tiles)
        assert prepared(stop={"after": "20it"})[1].precision == precision
        dense = prepared(model=MLP, stop={"after": "20it"})[1]
        assert dense.precision == "float32"


def test_only_a_long_run_measures_the_machine_and_only_once(monkeypatch):
    monkeypatch.undo()
    asked = []
    section = profile_of(conv=2.0).sections["convolution"]
    monkeypatch.setitem(profile.SECTIONS, "convolution", lambda: asked.append(1) or section)
    monkeypatch.setattr(pilot, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(pilot, "has_tiles", lambda device: False)
    monkeypatch.setattr(pilot, "_timed", lambda rule, *_: rule)  # the profile alone decides
    held = {}
    monkeypatch.setattr(timing, "remembered", lambda *key: held.get(str(key[:2])))
    monkeypatch.setattr(timing, "remember", lambda found, *key: held.update({str(key[:2]): found}))
    assert prepared(threads=1, stop={"after": "300it"})[1].precision == "float32"
    assert not asked
    first = prepared(threads=1, stop={"after": "5000000it"})[1]
    assert first.precision == "bfloat16"
    assert "convolutions are 2.00 times as fast in bfloat16 here" in first.why[0]
    assert len(asked) == 1
    assert prepared(threads=1, stop={"after": "5000000it"})[1] == first
    assert prepared(threads=1, stop={"after": "300it"})[1].precision == "bfloat16"
    assert len(asked) == 1


def test_resume_replays_the_choice_whatever_the_profile_says_now(tmp_path, measured):
    measured(profile_of(conv=2.0))
    recipe = Recipe(model={"layers": CONV}, data={"source": "digits"}, stop={"after": "2ep"})
    whole = ravine.train(recipe, out=tmp_path / "whole", quiet=True, doctor=False)
    first = recipe.edit({"stop.after": "1ep"})
    ravine.train(first, out=tmp_path / "first", quiet=True, doctor=False)
    measured(profile_of(conv=0.5, last=3.0))
    (extended,) = ravine.resume(tmp_path / "first", after="2ep", quiet=True)
    assert execution_of(extended).precision == "bfloat16"
    for name, value in whole.model.state_dict().items():
        assert torch.equal(extended.model.state_dict()[name], value), name


@pytest.mark.parametrize("section", profile.SECTIONS)
def test_a_section_is_measured_in_milliseconds(section, monkeypatch, two_threads):
    monkeypatch.setattr(profile, "SECONDS", 0.0)
    monkeypatch.setattr(timing, "quiet", lambda: True)
    found = profile.profile(section)
    numbers = [
        n
        for held in found.sections[section].values()
        for n in (held.values() if isinstance(held, dict) else [held])
    ]
    assert all(0 < n < math.inf for n in numbers)
    monkeypatch.setitem(profile.SECTIONS, section, refuse)
    assert profile.profile(section) == found  # from the cache


def test_what_threads_gain_is_measured_as_soon_as_the_machine_is_quiet(monkeypatch, two_threads):
    for name in ("recurrent", "parts"):
        monkeypatch.setitem(profile.SECTIONS, name, lambda: {})
    monkeypatch.setattr(timing, "quiet", lambda: False)
    assert list(profile.profile("recurrent", "parts").sections) == ["recurrent"]
    assert profile.missing("recurrent", "parts") == []
    monkeypatch.setattr(timing, "quiet", lambda: True)
    assert profile.missing("recurrent", "parts") == ["parts"]
    assert profile.profile("recurrent", "parts", measure=False) is not None
    assert list(profile.profile("recurrent", "parts").sections) == ["recurrent", "parts"]
    assert profile.missing("recurrent", "parts") == []


def test_the_least_of_turns_is_kept_and_the_first_warms_up():
    seconds = iter([9.0, 3.0, 2.0, 5.0, *[4.0] * 60])
    now = [0.0]

    def work():
        now[0] += next(seconds)

    assert profile.least({"work": work}, lambda: now[0]) == {"work": 2000.0}


@pytest.mark.parametrize(
    ("limit", "found", "tiles"),
    [
        ("", True, True),
        ("all", True, True),
        ("AVX2", False, False),
        ("avx512_core", False, False),
        ("AVX512_CORE_BF16", True, False),
    ],
)
def test_a_limited_library_has_no_bfloat16(limit, found, tiles, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    for more in ([], ["amx_bf16"]):
        instructions = ["avx2", "avx512_bf16", *more]
        monkeypatch.setattr(device, "machine", lambda there=instructions: {"instructions": there})
        assert device.has_bfloat16("cpu") is found
        assert device.has_tiles("cpu") is (tiles and bool(more))
        assert not device.has_tiles("cuda")


def test_recurrent_layers_are_not_measured_in_bfloat16_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(profile, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(profile, "TURNS", 1)
    monkeypatch.setattr(torch, "autocast", partial(_without_bfloat16, torch.autocast))
    held = profile.SECTIONS["recurrent"]()
    assert profile.Profile({"recurrent": held}).recurrent_gain(64) == 0
    assert all("float32" in of and "bfloat16" not in of for of in held.values())


def _without_bfloat16(autocast, device, dtype, enabled=True):
    assert not enabled, "could not create a primitive"  # what such a processor answers
    return autocast(device, dtype, enabled=False)
