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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ravine.doctor.declaration import Kind
from ravine.doctor.finding import Diagnosis
from ravine.doctor.measure.baseline import Baseline
from ravine.doctor.measure.course import Course, Loop
from ravine.doctor.measure.curve import Curve
from ravine.doctor.measure.probes import Layer, Seen, measured_layer
from ravine.doctor.table import is_of, ranked, symptoms
from ravine.nn.analysis.traits import observed_traits
from ravine.recipe import Recipe

# of the loop's time that measuring may take, by its own clock; what it does to caches comes on top
SHARE = 0.0015
FIRST = (1, 16, 64)  # steps that are always measured
# numbers of a layer's output that are looked at: of convolutions some samples, of dense layers all
LOOKED = 2**17
WAITING = 256  # losses that wait to be read
KEPT = 4096  # losses kept; older ones are thinned to every second
FEWEST = 20  # losses that say something
LATEST = 5  # samples whose layers and gradients are judged, by their medians


@dataclass
class Sample:
    """What was measured around one step."""

    step: int
    norm: float  # of the whole gradient
    lr: float
    # weight's name -> gradient over weight, root mean squares
    gradients: dict[str, float] = field(default_factory=dict)
    update: float = 0.0  # how far one step moves the weights, over their norm
    # layer -> kind, zero_units, flat
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)


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

    # --- the diagnosis ----------------------------------------------------------------------------

    def diagnose(self) -> Diagnosis:
        """``healthy``, ``sick`` or ``uncertain`` (too little was seen), with findings.

        The findings are those of ``ravine doctor``, by the same thresholds. A loop does not say
        what a constant predictor would reach, so the loss is measured against its own beginning,
        and what is read from the loss alone makes no alarm: the losses of adversarial pairs and
        contrastive losses need not fall, and a noisy regression may have learned at once.
        """
        self._unhook()
        self._read()
        measured = {
            "steps": self.steps,
            "samples": len(self.samples),
            "share_of_time": round(self.share, 4),
        }
        finite = [loss for loss in self.losses if math.isfinite(loss)]
        if self._bad is None and len(finite) < FEWEST:
            return Diagnosis(
                "uncertain", measured=measured, why=f"{self.steps} steps say too little"
            )
        course = self._course(finite)
        findings = ranked(symptoms(course))
        if self._bad is not None:
            why = f"the loss is not a number at step {self._bad}"
            return Diagnosis("sick", findings, measured=measured, why=why)
        first, last = course.loss_at(0.0), course.loss_at(1.0)
        if course.plain:
            why = f"the loss has fallen from {first:.4g} to {last:.4g}"
            return Diagnosis("healthy", notes=findings, measured=measured, why=why)
        why = f"the loss went from {first:.4g} to {last:.4g}"
        if all(is_of(finding, Kind.LOSS_ALONE) for finding in findings):
            return Diagnosis("uncertain", notes=findings, measured=measured, why=why)
        return Diagnosis("sick", findings, measured=measured, why=why)

    @property
    def share(self) -> float:
        """The part of the time since the beginning that measuring took."""
        return self._spent / max(time.perf_counter() - self._began, 1e-9)

    def _course(self, finite: list[float]) -> Course:
        """What was measured as one member's course, its loss measured against its beginning."""
        levels = _levels(finite) or [1.0]
        lowest = min(min(levels), 0.0)  # of losses that may be negative: counted from the lowest
        levels = [level - lowest for level in levels]
        begin = Baseline(max(levels[0], 1e-12), 0.0, max(levels[0], 1e-12))
        losses = np.asarray(self.losses, dtype=float) - lowest
        before = [s for s in self.samples if self._bad is None or s.step <= self._bad]
        norms = np.array([s.norm for s in before if math.isfinite(s.norm)] or [0.0])
        curve = Curve(
            Recipe(),
            self.steps,
            losses,
            np.repeat(norms, -(-len(losses) // len(norms)))[: len(losses)],
            at=[round(self.steps * (i + 1) / len(levels)) for i in range(len(levels))],
            loss=levels,
            base=begin,
            failed=None if self._bad is None else "diverged",
        )
        lr = self.samples[-1].lr if self.samples else 0.0
        by_gradient = "SGD" in type(self.optimizer).__name__
        moved = [sample.update for sample in before]
        loop = Loop(lr, moved, by_gradient, norms.tolist(), self._bad)
        seens = [self._seen(sample) for sample in self.samples if sample.layers][-LATEST:]
        return Course(None, [curve], lambda: seens, lambda: seens[:1], loop=loop)

    def _seen(self, sample: Sample) -> Seen:
        """A sample as a probe would show it: layers in the order in which the model names them."""
        layers = []
        for name, module in self.model.named_modules():
            kind, known = type(module).__name__, observed_traits(module)
            if name in sample.layers:
                shares = {key: sample.layers[name][key] for key in ("zero_units", "flat")}
                layers.append(Layer(name, kind, False, 0, (), known, 0.0, 0.0, 0.0, **shares))
            for own, _ in module.named_parameters(recurse=False):
                ratio = sample.gradients.get(f"{name}.{own}" if name else own)
                if ratio is not None:
                    layer = Layer(
                        name, kind, True, 0, (), known, 0.0, 0.0, 0.0, gradient=ratio, weight=1.0
                    )
                    layers.append(layer)
        return Seen(layers, math.nan, torch.empty(0), norm=sample.norm)


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


def _levels(losses: list[float], parts: int = 20) -> list[float]:
    """Means of equal parts of the run."""
    size = max(1, len(losses) // parts)
    cut = [losses[i : i + size] for i in range(0, len(losses) - size + 1, size)]
    return [sum(part) / len(part) for part in cut]
