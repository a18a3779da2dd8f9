"""What the allocator keeps while networks train, and gives back afterwards."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from ravine.engine.execution.memory import give_back_freed_memory, keep_freed_memory

BLOCK = 1 << 26


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as lines:
        return int(lines.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the allocator of other systems needs no telling"
)
def test_freed_memory_is_kept_until_it_is_given_back():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    give_back_freed_memory()  # of other tests: beyond a limit the allocator hands back by itself
    held = torch.ones(BLOCK, dtype=torch.uint8)
    full = resident()
    del held
    assert resident() > full - BLOCK / 2
    assert give_back_freed_memory()
    assert resident() < full - BLOCK / 2
