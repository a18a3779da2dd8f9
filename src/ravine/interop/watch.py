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
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ravine.doctor.finding import Diagnosis
from ravine.doctor.loops import FEWEST, judge_loop, loop_course, moved
from ravine.doctor.measure.course import Course, Loop
from ravine.doctor.measure.probes import Layer, Seen, measured_layer
from ravine.doctor.subject import Observed, Subject
from ravine.errors import InputError
from ravine.interop.first_steps import FirstSteps
from ravine.nn.analysis.traits import observed_traits

# of the loop's time that measuring may take, by its own clock; what it does to caches comes on top
SHARE = 0.0015
FIRST = (1, 16, 64)  # steps that are always measured
# numbers of a layer's output that are looked at: of convolutions some samples, of dense layers all
LOOKED = 2**17
WAITING = 256  # losses that wait to be read
KEPT = 4096  # losses kept; older ones are thinned to every second
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
        self,
        model: nn.Module,
        optimizer: Any,
        *,
        every: int | None = None,
        subject: Subject | None = None,
        total: int | None = None,
    ):
        self.model, self.optimizer, self.every = model, unwrapped(optimizer), every
        self.parts = model  # whose layers and parameters are measured
        self.subject, self.total = subject, total  # what is trained, and the steps of the plan
        self.validations: list[float] = []
        kind = type(getattr(self.optimizer, "optimizer", self.optimizer)).__name__
        self._by_gradient = "SGD" in kind
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
        self._first = FirstSteps(model, self.optimizer)
        weakref.finalize(self, self._first.end)
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

    def validation(self, loss: Tensor | float) -> None:
        """Tell the watch a validation loss, for example after each epoch."""
        self.validations.append(float(loss))

    def _attend(self) -> None:
        began = time.perf_counter()
        self._unhook()
        self._read()
        measures = self.steps >= self._next
        if measures:
            self.samples.append(self._measure())
            self._first.look(self.steps, self.parts)
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
            for n, p in self.parts.named_parameters()
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
        count = sum(p.numel() for _, p in named)
        update = moved(lr, norm, size, count, self._by_gradient)
        return Sample(self.steps, norm, lr, ratios, update)

    # --- layers, during one forward pass ----------------------------------------------------------

    def _hook(self, sample: Sample) -> None:
        for name, module in self.parts.named_modules():
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

        With ``data`` and ``loss`` the loop is judged as ``ravine doctor RUN`` judges a run: against the
        best constant predictor, by its data and by its plan. Without them its loss is measured against
        its own beginning, what is read from the loss alone makes no alarm, fewer than 100 steps are
        never called healthy, and ``why`` says what could not be judged.
        """
        self._unhook()
        self._first.end()
        self._read()
        measured = {
            "steps": self.steps,
            "samples": len(self.samples),
            "share_of_time": round(self.share, 4),
        }
        finite = [loss for loss in self.losses if math.isfinite(loss)]
        if self.subject is not None and len(finite) >= FEWEST:
            norms = [s.norm for s in self.samples]
            stepping = self._first.seen()
            seen = Observed(self.losses, norms, self.steps, self.total, self.validations, stepping)
            diagnosis = self.subject.judge(self.model, seen)
            diagnosis.measured |= measured
            return diagnosis
        return judge_loop(self._course(), len(finite), measured)

    @property
    def share(self) -> float:
        """The part of the time since the beginning that measuring took."""
        return self._spent / max(time.perf_counter() - self._began, 1e-9)

    def _course(self) -> Course:
        before = [s for s in self.samples if self._bad is None or s.step <= self._bad]
        loop = Loop(
            self.samples[-1].lr if self.samples else 0.0,
            [sample.update for sample in before],
            self._by_gradient,
            [sample.norm for sample in before],
            self._bad,
        )
        # of layers that run without PyTorch's hooks, as Keras's do, the gradients alone are known
        looked = [s for s in self.samples if s.layers] or [s for s in self.samples if s.gradients]
        seens = [self._seen(sample) for sample in looked[-LATEST:]]
        course = loop_course(self.losses, self.steps, loop, lambda: seens, lambda: seens[:1])
        course.stepping = self._first.seen()
        return course

    def _seen(self, sample: Sample) -> Seen:
        """A sample as a probe would show it: layers in the order in which the model names them."""
        layers = []
        for name, module in self.parts.named_modules():
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


def watch(
    model: nn.Module,
    optimizer: Any,
    *,
    data: Any = None,
    loss: Any = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch: int | None = None,
    every: int | None = None,
) -> Watch:
    """Watch any PyTorch loop: call ``step(loss)`` once a step after ``backward``, ``diagnose()``
    whenever you like.

    Given the ``data`` (as for ``ravine.train``), the ``loss``, a function of (output, target), and the
    plan (``epochs`` or ``steps``), the loop is judged as ``ravine doctor RUN`` judges a run; validation
    losses come by ``validation(loss)``. ``batch``: samples in a step, where ``data`` is no DataLoader.
    ``every`` measures gradients and layers at every so many steps; by default as often as a small
    part of the loop's time allows. The model, the optimiser and their numbers are not changed, and
    no tensor of theirs is kept.

    >>> net = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> eye = watch(net, optimizer)
    >>> x = torch.randn(64, 2); y = x.sum(1, keepdim=True)
    >>> for _ in range(200):
    ...     loss = (net(x) - y).square().mean()
    ...     optimizer.zero_grad(); _ = loss.backward(); eye.step(loss); _ = optimizer.step()
    >>> eye.diagnose().verdict
    'healthy'
    """
    if not isinstance(model, nn.Module):
        expected = "the torch.nn.Module that the loop trains"
        repair = "ravine.watch(model, optimizer)"
        raise InputError("watch: model", got=model, expected=expected, repair=repair)
    if not hasattr(unwrapped(optimizer), "param_groups"):
        expected = "the optimiser of the loop: of torch.optim, or one with param_groups"
        repair = "ravine.watch(model, optimizer)"
        raise InputError("watch: optimizer", got=optimizer, expected=expected, repair=repair)
    if data is None:
        if loss is not None or epochs is not None or batch is not None:
            given = "loss" if loss is not None else "epochs" if epochs is not None else "batch"
            raise InputError("watch", got=f"{given} alone", expected="data beside it")
        return Watch(model, optimizer, every=every, total=steps)
    plan = {"epochs": epochs, "steps": steps, "batch": batch}
    fields = {name: value for name, value in plan.items() if value is not None}
    said = getattr(optimizer, "part", None) or unwrapped(optimizer)
    subject = Subject.of(model, data, loss, said, fields)
    planned = epochs is not None or steps is not None
    total = subject.steps if planned else None
    return Watch(model, optimizer, every=every, subject=subject, total=total)


def unwrapped(optimizer: Any) -> Any:
    """The optimiser that another one wraps, as Accelerate's and Lightning's do."""
    inner = getattr(optimizer, "optimizer", None)
    return inner if isinstance(inner, torch.optim.Optimizer) else optimizer
