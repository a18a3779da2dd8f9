"""P members of one program: their parameters are one matrix theta [P, D], their gradients another.

Every member has a module of its own whose parameters and buffers are views of its row, so a row can
be run by calling its module. A *wider chunk* of rows runs as one ``torch.func.vmap`` over stacked
views of the same storage.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ravine.engine.rows.batched import DenseNetwork
from ravine.engine.rows.members import Members, Newcomers, Tensors, Values
from ravine.errors import first_line
from ravine.layout import Entry, Layout
from ravine.nn.build import layout as layout_of
from ravine.nn.randomized import Randomized, settle
from ravine.nn.traits import takes_bfloat16
from ravine.randomness import key
from ravine.recipe import Recipe

_STRIDE = 0x1E3779B97F4A7C15  # from one step's key to the next (a Weyl sequence)


class Objective(nn.Module):
    """Model and loss as one module: (x, y, sample weights) -> the batch's mean loss."""

    loss: Any  # an nn.criterion.SampleLoss; anything where no loss is asked for
    hard_negatives: Tensor
    adversarial: Tensor

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        hard_negatives: float = 1.0,
        adversarial: float = 0.0,
    ):
        super().__init__()
        self.model, self.loss = model, loss
        self.register_buffer(
            "hard_negatives", torch.tensor(hard_negatives, dtype=torch.float64), persistent=False
        )
        self.register_buffer(
            "adversarial", torch.tensor(adversarial, dtype=torch.float64), persistent=False
        )
        self.mines, self.attacks = hard_negatives < 1.0, adversarial > 0.0

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.mean(self.model(x), y, weight)

    def mean(self, output: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """The batch's mean loss of the model's output."""
        losses = self.loss(output, y)  # [B]
        kept = self._hardest(losses.detach()) if self.mines else None
        return self.loss.batch_mean(losses, y, weight, kept)

    def _hardest(self, losses: Tensor) -> Tensor:
        """Which samples are among the hardest [B]."""
        rank = losses.argsort(descending=True).argsort()
        return rank < (self.hard_negatives * losses.shape[0]).ceil()


class Population:
    """Rows of theta and what runs them.

    ``chunk`` is the number of rows that run as one: 1 calls the members' own modules, P maps over
    all.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        seeds: Sequence[int],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.device = device
        self.autocast: torch.dtype | None = (
            None  # the precision of products, where it is not theta's
        )
        self.memory_format = torch.contiguous_format
        self.objectives = [objective.to(device=device, dtype=dtype) for objective in objectives]
        self._share_abilities()
        self.layout: Layout = layout_of(self.objectives[0])
        self.chunk = 1
        self.dense: DenseNetwork | None = None  # dense networks need neither autograd nor vmap
        self.low: Tensor | None = (
            None  # [P, D], theta in the precision of products, where it is cast once a step
        )
        self.compiled: dict[
            nn.Module, Callable[[Tensor], Any]
        ] = {}  # networks that run compiled while they train
        self.workers = 1  # threads that run rows side by side, one row at a time each
        # of a batch, run side by side by as many threads: of a single member that sees samples
        # alone
        self.parts = 1
        self._pool: ThreadPoolExecutor | None = None
        self.global_seeds: list[int] | None = None
        self._random = [
            name
            for name, module in self.objectives[0].named_modules()
            if isinstance(module, Randomized)
        ]
        stacked = [dict(objective.named_parameters()) for objective in self.objectives]
        self.theta = torch.empty(
            len(objectives), self.layout.size, device=device, dtype=dtype
        )  # [P, D]
        for row, parameters in zip(self.theta, stacked, strict=True):
            for entry in self.layout.entries:
                row[entry.start : entry.stop] = parameters[entry.name].detach().reshape(-1)
        self.buffers = _stack_buffers(self.objectives)  # name -> [P, ...]
        bases = [[key(seed, "layer", i) for i in range(len(self._random))] for seed in seeds]
        self._key_bases = torch.tensor(
            bases, dtype=torch.int64, device=device
        )  # [P, random layers]
        self._bind()

    def __len__(self) -> int:
        return self.theta.shape[0]

    # --- rows and modules -------------------------------------------------------------------------

    def _bind(self) -> None:
        """Make every module's parameters and buffers views of its row."""
        self.grad = torch.zeros_like(self.theta)  # [P, D]
        self._keys = torch.zeros_like(self._key_bases)
        for layer, name in enumerate(self._random):
            self.buffers[f"{name}.key"] = self._keys[:, layer]
        self.parameters: list[list[nn.Parameter]] = []
        self._gradients: list[list[Tensor]] = []
        for i, objective in enumerate(self.objectives):
            named = dict(objective.named_parameters())
            for entry in self.layout.entries:
                named[entry.name].data = view(self.theta[i], entry)
            self.parameters.append([named[entry.name] for entry in self.layout.entries])
            self._gradients.append([view(self.grad[i], entry) for entry in self.layout.entries])
            self._bind_buffers(i)
            settle(objective, self.buffers)
        self._draws = any(
            isinstance(m, Randomized) and not getattr(m, "idle", False)
            for m in self.objectives[0].modules()
        )
        self._template = _apart(self.objectives[0])
        self._leaves = {e.name: view(self.theta, e).requires_grad_() for e in self.layout.entries}
        self._leaf_gradients = [view(self.grad, entry) for entry in self.layout.entries]
        if self.dense is not None:
            self.write_out(self.dense.precision)
        if self.low is not None:
            self.cast_once(self.low.dtype)

    @property
    def input_dtype(self) -> torch.dtype | None:
        """The precision to which inputs are rounded before anything else is done with them, if that
        is not theta's."""
        return None if self.dense is None else self.dense.input_dtype

    def write_out(self, precision: torch.dtype | None) -> None:
        """Run the members as batched products with a backward pass written out; None: through
        autograd again."""
        self.dense = None
        if precision is not None and DenseNetwork.refuses(self.objectives, self.layout) is None:
            self.dense = DenseNetwork(
                self.objectives, self.theta, self.grad, self.layout, self.buffers, precision
            )

    def cast_once(self, precision: torch.dtype | None) -> None:
        """Cast the weights once a step where every layer is known to take that precision; else
        autocast does it."""
        self.low = None
        if precision is not None and takes_bfloat16(self.objectives[0].model):
            self.low = torch.empty_like(self.theta, dtype=precision)
            sources = [
                {"norm": self.theta}.get(entry.kind, self.low) for entry in self.layout.entries
            ]
            self._low = [
                [view(m[i], e) for m, e in zip(sources, self.layout.entries, strict=True)]
                for i in range(len(self))
            ]
            self._full = [
                [view(row, entry) for entry in self.layout.entries] for row in self.theta.detach()
            ]

    @contextlib.contextmanager
    def _lowered(self, i: int) -> Iterator[None]:
        """A member's parameters in the precision of products, forward and backward."""
        if self.low is None:
            yield
            return
        self.low[i].copy_(self.theta[i])
        for parameter, low in zip(self.parameters[i], self._low[i], strict=True):
            parameter.data = low
        try:
            yield
        finally:
            for parameter, full in zip(self.parameters[i], self._full[i], strict=True):
                parameter.data = full

    def _bind_buffers(self, i: int) -> None:
        for name, stacked in self.buffers.items():
            owner, _, leaf = name.rpartition(".")
            self.objectives[i].get_submodule(owner)._buffers[leaf] = stacked[i]

    def gather_buffers(self) -> None:
        """Take back buffers that a module has replaced rather than changed in place."""
        for i, objective in enumerate(self.objectives):
            strayed = False
            for name, stacked in self.buffers.items():
                owner, _, leaf = name.rpartition(".")
                now = objective.get_submodule(owner)._buffers[leaf]
                if now is not None and now.data_ptr() != stacked[i].data_ptr():
                    stacked[i].copy_(now)
                    strayed = True
            if strayed:
                self._bind_buffers(i)

    def register(self, members: Members) -> None:
        """Enter what the rows own into the table; whenever it changes, modules are bound anew."""
        theta = Tensors("theta", self, "theta", lambda new: new.theta, returns=True, stepped=True)
        keys = {f"{name}.key" for name in self._random}  # functions of seed and step
        buffers = Tensors(
            "buffer",
            self,
            "buffers",
            lambda new: new.buffers,
            returns=True,
            stepped=True,
            derived=keys.__contains__,
        )
        layer_keys = Tensors(
            "layer_keys", self, "_key_bases", lambda new: new.layer_keys, saved=False
        )
        objectives = Values("objectives", self, "objectives", lambda new: new.objectives)
        seeds = Values(
            "seeds", self, "global_seeds", lambda new: [recipe.seed for recipe in new.recipes]
        )
        for column in (theta, buffers, layer_keys, objectives, seeds):
            members.add(column)
        members.when_changed(self._rebind)

    def _rebind(self) -> None:
        self.chunk = self.chunk if self.chunk == 1 else len(self)
        self._share_abilities()
        self._bind()

    def newcomers(
        self,
        objectives: Sequence[Objective],
        recipes: Sequence[Recipe],
        numbers: Sequence[int],
        start: int,
        sample_weights: Tensor | None = None,
    ) -> Newcomers:
        """Members that are to join: rows as their objectives and seeds make them."""
        seeds = [recipe.seed for recipe in recipes]
        more = Population(objectives, seeds, device=self.device, dtype=self.theta.dtype)
        return Newcomers(
            list(numbers),
            list(recipes),
            start,
            more.objectives,
            more.theta,
            more.buffers,
            more._key_bases,
            sample_weights,
        )

    def _share_abilities(self) -> None:
        """What one member does, all must be able to do: they share a forward pass."""
        for objective in self.objectives:
            objective.mines = any(o.mines for o in self.objectives)
            objective.attacks = any(o.attacks for o in self.objectives)

    def saved_buffers(self) -> dict[str, Tensor]:
        """The buffers that belong to the state: all but the random layers' keys."""
        keys = {f"{name}.key" for name in self._random}
        return {name: stacked for name, stacked in self.buffers.items() if name not in keys}

    def train(self, mode: bool = True) -> None:
        for objective in self.objectives:
            objective.train(mode)

    # --- running ----------------------------------------------------------------------------------

    def seed_step(self, step: int | Tensor) -> None:
        """Give every random layer its key for this step: a function of (member seed, layer,
        step)."""
        if self._draws:
            offset = (
                step * _STRIDE
            ) & 0x7FFFFFFFFFFFFFFF  # a tensor's product wraps around: its last 63 bits are these
            torch.add(self._key_bases, offset, out=self._keys).bitwise_and_(0x7FFFFFFFFFFFFFFF)

    def gradients(
        self, x: Tensor, y: Tensor, weight: Tensor | None, step: int, *, accumulate: float = 0.0
    ) -> Tensor:
        """Fill ``grad`` [P, D] with the gradient of the data loss; give the losses [P]. weight: [P,
        B] or None.

        ``accumulate`` other than 0 adds that multiple of the new gradient to what ``grad`` holds.
        """
        if self.dense is not None:
            return self.dense.gradients(x, y, weight, accumulate)
        with torch.enable_grad():
            return self._by_autograd(x, y, weight, step, accumulate)

    def _by_autograd(
        self, x: Tensor, y: Tensor, weight: Tensor | None, step: int, accumulate: float
    ) -> Tensor:
        if self.chunk > 1:
            mapped = self._mapped(x, y, weight)
            found = torch.autograd.grad(
                mapped.sum(), list(self._leaves.values()), materialize_grads=True
            )
            _store(self._leaf_gradients, found, accumulate)
            return mapped.detach()
        if self.parts > 1 and len(self) == 1:
            return self._in_parts(x, y, weight, accumulate)

        def row(i: int) -> Tensor:
            if self.global_seeds is not None:
                torch.manual_seed(key(self.global_seeds[i], "module", step))
            with self._lowered(i):
                loss = self._one(self.objectives[i], x, y, None if weight is None else weight[i])
                found = torch.autograd.grad(loss, self.parameters[i], materialize_grads=True)
            _store(self._gradients[i], found, accumulate)
            return loss.detach()

        alone = self.workers == 1 or len(self) == 1 or self.global_seeds is not None
        losses = (
            map(row, range(len(self)))
            if alone
            else self._side_by_side(self.workers, row, range(len(self)))
        )
        return torch.stack(list(losses)).to(self.theta.dtype)

    def _in_parts(self, x: Tensor, y: Tensor, weight: Tensor | None, accumulate: float) -> Tensor:
        """The single member's batch in parts, side by side; the gradient of their mean is the sum
        of their shares."""
        parts, total = self.parts, self.objectives[0].loss.total
        whole = total(y)
        others = self.grad.new_empty(
            parts - 1, self.layout.size
        )  # the first part fills grad itself
        into = [
            self._gradients[0],
            *([view(row, entry) for entry in self.layout.entries] for row in others),
        ]

        def part(gradients: list[Tensor], x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
            share = total(y) / whole if whole else 0.0
            loss = self._one(self.objectives[0], x, y, weight) * share
            found = torch.autograd.grad(loss, self.parameters[0], materialize_grads=True)
            _store(gradients, found, accumulate if gradients is into[0] else 0.0)
            return loss.detach()

        weights = [None] * parts if weight is None else weight[0].chunk(parts)
        with self._lowered(0):
            losses = list(
                self._side_by_side(parts, part, into, x.chunk(parts), y.chunk(parts), weights)
            )
        for row in others[: len(losses) - 1]:
            self.grad[0].add_(row, alpha=accumulate or 1.0)
        return torch.stack(losses).sum(0, keepdim=True).to(self.theta.dtype)

    def _side_by_side(
        self, threads: int, work: Callable[..., Tensor], *given: Iterable[Any]
    ) -> Iterable[Tensor]:
        """``map`` by threads, each of which runs its kernels alone."""
        if self._pool is None or self._pool._max_workers != threads:
            self._pool = ThreadPoolExecutor(threads, initializer=_kernels_alone)
        return self._pool.map(work, *given)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """The losses [P] of the batch, without gradients."""
        with torch.no_grad():
            if self.chunk > 1:
                return self._mapped(x, y, None)
            return torch.stack([self._plain(objective, x, y) for objective in self.objectives])

    def outputs(self, x: Tensor) -> Tensor:
        """Every row's outputs for the same inputs [P, B, ...], without gradients."""
        with torch.no_grad():
            if self.chunk == 1:
                return torch.stack([self.call(objective.model, x) for objective in self.objectives])
            inside = [
                {
                    name.removeprefix("model."): stacked
                    for name, stacked in held.items()
                    if name.startswith("model.")
                }
                for held in (self._leaves, self.buffers)
            ]
            model = self._template.model
            if model.training != self.objectives[0].model.training:
                model.train(self.objectives[0].model.training)

            def output(leaves: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
                with self._casting():
                    return functional_call(
                        model, (leaves, buffers), (self._laid_out(x),), tie_weights=True
                    )

            return vmap(output)(*inside).to(self.theta.dtype)

    def _plain(self, objective: Objective, x: Tensor, y: Tensor) -> Tensor:
        with self._casting():
            return objective(self._laid_out(x), y, None)

    def _one(self, objective: Objective, x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        x = self._laid_out(x)
        with self._casting() if self.low is None else contextlib.nullcontext():
            if not objective.attacks:
                return self._loss(objective, x, y, weight)
            x = x.detach().requires_grad_()
            loss = self._loss(objective, x, y, weight)
            (slope,) = torch.autograd.grad(loss, x, retain_graph=True)
            return (
                loss + self._loss(objective, attacked(x, slope, objective.adversarial), y, weight)
            ) / 2

    def _loss(self, objective: Objective, x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        network = self.compiled.get(objective.model, objective.model)
        if self.low is None:
            return objective.mean(network(x), y, weight)
        output = network(x.to(self.low.dtype) if x.is_floating_point() else x)
        return objective.mean(output.to(self.theta.dtype), y, weight)

    def call(self, model: nn.Module, x: Tensor) -> Tensor:
        """A model's outputs in the precision and layout of this program; float32 at least."""
        with self._casting():
            output = joined(model(self._laid_out(x)))
        return (
            output
            if output.dtype == self.theta.dtype or not output.is_floating_point()
            else output.to(self.theta.dtype)
        )

    def _casting(self) -> contextlib.AbstractContextManager[Any]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast)

    def _laid_out(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or self.memory_format == torch.contiguous_format:
            return x
        if (
            x.shape[1] == 1
        ):  # both layouts at once: only the strides tell convolutions which to take
            return x.contiguous().as_strided(x.shape, (x[0].numel(), 1, x.shape[3], 1))
        return x.contiguous(memory_format=self.memory_format)

    def _mapped(self, x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        template = self._template
        if template.training != self.objectives[0].training:
            template.train(self.objectives[0].training)

        def loss(
            leaves: dict[str, Tensor], buffers: dict[str, Tensor], weight: Tensor | None
        ) -> Tensor:
            def at(x: Tensor) -> Tensor:
                return functional_call(
                    template, (leaves, buffers), (x, y, weight), tie_weights=True
                )

            if not template.attacks:
                return at(x)
            slope = torch.func.grad(at)(x)
            return (at(x) + at(attacked(x, slope, buffers["adversarial"]))) / 2

        return vmap(loss, in_dims=(0, 0, None if weight is None else 0))(
            self._leaves, self.buffers, weight
        )  # [P]

    def why_not_mapped(self, x: Tensor, y: Tensor) -> str | None:
        """Try the first rows both ways; the reason why they must run one at a time, or None when
        mapping is right."""
        chunk = self.chunk

        def switch(mapped: bool) -> None:
            self.chunk = len(self) if mapped else 1

        try:
            return self._why_not(switch, "vmap", x, y)
        finally:
            self.chunk = chunk

    def why_not_compiled(self, x: Tensor, y: Tensor) -> str | None:
        """Try what ``compiled`` holds; the reason why the networks must run as they are, or None
        when it is right."""
        compiled = self.compiled

        def switch(on: bool) -> None:
            self.compiled = compiled if on else {}

        try:
            return self._why_not(switch, "torch.compile", x, y)
        finally:
            self.compiled = compiled

    def _why_not(
        self, switch: Callable[[bool], None], name: str, x: Tensor, y: Tensor
    ) -> str | None:
        """Gradients, losses and buffers with something off and on: why it cannot be on, or None."""
        before = {name: stacked.clone() for name, stacked in self.buffers.items()}
        grad = self.grad.clone()
        try:
            switch(False)
            direct = self.gradients(x, y, None, 0)
            # a mapped module cannot replace its buffers, only change them in place
            self.gather_buffers()
            expected, buffers = self.grad.clone(), {n: b.clone() for n, b in self.buffers.items()}
            self.restore(before)
            switch(True)
            found = self.gradients(x, y, None, 0)
            rounded = self.autocast is not None
            close = _close(found, direct, rounded) and _close(self.grad, expected, rounded)
            close = close and all(_close(self.buffers[n], b, rounded) for n, b in buffers.items())
            return None if close else f"{name} gives other values than direct calls"
        except (
            Exception
        ) as error:  # whatever a person's module raises here is a reason, not a failure
            return f"{name} failed: {first_line(error)}"
        finally:
            self.grad.copy_(grad)
            self.restore(before)

    def restore(self, buffers: dict[str, Tensor]) -> None:
        """Put back buffers that a trial has changed."""
        for name, stacked in self.buffers.items():
            stacked.copy_(buffers[name])
        for i in range(len(self)):
            self._bind_buffers(i)


def _kernels_alone() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def joined(output: Tensor | Sequence[Tensor]) -> Tensor:
    """A network's outputs as one tensor: those of several heads side by side."""
    return (
        output
        if isinstance(output, Tensor)
        else torch.cat([head.reshape(len(head), -1) for head in output], 1)
    )


def attacked(x: Tensor, slope: Tensor, epsilon: Tensor) -> Tensor:
    """The batch moved uphill by the fast gradient sign method: x + epsilon sign(dL/dx) (Goodfellow
    et al., 2015)."""
    return (x + epsilon.to(x.dtype) * slope.sign()).detach()


def view(rows: Tensor, entry: Entry) -> Tensor:
    """The entry's tensor in one row [D], or in all rows [P, D] -> [P, *shape]."""
    return rows[..., entry.start : entry.stop].view((*rows.shape[:-1], *entry.shape))


def _apart(objective: Objective) -> Objective:
    """What ``functional_call`` may run: a copy where a parameter stands under two names, which it
    would not put back."""
    names = [name for name, _ in objective.named_parameters(remove_duplicate=False)]
    return (
        objective if len(names) == len(list(objective.parameters())) else copy.deepcopy(objective)
    )


def _stack_buffers(objectives: Sequence[nn.Module]) -> dict[str, Tensor]:
    named = [dict(objective.named_buffers()) for objective in objectives]
    return {name: torch.stack([buffers[name] for buffers in named]) for name in named[0]}


def _store(into: list[Tensor], found: Sequence[Tensor], accumulate: float) -> None:
    if accumulate == 0.0:
        torch._foreach_copy_(into, list(found))
    else:
        torch._foreach_add_(into, list(found), alpha=accumulate)


def _close(a: Tensor, b: Tensor, rounded: bool = False) -> bool:
    """Equal but for rounding: that of the dtype, or where products are ``rounded`` that of
    bfloat16."""
    if not a.is_floating_point():
        return bool(torch.equal(a, b))
    scale = b.norm().clamp_min(1e-12)
    allowed = 3e-2 if rounded else 1e-9 if a.dtype == torch.float64 else 1e-3
    return bool((a - b).norm() <= scale * allowed) or not bool(scale.isfinite())


def rows_of(modules: Sequence[nn.Module], layout: Layout) -> Tensor:
    """theta [P, D] of modules that are not bound to rows."""
    rows: list[Any] = []
    for module in modules:
        named = dict(module.named_parameters())
        rows.append(torch.cat([named[e.name].detach().reshape(-1) for e in layout.entries]))
    return torch.stack(rows)
