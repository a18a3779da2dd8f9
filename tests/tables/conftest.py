"""Plans of starters in tests."""

from __future__ import annotations

import pytest

from ravine.starters import epoch_time


@pytest.fixture(autouse=True)
def _measured_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test judges how far a plan goes in seconds: a step or two is measure enough."""
    monkeypatch.setattr(epoch_time, "LEAST_SECONDS", 0.05)
    monkeypatch.setattr(epoch_time, "MOST_SECONDS", 0.1)
