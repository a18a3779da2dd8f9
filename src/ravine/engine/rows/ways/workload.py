"""What the rules may ask about a program: its networks, its batches, its plan and the device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import nn

from ravine.engine.rows.theta import ParameterMatrix
from ravine.nn.analysis.traits import Trait, any_layer, sees_samples_alone


@dataclass(frozen=True)
class Workload:
    """A population and how it will be stepped."""

    population: ParameterMatrix
    device: str  # "cpu" or "cuda"
    threads: int  # at most
    batch: int  # samples
    steps: int = 0  # of the whole plan
    lowered: bool = False  # whether dense layers are computed in bfloat16
    parts_pay: bool = False  # whether this machine gains where a recurrent batch is divided

    @property
    def members(self) -> int:
        return len(self.population)

    @property
    def foreign(self) -> bool:
        """Whether modules of a person's own may draw from PyTorch's global generator."""
        return self.population.global_seeds is not None

    @cached_property
    def convolutional(self) -> bool:
        return any_layer(self.population.objectives[0], Trait.CONVOLUTION)

    @cached_property
    def recurrent(self) -> bool:
        return any_layer(self.population.objectives[0], Trait.RECURRENT)

    @cached_property
    def units(self) -> int:
        """Of the smallest recurrent layer."""
        modules = self.population.objectives[0].modules()
        return min((m.hidden_size for m in modules if isinstance(m, nn.RNNBase)), default=0)

    @cached_property
    def divisible(self) -> bool:
        """Whether the gradient of a batch is the sum of those of its parts: one member, whose
        layers and loss see each sample alone."""
        objective = self.population.objectives[0]
        plain = not objective.mines and not objective.attacks and not self.foreign
        return self.members == 1 and plain and sees_samples_alone(objective.model)
