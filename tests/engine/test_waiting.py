"""How long the threads of PyTorch's kernels spin before they sleep."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("given", "first", "found"),
    [(None, "", "100000"), ("7", "", "7"), (None, "sys.modules['torch'] = sys; ", "None")],
    ids=["nothing given", "given by a person", "torch imported first"],
)
def test_threads_spin_shortly_unless_a_person_says_otherwise(given, first, found):
    known = {name: text for name, text in os.environ.items() if name != "GOMP_SPINCOUNT"}
    known |= {} if given is None else {"GOMP_SPINCOUNT": given}
    program = f"import os, sys; {first}import ravine; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=known, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found
