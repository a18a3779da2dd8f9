"""One member that is too large for a device: PyTorch's ``fully_shard`` (FSDP2) divides its parameters
among the ranks. theta [1, D_r] holds the part of this rank r, and so do gradient, optimiser slots and
averages: formulas that treat each number by itself run on it as they are. Snapshots hold whole arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ravine.catalogue import PREFIX
from ravine.engine.directory_record import DirectoryRecord
from ravine.engine.loop.record import Kind, Memory
from ravine.engine.programs import Program
from ravine.engine.ranks.forwarded import Unwritten
from ravine.engine.ranks.ranks import Joined, Ranks
from ravine.engine.rows.objective import Objective
from ravine.engine.rows.population import Population, view
from ravine.engine.rows.torch_rows import is_torch
from ravine.errors import InputError, first_line
from ravine.layout import Layout
from ravine.nn.build import layout as layout_of
from ravine.recipe import Recipe
from ravine.rundir import RunDir

# what a snapshot holds of each column of theta: by the first part of its name
_COLUMNS = {"theta", "final", "average", "best", "optimizer", "slot"}


class ShardedPopulation(Population):
    """One member, of which each rank holds a part of every parameter: whole rows of it, along its first
    dimension."""

    sharded = True

    def __init__(
        self,
        objectives: Sequence[Objective],
        seeds: Sequence[int],
        *,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Joined,
    ):
        self.ranks = ranks
        super().__init__(objectives, seeds, device=device, dtype=dtype)
        sizes = torch.tensor([entry.stop - entry.start for entry in self.layout.entries])
        self._sizes: list[list[int]] = ranks.gathered(sizes).tolist()  # of each rank's entries
        if not all(map(sum, self._sizes)):
            raise _refusal("a rank without a part of any parameter", "fewer ranks")
        self.objectives[0].model.register_forward_pre_hook(self._bring, prepend=True)

    def _placed(self, objective: Objective, dtype: torch.dtype) -> Objective:
        """The module, whose parts come to the device block by block: it never is there as a whole."""
        objective.to(dtype=dtype).sharded = True
        if any(True for _ in objective.loss.parameters()):
            raise _refusal("a loss with parameters of its own", "parameters in the model alone")
        objective.loss.to(device=self.device)
        try:
            self._shard(objective.model)
        except (ValueError, NotImplementedError, AssertionError) as error:
            raise _refusal("a model that FSDP2 does not divide", first_line(error)) from None
        return objective.to(device=self.device)

    def _shard(self, model: nn.Module) -> None:
        # half a second of imports, which other runs do without
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        mesh = init_device_mesh(self.device.type, (self.ranks.world,))
        policy = MixedPrecisionPolicy(reduce_dtype=self.ranks.rounded)
        for block in [*_blocks(model), model]:
            fully_shard(block, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
        for module in model.modules():
            if isinstance(
                module, FSDPModule
            ):  # parts of a batch have weights: gradients are added up
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # all that gloo knows

    def _layout(self) -> Layout:
        """The columns of this rank."""
        named = dict(self.objectives[0].named_parameters())
        whole = layout_of(self.objectives[0]).entries
        parts = [replace(e, shape=tuple(self._own(named[e.name]).shape)) for e in whole]
        axes = {entry.name: entry.unit_axes for entry in whole}
        return Layout.of([(e.name, e.shape, e.kind, e.layer) for e in parts], axes)

    def _own(self, parameter: Tensor) -> Tensor:
        return parameter.to_local().detach()  # type: ignore[attr-defined]  # a DTensor

    def _point(self, parameter: nn.Parameter, row: Tensor) -> None:
        """FSDP2 keeps storage of its own: ``_bring`` copies the row into it."""

    @torch.no_grad()
    def _bring(self, *_: Any) -> None:
        """Before each pass: the modules' parts become those in theta."""
        rows = [view(self.theta[0], entry) for entry in self.layout.entries]
        torch._foreach_copy_([self._own(parameter) for parameter in self.parameters[0]], rows)

    def slopes(self, i: int, loss: Tensor) -> Sequence[Tensor]:
        loss.backward()  # adds the ranks' gradients up
        found = []
        for parameter in self.parameters[i]:
            grad, parameter.grad = parameter.grad, None
            own = self._own(parameter)
            found.append(torch.zeros_like(own) if grad is None else self._own(grad))
        return found

    # --- snapshots --------------------------------------------------------------------------------

    def whole(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A snapshot's arrays with all columns, on the rank that writes; all ranks come here."""
        return {n: self._joined(t) if _of_theta(n) else t for n, t in arrays.items()}

    def _joined(self, part: Tensor) -> Tensor:
        rows = part.detach().reshape(-1, self.layout.size).cpu()  # [P, D_r]
        parts = self.ranks.gather_rows(rows, [sum(sizes) for sizes in self._sizes])
        if not parts:
            return part
        pieces = [each.split(sizes, 1) for each, sizes in zip(parts, self._sizes, strict=True)]
        # of each parameter, the ranks' parts one after the other: [P, D]
        whole = torch.cat([piece for entry in zip(*pieces, strict=True) for piece in entry], 1)
        return whole.view(*part.shape[:-1], -1)

    def parts_of(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: self._part(t) if _of_theta(n) else t for n, t in arrays.items()}

    def _part(self, whole: Tensor) -> Tensor:
        sizes = [size for entry in zip(*self._sizes, strict=True) for size in entry]
        if whole.shape[-1] != sum(sizes):
            return whole  # of another model: whoever takes it says so
        pieces = whole.split(sizes, -1)
        return torch.cat(pieces[self.ranks.rank :: len(self._sizes)], -1).to(self.device)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The parts whose parameters come together for a pass and go after it: the outermost layers of
    stacks, lists and sequences, where they share no parameter with others."""
    found: list[nn.Module] = []

    def search(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(module, nn.Sequential | nn.ModuleList) and not isinstance(
                child, nn.ModuleList | nn.ModuleDict
            ):
                found.append(child)
            else:
                search(child)

    search(model)
    owners: dict[int, set[int]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            owners.setdefault(id(parameter), set()).add(id(module))
    shared = {own for own, by in owners.items() if len(by) > 1}
    return [
        block
        for block in found
        if (own := {id(parameter) for parameter in block.parameters()}) and not own & shared
    ]


def _of_theta(name: str) -> bool:
    parts = name.split("/")
    return (parts[2] if parts[0] == "good" else parts[0]) in _COLUMNS


def _refusal(got: str, repair: str) -> InputError:
    expected = "what can be divided among ranks number by number"
    return InputError("ranks.shard", got=got, expected=expected, repair=repair)


# --- in place of the usual ------------------------------------------------------------------------


class _Written(DirectoryRecord):
    """The run directory; snapshots are joined first."""

    def __init__(self, rundir: RunDir, program: Program):
        super().__init__(rundir, program.number)
        self.population: Any = program.population

    def snapshot(
        self,
        kind: Kind,
        step: int,
        lead: int,
        arrays: Mapping[str, Tensor],
        facts: Mapping[str, Any],
    ) -> None:
        super().snapshot(kind, step, lead, self.population.whole(arrays), facts)


class _Contributed(Unwritten):
    """On other ranks: their parts of snapshots are sent to the one that writes."""

    lasts = True

    def __init__(self, rundir: RunDir, program: Program):
        super().__init__(rundir)
        self.population: Any = program.population

    def snapshot(
        self,
        kind: Kind,
        step: int,
        lead: int,
        arrays: Mapping[str, Tensor],
        facts: Mapping[str, Any],
    ) -> None:
        self.population.whole(arrays)


def sharded_record(ranks: Ranks, rundir: RunDir, program: Program) -> DirectoryRecord | Memory:
    """The record of a program whose parameters are divided."""
    return _Written(rundir, program) if ranks.writes else _Contributed(rundir, program)


def population_of(ranks: Ranks, recipes: Sequence[Recipe]) -> Callable[..., Population]:
    """What makes the rows of a run on these ranks.

    Raises `InputError` where a run cannot be sharded as its recipe asks.
    """
    if not isinstance(ranks, Joined) or not ranks.shards:
        return Population
    if ranks.share_a_gpu:
        raise _refusal("ranks that share a GPU", "a GPU for each rank, or device = 'cpu'")
    _refuse(recipes)

    def make(*given: Any, **named: Any) -> Population:
        return ShardedPopulation(*given, **named, ranks=ranks)

    return make


def _refuse(recipes: Sequence[Recipe]) -> None:
    """What looks at more of a row than a rank has."""
    recipe, optimizer = recipes[0], recipes[0].optimizer
    if len(recipes) > 1:
        raise _refusal(f"{len(recipes)} members", "train them one after the other")
    own = optimizer.kind.startswith(PREFIX) or is_torch(optimizer)
    if own or "whole_tensors" in optimizer.technique.marks:
        raise _refusal(f"optimizer {optimizer.kind}", "adamw, or another that needs no norms")
    if recipe.constraint is not None:
        raise _refusal(f"constraint {recipe.constraint.kind}", "weight decay in its place")
    if recipe.step is not None:
        raise _refusal("a step of your own", "a loss of your own")
    for path in ("regularize.weight_noise", "regularize.adversarial"):
        if recipe.get(path):
            raise _refusal(path, f"{path} = 0")
