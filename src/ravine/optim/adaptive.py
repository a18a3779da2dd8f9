"""Optimisers that divide each parameter's step by what its gradients were: formulas over rows, as
in ``optimizers``."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ravine.catalogue import Decay, Flag, NonNegative, Positive
from ravine.layout import Layout
from ravine.optim.columns import (
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
    off,
    shrink,
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
    eps_in: Literal["outside", "inside"] = "outside",
    weight_decay: NonNegative = 0.0,
) -> None:
    """Adagrad: each step divided by the root of the sum of all squared gradients so far.

    s += g^2, from ``initial`` on;  w -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps).

    ``eps_in``: ``outside`` the root (PyTorch), or ``inside`` it, sqrt(s + eps), as the paper's
    diagonal matrix and some lectures have it. g includes weight_decay * w. Slots: ``s``.

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
    add_quotient(w, g, _below(s, eps, eps_in), -lr / (1 + (t - 1) * lr_decay))


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
    longer the step). g includes weight_decay * w. Slots: ``s``; ``m`` if centered, ``v`` with
    momentum.

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
    below = _below(s, eps, eps_in)
    if off(momentum):
        add_quotient(w, g, below, -lr)
    else:
        add(w, state["v"].mul_(cast(momentum, w)).addcdiv_(g, below), -lr)


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
    weight_decay: NonNegative = 0.0,
) -> None:
    """Adam: momentum over a running root mean square, both corrected for their start at zero.

    m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    w -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).

    ``bias_correction = false`` leaves out the two divisions, as some lectures do: with the default
    betas the first steps are then about three times as long. g includes weight_decay * w (coupled,
    as an L2 penalty; for the decoupled form see ``adamw``). Slots: ``m``, ``v``.

    >>> from ravine.optim.descent import descend
    >>> descend("adam", lambda w: 2 * w, 1.0, steps=1, lr=0.1)
    0.9

    Source: Kingma and Ba 2015.
    """
    g = with_decay(g, w, weight_decay, layout)
    m, v = _moments(g, state, beta1, beta2)
    correct1, correct2 = _corrections(t, beta1, beta2) if bias_correction else (1.0, 1.0)
    add_quotient(w, m, _root(v, correct2, eps), -lr / correct1)


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

    The paper has no bias correction, PyTorch has. g includes weight_decay * w. Slots: ``m``, ``v``,
    ``v_max``.

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
    can be tuned apart (weight_decay is then smaller, by about lr); the formula receives eta *
    weight_decay. Slots: ``m``, ``v``.

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

    The paper has no eps; PyTorch has it where it stands here. g includes weight_decay * w. Slots:
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
    c = average(state["c"], torch.ones_like(w[:, :1]), mu)[:, :1].double()  # 1 - mu_1 ... mu_t
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
    """RAdam: Adam that waits with its division until the root mean square rests on enough
    gradients.

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


def _below(s: Tensor, eps: Column, eps_in: str) -> Tensor:
    """What a step is divided by: sqrt(s) + eps, sqrt(s + eps), or s + eps."""
    eps = cast(eps, s)
    if eps_in == "outside":
        return s.sqrt().add_(eps)
    return s.add(eps).sqrt_() if eps_in == "inside" else s.add(eps)


def _decayed(
    w: Tensor, g: Tensor, lr: Column, weight_decay: Column, decoupled: bool, layout: Layout
) -> Tensor:
    if not decoupled:
        return with_decay(g, w, weight_decay, layout)
    shrink(w, lr * weight_decay, layout)
    return g
