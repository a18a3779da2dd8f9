"""Attention and transformers against PyTorch's own modules and against plain formulas, in
float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ravine.errors import InputError
from ravine.nn.build import build

T, WIDTH = 7, 12


def layer(kind, seed=0, **fields):
    part = {"kind": "layers", "layers": [{"kind": kind, **fields}]}
    return build(part, (T, WIDTH), WIDTH, seed=seed, dtype=torch.float64).eval()[0]


def sequences(batch=3):
    return torch.randn(
        batch, T, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


def give(theirs: nn.MultiheadAttention, ours) -> None:
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = (
        ours.out.weight.data,
        ours.out.bias.data,
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_torchs(heads, causal):
    ours, x = layer("attention", heads=heads, causal=causal), sequences()
    theirs = nn.MultiheadAttention(WIDTH, heads, batch_first=True).double().eval()
    give(theirs, ours)
    ahead = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
    expected = theirs(x, x, x, attn_mask=ahead, need_weights=False)[0]
    torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", ["before", "after"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_block_is_torchs_encoder_layer(norm, activation):
    ours, x = (
        layer("transformer_block", heads=3, factor=2, norm=norm, activation=activation),
        sequences(),
    )
    theirs = nn.TransformerEncoderLayer(
        WIDTH,
        3,
        2 * WIDTH,
        activation=activation,
        norm_first=norm == "before",
        batch_first=True,
        dtype=torch.float64,
    ).eval()
    give(theirs.self_attn, ours.attention)
    theirs.linear1.load_state_dict(ours.mlp[0].state_dict())
    theirs.linear2.load_state_dict(ours.mlp[2].state_dict())
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


def test_rotary_products_depend_on_distances_alone():
    """The published form with complex numbers, and the same scores for a shifted sequence."""
    ours, x = layer("attention", heads=1, positions="rotary", bias=False), sequences(1)
    q, k, v = ours.qkv(x).chunk(3, -1)
    half = WIDTH // 2
    speed = torch.tensor([10000.0 ** (-2 * i / WIDTH) for i in range(half)], dtype=torch.float64)
    turn = torch.polar(
        torch.ones(T, half, dtype=torch.float64), torch.arange(T)[:, None].double() * speed
    )
    turned = [torch.complex(y[..., :half], y[..., half:]) * turn for y in (q, k)]
    scores = torch.einsum("bti,bsi->bts", turned[0], turned[1].conj()).real / math.sqrt(WIDTH)
    torch.testing.assert_close(ours(x), ours.out(scores.softmax(-1) @ v), rtol=1e-12, atol=1e-12)
    same = x[:, :1].expand(-1, T, -1)  # equal steps: a score depends on t - s
    q, k, _ = ours.qkv(same).chunk(3, -1)
    turned = [torch.complex(y[..., :half], y[..., half:]) * turn for y in (q, k)]
    scores = torch.einsum("bti,bsi->bts", turned[0], turned[1].conj()).real[0]
    torch.testing.assert_close(scores[1:, 1:], scores[:-1, :-1], rtol=1e-10, atol=1e-10)


def test_sinusoidal_positions_are_the_papers():
    found = layer("positions", form="sinusoidal")(torch.zeros(1, T, WIDTH, dtype=torch.float64))[0]
    for t in range(T):
        for i in range(WIDTH // 2):
            angle = t / 10000 ** (2 * i / WIDTH)
            assert float(found[t, 2 * i]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(found[t, 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_gpt_does_not_look_ahead_and_takes_shorter_texts(positions):
    part = {"kind": "gpt", "units": 8, "layers": 2, "heads": 2, "positions": positions}
    net = build(part, (9,), 5, vocabulary=5, dtype=torch.float64)
    x = torch.randint(5, (2, 9), generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 5
    torch.testing.assert_close(net(x)[:, :5], net(other)[:, :5], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(net(x)[:, 5], net(other)[:, 5])
    torch.testing.assert_close(net(x[:, :4]), net(x)[:, :4], rtol=1e-12, atol=1e-12)


def test_gpt_begins_as_gpt2_does():
    layers, units = 6, 96
    net = build({"kind": "gpt", "units": units, "layers": layers}, (16,), 50, vocabulary=50)
    added = 0.02 / math.sqrt(2 * layers)
    assert float(net.embedding.weight.std()) == pytest.approx(0.02, rel=0.05)
    for block in net.blocks:
        assert float(block.attention.qkv.weight.std()) == pytest.approx(0.02, rel=0.05)
        assert float(block.attention.out.weight.std()) == pytest.approx(added, rel=0.05)
        assert float(block.mlp[2].weight.std()) == pytest.approx(added, rel=0.05)
    assert net.head.weight is net.embedding.weight
    x = torch.randint(50, (8, 16))
    loss = F.cross_entropy(net(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
    assert float(loss) == pytest.approx(math.log(50), rel=0.02)  # it begins as if it knew nothing


@pytest.mark.parametrize("symbols", [True, False])
def test_a_transformer_does_not_read_padding(symbols):
    shape = (7,) if symbols else (7, 3)
    part = {"kind": "transformer", "units": 8, "vocabulary": 11}
    net = build(part, shape, 5, dtype=torch.float64).eval()
    draws = torch.Generator().manual_seed(0)
    x = (
        torch.randint(1, 11, (3, 7), generator=draws)
        if symbols
        else torch.randn(3, 7, 3, generator=draws, dtype=torch.float64)
    )
    lengths = [7, 4, 1]
    padded = x.clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = 0
    alone = torch.cat([net(x[row : row + 1, :length]) for row, length in enumerate(lengths)])
    torch.testing.assert_close(net(padded), alone, rtol=1e-12, atol=1e-12)
    assert bool(net(torch.zeros_like(x)).isfinite().all())


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("attention", {"heads": 5}, "a multiple of 5"),
        ("attention", {"heads": 4, "positions": "rotary"}, "a multiple of 8"),
        ("transformer_block", {"heads": 5}, "a multiple of 5"),
    ],
)
def test_heads_must_divide_the_features(kind, fields, said):
    with pytest.raises(InputError, match=said):
        layer(kind, **fields)


def test_a_tied_gpt_needs_an_output_a_symbol():
    with pytest.raises(InputError, match="tied = false"):
        build({"kind": "gpt", "units": 8, "heads": 2}, (9,), 6, vocabulary=5)
