"""Clipping by row, against PyTorch's clip_grad_norm_ and clip_grad_value_ on each row's own
tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from descents import LAYOUT, split
from ravine.optim.clipping import clip


def rows(p: int = 4) -> Tensor:
    return torch.randn(
        p, LAYOUT.size, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )


def expected(row: Tensor, norm: float, tensor_norm: float, value: float) -> Tensor:
    parameters = [torch.nn.Parameter(torch.zeros_like(piece)) for piece in split(row)]
    for parameter, piece in zip(parameters, split(row), strict=True):
        parameter.grad = piece
    if value:
        torch.nn.utils.clip_grad_value_(parameters, value)
    for parameter in parameters if tensor_norm else []:
        torch.nn.utils.clip_grad_norm_(parameter, tensor_norm)
    if norm:
        torch.nn.utils.clip_grad_norm_(parameters, norm)
    return torch.cat([p.grad for p in parameters])  # type: ignore[misc]


LIMITS = {
    "off": ([0.0] * 4, [0.0] * 4, [0.0] * 4),
    "norm": ([1.0, 0.0, 100.0, 0.1], [0.0] * 4, [0.0] * 4),
    "tensor": ([0.0] * 4, [1.0, 0.0, 100.0, 0.1], [0.0] * 4),
    "value": ([0.0] * 4, [0.0] * 4, [1.0, 0.0, 100.0, 0.1]),
    "value and norm": ([1.0, 0.0, 3.0, 0.1], [0.0] * 4, [0.5, 1.0, 0.0, 0.1]),
    "tensor and norm": ([1.0, 0.0, 3.0, 0.1], [0.5, 1.0, 0.0, 0.1], [0.0] * 4),
    "all": ([1.0, 0.0, 3.0, 2.0], [0.0, 0.5, 1.0, 2.0], [1.0, 0.5, 0.0, 0.1]),
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_as_torch_has_it(limits: tuple[list[float], ...]) -> None:
    grad = rows()
    norms = clip(grad, LAYOUT, *(torch.tensor(limit, dtype=torch.float64) for limit in limits))
    torch.testing.assert_close(norms, rows().norm(dim=1), rtol=1e-12, atol=0)
    for row, before, norm, tensor_norm, value in zip(grad, rows(), *limits, strict=True):
        torch.testing.assert_close(
            row, expected(before, norm, tensor_norm, value), rtol=1e-12, atol=1e-14
        )


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_norms_tell_of_what_is_not_finite(bad: float) -> None:
    grad = rows()
    grad[1, 3] = bad
    limit = torch.ones(4, dtype=torch.float64)
    norms = clip(grad, LAYOUT, norm=limit)
    assert norms.isfinite().tolist() == [True, False, True, True]
    torch.testing.assert_close(grad[0], expected(rows()[0], 1.0, 0.0, 0.0), rtol=1e-12, atol=0)


def test_without_limits_nothing_changes() -> None:
    grad = rows(1)
    norms = clip(grad, LAYOUT)
    assert torch.equal(grad, rows(1))
    torch.testing.assert_close(norms, rows(1).norm().reshape(1), rtol=1e-14, atol=0)
