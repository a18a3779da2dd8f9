"""Ranks that die or hang: the others end with a clear error, all start again, and the run comes to the
numbers of an uninterrupted one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer

import dying
import ravine
from ravine.app import guard
from ravine.engine.loop import loop
from ravine.engine.ranks import connection, launcher
from ravine.report import run_page
from ravine.rundir import RunDir
from test_ranks import assert_close, torchrun
from test_resume import assert_same


def train(
    place: Path,
    ranks: int,
    attempts: int,
    *,
    seed: int = 0,
    members: int = 1,
    how: str = "killed",
    restarts: int = 0,
    shard: bool = False,
):
    """A run of so many ranks, one of which ends in each of the first attempts."""
    options = ["--max-restarts", restarts, dying.__file__]
    return torchrun(
        *options, "digits", members, place, how, seed, attempts, *(["shard"] * shard), ranks=ranks
    )


class Cut(Exception):
    """Stands for the process's end."""


def cut_alone(place: Path, monkeypatch) -> None:
    """A run of one process that ends, as if killed, at a block in its middle."""

    def cut() -> None:
        raise Cut

    for name in ("BLOCK_SECONDS", "SNAPSHOT_SECONDS"):
        monkeypatch.setattr(loop, name, 0.0)
    monkeypatch.setattr(run_page, "write_report", lambda rundir: None)
    monkeypatch.setattr(
        loop.TrainingLoop, "_block", loop.TrainingLoop._block
    )  # put back at the end
    dying.at_block(9, cut)
    with pytest.raises(Cut):
        ravine.train_many(dying.recipes("digits", 1, place), out=place, quiet=True)
    monkeypatch.undo()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The uninterrupted run of two ranks."""
    place = tmp_path_factory.mktemp("whole") / "run"
    done = train(place, 2, 0)
    assert done.returncode == 0, done.stderr[-2000:]
    return place


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]
)
def test_a_killed_rank_changes_no_number(seed, whole, tmp_path):
    done = train(tmp_path / "run", 2, 1, seed=seed, restarts=1)
    assert "exitcode: -9" in done.stderr
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same(whole, tmp_path / "run")


@pytest.mark.slow
def test_a_killed_rank_of_a_sharded_network_changes_no_number(whole, tmp_path):
    done = train(tmp_path / "run", 2, 1, seed=3, restarts=1, shard=True)
    assert "exitcode: -9" in done.stderr
    assert done.returncode == 0, done.stderr[-2000:]
    assert_close(whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_snapshots_of_a_sharded_network_hold_it_whole(before, after, whole, tmp_path):
    assert train(tmp_path / "run", before, 1, seed=3, shard=True).returncode != 0
    if after == 1:
        ravine.resume(tmp_path / "run", quiet=True)
    else:
        done = torchrun("-m", "ravine", "resume", tmp_path / "run", "--quiet", ranks=after)
        assert done.returncode == 0, done.stderr[-2000:]
    assert_close(whole, tmp_path / "run")


@pytest.mark.slow
def test_a_rank_killed_beside_another_machine_changes_no_number(whole, tmp_path):
    """Two of torchrun's agents, each with one rank, as on two machines."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    where = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    where += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--max-restarts", "1"]
    program = [dying.__file__, "digits", "1", str(tmp_path / "run"), "killed", "1", "1"]
    command = [sys.executable, "-m", "torch.distributed.run", *where, *program]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    agents = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    said = [agent.communicate(timeout=300)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert b"exitcode: -9" in b"".join(said)
    assert_same(whole, tmp_path / "run")


@pytest.mark.slow
def test_ten_deaths_in_one_run(whole, tmp_path):
    done = train(tmp_path / "run", 2, 10, seed=7, restarts=10)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same(whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_members_divided_among_ranks_go_on_to_the_same_bits(ranks, tmp_path):
    """On as many ranks, and on one: each group keeps its width."""
    whole = dying.recipes("digits", 4, tmp_path / "one")
    ravine.train_many(whole, out=tmp_path / "one", quiet=True, group=2)
    if ranks == 2:
        done = train(tmp_path / "run", 2, 2, members=4, restarts=2)
        assert done.returncode == 0, done.stderr[-2000:]
    else:
        assert train(tmp_path / "run", 2, 1, members=4).returncode != 0
        ravine.resume(tmp_path / "run", quiet=True)
    assert_same(tmp_path / "one", tmp_path / "run")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (2, 1),
        (1, 2),
        *(pytest.param(*both, marks=pytest.mark.slow) for both in ((2, 3), (3, 2), (3, 1))),
    ],
)
def test_snapshots_do_not_know_how_many_ranks_wrote_them(
    before, after, whole, tmp_path, monkeypatch
):
    if before == 1:
        cut_alone(tmp_path / "run", monkeypatch)
    else:
        assert train(tmp_path / "run", before, 1).returncode != 0
    assert RunDir.open(tmp_path / "run").state == "interrupted"
    command = ["-m", "ravine", "resume", str(tmp_path / "run"), "--quiet"]
    if after == 1:
        ravine.resume(tmp_path / "run", quiet=True)
    else:
        done = ranks_of(*command, ranks=after) if after == 2 else torchrun(*command, ranks=after)
        assert done.returncode == 0, done.stderr[-2000:]
        assert not done.stderr
    assert_close(whole, tmp_path / "run")


