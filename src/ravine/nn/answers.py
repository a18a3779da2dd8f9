"""From a network's outputs to answers: the one place that decides what outputs mean.

``Answers.of`` looks at the output layer, the loss and the task once, when a program is built; the
decision is stored with the run. Metrics, evaluation, predictions, ensembles, calibration, advice,
the doctor, the scikit-learn estimator and exports all ask it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ravine.errors import InputError
from ravine.nn.analysis.output_layer import output_layer
from ravine.nn.decisions import Costs, least_cost
from ravine.nn.loss.criterion import MultiTask
from ravine.nn.outputs import shown
from ravine.nn.stack import evaluated

_SMALLEST = torch.finfo(torch.float64).eps  # probabilities nearer to 0 or 1 have no finite score

Units = Callable[[Tensor], Tensor]


def _as_they_are(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True)
class Answers:
    """How raw outputs become scores, probabilities, classes, and numbers in the target's units.

    ``kind``: ``classes`` (K outputs, one class), ``binary`` (one output, two classes), ``labels``
    (K labels that do not exclude one another), ``numbers`` (a regression), ``heads`` (several of
    these side by side, of ``multi_task``), ``loss`` (of ``output``: nothing can be answered).

    ``link`` says how an output s becomes a probability p. The output layer decides where it gives
    probabilities or their logarithms, whatever the loss takes them for; else the loss decides. So
    it is for a module of one's own whose output layer cannot be found.

    ============= ============================ ==================== ================ ==============
    link          from                         p of K classes       p of one output  class 1 where
                                                                    or label
    ============= ============================ ==================== ================ ==============
    softmax       losses over all K scores:    exp s_k / sum exp s
                  cross_entropy, kl, hinge,
                  crammer_singer,
                  expected_cost
    sigmoid       losses of each score:        sigmoid(s_k) / their sigmoid(s)       s > 0
                  binary_cross_entropy,        sum
                  binary_hinge, one_vs_all
    log           log_softmax, logsigmoid;     exp s_k / sum exp s  exp s            s > ln 1/2
                  nll
    probabilities softmax, sigmoid; losses     s_k / sum s          s                s > 1/2
                  with input = probabilities
    targets       squared, absolute, huber:    the probabilities    s, clipped to    s > 1/2
                  s is fitted to 0 and 1       nearest to s         [0, 1]
    values        a regression: s is the number, in the units of the transformed target
    ============= ============================ ==================== ================ ==============

    Probabilities of hinge losses are not calibrated; they only order the classes as the scores do.
    A tanh or relu output is read as the loss says: under a squared error on labels 0 and 1 its
    values are fitted targets, cut at 1/2; under a hinge or on logits, scores that are cut at 0.
    The probabilities nearest to s are its projection onto the simplex: max(s_k - tau, 0) with the
    tau that makes them sum to 1; the largest output stays the largest (Duchi et al., "Efficient
    projections onto the l1-ball", 2008). The class of a sample depends on its own outputs alone.

    >>> answers = Answers("binary", "targets", layer="linear")
    >>> answers.threshold, answers.classes(torch.tensor([[0.2], [0.7], [1.4]])).tolist()
    (0.5, [0, 1, 1])
    """

    kind: str
    link: str
    layer: str = "other"  # the output layer as `output_layer` names it
    heads: tuple[Answers, ...] = ()
    sizes: tuple[int, ...] = ()  # outputs of each head
    units: Units = field(default=_as_they_are, compare=False, repr=False)

    # --- made once, stored ------------------------------------------------------------------------

    @classmethod
    def of(
        cls,
        model: nn.Module,
        loss: nn.Module,
        task: str,
        x: Tensor,
        units: Units = _as_they_are,
    ) -> Answers:
        """Of a network, its loss and its task; ``x`` are a few inputs, on which it is run.

        ``units`` brings outputs into the target's units, where targets are transformed.
        """
        with evaluated(model), torch.random.fork_rng(devices=[]):
            output = model(x)
        if not isinstance(output, Tensor) and not isinstance(loss, MultiTask):
            output = shown(output)
        layer = output_layer(model, x) if isinstance(output, Tensor) else "other"
        if isinstance(loss, MultiTask):
            heads = tuple(
                cls(*_of_loss(each, _head_kind(each, size), "other"))
                for each, size in zip(loss.losses, loss.sizes, strict=True)
            )
            return cls("heads", "values", layer, heads, loss.sizes, units=units)
        one = isinstance(output, Tensor) and (output.dim() == 1 or output.shape[-1] == 1)
        kinds = {"regression": "numbers", "multilabel": "labels"}
        kind = kinds.get(task, "binary" if one else "classes")
        return cls(*_of_loss(loss, kind, layer), layer, units=units)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for the run's facts."""
        plain: dict[str, Any] = {"kind": self.kind, "link": self.link, "layer": self.layer}
        if self.heads:
            plain |= {"heads": [head.to_dict() for head in self.heads], "sizes": [*self.sizes]}
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any], units: Units = _as_they_are) -> Answers:
        """The answers that ``to_dict`` described."""
        heads = tuple(cls.from_dict(head) for head in plain.get("heads", ()))
        sizes = tuple(plain.get("sizes", ()))
        return cls(plain["kind"], plain["link"], plain["layer"], heads, sizes, units=units)

    # --- used everywhere --------------------------------------------------------------------------

    @property
    def threshold(self) -> float:
        """The output above which a single output, or a label, counts as positive."""
        return {"softmax": 0.0, "sigmoid": 0.0, "log": -math.log(2)}.get(self.link, 0.5)

    def probabilities(self, output: Tensor) -> Tensor:
        """[..., K] in float64: rows that sum to 1 for classes, one column for one output, a column
        for each label.

        Raises InputError where outputs are numbers: there are no classes.
        """
        if self.kind not in ("classes", "binary", "labels"):
            raise InputError(
                "predict_proba",
                got=f"outputs of a network for {self.kind}",
                expected="a network for classes",
                repair="predict gives its values",
            )
        return self._probabilities(self._columns(output.double()))

    def by_class(self, output: Tensor) -> Tensor:
        """Probabilities with a column for each class: [..., 2] of one output too."""
        p = self.probabilities(output)
        return torch.cat([1 - p, p], -1) if self.kind == "binary" else p

    def classes(self, output: Tensor) -> Tensor:
        """The class of each sample (or step), as its number; of labels [..., K] of 0 and 1."""
        if self.kind == "classes":
            ordered = self.link in ("softmax", "log")  # scores in the probabilities' own order
            return (output if ordered else self.probabilities(output)).argmax(-1)
        labels = (self._columns(output) > self.threshold).long()
        return labels if self.kind == "labels" else labels[..., 0]

    def cheapest(self, output: Tensor, costs: Costs) -> Tensor:
        """The class of least expected cost under the probabilities; ``costs`` as in
        ``nn.decisions.least_cost``. InputError where the outputs are not one class a sample."""
        if self.kind not in ("classes", "binary"):
            raise InputError(
                "costs",
                got=f"a network for {self.kind}",
                expected="a network that gives each sample one class",
            )
        return least_cost(self.by_class(output), costs)

    def values(self, output: Tensor) -> Tensor:
        """Numbers in the target's units. A regression trained on a loss of probabilities
        (binary_cross_entropy on shares) answers with probabilities; several heads with a column
        for each class number, side by side with the values."""
        if self.kind == "heads":
            return self.units(torch.cat([self._answer(*h) for h in self._split(output)], -1))
        return self.units(output if self.link == "values" else self._linked(output))

    def columns(self, output: Tensor) -> list[Tensor]:
        """The values of each head separately."""
        widths = [
            size if head.kind == "numbers" else 1
            for head, size in zip(self.heads, self.sizes, strict=True)
        ]
        return list(self.values(output).split(widths, -1))

    def scores(self, output: Tensor) -> Tensor:
        """What metrics take: for K classes scores whose softmax are the probabilities, for one
        output and for labels log-odds (positive: yes), for numbers the values."""
        if self.kind in ("numbers", "heads"):
            return self.values(output)
        if self.kind == "loss" or self.link == ("softmax" if self.kind == "classes" else "sigmoid"):
            return output
        if self.kind == "classes":
            return output if self.link == "log" else self._log(self.probabilities(output))
        return torch.logit(self.probabilities(output), eps=_SMALLEST)

    def truth(self, target: Tensor) -> Tensor:
        """Targets in the form that metrics take: the likeliest class where they are soft."""
        if self.kind == "classes" and target.is_floating_point() and target.dim() > 1:
            return target.argmax(-1)
        return target

    def outputs(self, p: Tensor) -> Tensor:
        """Raw outputs that mean the probabilities p: the inverse of ``probabilities``."""
        if self.link in ("softmax", "log"):
            return self._log(p) if self.kind == "classes" or self.link == "log" else _logit(p)
        return _logit(p) if self.link == "sigmoid" else p

    def average(self, outputs: Tensor) -> Tensor:
        """Outputs [P, ...] of P networks as those of one network that is read like them: of the
        plain mean of their probabilities, or the mean of their values."""
        if self.kind == "heads":
            parts = [outputs.split(self.sizes, -1)[h] for h in range(len(self.heads))]
            return torch.cat([h.average(p) for h, p in zip(self.heads, parts, strict=True)], -1)
        if self.kind in ("numbers", "loss"):
            return outputs.mean(0)
        mean = torch.stack([self.probabilities(output) for output in outputs]).mean(0)
        return self.outputs(mean).to(outputs.dtype)

    # --- the links --------------------------------------------------------------------------------

    def _columns(self, output: Tensor) -> Tensor:
        """[N, 1] of one output that came as [N]."""
        return output[:, None] if self.kind == "binary" and output.dim() == 1 else output

    def _probabilities(self, s: Tensor) -> Tensor:
        if self.kind != "classes":
            return self._linked(s).clamp(0, 1)
        if self.link == "targets":
            return _nearest(s)
        if self.link == "sigmoid":
            return F.logsigmoid(s).softmax(-1)  # sigmoid(s_k) / sum of sigmoid(s), without overflow
        if self.link == "probabilities":
            kept = s.clamp_min(0)
            total = kept.sum(-1, keepdim=True)
            return torch.where(total > 0, kept / total.clamp_min(1e-300), _nearest(s))
        return s.softmax(-1)

    def _linked(self, s: Tensor) -> Tensor:
        """Each output by itself; softmax over the outputs of a regression on shares."""
        if self.link == "softmax" and self.kind == "numbers":
            return s.softmax(-1)
        links = {"softmax": torch.sigmoid, "sigmoid": torch.sigmoid, "log": torch.exp}
        return links[self.link](s) if self.link in links else s

    def _log(self, p: Tensor) -> Tensor:
        return p.clamp_min(_SMALLEST).log()

    def _split(self, output: Tensor) -> list[tuple[Answers, Tensor]]:
        return list(zip(self.heads, output.split(self.sizes, -1), strict=True))

    def _answer(self, head: Answers, output: Tensor) -> Tensor:
        if head.kind == "numbers":
            return head.values(output)
        return head.classes(output)[..., None].to(output.dtype)


