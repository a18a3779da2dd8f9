"""What all tests and doctests share: real data, one thread for each test process, properties that
repeat."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side are quicker with one thread each
    for library in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(library, "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("KERAS_BACKEND", "torch")  # read when keras is imported

import hypothesis
import pytest

from ravine.catalogue.catalogue import _OWN
from ravine.data.download import cache

hypothesis.settings.register_profile("ravine", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ravine")

# callbacks for libraries that need not be installed: without them their files cannot be imported
collect_ignore = [
    f"src/ravine/interop/{library}.py"
    for library in ("lightning", "transformers", "skorch", "keras", "accelerate")
    if find_spec(library) is None
]

PUBLISHED = {  # files of which one must be there
    "mnist": ("mnist/train-images*",),
    "cifar10": ("cifar10-jpeg.npz", "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    "shakespeare": ("tinyshakespeare.txt",),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-data",
        action="store_true",
        help="a test whose data set is missing fails; without this option it is skipped",
    )


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """What Ravine compiles once on a machine is there before a test counts files and programs."""
    from ravine.engine.rows.ways import elementwise, native

    native.library()
    elementwise.functions()


@pytest.fixture
def data_root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds the data set which the test's mark ``data`` names: ``RAVINE_DATA``,
    or else the user's cache directory. Where the data set is missing the test is skipped, with
    the reason; it is never downloaded here."""
    root = cache.data_root()
    for mark in request.node.iter_markers("data"):
        (name,) = mark.args
        if not any(found for pattern in PUBLISHED[name] for found in root.glob(pattern)):
            reason = f"needs {name}, which is not in {root}: set RAVINE_DATA to a folder with it"
            if request.config.getoption("--require-data"):
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
    monkeypatch.setenv("RAVINE_DATA", str(root))  # a test may name another cache
    return root


@pytest.fixture(autouse=True)
def _own_techniques() -> Iterator[None]:
    """What a test registers as a technique of its own is unknown to the next."""
    before = {name: dict(versions) for name, versions in _OWN.items()}
    yield
    _OWN.clear()
    _OWN.update(before)


@pytest.fixture(autouse=True)
def _marked_data(request: pytest.FixtureRequest) -> None:
    """A test with the mark ``data`` need not name the fixture."""
    if request.node.get_closest_marker("data"):
        request.getfixturevalue("data_root")


@pytest.fixture(autouse=True)
def _tmp_in_doctests(request: pytest.FixtureRequest) -> None:
    """``tmp`` in an example of a docstring is a fresh folder."""
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("doctest_namespace")["tmp"] = request.getfixturevalue("tmp_path")