def ranks_of(*command: str, ranks: int) -> subprocess.CompletedProcess[str]:
    """A command that starts its ranks by itself."""
    return subprocess.run(
        [sys.executable, *command, "--ranks", str(ranks)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_command_says_in_one_line_which_ranks_were_killed(capsys):
    launcher._say_lost({1: -signal.SIGKILL, 0: -signal.SIGTERM}, 1)
    launcher._say_lost({0: launcher.LOST, 1: 0}, 0)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("ravine: killed: rank 1 by SIGKILL; all ranks start again")
    assert second.startswith("ravine: ranks were lost; no more restarts; ravine resume goes on")


def test_an_interruption_is_said_once_however_each_rank_was_met(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "a" / "b" / "error.json"))
    for text in ("interrupted after step 3; ravine resume run continues it", "interrupted"):
        with pytest.raises(typer.Exit):
            guard._fail(text, 1)
    assert capsys.readouterr().err.splitlines() == [
        "ravine: interrupted after step 3; ravine resume run continues it"
    ]


def test_a_rank_that_hangs_ends_the_run_after_the_stated_time(tmp_path):
    done = train(tmp_path / "run", 2, 1, how="hangs")
    assert done.returncode != 0
    assert "another rank gave no answer for 3 s" in done.stderr


@pytest.mark.parametrize(("gpus", "backend"), [(0, "gloo"), (1, "gloo"), (2, "cpu:gloo,cuda:nccl")])
def test_each_rank_takes_the_gpu_of_its_number_before_it_joins(gpus, backend, monkeypatch):
    """No GPU is here: PyTorch's calls are noted, with their order."""
    noted = []
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", noted.append)
    monkeypatch.setattr(connection.dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(connection.dist, "init_process_group", lambda by, **_: noted.append(by))
    monkeypatch.setattr(connection.atexit, "register", lambda leave: None)
    shared = connection.connect("cuda" if gpus else "cpu", 5.0)
    assert noted == [*([1 % gpus] if gpus else []), backend]
    assert shared == (gpus == 1)


def test_wrong_input_is_said_once_and_starts_nothing_again(tmp_path):
    command = [sys.executable, "-m", "ravine", "train", "--ranks", "2", "--out", tmp_path / "run"]
    more = ["--set", "regularize.hard_negatives=0.5"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line != "loading PyTorch …"]
    assert len(said) == 1, done.stderr
    assert "hard_negatives: expected 1.0" in said[0]
    assert not (tmp_path / "run").exists()