def _of_loss(loss: nn.Module, kind: str, layer: str) -> tuple[str, str]:
    """The kind and the link of outputs under a loss."""
    reads = getattr(loss, "reads", "scores")
    if reads == "loss":
        return "loss", "values"
    if kind == "numbers" and reads == "targets":
        return kind, "values"
    if layer in ("log_softmax", "logsigmoid"):
        return kind, "log"
    if layer in ("softmax", "sigmoid"):
        return kind, "probabilities"
    if reads in ("probabilities", "targets"):
        return kind, reads
    if reads == "log_probabilities":
        return kind, "log"
    joint = bool(getattr(loss, "takes_classes", True))
    return kind, "softmax" if joint and kind in ("classes", "numbers") else "sigmoid"


def _head_kind(loss: nn.Module, size: int) -> str:
    if not loss.takes_classes:
        return "numbers"
    return "binary" if size == 1 else "classes"


def _logit(p: Tensor) -> Tensor:
    return torch.logit(p, eps=_SMALLEST)


def _nearest(s: Tensor) -> Tensor:
    """The probabilities nearest to rows s: max(s - tau, 0) with the tau that makes them sum to
    1."""
    falling = s.sort(-1, descending=True).values
    beyond = falling.cumsum(-1) - 1  # what the k largest have too much
    k = torch.arange(1, s.shape[-1] + 1, device=s.device)
    held = (falling * k > beyond).sum(-1, keepdim=True).clamp_min(1)  # classes that keep a share
    tau = beyond.gather(-1, held - 1) / held
    return (s - tau).clamp_min(0)


__all__ = ["Answers"]
