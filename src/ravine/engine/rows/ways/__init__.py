"""The ways to take the gradients of P members. To add one: a file with its class, and its line here.

The order is that of the rules: a program runs in the first way whose ``rule`` takes it.
"""

from __future__ import annotations

from ravine.engine.rows.ways.compiled import Compiled
from ravine.engine.rows.ways.dense import Dense
from ravine.engine.rows.ways.mapped import Mapped
from ravine.engine.rows.ways.native import Native
from ravine.engine.rows.ways.one_by_one import OneByOne
from ravine.engine.rows.ways.stepped import Stepped
from ravine.engine.rows.ways.threads import Parts, Threads
from ravine.engine.rows.ways.way import Arithmetic, Way
from ravine.engine.rows.ways.workload import Workload

WAYS: dict[str, type[Way]] = {
    way.name: way for way in (Stepped, Native, Dense, Compiled, Parts, Mapped, Threads, OneByOne)
}

__all__ = ["WAYS", "Arithmetic", "Compiled", "Dense", "Mapped", "OneByOne", "Parts", "Threads"]
__all__ += ["Native", "Stepped", "Way", "Workload"]
