"""What the allocator keeps while networks train, and gives back afterwards."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

BLOCK = 1 << 26
# In a process of its own: what the allocator keeps depends on all that a process has freed before.
PROGRAM = f"""
import json, os, torch
from ravine.engine.execution.memory import give_back_freed_memory, keep_freed_memory

def resident():
    with open("/proc/self/statm", encoding="ascii") as lines:
        return int(lines.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

taken = keep_freed_memory()
before = resident()
held = torch.ones({BLOCK}, dtype=torch.uint8)
full = resident()
del held
kept = resident()
given = give_back_freed_memory()
print(json.dumps([taken, full - before, kept - before, given, resident() - before]))
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the allocator of other systems needs no telling"
)
def test_freed_memory_is_kept_until_it_is_given_back():
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    taken, full, kept, given, left = json.loads(told.stdout)
    if not taken:
        pytest.skip("the C library is not glibc")
    assert full > BLOCK / 2  # the block's pages were in use,
    assert kept > BLOCK / 2  # stay with the process when it is freed,
    assert given
    assert left < BLOCK / 2  # and go back to the system when they are given back
