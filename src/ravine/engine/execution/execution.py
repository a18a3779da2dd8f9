"""The execution record: how a program runs and why. It is stored, shown, and replayed by resume."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from ravine.engine.rows.ways import WAYS, Arithmetic, Way
from ravine.errors import InputError

_MEMORY_FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}

# of the first versions, whose names have changed since
_FIRST_FIELDS = {"device", "precision", "rows", "layout", "threads", "workers", "parts", "graphs"}
_FIRST_FIELDS |= {"compiled", "why"}
_FIRST_ROWS = {"written out": "dense", "together": "mapped", "one by one": "one by one"}


def _of_first_version(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The record that says the same in the fields of this version."""
    way = _FIRST_ROWS[facts["rows"]]
    if way == "one by one":
        way = "compiled" if facts["compiled"] else way
        way = "members on threads" if facts["workers"] > 1 else way
        way = "parts on threads" if facts["parts"] > 1 else way
    same = {name: facts[name] for name in ("device", "precision", "graphs", "why")}
    threads = max(facts["threads"], facts["workers"], facts["parts"])
    return {**same, "way": way, "memory_format": facts["layout"], "threads": threads}


@dataclass
class Execution:
    """How a program runs: what the pilot chose and why."""

    device: str
    precision: str  # of products; theta itself is float32, or float64 for checks
    way: str  # in which gradients are taken: a name in WAYS
    memory_format: str = "contiguous"  # of images: or "channels_last"
    threads: int = 1
    graphs: bool = False  # whole steps are CUDA graphs
    # weights of a dense layer from which its products are in a lower precision
    lowered_from: int = Arithmetic.lowered_from
    joined: bool = False  # batch normalisation, ReLU and pooling are compiled functions
    why: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Execution:
        """The record that a run directory holds; that of a first version is read as the way that it
        became, with a warning.

        Raises `InputError` for one that another version of Ravine has written.
        """
        if set(facts) == _FIRST_FIELDS and facts["rows"] in _FIRST_ROWS:
            warnings.warn(
                "the run was begun by an earlier version of Ravine: it goes on in the same way, but its last "
                "digits may differ from those that that version would have come to",
                stacklevel=2,
            )
            facts = _of_first_version(facts)
        known = {each.name for each in fields(cls)}
        # as they were before they were fields
        facts = {"lowered_from": Arithmetic.lowered_from, "joined": False, **facts}
        if set(facts) != known or facts["way"] not in WAYS:
            raise InputError(
                "execution record",
                got=", ".join(sorted(set(facts) ^ known)) or facts["way"],
                expected="the fields of this version",
                repair="go on with the version of Ravine that began the run",
            )
        return cls(**facts)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        """The record in a line.

        >>> Execution("cpu", "float32", "members on threads", threads=2).sentence()
        'cpu, float32, 2 threads, members on 2 threads, each on one'
        """
        parts = [self.device, self.precision]
        parts += [f"{self.threads} thread{'s' if self.threads != 1 else ''}"]
        parts += ["channels last"] if self.memory_format == "channels_last" else []
        parts += ["steps as CUDA graphs"] if self.graphs else []
        parts += ["batch norm, ReLU and pooling compiled"] if self.joined else []
        return ", ".join([*parts, self.kind.phrase.format(threads=self.threads)])

    @property
    def kind(self) -> type[Way]:
        """The class of the way."""
        return WAYS[self.way]

    @property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic(
            products=torch.bfloat16 if self.precision == "bfloat16" else None,
            memory_format=_MEMORY_FORMATS[self.memory_format],
            threads=self.threads,
            lowered_from=self.lowered_from,
            joined=self.joined,
        )

    @property
    def step_threads(self) -> int:
        """Threads of one kernel in a step: 1 where the way's own threads need the cores, which idle
        threads of kernels would keep by spinning."""
        return 1 if self.kind.own_threads else self.threads
