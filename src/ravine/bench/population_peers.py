"""Populations as people train them without Ravine: several seeds of one network at once.

Each is a competitor as those in ``peers``; its seconds are those of an epoch for one member. All
members see the same batches, as Ravine's do, so that no one gathers rows for each seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ravine.bench.works import POPULATIONS, WORKS, Work, arrays

Fit = Callable[[int], list[float]]


def _population(name: str) -> tuple[Work, int]:
    base, members = POPULATIONS.get(name, (name, 1))
    if WORKS[base].vocabulary:
        raise NotImplementedError("written for a class for each sample")
    return WORKS[base], members


def _per_member(epoch: Callable[[], Any], members: int) -> Fit:
    def fit(epochs: int) -> list[float]:
        seconds = []
        for _ in range(epochs):
            began = time.perf_counter()
            epoch()
            seconds.append((time.perf_counter() - began) / members)
        return seconds

    return fit


def jax_vmap(name: str, bf16: bool = False) -> Fit:
    """JAX as its users write it: ``vmap`` over seeds of a step inside a ``lax.scan`` over the
    epoch, one jitted call whose buffers are donated; Adam as in the paper."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    work, members = _population(name)
    if bf16:
        raise NotImplementedError("in float32")
    apply = _network(list(work.torch()))
    x, y = (jnp.asarray(a) for a in arrays(work))
    x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
    draws = []
    for seed in range(members):
        torch.manual_seed(seed)
        draws.append([p.detach().numpy() for p in work.torch().parameters()])
    params = [jnp.asarray(np.stack(each)) for each in zip(*draws, strict=True)]
    zeros = [jnp.zeros_like(p) for p in params]

    def loss(p: Any, x: Any, y: Any) -> Any:
        scores = jax.nn.log_softmax(apply(p, x))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    def step(state: Any, rows: Any) -> Any:
        p, m, v, t = state
        losses, g = jax.vmap(jax.value_and_grad(loss), (0, None, None))(p, x[rows], y[rows])
        t = t + 1
        m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)

        def moved(p: Any, m: Any, v: Any) -> Any:
            return p - 1e-3 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)

        return (jax.tree.map(moved, p, m, v), m, v, t), losses

    @jax.jit
    def order(key: Any) -> Any:
        return jax.random.permutation(key, work.samples).reshape(work.steps, work.batch)

    whole = jax.jit(lambda state, rows: jax.lax.scan(step, state, rows), donate_argnums=0)
    held: list[Any] = [(params, zeros, [z.copy() for z in zeros], jnp.zeros(())), jax.random.key(0)]

    def epoch() -> None:
        held[1], key = jax.random.split(held[1])
        held[0], losses = whole(held[0], order(key))
        losses.block_until_ready()

    return _per_member(epoch, members)


def _network(layers: list[Any]) -> Callable[[Any, Any], Any]:
    """A sequential PyTorch network's forward pass in JAX, images channels last; its parameters are
    a list in PyTorch's order and form."""
    import jax
    from jax import lax
    from torch import nn

    def apply(params: Any, x: Any) -> Any:
        given = iter(params)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                w, b = next(given), next(given)
                x = x @ w.T + b
            elif isinstance(layer, nn.Conv2d):
                w, form = next(given), ("NHWC", "OIHW", "NHWC")
                sides = [(n // 2, n // 2) for n in layer.kernel_size]
                x = lax.conv_general_dilated(x, w, layer.stride, sides, dimension_numbers=form)
                x = x if layer.bias is None else x + next(given)
            elif isinstance(layer, nn.BatchNorm2d):  # the averages for evaluation are left out
                w, b = next(given), next(given)
                mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
                x = (x - mean) * (w * lax.rsqrt(variance + layer.eps)) + b
            elif hasattr(layer, "body"):  # a residual block of `works`
                inner = _network(list(layer.body))
                count = len(list(layer.body.parameters()))
                shortcut = x[:, :: layer.stride, :: layer.stride]
                shortcut = jax.numpy.pad(shortcut, ((0, 0), (0, 0), (0, 0), (0, layer.more)))
                x = jax.nn.relu(inner([next(given) for _ in range(count)], x) + shortcut)
            elif isinstance(layer, nn.AdaptiveAvgPool2d):
                x = x.mean((1, 2))
            elif isinstance(layer, nn.ReLU):
                x = jax.nn.relu(x)
            elif isinstance(layer, nn.MaxPool2d):
                window = (1, 2, 2, 1)
                x = lax.reduce_window(x, -jax.numpy.inf, lax.max, window, window, "VALID")
            elif isinstance(layer, nn.Flatten):
                x = x.reshape(x.shape[0], -1)
            else:
                raise NotImplementedError(f"no {type(layer).__name__} here")
        return x

    return apply


def torch_vmap(name: str, bf16: bool = False) -> Fit:
    """``torch.func``: stacked parameters, ``vmap`` of ``grad``, one fused Adam over all."""
    import torch
    from torch.func import functional_call, grad, stack_module_state, vmap
    from torch.nn.functional import cross_entropy

    work, members = _population(name)
    models = [work.torch() for _ in range(members)]
    params, buffers = stack_module_state(models)
    if buffers or bf16:
        raise NotImplementedError("networks without running statistics, in float32")
    inputs, targets = map(torch.from_numpy, arrays(work))
    params = {key: value.detach().requires_grad_() for key, value in params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=1e-3, fused=True)

    def loss(p: Any, x: Any, y: Any) -> Any:
        return cross_entropy(functional_call(models[0], p, (x,)), y)

    gradient = vmap(grad(loss), (0, None, None))

    def epoch() -> None:
        for rows in torch.randperm(work.samples).split(work.batch):
            with torch.no_grad():
                found = gradient(params, inputs[rows], targets[rows])
            for key, value in params.items():
                value.grad = found[key]
            optimizer.step()

    return _per_member(epoch, members)


def torch_compiled(name: str, bf16: bool = False) -> Fit:
    """A loop over the members, each network and loss under ``torch.compile``, with fused Adam."""
    import torch
    from torch.nn.functional import cross_entropy

    work, members = _population(name)
    inputs, targets = map(torch.from_numpy, arrays(work))
    models = [work.torch() for _ in range(members)]
    optimizers = [torch.optim.Adam(m.parameters(), lr=1e-3, fused=True) for m in models]

    @torch.compile
    def loss(model: Any, x: Any, y: Any) -> Any:
        return cross_entropy(model(x), y)

    def epoch() -> None:
        for model, optimizer in zip(models, optimizers, strict=True):
            for rows in torch.randperm(work.samples).split(work.batch):
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    found = loss(model, inputs[rows], targets[rows])
                optimizer.zero_grad()
                found.backward()
                optimizer.step()

    return _per_member(epoch, members)


POPULATION_PEERS: dict[str, tuple[str, Callable[..., Fit], tuple[str, ...]]] = {
    "jax_vmap": ("JAX, vmap and scan", jax_vmap, ("jax",)),
    "torch_vmap": ("torch.func.vmap", torch_vmap, ()),
    "torch_compiled": ("PyTorch, compiled", torch_compiled, ()),
}
