"""The table of layer traits, held against what the layers do: torch's and the whole catalogue's."""

from __future__ import annotations

import copy
import inspect
import re

import pytest
import torch
from torch import nn

from ravine.catalogue import make, table
from ravine.nn.analysis import traits as module
from ravine.nn.analysis.traits import (
    TABLE,
    Trait,
    catalogue_traits,
    every_layer,
    flat_ends,
    is_activation,
    observed_traits,
    sees_samples_alone,
    takes_bfloat16,
    traits,
)
from ravine.nn.randomized import Randomized, seeded, set_keys
from ravine.nn.stack import build_layer

GIVEN = {  # catalogue layers that must be given sizes
    "dense": {"units": 4},
    "conv": {"channels": 4, "kernel": 3},
    "locally_connected": {"channels": 4, "kernel": 3},
    "embedding": {"size": 4, "vocabulary": 7},
    "reshape": {"to": [-1]},
    "rnn": {"units": 4},
    "lstm": {"units": 4},
    "gru": {"units": 4},
    "group_norm": {"groups": 2},
    "maxpool": {"size": 2},
    "avgpool": {"size": 2},
    "channel_pool": {"size": 2},
    "chain": {"layers": [{"kind": "tanh"}]},
    "residual": {"layers": [{"kind": "tanh"}]},
    "parallel": {"layers": [{"kind": "tanh"}]},
}
SHAPES = ((6,), (6, 8), (6, 8, 8))  # of one sample


def _catalogue():
    for kind in table("layer"):
        if kind == "tied":  # another layer's weights: it has no traits of its own
            continue
        for shape in ((7,),) if kind == "embedding" else SHAPES:
            try:
                layer, _ = build_layer(make("layer", {"kind": kind, **GIVEN.get(kind, {})}), shape)
                layer(_inputs(layer, (5, *shape)))
            except (ValueError, RuntimeError, IndexError, TypeError, AttributeError):
                continue
            yield pytest.param(layer, shape, id=f"{kind}-{len(shape)}d")


# torch.nn's own layers, from sizes alone
TORCH = {
    nn.Linear: (8, 4),
    nn.Embedding: (7, 4),
    nn.Conv1d: (6, 4, 3),
    nn.Conv2d: (6, 4, 3),
    nn.Conv3d: (6, 4, 3),
    nn.ConvTranspose2d: (6, 4, 3),
    nn.RNN: (8, 4, 1, "tanh", True, True),
    nn.LSTM: (8, 4, 1, True, True),
    nn.GRU: (8, 4, 1, True, True),
    nn.BatchNorm1d: (6,),
    nn.BatchNorm2d: (6,),
    nn.BatchNorm3d: (6,),
    nn.SyncBatchNorm: (6,),
    nn.InstanceNorm1d: (6,),
    nn.InstanceNorm2d: (6,),
    nn.InstanceNorm3d: (6,),
    nn.GroupNorm: (2, 6),
    nn.LayerNorm: (8,),
    nn.RMSNorm: (8,),
    nn.LocalResponseNorm: (3,),
    nn.MaxPool1d: (2,),
    nn.MaxPool2d: (2,),
    nn.AvgPool1d: (2,),
    nn.AvgPool2d: (2,),
    nn.AdaptiveAvgPool2d: (2,),
    nn.Threshold: (0.1, 0.2),
    nn.Unflatten: (1, (2, 3)),
    nn.Softmax: (1,),
    nn.LogSoftmax: (1,),
    nn.Softmin: (1,),
    nn.GLU: (1,),
}
PLAIN = [
    *(getattr(nn.modules.activation, name) for name in nn.modules.activation.__all__),
    *(getattr(nn.modules.dropout, name) for name in nn.modules.dropout.__all__),
    nn.Flatten,
    nn.Identity,
]


