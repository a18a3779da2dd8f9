"""The passes of a dense network's layers, forward and backward, with everything bound beforehand.

A step of a small network is launching, and what Python looks up between two kernels has long left
the caches: so each layer is a pair of closures, and what can be decided when they are made is not
decided in a step. Shapes as in `dense`; the leading axis P falls away for a single member.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ravine.layout import Layout
from ravine.nn.randomized import Dropout
from ravine.randomness import at_least

Pass = Callable[[Tensor], Tensor]
_aten = torch.ops.aten
_relu_slope, _tanh_slope = _aten.threshold_backward.grad_input, _aten.tanh_backward.default
_sigmoid_slope, _silu_slope = _aten.sigmoid_backward.default, _aten.silu_backward.default


def _selu_slope(x: Tensor) -> Tensor:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    return torch.where(x > 0, scale, scale * alpha * x.exp())


# activation -> (forward, gradient from (gradient, kept)), and whether its output is what is kept,
# else its input
ACTIVATIONS: dict[type[nn.Module], tuple[Pass, Callable[[Tensor, Tensor], Tensor], bool]] = {
    # in place: nobody else needs the gradient behind an activation
    nn.ReLU: (torch.relu, lambda g, y: _relu_slope(g, y, 0, grad_input=g), True),
    nn.Tanh: (torch.tanh, _tanh_slope, True),
    nn.Sigmoid: (torch.sigmoid, _sigmoid_slope, True),
    nn.SiLU: (nn.functional.silu, _silu_slope, False),
    nn.SELU: (nn.functional.selu, lambda g, x: g * _selu_slope(x), False),
}

UNCHANGED = (nn.Flatten, nn.Identity)  # samples are columns already
# all layers that have their passes here
LAYERS = frozenset((nn.Linear, Dropout, *UNCHANGED, *ACTIVATIONS))


class RowViews:
    """Each entry's columns of theta and of grad."""

    def __init__(self, theta: Tensor, grad: Tensor, layout: Layout):
        self.theta, self.grad, self.layout = theta.detach(), grad, layout
        self.single = len(theta) == 1
        self.dtype = theta.dtype

    def pair(self, name: str, *shape: int) -> tuple[Tensor, Tensor]:
        """Values and gradients of an entry, [P, *shape]."""
        return self._cut(self.theta, name, shape), self._cut(self.grad, name, shape)

    def _cut(self, matrix: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
        entry = self.layout[name]
        return matrix[:, entry.start : entry.stop].view(
            *(() if self.single else (len(matrix),)), *shape
        )


class Lowered(RowViews):
    """Entries in lower precision: their values cast once a step, their gradients raised once a
    step.

    Of a single member neighbouring entries are cast together: a few long copies instead of many
    short ones.
    """

    def __init__(self, rows: RowViews, dtype: torch.dtype):
        super().__init__(rows.theta, rows.grad, rows.layout)
        self.dtype = dtype
        self.values: list[tuple[Tensor, Tensor]] = []  # lowered, full
        self.slopes: list[tuple[Tensor, Tensor]] = []  # full, lowered
        self._spans: list[tuple[int, int]] = []
        if self.single:
            self._low, self._low_slopes = (
                torch.empty_like(self.theta, dtype=dtype) for _ in range(2)
            )

    def pair(self, name: str, *shape: int) -> tuple[Tensor, Tensor]:
        """Values and gradients, [P, *shape], each in one piece."""
        if self.single:
            self._spans.append((self.layout[name].start, self.layout[name].stop))
            return self._cut(self._low, name, shape), self._cut(self._low_slopes, name, shape)
        full_value, full_slope = super().pair(name, *shape)
        value, slope = (
            torch.empty(full_value.shape, dtype=self.dtype, device=full_value.device)
            for _ in range(2)
        )
        self.values.append((value, full_value))
        self.slopes.append((full_slope, slope))
        return value, slope

    def close(self) -> None:
        """Every entry is known: join those of a single member that lie side by side."""
        joined: list[tuple[int, int]] = []
        for start, stop in sorted(self._spans):
            joins = bool(joined) and joined[-1][1] == start
            joined[-1:] = [(joined[-1][0], stop)] if joins else [*joined[-1:], (start, stop)]
        for start, stop in joined:
            self.values.append((self._low[0, start:stop], self.theta[0, start:stop]))
            self.slopes.append((self.grad[0, start:stop], self._low_slopes[0, start:stop]))


def affine(
    held: RowViews, name: str, layer: nn.Linear, *, first: bool, shared: bool
) -> tuple[Pass, Pass]:
    """y = W a + b: a [P, I, B], or [I, B] where all members share it -> [P, H, B]. Backward stores
    the gradients, and gives that of a unless the layer is the ``first``.
    """
    weight, slope = held.pair(f"{name}.weight", layer.out_features, layer.in_features)
    has_bias = layer.bias is not None
    bias, bias_slope = (
        held.pair(f"{name}.bias", layer.out_features, 1) if has_bias else (weight, slope)
    )
    lowered = isinstance(held, Lowered)
    whole = held.single or lowered  # gradients lie in one piece
    product, with_bias = (torch.mm, torch.addmm) if held.single else (torch.bmm, torch.baddbmm)
    across, given = weight.mT, weight

    def forward(a: Tensor) -> Tensor:
        nonlocal given
        given = a
        if shared and not lowered:  # in one piece: else each member's product arranges it anew
            a = a.contiguous().expand(len(weight), -1, -1)
        if has_bias and not lowered:
            return with_bias(bias, weight, a)
        y = (
            torch.mm(weight.flatten(0, 1), a).view(*weight.shape[:2], -1)
            if shared
            else product(weight, a)
        )
        return y.add_(bias) if has_bias else y  # faster in bfloat16 than a bias inside the product

    def backward(g: Tensor) -> Tensor:
        nonlocal given
        # kept no longer than needed: the next step takes the same memory, still in the caches
        a, given = (
            given.mT,
            weight,
        )
        if shared:
            slope.copy_(torch.mm(g.flatten(0, 1), a).view(slope.shape))
        elif whole:
            product(g, a, out=slope)
        else:
            slope.copy_(product(g, a))
        if has_bias:
            torch.sum(g, -1, keepdim=True, out=bias_slope)
        return g if first else product(across, g)

    return forward, backward


def activation(layer: nn.Module, fresh: bool) -> tuple[Pass, Pass]:
    """An activation; ReLU runs in place where its input is ``fresh``: a product that no other pass needs."""
    function, slope, keeps_output = ACTIVATIONS[type(layer)]
    if fresh and type(layer) is nn.ReLU:
        function = torch.relu_
    kept = nothing = torch.empty(0)

    def forward(a: Tensor) -> Tensor:
        nonlocal kept
        y = function(a)
        kept = y if keeps_output else a
        return y

    def backward(g: Tensor) -> Tensor:
        nonlocal kept
        a, kept = kept, nothing
        return slope(g, a)

    return forward, backward


def dropout(layer: Dropout, keys: Tensor, rates: Tensor) -> tuple[Pass, Pass]:
    """The mask that the layer itself would draw, for all members: keys and rates [P]."""
    single = len(keys) == 1
    shape = (1, 1) if single else (-1, 1, 1)
    scales = torch.ones_like(rates) if layer.classic else 1 / (1 - rates).clamp_min(1e-12)
    scales = scales.view(shape)
    mask = keys

    def forward(a: Tensor) -> Tensor:
        nonlocal mask
        units, samples = a.shape[-2:]
        first = 0 if layer.part is None else layer.part[0] * units
        kept = at_least(rates, keys, (samples, units), first).mT  # [P, H, B], sample by sample
        mask = (kept[0] if single else kept).to(a.dtype) * scales.to(a.dtype)
        return a * mask

    return forward, lambda g: g * mask


def cast(before: torch.dtype, after: torch.dtype) -> tuple[Pass, Pass]:
    """Between layers of different precision."""
    return lambda a: a.to(after), lambda g: g.to(before)
