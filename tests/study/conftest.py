"""Pages of studies in tests."""

from __future__ import annotations

import pytest

from ravine.study import declare


@pytest.fixture
def drawn() -> None:
    """For a test that reads a study's page or its pictures."""


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is written where no test reads it, for drawing takes longer than a small study:
    test_studies.py draws one of each kind."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(declare, "write_page", lambda study, page: None)
