"""The programs in examples/own: each reaches its target, and comes back to the bit when it is cut."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import ravine
from ravine.engine.execution.pilot import by_rules_alone
from ravine.engine.loop import loop

PLACE = Path(__file__).parents[2] / "examples" / "own"
PROGRAMS = sorted(path.stem for path in PLACE.glob("*.py"))


def opened(name):
    spec = importlib.util.spec_from_file_location(f"own_{name}", PLACE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Cut(Exception):
    """Stands for the process's end."""


def cut_after(program, out, blocks):
    """Run a program that ends, as if killed, after its so many-th snapshot."""
    original, count = loop.TrainingLoop.save, []

    def save(self):
        original(self)
        count.append(self.step)
        if len(count) >= blocks:
            raise Cut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "BLOCK_SECONDS", 0.0)
        patch.setattr(loop, "SNAPSHOT_SECONDS", 0.0)
        patch.setattr(loop.TrainingLoop, "save", save)
        with pytest.raises(Cut):
            program.main(out, quiet=True)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_reaches_its_target_and_resumes_to_the_bit(name, tmp_path):
    program = opened(name)
    with by_rules_alone():  # what is timed may choose another way for the second run
        whole = program.main(tmp_path / "whole", quiet=True)
        assert program.target(whole), name
        cut_after(program, tmp_path / "cut", 12)
    again = ravine.resume(tmp_path / "cut", quiet=True, **program.AGAIN)
    for one, other in zip(whole if isinstance(whole, list) else [whole], again, strict=True):
        assert torch.equal(one.theta, other.theta)
        assert np.array_equal(one.losses, other.losses)
        assert one.metrics.equals(other.metrics)


def test_the_gallery_is_short_and_whole():
    assert len(PROGRAMS) == 12
    for name in PROGRAMS:
        assert (PLACE / f"{name}.py").read_text().count("\n") < 60
