"""Adam and its family: formulas over rows, as in ``optimizers``.

m is a running mean of the gradients, v of their squares; ``beta1`` and ``beta2`` are their memories,
``eps`` keeps the division from zero.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ravine.catalogue import Decay, Flag, NonNegative, Positive
from ravine.layout import Layout
from ravine.optim.arithmetic import (
    Column,
    State,
    adaptive,
    add,
    add_quotient,
    at_least,
    average,
    average_square,
    cast,
    choose,
    divisor,
    keep_row_number,
    off,
    row_number,
    shrink,
    with_decay,
)


@adaptive
def adam(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    bias_correction: Flag = True,
    eps_in: Literal["outside", "inside", "no_root"] = "outside",
    weight_decay: NonNegative = 0.0,
) -> None:
    """Adam: momentum over a running root mean square, both corrected for their start at zero.

    m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    w -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).

    ``bias_correction = false`` leaves out the two divisions, as some lectures do: with the default
    betas the first steps are then about three times as long. ``eps_in``: ``outside`` the root (the
    paper, PyTorch), ``inside`` it, or ``no_root``: m / (v + eps), a slip of some lectures. (Another is
    eps = 10^8: it is 10^-8.) lr 1e-3 is the paper's; "3e-4 is the best learning rate for Adam" is
    an often quoted joke. g includes weight_decay * w (coupled, as an L2 penalty; for the decoupled form see
    ``adamw``). Slots: ``m``, ``v``.

    >>> from ravine.optim.descent import descend
    >>> descend("adam", lambda w: 2 * w, 1.0, steps=1, lr=0.1)
    0.9

    Source: Kingma and Ba 2015.
    """
    g = with_decay(g, w, weight_decay, layout)
    m, v = _moments(g, state, beta1, beta2)
    correct1, correct2 = _corrections(t, beta1, beta2) if bias_correction else (1.0, 1.0)
    outside = eps_in == "outside"
    below = _root(v, correct2, eps) if outside else divisor(v * cast(1 / correct2, v), eps, eps_in)
    add_quotient(w, m, below, -lr / correct1)


@adaptive
def amsgrad(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    bias_correction: Flag = True,
    weight_decay: NonNegative = 0.0,
) -> None:
    """AMSGrad: Adam whose root mean square never falls, so that its steps only shrink.

    m, v as in ``adam``;  v_max = max(v_max, v);
    w -= lr * (m / (1 - beta1^t)) / (sqrt(v_max / (1 - beta2^t)) + eps).

    ``bias_correction``: the paper has none, PyTorch has it. g includes weight_decay * w. Slots:
    ``m``, ``v``, ``v_max``.

    >>> from ravine.optim.descent import descend
    >>> descend("amsgrad", lambda w: 2 * w, 1.0, steps=1, lr=0.1)
    0.9

    Source: Reddi, Kale and Kumar 2018.
    """
    g = with_decay(g, w, weight_decay, layout)
    m, v = _moments(g, state, beta1, beta2)
    highest = state["v_max"]
    torch.maximum(highest, v, out=highest)
    correct1, correct2 = _corrections(t, beta1, beta2) if bias_correction else (1.0, 1.0)
    add_quotient(w, m, _root(highest, correct2, eps), -lr / correct1)


@adaptive
def adamw(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-2,
    decay_by: Literal["lr", "schedule"] = "lr",
) -> None:
    """Adam with decoupled weight decay: the decay does not pass through the division by the root
    mean square.

    w *= 1 - lr * weight_decay, then ``adam``'s step without decay in g.

    ``decay_by = "lr"`` (PyTorch): the decay is scaled by lr. ``"schedule"`` (the paper): w *= 1 -
    eta * weight_decay, where eta is the schedule's multiplier alone, so that lr and weight_decay
    can be tuned separately (weight_decay is then smaller, by about lr); the formula receives eta *
    weight_decay. ``beta1``, ``beta2`` and ``eps`` as in ``adam``. Slots: ``m``, ``v``.

    >>> from ravine.optim.descent import descend
    >>> descend("adamw", lambda w: 2 * w, 1.0, steps=1, lr=0.1, weight_decay=0.5)
    0.85

    Source: Loshchilov and Hutter 2019.
    """
    shrink(w, weight_decay if decay_by == "schedule" else lr * weight_decay, layout)
    m, v = _moments(g, state, beta1, beta2)
    correct1, correct2 = _corrections(t, beta1, beta2)
    add_quotient(w, m, _root(v, correct2, eps), -lr / correct1)


@adaptive
def adamax(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 2e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
) -> None:
    """AdaMax: Adam with the largest recent gradient in place of the root mean square.

    m = beta1 * m + (1 - beta1) * g;  u = max(beta2 * u, |g| + eps);  w -= lr / (1 - beta1^t) * m / u.

    The paper has no eps; it is added where PyTorch adds it. g includes weight_decay * w. Slots:
    ``m``, ``u``.

    >>> from ravine.optim.descent import descend
    >>> descend("adamax", lambda w: 2 * w, 1.0, steps=1, lr=0.1)
    0.9

    Source: Kingma and Ba 2015, section 7.
    """
    g = with_decay(g, w, weight_decay, layout)
    m, u = average(state["m"], g, beta1), state["u"]
    torch.maximum(u.mul_(cast(beta2, u)), g.abs().add_(cast(eps, u)), out=u)
    add_quotient(w, m, u, -lr / (1 - beta1**t))


@adaptive
def nadam(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 2e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    momentum_decay: NonNegative = 4e-3,
    decoupled: Flag = False,
    weight_decay: NonNegative = 0.0,
) -> None:
    """NAdam: Adam with Nesterov's momentum.

    m, v as in ``adam``;  mu_t = beta1 (1 - 0.5 * 0.96^(t momentum_decay));  M_t = mu_1 mu_2 ... mu_t;
    step = (1 - mu_t) / (1 - M_t) * g + mu_{t+1} / (1 - M_{t+1}) * m;
    w -= lr * step / (sqrt(v / (1 - beta2^t)) + eps).

    ``momentum_decay`` sets how slowly mu rises to beta1 (0: mu_t = beta1 / 2). With a scheduled beta1
    each mu is that of its own step. g includes weight_decay * w, or with ``decoupled``: w *= 1 - lr *
    weight_decay. Slots: ``m``, ``v``, and ``c`` = 1 - M_t.

    >>> from ravine.optim.descent import descend
    >>> descend("nadam", lambda w: 2 * w, 1.0, steps=1, lr=0.1) < 0.92
    True

    Source: Dozat 2016.
    """
    g = _decayed(w, g, lr, weight_decay, decoupled, layout)
    m, v = _moments(g, state, beta1, beta2)
    mu, following = (beta1 * (1 - 0.5 * 0.96 ** (s * momentum_decay)) for s in (t, t + 1))
    c = 1 - mu + mu * row_number(state["c"])  # 1 - mu_1 ... mu_t
    keep_row_number(state["c"], c)
    below = _root(v, 1 - beta2**t, eps)
    add_quotient(w, g, below, -lr * (1 - mu) / c)
    add_quotient(w, m, below, -lr * following / (1 - following + c * following))


@adaptive
def radam(
    w: Tensor,
    g: Tensor,
    state: State,
    t: Column,
    layout: Layout,
    *,
    lr: Positive = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    decoupled: Flag = False,
    weight_decay: NonNegative = 0.0,
) -> None:
    """RAdam: Adam that divides by the root mean square only once enough gradients are in it.

    m, v as in ``adam``;  r_inf = 2 / (1 - beta2) - 1;  r = r_inf - 2 t beta2^t / (1 - beta2^t);
    r > 5:  w -= lr * rect * (m / (1 - beta1^t)) * sqrt(1 - beta2^t) / (sqrt(v) + eps), where
            rect = sqrt((r - 4) (r - 2) r_inf / ((r_inf - 4) (r_inf - 2) r));
    else:   w -= lr * m / (1 - beta1^t).

    g includes weight_decay * w, or with ``decoupled``: w *= 1 - lr * weight_decay. Slots: ``m``,
    ``v``.

    >>> from ravine.optim.descent import descend
    >>> descend("radam", lambda w: 2 * w, 1.0, steps=1, lr=0.1)
    0.8

    Source: Liu et al. 2020.
    """
    g = _decayed(w, g, lr, weight_decay, decoupled, layout)
    m, v = _moments(g, state, beta1, beta2)
    correct1, correct2 = _corrections(t, beta1, beta2)
    full = 2 / (1 - beta2) - 1
    length = full - 2 * t * beta2**t / correct2
    known, r = length > 5, at_least(length, 5.0)
    rect = (
        (r - 4)
        * (r - 2)
        * at_least(full, 5.0)
        / (at_least(full - 4, 1.0) * at_least(full - 2, 3.0) * r)
    ) ** 0.5
    adaptive = choose(known, lr / correct1 * rect * correct2**0.5, 0.0)
    if not off(adaptive):
        add_quotient(w, m, v.sqrt().add_(cast(eps, w)), -adaptive)
    plain = choose(known, 0.0, lr / correct1)
    if not off(plain):
        add(w, m, -plain)


def _moments(g: Tensor, state: State, beta1: Column, beta2: Column) -> tuple[Tensor, Tensor]:
    return average(state["m"], g, beta1), average_square(state["v"], g, beta2)


def _corrections(t: Column, beta1: Column, beta2: Column) -> tuple[Column, Column]:
    return 1 - beta1**t, 1 - beta2**t


def _root(v: Tensor, correction: Column, eps: Column) -> Tensor:
    """sqrt(v / correction) + eps."""
    return v.sqrt().mul_(cast(correction**-0.5, v)).add_(cast(eps, v))


def _decayed(
    w: Tensor, g: Tensor, lr: Column, weight_decay: Column, decoupled: bool, layout: Layout
) -> Tensor:
    if not decoupled:
        return with_decay(g, w, weight_decay, layout)
    shrink(w, lr * weight_decay, layout)
    return g