def _torch():
    for kind in dict.fromkeys([*TORCH, *PLAIN]):
        if kind is nn.MultiheadAttention:
            continue
        rank = re.search(r"([123])d$", kind.__name__)
        shapes = [*SHAPES, (6, 8, 8, 8)] if rank is None else [(6, *[8] * int(rank[1]))]
        shapes += [(6,)] if kind is nn.BatchNorm1d else []
        for shape in ((7,),) if kind is nn.Embedding else shapes:
            layer = kind(*TORCH.get(kind, ()))
            try:
                layer(_inputs(layer, (5, *shape)))
            except (ValueError, RuntimeError, IndexError, TypeError):
                continue
            yield pytest.param(layer, shape, id=f"{kind.__name__}-{len(shape)}d")


def _inputs(layer, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if isinstance(layer, nn.Embedding):
        return torch.randint(0, 7, shape, generator=generator)
    return torch.randn(shape, generator=generator)


LAYERS = [*_catalogue(), *_torch()]


def _those(wanted):
    """The cases for which a question makes sense."""
    return pytest.mark.parametrize(
        ("layer", "shape"), [case for case in LAYERS if wanted(*case.values)]
    )


def _could_be_an_activation(layer, shape):
    weighted = any(p.dim() > 1 for p in layer.parameters())
    return not weighted and not list(layer.children()) and not isinstance(layer, nn.Sequential)


def _could_normalise(layer, shape):
    known = traits(layer)
    refused = (nn.LocalResponseNorm, nn.SyncBatchNorm, nn.Embedding)  # the second is for GPUs
    flat = known & (Trait.CROSS_ACTIVATION | Trait.SATURATES | Trait.RECURRENT)
    return type(layer) in TABLE and not flat and not isinstance(layer, refused)


def _run(layer, x, training=True):
    """On a copy, in a random state of its own; random layers are idle, so that they draw nothing."""
    layer = copy.deepcopy(layer).train(training)
    for part in layer.modules():
        if isinstance(part, Randomized):
            part.idle = True
        elif isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
        elif isinstance(part, nn.RReLU):
            part.upper = part.lower
    found = layer(x)
    return found[0] if isinstance(found, tuple) else found


@_those(lambda layer, shape: every_layer(layer, Trait.SAMPLES_ALONE))
def test_samples_alone(layer, shape):
    x = _inputs(layer, (5, *shape))
    together = _run(layer, x)
    alone = torch.cat([_run(layer, x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone)


@_those(lambda layer, shape: takes_bfloat16(layer))
def test_bfloat16(layer, shape):
    low = copy.deepcopy(layer)
    for part in low.modules():
        if not traits(part) & Trait.NORMALISES:
            for parameter in part.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()
    x = _inputs(layer, (5, *shape))
    given = x.bfloat16() if x.is_floating_point() else x
    found, expected = _run(low, given), _run(layer, x)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() <= 0.02 * expected.norm()


@_those(lambda layer, shape: len(shape) == 3 and every_layer(layer, Trait.CHANNELWISE))
def test_channelwise(layer, shape):
    x = _inputs(layer, (5, *shape))
    moved = x.clone()
    moved[:, 2] += _inputs(layer, (5, *shape), seed=1)[:, 2]
    before, after = _run(layer, x, False), _run(layer, moved, False)
    kept = [c for c in range(shape[0]) if c != 2]
    assert torch.equal(before[:, kept], after[:, kept])
    assert not torch.equal(before[:, 2], after[:, 2])


@_those(_could_be_an_activation)
def test_activations_are_those_that_bend_each_entry_alone(layer, shape):
    """The table's word is that of the trial, which does not look at the table."""
    known = traits(layer)
    quiet = copy.deepcopy(layer).eval()
    found = module._tried(quiet, (5, *shape))
    shown = Trait.ACTIVATION | Trait.RECTIFIES | Trait.SATURATES
    assert known & shown == found & shown
    assert is_activation(layer) == (Trait.ACTIVATION in known)


@_those(_could_normalise)
def test_normalisation_takes_the_scale_away(layer, shape):
    known = traits(layer)
    x = _inputs(layer, (5, *shape))
    small, large = _run(layer, 10 * x), _run(layer, 100 * x)
    alike = small.shape == large.shape and torch.allclose(small, large, rtol=1e-3, atol=1e-3)
    assert alike == (Trait.NORMALISES in known)
    if Trait.NORMALISES in known:
        alone = torch.cat([_run(layer, torch.cat([x[i : i + 1]] * 2))[:1] for i in range(5)])
        by_batch = not torch.allclose(_run(layer, x), alone, atol=1e-4)
        assert by_batch == (Trait.BATCH_STATISTICS in known)


@_those(lambda layer, shape: not isinstance(layer, nn.Embedding))
def test_random_layers_draw(layer, shape):
    layer = copy.deepcopy(layer).train()
    x = _inputs(layer, (64, *shape))
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        drawn = layer(x.clone())
        found.append(drawn[0] if isinstance(drawn, tuple) else drawn)
    draws = [m for m in layer.modules() if traits(m) & Trait.RANDOM]
    awake = [m for m in draws if float(getattr(m, "rate", 1.0)) > 0]
    assert bool(awake) == (not torch.equal(*found))


def test_every_layer_of_the_catalogue_and_every_activation_of_torch_is_in_the_table():
    for parameter in LAYERS:
        for part in parameter.values[0].modules():
            named = type(part).__mro__[:-1]
            padding = type(part).__module__ == "torch.nn.modules.padding"
            assert any(kind in TABLE for kind in named) or padding, type(part)
    kinds = {p.id.rsplit("-", 1)[0] for p in LAYERS}
    assert set(table("layer")) - {"tied"} <= kinds
    assert {kind.__name__ for kind in TABLE if inspect.getmodule(kind).__name__.startswith("torch")
            and not kind.__name__.startswith("_")} - {
        "ModuleList", "Sequential", "RNNBase"} <= kinds  # fmt: skip


def test_what_is_not_in_the_table_is_tried():
    class Own(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    assert observed_traits(Own(torch.relu)) == Trait.ACTIVATION | Trait.RECTIFIES
    assert observed_traits(Own(torch.tanh)) == Trait.ACTIVATION | Trait.SATURATES
    assert flat_ends(Own(lambda x: 3 * torch.sigmoid(x))) == (0.0, 3.0)
    assert observed_traits(Own(lambda x: x * x.sigmoid())) == Trait.ACTIVATION
    for other in (lambda x: 2 * x + 1, lambda x: x.softmax(1), lambda x: x.flatten(1)):
        assert not is_activation(Own(other))
    assert not is_activation(Own(lambda x: 1 / 0))


def test_a_trial_calls_no_hook():
    class Own(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    own, calls = Own(), []
    own.register_forward_hook(lambda *_: calls.append(is_activation(own)))
    own(torch.zeros(2, 3))
    assert calls == [True]


def test_a_subclass_is_what_its_parent_is_and_promises_nothing():
    class Other(nn.Linear):
        def forward(self, x):
            return super().forward(x - x.mean(0))

    assert traits(Other) == Trait.DENSE
    assert not sees_samples_alone(nn.Sequential(Other(2, 2)))
    assert not takes_bfloat16(nn.Sequential(Other(2, 2)))


def test_random_layers_see_samples_alone_only_where_they_do_nothing():
    net = nn.Sequential(nn.Linear(2, 2), seeded(nn.Dropout(0.5)))
    assert not sees_samples_alone(net)
    net[1].idle = True
    assert sees_samples_alone(net)
    set_keys(net, 0)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("relu", Trait.ACTIVATION | Trait.RECTIFIES),
        ("leaky_relu", Trait.ACTIVATION),
        ("hard_sigmoid", Trait.ACTIVATION | Trait.SATURATES),
        ("softmax", Trait.CROSS_ACTIVATION),
        ("instance_norm", Trait.NORMALISES),
        ("dropout", Trait.RANDOM),
    ],
)
def test_traits_by_the_name_in_a_recipe(kind, wanted):
    assert wanted in catalogue_traits(kind)


def test_names_that_need_sizes_or_are_unknown_have_no_traits():
    assert catalogue_traits("dense") == catalogue_traits("nothing of the sort") == Trait.NONE
