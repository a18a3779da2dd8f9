"""Studies that several processes train: who trains is of no consequence to what comes out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import ravine
from ravine import InputError, RavineError, Recipe, Run
from ravine.app.cli import app
from ravine.engine.execution import pilot, timing
from ravine.engine.loop.halving import Halving
from ravine.engine.loop.loop import Interrupted
from ravine.engine.programs import groups_of
from ravine.rundir import RunDir
from ravine.storage import claims
from ravine.storage.claims import Claim
from ravine.storage.locks import Lock
from ravine.study.declare import resume_study
from ravine.study.directory import Study
from ravine.study.workers import joined, on_ray, rungs
from ravine.study.workers import order as orders
from ravine.study.workers.executor import Here, Stage
from ravine.study.workers.order import Order
from ravine.training.train import train_many

RUNNER = CliRunner()
# ten recipes of three programs, of which some are dropped; and their rounds before
SEARCH = [
    "search",
    *("--set", "data={source='blobs'}", "--set", "model=mlp", "--set", "stop.after=20ep"),
    *("--vary", "model.hidden=[8],[12],[6,6]", "--vary", "optimizer.lr=loguniform:1e-3:1"),
    *("--members", "10", "--rounds", "1", "--finals", "1"),
]


def table(study: Path) -> str:
    """What a study found, without the places where it lies."""
    summary = json.loads((study / "summary.json").read_text(encoding="utf-8"))
    return json.dumps(without_times(summary)).replace(str(study), "")


def without_times(found):
    if isinstance(found, dict):
        return {n: without_times(each) for n, each in found.items() if not n.startswith("seconds")}
    return [without_times(each) for each in found] if isinstance(found, list) else found


def check_same(one: Path, other: Path) -> None:
    """Two studies have equal tables and, run by run, equal measurements and weights."""
    assert table(one) == table(other)
    for stage in sorted((one / "runs").iterdir()):
        check_same_runs(stage, other / "runs" / stage.name)


def check_same_runs(one: Path, other: Path) -> None:
    with RunDir.open(one) as a, RunDir.open(other) as b:
        assert a.recipes == b.recipes
        assert a.epochs() == b.epochs()
        assert happened(a) == happened(b)
        for member in range(len(a.recipes)):
            assert a.steps(member).tolist() == b.steps(member).tolist()
            assert torch.equal(Run(one, member).theta, Run(other, member).theta)


def happened(run: RunDir) -> list[tuple]:
    return [(e["step"], e["member"], e["kind"], e["text"]) for e in run.events()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The search of one process."""
    out = tmp_path_factory.mktemp("alone") / "study"
    done = RUNNER.invoke(app, [*SEARCH, "--out", str(out), "--quiet"])
    assert done.exit_code == 0, done.output
    return out


