"""A person's function or module as a loss of each sample."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ravine.errors import InputError
from ravine.nn.loss.criterion import SampleLoss, number
from ravine.nn.loss.pairing import wants_vector
from ravine.nn.outputs import answer_in

# PyTorch's losses of one output for two classes, and of several labels
_OF_ONE = (nn.BCELoss, nn.BCEWithLogitsLoss)
_FUNCTIONS_OF_ONE = (F.binary_cross_entropy, F.binary_cross_entropy_with_logits)
# What outputs are to the losses of torch.nn, which one of a person's own may subclass.
_READS: tuple[tuple[str, tuple[type[nn.Module], ...]], ...] = (
    ("log_probabilities", (nn.NLLLoss, nn.KLDivLoss)),
    ("probabilities", (nn.BCELoss,)),
    ("scores", (nn.BCEWithLogitsLoss,)),
    ("targets", (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)),
)


class OwnLoss(SampleLoss):
    """``function(output, target)``, which gives a loss for each sample [B, ...] or one number for all.

    One number is the mean over the batch, and counts as each sample's loss. ``members`` are the
    fields of a partial function that may differ between members: buffers, which reach the function
    as tensors of no extent. ``reads``: what outputs are to the loss (see `SampleLoss.reads`); where
    the function has no such attribute they are ``targets`` in a regression, else ``scores``.

    Where the network gives several outputs, a dictionary or a tuple, the function is given them all
    if it can use them so, else the answer among them.

    Numbers, which the rest of Ravine holds as [B, 1], are given as [B] where the function only then
    compares each sample with its own target: ``(output.squeeze(1) - target)`` of [B] and [B, 1] would
    compare each with all.
    """

    weighable = False
    takes_several = True

    def __init__(
        self,
        function: Callable[..., Any],
        task: str | None = None,
        members: Collection[str] = (),
    ):
        super().__init__()
        self.own = function  # a module becomes a child of this one
        if isinstance(function, functools.partial):
            per_member = {n: v for n, v in function.keywords.items() if n in members}
            per_member = {n: v for n, v in per_member.items() if isinstance(v, float)}
            rest = {n: v for n, v in function.keywords.items() if n not in per_member}
            self.own = functools.partial(function.func, *function.args, **rest)
            for name, value in per_member.items():
                self.register_buffer(f"field_{name}", number(value), persistent=False)
            self._members = list(per_member)
        else:
            self._members = []
        self.reads = getattr(function, "reads", _reads(function, task))
        self.takes_classes = not is_binary(function)
        self.one_number = False  # whether the function gave one number for all samples
        self.takes_all: bool | None = None  # of several outputs, once it is known
        self.takes_vector: bool | None = None  # numbers as [B], once it is known
        # how rows of targets fall into those that the data give, where these are of several kinds
        self.parted: Callable[[Tensor], Any] | None = None

    def forward(self, output: Any, target: Tensor) -> Tensor:
        if self.parted is not None:
            self.takes_all = True
            return self._losses(output, target)
        if self.takes_vector is None:
            self.takes_vector = not _is_torch(self.own) and wants_vector(
                self._tried, output, target
            )
        return self._losses(output, target[:, 0] if self.takes_vector else target)

    def _losses(self, output: Any, target: Tensor) -> Tensor:
        losses = self._called(output, target)
        if not isinstance(losses, Tensor):
            raise InputError(
                "loss",
                got=type(losses).__name__,
                expected="a tensor: [B], or one number",
                repair="return the loss alone, computed by PyTorch's functions; what else is to be "
                "recorded is returned by a step: {'loss': loss, 'kl': kl}",
            )
        if losses.dim() == 0 or (losses.numel() == 1 and len(target) > 1):
            self.one_number = True
            return losses.reshape(()).expand(len(target))
        if len(losses) != len(target):
            got = f"a loss of shape {tuple(losses.shape)} for {len(target)} samples"
            repair = "reduce it over all axes but the first, or by .mean()"
            raise InputError("loss", got=got, expected="[B], or one number", repair=repair)
        return losses.flatten(1).mean(1) if losses.dim() > 1 else losses

    def _called(self, output: Any, target: Tensor) -> Any:
        fields = {name: getattr(self, f"field_{name}") for name in self._members}
        if self.parted is not None:
            return self.own(output, self.parted(target), **fields)
        if isinstance(output, Tensor):
            typed = self._typed(target, output)
            return self.own(output, typed if self.takes_vector else _alike(typed, output), **fields)
        if self.takes_all is None:
            self.takes_all = self._can_take(output, target, fields)
        if self.takes_all:
            return self.own(output, target, **fields)
        return self._called(answer_in(output), target)

    def _can_take(self, output: Any, target: Tensor, fields: dict[str, Any]) -> bool:
        """Whether the function can use all outputs; where it cannot even use the answer alone, what is
        wrong with it is shown on them."""
        if _is_torch(self.own):
            return False
        try:
            self.own(output, target, **fields)
        except Exception:  # a person's function may fail in any way
            try:
                self._called(answer_in(output), target)
            except Exception:
                return True
            return False
        return True

    def _tried(self, output: Any, target: Tensor) -> Tensor:
        """The losses with targets in this shape; nothing is kept of what was found on the way."""
        held = self.takes_vector, self.takes_all, self.one_number
        self.takes_vector = target.dim() == 1
        try:
            return self._losses(output, target)
        finally:
            self.takes_vector, self.takes_all, self.one_number = held

    def _typed(self, target: Tensor, output: Tensor) -> Tensor:
        """The two classes as 0.0 and 1.0, for PyTorch's losses of one output that want them so."""
        one = target.numel() == output.numel() and not target.is_floating_point()
        return target.to(output.dtype) if one and is_binary(self.own) else target


def is_binary(function: Any) -> bool:
    """Whether a loss is one of PyTorch's binary cross-entropies.

    >>> is_binary(nn.BCEWithLogitsLoss()), is_binary(nn.MSELoss())
    (True, False)
    """
    plain = function.func if isinstance(function, functools.partial) else function
    return isinstance(plain, _OF_ONE) or plain in _FUNCTIONS_OF_ONE


def _is_torch(function: Any) -> bool:
    """Whether a loss is PyTorch's own: it takes one output, with targets of the same shape."""
    module = type(function) if isinstance(function, nn.Module) else function
    return str(getattr(module, "__module__", "")).startswith("torch.nn")


def _reads(function: Callable[..., Any], task: str | None) -> str:
    if is_binary(function) and not isinstance(function, nn.Module):
        plain = getattr(function, "func", function)
        return "probabilities" if plain is F.binary_cross_entropy else "scores"
    for reads, kinds in _READS:
        if isinstance(function, kinds):
            return reads
    return "targets" if task == "regression" else "scores"


def _alike(target: Tensor, output: Any) -> Tensor:
    """Numbers [B, 1] for outputs [B] and the other way round, so that nothing is broadcast to
    [B, B]."""
    if not isinstance(output, Tensor) or not target.is_floating_point():
        return target
    same = target.shape == output.shape or target.numel() != output.numel()
    return target if same or len(target) != len(output) else target.view_as(output)
