"""Every technique of the networks says what it does in one sentence, shows it, and names its
source."""

from __future__ import annotations

import pytest

from ravine.catalogue import table

KINDS = ("layer", "initializer", "loss", "metric", "model")
ROWS = [technique for kind in KINDS for technique in table(kind).values()]
PLAIN = {
    "flatten",
    "reshape",
    "transpose",
    "chain",
    "auto",
    "output",
    "layers",
    "module",
}  # nobody's invention


@pytest.mark.parametrize("technique", ROWS, ids=[f"{t.kind}-{t.name}" for t in ROWS])
def test_documentation(technique):
    assert technique.summary.endswith(".")
    assert ">>>" in technique.doc or technique.name == "module"
    assert "Source:" in technique.doc or technique.name in PLAIN
    for field in technique.fields:
        assert field in technique.doc, f"{technique.name} does not say what {field} is"