def process(words: list[str], **more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "ravine", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# --- claims ---------------------------------------------------------------------------------------


def test_a_claim_has_one_holder_at_a_time(tmp_path):
    one, other = Claim(tmp_path), Claim(tmp_path)
    assert one.take()
    assert one.take()  # it is held already
    assert other.taken
    assert not other.take()
    one.release()
    assert not other.taken
    assert other.take()
    assert (one.number, other.number) == (1, 2)
    assert not one.take()


def test_the_claim_of_a_holder_that_stopped_beating_ends_after_a_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LEASE", 0.3)
    monkeypatch.setattr(claims, "BEAT", 1000.0)  # it is suspended
    monkeypatch.setattr(claims, "_died", lambda holder: False)  # and on another machine
    one, other, third = Claim(tmp_path), Claim(tmp_path), Claim(tmp_path)
    assert one.take()
    assert not other.take()  # its lease begins when it is first looked at
    assert not third.take()
    time.sleep(0.35)
    assert other.take()
    assert not third.take()  # whoever comes second sees a new claim, with a lease of its own


def test_a_holder_that_wakes_up_knows_that_it_has_lost_its_claim(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.02)
    one = Claim(tmp_path)
    assert one.take()
    (tmp_path / "claim-000002").write_text("{}", encoding="utf-8")  # somebody has followed
    deadline = time.monotonic() + 10
    while not one.lost and time.monotonic() < deadline:
        time.sleep(0.01)
    assert one.lost
    assert not one.held


def test_a_holder_that_was_killed_is_known_at_once_on_its_machine(tmp_path):
    if not Path("/proc/self/stat").is_file():
        pytest.skip("processes are looked up in /proc")
    words = f"from ravine.storage.claims import Claim; from pathlib import Path; Claim(Path({str(tmp_path)!r})).take()"
    subprocess.run([sys.executable, "-c", f"{words}; import os; os._exit(0)"], check=True)
    claim = Claim(tmp_path)
    assert claim.take()
    assert claim.number == 2


OTHERS = [
    "[]",
    "5",
    "null",
    '{"released": false, "holder": []}',
    '{"released": false, "holder": "x"}',
    "[" * 5000,
]


@pytest.mark.parametrize("text", OTHERS)
def test_a_claim_that_nobody_wrote_ends_after_a_lease(tmp_path, monkeypatch, text):
    monkeypatch.setattr(claims, "LEASE", 0.05)
    (tmp_path / "claim-000001").write_text(text, encoding="utf-8")
    claim = Claim(tmp_path)
    assert not claim.take()
    time.sleep(0.06)
    assert claim.take()
    claim.release()


def test_a_claim_that_cannot_be_read_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LEASE", 0.05)
    (tmp_path / "claim-999999").mkdir()
    claim = Claim(tmp_path)
    assert not claim.take()
    time.sleep(0.06)
    assert claim.take()
    assert claim.number == 1_000_000
    claim.release()
    assert claim.take()  # and more digits are a number too
    claim.release()


def test_a_claim_leads_to_no_other_file(tmp_path):
    """The number of a process is a number: what else is there could be a pipe, which is waited for."""
    read: list[str] = []
    holder = {"host": "a", "boot": "b", "names": "c", "process": "../tmp", "started": "1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "_read", lambda path: read.append(path) or "")
        assert not claims._died(holder)
    assert read == []


# --- units ----------------------------------------------------------------------------------------

RECIPES = [
    Recipe(
        seed=seed,
        data={"source": "blobs"},
        model={"kind": "mlp", "hidden": [8 + seed % 2]},
        optimizer={"kind": "adam", "lr": 0.01 * (1 + seed)},
        stop={"after": "4ep"},
    )
    for seed in range(6)
]


def test_programs_are_the_units_and_a_group_divides_them():
    assert groups_of(RECIPES) == [[0, 2, 4], [1, 3, 5]]
    assert groups_of(RECIPES, 2) == [[0, 2], [4], [1, 3], [5]]


def stage(tmp_path: Path, **how) -> Stage:
    return Stage("s", tmp_path / "whole", tmp_path / "shared", RECIPES, how, quiet=True)


@pytest.mark.parametrize("how", [{}, {"group": 2}, {"trace": ["0it", "2ep"], "test": False}])
def test_units_trained_one_by_one_are_the_run_directory_of_one_process(how, tmp_path):
    train_many(RECIPES, out=tmp_path / "one", quiet=True, **how)
    order = Order.of(stage(tmp_path, **how))
    for number in reversed(range(len(order.groups))):  # in whatever order
        assert order.claims[number].take()
        assert order.train(number)
    order.gather(tmp_path / "whole")
    check_same_runs(tmp_path / "one", tmp_path / "whole")
    assert not order.path.exists()
    with RunDir.open(tmp_path / "one") as a, RunDir.open(tmp_path / "whole") as b:
        programs = range(len(a.facts["programs"]))
        assert a.facts["programs"] == b.facts["programs"]
        for places in ("final_snapshots", "trace_snapshots", "latest_snapshots"):
            names = [[p.name for n in programs for p in getattr(r, places)(n)] for r in (a, b)]
            assert names[0] == names[1]


def test_no_choice_of_a_study_is_timed(tmp_path, monkeypatch):
    """Beside other work a timed choice is another one, and so would be the numbers."""

    def timed(*given):
        raise AssertionError("timed")

    monkeypatch.setattr(pilot, "_timed", timed)
    monkeypatch.setattr(pilot, "_unmeasured", timed)
    with pytest.raises(AssertionError, match="timed"):
        train_many(RECIPES, out=tmp_path / "one", quiet=True)
    here = stage(tmp_path / "here")
    Here().train(here)
    shared = stage(tmp_path / "shared")
    joined.Joined().train(shared)
    check_same_runs(here.place, shared.place)


def test_a_unit_goes_on_from_the_snapshot_of_a_trainer_that_was_taken_for_dead(tmp_path):
    train_many(RECIPES, out=tmp_path / "one", quiet=True)
    order = Order.of(stage(tmp_path))

    def suspended(progress):  # after a snapshot; another process follows
        order.claims[0].lost = True

    assert order.claims[0].take()
    assert not order.train(0, report=suspended)
    assert order.done(0) is None
    begun = order.unit(0) / "run-000001"
    assert list(begun.glob("snapshots/*/*/*"))
    order.claims[0]._ended.set()
    (order.unit(0) / "claim-000001").write_text('{"released": true}', encoding="utf-8")
    again = Order(order.path)
    while (number := again.claim()) is not None:
        assert again.train(number)
    assert again.done(0).name == "run-000002"
    again.gather(tmp_path / "whole")
    check_same_runs(tmp_path / "one", tmp_path / "whole")


def test_what_one_process_had_begun_is_not_trained_again(tmp_path, monkeypatch):
    train_many(RECIPES, out=tmp_path / "one", quiet=True)
    given = stage(tmp_path)
    with pytest.raises(KeyboardInterrupt):  # in the second program
        train_many(RECIPES, out=given.place, quiet=True, report=Stopping(at=12))
    order = Order.of(given)
    assert not given.place.exists()
    steps = []
    monkeypatch.setattr(
        rungs.SharedRecord,
        "add_steps",
        lambda self, first, *rest: steps.append((self.number, first)),
    )
    assert order.claims[0].take()
    assert order.train(0)
    assert steps == []  # the first program was finished
    monkeypatch.undo()
    while (number := order.claim()) is not None:
        assert order.train(number)
    order.gather(given.place)
    check_same_runs(tmp_path / "one", given.place)


class Stopping:
    """A report that interrupts where the second program trains."""

    def __init__(self, at: int):
        self.before, self.at = 0, at

    def __call__(self, progress) -> None:
        if progress.step < self.before:
            raise KeyboardInterrupt
        self.before = progress.step


@pytest.mark.parametrize("how", [{}, {"halving": Halving("val_loss", "1ep", 2)}])
def test_a_worker_that_does_not_reach_the_directory_gives_bytes_back(how, tmp_path):
    """In one process here, as Ray's workers do it in theirs."""
    train_many(RECIPES, out=tmp_path / "one", quiet=True, **how)
    given = stage(tmp_path, **how)
    order = Order.of(given)
    assert on_ray.train_shared(str(tmp_path / "unknown"), "abc", 0, []) == {"state": "elsewhere"}
    for number in range(2):
        found = on_ray.train_packed(*on_ray.pack(order, number), number, [])
        assert on_ray._taken(order, number, found)
    order.gather(given.place)
    check_same_runs(tmp_path / "one", given.place)


def test_what_is_wrong_on_a_worker_is_wrong_here(tmp_path):
    order = Order.of(stage(tmp_path))
    here = on_ray.fingerprint(order.path)
    found = on_ray.train_shared(str(order.path), here, 0, [str(tmp_path / "own.py")])
    with pytest.raises(RavineError, match=r"own\.py'; expected a Python file") as caught:
        on_ray._taken(order, 0, found)
    assert caught.value.exit_code == 2


def test_ray_refuses_what_only_this_process_has(tmp_path):
    data = torch.randn(40, 3), torch.arange(40) % 2
    with pytest.raises(InputError, match=r"data given in Python.*npz:FILE"):
        ravine.search(
            Recipe(model="softmax"), data=data, workers="ray", out=tmp_path / "out", quiet=True
        )
    assert not (tmp_path / "out").exists()


def test_workers_of_another_version_are_refused(tmp_path, monkeypatch):
    order = Order.of(stage(tmp_path))
    monkeypatch.setattr(orders, "_versions", lambda: {"torch": "0.1"})
    assert order.claims[0].take()
    with pytest.raises(InputError, match="install the same versions"):
        order.train(0)


# --- studies --------------------------------------------------------------------------------------


def test_a_study_that_is_shared_by_one_process_is_that_of_one_alone(alone, tmp_path):
    out = tmp_path / "study"
    done = RUNNER.invoke(app, [*SEARCH, "--out", str(out), "--workers", "join", "--quiet"])
    assert done.exit_code == 0, done.output
    check_same(alone, out)
    assert resume_study(out, quiet=True, workers="join")["study"] == str(out)


@pytest.mark.slow
def test_two_processes_one_of_them_killed_are_one_process(alone, tmp_path):
    """The conductor is killed with a program half trained; another process, which joined, conducts
    in its place, and a third joins."""
    out = tmp_path / "study"
    first = process([*SEARCH, "--out", str(out), "--workers", "join", "--quiet"])
    units = out / "shared" / "random-1"
    try:
        wait_for(lambda: list(units.glob("unit-*/run-*/snapshots")), first)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    others = [process(["resume", str(out), "--join", "--quiet"]) for _ in range(2)]
    for other in others:
        said, _ = other.communicate(timeout=300)
        assert other.returncode == 0, said
    check_same(alone, out)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["node", "driver"])
def test_a_ray_cluster_that_loses_a_node_or_its_driver_is_one_process(killed, tmp_path):
    """Fifty recipes on two nodes, of which one is killed with its units half trained; or the
    driver is."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    words = [word.replace("=20ep", "=60ep") for word in SEARCH]
    words[words.index("--members") + 1] = "25"
    words[words.index("--rounds") + 1] = "2"
    done = RUNNER.invoke(app, [*words, "--out", str(tmp_path / "alone"), "--quiet"])
    assert done.exit_code == 0, done.output
    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={**small, "include_dashboard": False}
    )
    try:
        node, out = cluster.add_node(**small), tmp_path / "study"
        where = f"ray:{cluster.address}"
        driver = process([*words, "--out", str(out), "--workers", where, "--quiet"])
        units = out / "shared" / "random-1"
        wait_for(lambda: len(list(units.glob("unit-*/run-*/snapshots"))) == 2, driver)
        if killed == "node":
            cluster.remove_node(node, allow_graceful=False)
        else:
            driver.kill()
            driver.communicate()
            driver = process(["resume", str(out), "--quiet"])
        said, _ = driver.communicate(timeout=400)
        assert driver.returncode == 0, said
        check_same(tmp_path / "alone", out)
        if killed == "node":
            assert not list(out.rglob("run-00000*"))  # what was shared is gathered
    finally:
        cluster.shutdown()


def wait_for(found, running: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


SMALL = Recipe(
    data={"source": "blobs"}, model={"kind": "mlp", "hidden": [8]}, stop={"after": "2ep"}
)


def landscape(**how):
    """Of a path: it is trained again, since the run keeps no weights on its way."""
    place = how["out"].with_name("run")
    if not place.exists():
        ravine.train(SMALL, out=place, quiet=True, doctor=False)
    run = Run(place)
    del how["group"]  # of one run
    with pytest.MonkeyPatch.context() as patch:  # its evaluation takes the fastest way: timed
        patch.setattr(timing, "fastest", lambda ways, *rest: (0, [0.0] * len(ways)))
        return ravine.landscape(run, kind="path", points=3, samples=50, **how)


def compare(**how):
    return ravine.compare(SMALL, ["optimizer.lr=0.01,0.1"], seeds=2, **how)


def ensemble(**how):
    return ravine.ensemble(SMALL, members=2, method="bagging", **how)


def lottery(**how):
    return ravine.lottery(SMALL, rounds=1, seeds=2, **how)


@pytest.mark.parametrize("study", [compare, ensemble, lottery, landscape])
@pytest.mark.parametrize("who", ["join", pytest.param("ray", marks=pytest.mark.slow)])
def test_every_study_is_that_of_one_process_whoever_trains_it(study, who, tmp_path):
    if who == "ray":
        pytest.importorskip("ray")
    for each in ("here", who):
        study(group=1, workers=each, out=tmp_path / each, quiet=True)
    check_same(tmp_path / "here", tmp_path / who)


def test_a_study_that_a_process_trains_alone_is_not_joined(alone):
    study = alone.parent / "begun"
    shutil.copytree(alone, study)
    (study / "summary.json").unlink()
    lock = Lock(study)
    lock.take()
    said = RUNNER.invoke(app, ["resume", str(study), "--join"])
    lock.release()
    assert said.exit_code == 2
    assert "Ctrl-C, nothing is lost" in said.output
    assert RUNNER.invoke(app, ["resume", str(study), "--join", "--quiet"]).exit_code == 0


def test_a_conductor_that_has_lost_its_claim_writes_no_more(tmp_path):
    claim = Claim(tmp_path / "study" / "conductor")
    study = Study("search", RECIPES[0], {}, out=tmp_path / "study", workers="join", claim=claim)
    study.begin()
    claim.lost = True
    with pytest.raises(Interrupted, match="another process conducts"):
        study.once("plan", lambda: 1)
    study.release()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--workers", "joyn"], "did you mean 'join'"),
        (["--group", "0"], "--group: got 0; expected a whole number of at least 1"),
    ],
)
def test_wrong_workers_get_one_message_and_nothing_is_written(words, text, tmp_path):
    said = RUNNER.invoke(app, [*SEARCH, "--out", str(tmp_path / "out"), *words])
    assert said.exit_code == 2
    assert text in said.output
    assert not (tmp_path / "out").exists()


def test_only_studies_are_joined(tmp_path):
    ravine.train(data="blobs", model="softmax", epochs=1, quiet=True, out=tmp_path / "run")
    said = RUNNER.invoke(app, ["resume", str(tmp_path / "run"), "--join"])
    assert said.exit_code == 2
    assert "expected the directory of a study" in said.output
