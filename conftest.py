"""What all tests and doctests share: real data, one thread for each test process, properties that
repeat."""

from __future__ import annotations

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side are quicker with one thread each
    for library in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(library, "1")
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import pytest

hypothesis.settings.register_profile("ravine", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ravine")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets (MNIST, CIFAR-10, tinyshakespeare), or a skip that says how to
    have it."""
    root = os.environ.get("RAVINE_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("needs real data: set RAVINE_DATA to the folder that holds it")
    return Path(root)


@pytest.fixture(autouse=True)
def _tmp_in_doctests(request: pytest.FixtureRequest) -> None:
    """``tmp`` in an example of a docstring is a fresh folder."""
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("doctest_namespace")["tmp"] = request.getfixturevalue("tmp_path")
