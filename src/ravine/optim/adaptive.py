"""Optimisers that divide each parameter's step by what its gradients were: formulas over rows, as
in ``optimizers``. Adam and its family are in ``adam``."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ravine.catalogue import Decay, Flag, NonNegative, Positive
from ravine.layout import Layout
from ravine.optim.arithmetic import (
    Column,
    State,
    adaptive,
    add,
    add_quotient,
    average,
    average_square,
    cast,
    choose,
    divisor,
    off,
    with_decay,
)


@adaptive
def adagrad(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1e-2,
    lr_decay: NonNegative = 0.0,
    initial: NonNegative = 0.0,
    eps: NonNegative = 1e-10,
    eps_in: Literal["outside", "inside", "no_root"] = "outside",
    weight_decay: NonNegative = 0.0,
) -> None:
    """Adagrad: each step divided by the root of the sum of all squared gradients so far.

    s += g^2, from ``initial`` on;  w -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps).

    ``eps_in``: ``outside`` the root (PyTorch), ``inside`` it, sqrt(s + eps), as the paper's diagonal
    matrix and some lectures have it, or ``no_root``: g / (s + eps), as some lectures print it. The last
    is a slip (the larger the gradients, the shorter the step: it goes as 1 / g), and so is a step added
    with a plus sign where it is to be subtracted. g includes weight_decay * w. Slots: ``s``.

    >>> from ravine.optim.descent import descend
    >>> descend("adagrad", lambda w: 2 * w, 1.0, steps=1, lr=0.1)
    0.9

    Source: Duchi, Hazan and Singer 2011.
    """
    g = with_decay(g, w, weight_decay, layout)
    s = state["s"]
    if not off(initial):
        s.add_(cast(initial * choose(t == 1, 1.0, 0.0), s))
    s.addcmul_(g, g)
    add_quotient(w, g, divisor(s, eps, eps_in), -lr / (1 + (t - 1) * lr_decay))


@adaptive
def adadelta(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1.0,
    rho: Decay = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
) -> None:
    """Adadelta: steps in the units of the parameters, from running averages of squared gradients
    and squared steps.

    s = rho * s + (1 - rho) * g^2;  step = sqrt(d + eps) / sqrt(s + eps) * g;  d = rho * d + (1 - rho) * step^2;
    w -= lr * step. lr = 1 is the paper's. g includes weight_decay * w. Slots: ``s``, ``d``.

    >>> from ravine.optim.descent import descend
    >>> descend("adadelta", lambda w: 2 * w, 1.0, steps=1) < 1
    True

    Source: Zeiler 2012.
    """
    g = with_decay(g, w, weight_decay, layout)
    s = average_square(state["s"], g, rho)
    d = state["d"]
    step = d.add(cast(eps, w)).div_(s.add(cast(eps, w))).sqrt_().mul_(g)
    average_square(d, step, rho)
    add(w, step, -lr)


@adaptive
def rmsprop(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1e-2,
    alpha: Decay = 0.99,
    eps: NonNegative = 1e-8,
    momentum: Decay = 0.0,
    centered: Flag = False,
    eps_in: Literal["outside", "inside", "no_root"] = "outside",
    weight_decay: NonNegative = 0.0,
) -> None:
    """RMSProp: each step divided by a running root mean square of the gradient.

    s = alpha * s + (1 - alpha) * g^2;  w -= lr * g / (sqrt(s) + eps).

    ``centered``: s - m^2 in place of s, with m = alpha * m + (1 - alpha) * g. With momentum: v =
    momentum * v +
    g / (sqrt(s) + eps);  w -= lr * v. ``eps_in``: ``outside`` the root (PyTorch), ``inside`` it, sqrt(s + eps), or
    ``no_root``: g / (s + eps), as some lectures print it (a slip: the smaller the gradient, the
    longer the step; so is a step that is added, with a plus sign). g includes weight_decay * w.
    Slots: ``s``; ``m`` if centered, ``v`` with momentum.

    >>> from ravine.optim.descent import descend
    >>> descend("rmsprop", lambda w: 2 * w, 1.0, steps=1, lr=0.1, alpha=0.75)
    0.8

    Source: Tieleman and Hinton 2012, lecture 6.5; centered: Graves 2013.
    """
    g = with_decay(g, w, weight_decay, layout)
    s = average_square(state["s"], g, alpha)
    if centered:
        m = average(state["m"], g, alpha)
        s = s.addcmul(m, m, value=-1).clamp_(min=0.0)  # rounding may leave it just under zero
    below = divisor(s, eps, eps_in)
    if off(momentum):
        add_quotient(w, g, below, -lr)
    else:
        add(w, state["v"].mul_(cast(momentum, w)).addcdiv_(g, below), -lr)
