"""The doctor in any PyTorch loop: ``watch = ravine.watch(model, optimizer)``, ``watch.step(loss)``,
``watch.diagnose()``.

Every step keeps the loss alone. At sampled steps the gradients that the loop has just made and the
optimiser's learning rate are measured too, and during the next forward pass the layers' outputs,
through hooks that are there for that pass only. Numbers are kept, never a tensor; nothing of the
loop is changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ravine.doctor.findings import Diagnosis, Finding, ranked
from ravine.doctor.probes import measured_layer

# of the loop's time that measuring may take, by its own clock; what it does to caches comes on top
SHARE = 0.0015
FIRST = (1, 16, 64)  # steps that are always measured
LOOKED = (
    2**17
)  # numbers of a layer's output that are looked at: of convolutions some samples, of dense layers all
WAITING = 256  # losses that wait to be read
KEPT = 4096  # losses kept; older ones are thinned to every second
PLAIN = 0.9  # the last losses against the first: learning is plain under it


@dataclass
class Sample:
    """What was measured around one step."""

    step: int
    norm: float  # of the whole gradient
    lr: float
    gradients: dict[str, float] = field(
        default_factory=dict
    )  # weight's name -> gradient over weight, root mean squares
    update: float = 0.0  # how far one step moves the weights, over their norm
    layers: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # layer -> kind, zero_units, flat


class Watch:
    """Watches a training loop; see ``watch``."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, every: int | None = None
    ):
        self.model, self.optimizer, self.every = model, optimizer, every
        self.steps = 0
        self.samples: list[Sample] = []
        self.losses: list[float] = []
        self._new: list[float] = []  # losses that have not been looked at yet
        self._waiting: Tensor | None = None  # those on an accelerator, read in one transfer
        self._stride = 1
        self._read_to = 0  # the step up to which losses have been kept
        self._spent = 0.0
        self._began = time.perf_counter()
        self._next = 1  # the step at which gradients and layers are measured
        self._due = 1  # the step at which there is something to do
        self._bad: int | None = None
        self._handles: list[Any] = []

    def step(self, loss: Tensor | float) -> None:
        """Tell the watch a step's loss, after ``backward``; before or after
        ``optimizer.step()``."""
        steps = self.steps = self.steps + 1
        if not isinstance(loss, Tensor):
            self._new.append(float(loss))
        elif loss.is_cpu:
            self._new.append(loss.item())
        else:
            self._take(loss)
        if steps >= self._due:
            self._attend()

    def _attend(self) -> None:
        began = time.perf_counter()
        self._unhook()
        self._read()
        measures = self.steps >= self._next
        if measures:
            self.samples.append(self._measure())
            self._hook(self.samples[-1])
        self._spent += time.perf_counter() - began
        if measures:
            self._next = self.steps + self.every if self.every else self._when()
        self._due = min(self._next, self.steps + WAITING)

    @torch.no_grad()
    def _take(self, loss: Tensor) -> None:
        if self._waiting is None:
            self._waiting = torch.zeros(WAITING, device=loss.device)
        self._waiting[(self.steps - 1 - self._read_to) % WAITING].copy_(loss.detach().reshape(()))

    def _when(self) -> int:
        """The next step to measure: soon at first, then as often as a small part of the time
        allows."""
        soon = next((s for s in FIRST if s > self.steps), None)
        if soon is not None:
            return soon
        a_step = (time.perf_counter() - self._began - self._spent) / self.steps
        a_sample = self._spent / max(1, len(self.samples))
        return self.steps + max(20, math.ceil(a_sample / max(SHARE * a_step, 1e-9)))

    def _read(self) -> None:
        """Keep the losses since the last reading: every one, or every second, fourth, … of a long
        run."""
        if self._waiting is not None:
            self._new += self._waiting[: self.steps - self._read_to].tolist()
        for step, value in enumerate(self._new, self._read_to + 1):
            if self._bad is None and not math.isfinite(value):
                self._bad = step
            if (step - 1) % self._stride == 0:
                self.losses.append(value)
            if len(self.losses) > KEPT:
                self.losses = self.losses[::2]
                self._stride *= 2
        self._new.clear()
        self._read_to = self.steps

    @torch.no_grad()
    def _measure(self) -> Sample:
        """Norms of the gradients and weights as they are now, in one transfer."""
        named = [
            (n, p)
            for n, p in self.model.named_parameters()
            if p.grad is not None and p.grad.layout == torch.strided
        ]
        lr = max((float(group["lr"]) for group in self.optimizer.param_groups), default=0.0)
        if not named:
            return Sample(self.steps, 0.0, lr)
        gradients = (
            torch.stack(torch._foreach_norm([p.grad for _, p in named if p.grad is not None]))
            .float()
            .tolist()
        )
        weights = torch.stack(torch._foreach_norm([p.detach() for _, p in named])).float().tolist()
        norm = (
            math.sqrt(sum(g * g for g in gradients))
            if all(map(math.isfinite, gradients))
            else math.inf
        )
        size = math.sqrt(sum(w * w for w in weights))
        ratios = {
            n: g / max(w, 1e-12)
            for (n, p), g, w in zip(named, gradients, weights, strict=True)
            if p.dim() > 1
        }
        by_gradient = "SGD" in type(self.optimizer).__name__
        move = lr * (norm if by_gradient else math.sqrt(sum(p.numel() for _, p in named)))
        return Sample(self.steps, norm, lr, ratios, move / max(size, 1e-12))

    # --- layers, during one forward pass ----------------------------------------------------------

    def _hook(self, sample: Sample) -> None:
        for name, module in self.model.named_modules():
            if not list(module.children()) and not list(module.parameters(recurse=False)):
                self._handles.append(module.register_forward_hook(self._recorder(name, sample)))

    def _recorder(self, name: str, sample: Sample) -> Any:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            if (
                name in sample.layers
                or not isinstance(output, Tensor)
                or not output.is_floating_point()
                or not output.numel()
            ):
                return
            began = time.perf_counter()
            few = max(8, LOOKED // max(1, output[0].numel()))
            sample.layers[name] = measured_layer(module, output[:few])
            self._spent += time.perf_counter() - began

        return record

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    # --- what it says -----------------------------------------------------------------------------

    def diagnose(self) -> Diagnosis:
        """``healthy``, ``sick`` or ``uncertain`` (too little seen), with findings as ``ravine
        doctor`` gives them."""
        self._unhook()
        self._read()
        finite = [loss for loss in self.losses if math.isfinite(loss)]
        findings = list(self._findings(finite))
        measured = {
            "steps": self.steps,
            "samples": len(self.samples),
            "share_of_time": round(self.share, 4),
        }
        if self._bad is not None:
            return Diagnosis(
                "sick",
                ranked(findings),
                measured=measured,
                why=f"the loss is not a number at step {self._bad}",
            )
        if len(finite) < 20:
            return Diagnosis(
                "uncertain", measured=measured, why=f"{self.steps} steps say too little"
            )
        first, last = _level(finite, 0), _level(finite, 1)
        if last < PLAIN * first or (last <= 0 and first > last):
            why = f"the loss has fallen from {first:.4g} to {last:.4g}"
            return Diagnosis("healthy", measured=measured, notes=findings, why=why)
        why = f"the loss went from {first:.4g} to {last:.4g}"
        return Diagnosis(
            "sick" if findings else "uncertain", ranked(findings), measured=measured, why=why
        )

    @property
    def share(self) -> float:
        """The part of the time since the beginning that measuring took."""
        return self._spent / max(time.perf_counter() - self._began, 1e-9)

    def _findings(self, finite: list[float]) -> Iterator[Finding]:
        if self._bad is not None:
            norms = [s.norm for s in self.samples if s.step <= self._bad]
            yield Finding(
                "non_finite",
                "loss",
                f"the loss is not a number from step {self._bad} on",
                strength=0.9,
            )
            if len(norms) > 1 and max(norms) > 100 * max(norms[0], 1e-12):
                text = f"the gradient's norm grew from {norms[0]:.2g} to {max(norms):.2g} before step {self._bad}"
                yield Finding("exploding_gradient", "gradient", text, strength=0.7)
            moved = [s.update for s in self.samples if s.step <= self._bad]
            if moved and max(moved) > 0.3:
                text = f"one step moved the weights by {max(moved):.2g} times their size (lr {self.samples[0].lr:g})"
                yield Finding("lr_too_high", "lr", text, (self._rate(0.1),), strength=0.91)
        if len(finite) < 20:
            return
        yield from self._of_rate(finite)
        yield from self._of_depth()
        yield from self._of_layers()
        first, last = _level(finite, 0), _level(finite, 1)
        if abs(last - first) < 0.02 * abs(first):
            text = f"the loss was {first:.4g} at the beginning and is {last:.4g} after {self.steps} steps"
            yield Finding("stuck", "loss", text, strength=0.55)

    def _rate(self, factor: float) -> dict[str, Any]:
        lr = self.samples[-1].lr if self.samples else 0.0
        return {"edits": {"lr": lr * factor}, "why": f"lr {lr * factor:.3g} in place of {lr:.3g}"}

    def _of_rate(self, finite: list[float]) -> Iterator[Finding]:
        first, last, lowest = _level(finite, 0), _level(finite, 1), min(_levels(finite))
        if last > 1.5 * first or (last > 3 * max(lowest, 1e-12) and last > first):
            text = f"the loss rose from {first:.4g} (lowest {lowest:.4g}) to {last:.4g}"
            yield Finding("lr_too_high", "lr", text, (self._rate(0.1),), strength=0.75)
        updates = sorted(s.update for s in self.samples)
        middle = updates[len(updates) // 2] if updates else 0.0
        plain_descent = "SGD" in type(self.optimizer).__name__
        if plain_descent and 0 < middle < 1e-6 and last > PLAIN * first:
            now = self.samples[-1]
            text = f"one step moves the weights by {middle:.1g} of their size (lr {now.lr:g}, gradient norm {now.norm:.2g})"
            yield Finding("lr_too_low", "lr", text, (self._rate(100.0),), strength=0.6)
        levels = _levels(finite)
        moves = [b - a for a, b in pairwise(levels)]
        turns = [a * b < 0 for a, b in pairwise(moves)]
        swing = sum(map(abs, moves)) / max(1, len(moves))
        if len(levels) >= 10 and sum(turns) > 0.6 * len(turns) and swing > 0.2 * abs(first):
            share = sum(turns) / len(turns)
            text = f"between twentieths of the run the loss moves by {swing:.3g} and turns in {share:.0%} of the cases"
            yield Finding("oscillating", "loss", text, strength=0.6)

    def _of_depth(self) -> Iterator[Finding]:
        last = [s for s in self.samples if len(s.gradients) > 1][-5:]
        if not last:
            return
        ratios = sorted(_first_to_last(s) for s in last)
        ratio, norm = ratios[len(ratios) // 2], last[-1].norm
        names = list(last[-1].gradients)
        if ratio < 1e-3 or norm < 1e-7:
            text = f"the gradient of {names[0]}, relative to its weights, is {ratio:.1g} of that of {names[-1]} (norm {norm:.2g})"
            yield Finding("vanishing_gradient", names[0], text, strength=0.75)
        if ratio > 1e4 or norm > 1e4:
            text = f"the gradient of {names[0]} is {ratio:.1g} times that of {names[-1]} (norm {norm:.2g})"
            yield Finding("exploding_gradient", names[0], text, strength=0.6)

    def _of_layers(self) -> Iterator[Finding]:
        seen = [s.layers for s in self.samples if s.layers][-3:]
        if not seen:
            return
        for code, key, limit, words in (
            ("dead_units", "zero_units", 0.5, "units gave zero on every sample looked at"),
            ("saturated_units", "flat", 0.8, "outputs lay at the flat ends"),
        ):
            worst = {
                n: sorted(layers[n][key] for layers in seen if n in layers)[0] for n in seen[-1]
            }
            name = max(worst, key=lambda n: worst[n], default=None)
            if name is not None and worst[name] >= limit:
                where = f"{seen[-1][name]['kind']} {name}"
                text = f"{worst[name]:.0%} of the {words} of {where} in the last {len(seen)} samples, at step {self.steps}"
                yield Finding(code, name, text, strength=0.85 if worst[name] > 0.95 else 0.65)


def watch(model: nn.Module, optimizer: torch.optim.Optimizer, *, every: int | None = None) -> Watch:
    """Watch any PyTorch loop: call ``step(loss)`` once a step after ``backward``, ``diagnose()``
    whenever you like.

    ``every`` measures gradients and layers at every so many steps; by default as often as a small
    part of the loop's time allows. The model, the optimiser and their numbers are not changed, and
    no tensor of theirs is kept.

    >>> net = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> eye = watch(net, optimizer)
    >>> x = torch.randn(64, 2); y = x.sum(1, keepdim=True)
    >>> for _ in range(50):
    ...     loss = (net(x) - y).square().mean()
    ...     optimizer.zero_grad(); _ = loss.backward(); eye.step(loss); _ = optimizer.step()
    >>> eye.diagnose().verdict
    'healthy'
    """
    return Watch(model, optimizer, every=every)


def _first_to_last(sample: Sample) -> float:
    values = list(sample.gradients.values())
    return values[0] / max(values[-1], 1e-30)


def _levels(losses: list[float], parts: int = 20) -> list[float]:
    """Means of equal parts of the run."""
    size = max(1, len(losses) // parts)
    cut = [losses[i : i + size] for i in range(0, len(losses) - size + 1, size)]
    return [sum(part) / len(part) for part in cut]


def _level(losses: list[float], end: int) -> float:
    """The mean of the first twentieth, or of the last tenth."""
    part = losses[: max(1, len(losses) // 20)] if end == 0 else losses[-max(1, len(losses) // 10) :]
    return sum(part) / len(part)
