"""Layers: one row for every name; mapped over members they equal direct calls; each is held against
a reference."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from ravine.catalogue import make, table
from ravine.errors import InputError
from ravine.nn import randomized
from ravine.nn.build import build
from ravine.nn.stack import build_layer, output_shape, stack
from ravine.recipe import Recipe

MAP, FEATURES, SEQUENCE = (4, 6, 7), (12,), (5, 3)
DENSE = {"kind": "dense", "units": 3}

# (name, fields, shape of one sample): at least one row for every layer; the first of a name stands
# for it.
ROWS = [
    ("dense", {"units": 5}, FEATURES),
    ("dense", {"units": 5, "bias": False}, SEQUENCE),
    ("flatten", {}, MAP),
    ("reshape", {"to": [3, -1]}, FEATURES),
    ("reshape", {"to": [-1]}, MAP),
    ("transpose", {}, SEQUENCE),
    ("embedding", {"size": 4, "vocabulary": 9}, (5,)),
    ("dropout", {"rate": 0.4}, FEATURES),
    ("dropout", {"rate": 0.4, "form": "classic"}, MAP),
    ("spatial_dropout", {"rate": 0.4}, MAP),
    ("alpha_dropout", {"rate": 0.3}, FEATURES),
    ("gaussian_noise", {"std": 0.3}, FEATURES),
    ("chain", {"layers": [DENSE, "tanh"]}, FEATURES),
    ("residual", {"layers": [DENSE, "tanh"]}, (3,)),
    ("residual", {"layers": [DENSE, "tanh"]}, FEATURES),
    (
        "residual",
        {"layers": [{"kind": "conv", "channels": 8, "stride": 2, "padding": "same"}]},
        MAP,
    ),
    ("residual", {"layers": [DENSE], "shortcut": "none"}, FEATURES),
    ("parallel", {"layers": [DENSE, {"kind": "chain", "layers": [DENSE, "relu"]}]}, FEATURES),
    ("parallel", {"layers": [DENSE, DENSE], "merge": "sum"}, FEATURES),
    ("tied", {"layer": 0}, FEATURES),
    ("conv", {"channels": 8}, MAP),
    ("conv", {"channels": 8, "kernel": [3, 2], "stride": [2, 1], "padding": "same"}, MAP),
    (
        "conv",
        {"channels": 8, "kernel": 3, "dilation": 2, "groups": 4, "padding": 2, "bias": False},
        MAP,
    ),
    ("conv", {"channels": 8, "kernel": 1}, MAP),
    ("conv", {"channels": 6, "kernel": 4, "padding": "same"}, SEQUENCE),
    ("locally_connected", {"channels": 3, "kernel": [3, 2], "stride": 2}, MAP),
    ("maxpool", {}, MAP),
    ("maxpool", {"size": 3, "stride": 2, "padding": "same"}, MAP),
    ("avgpool", {"size": [2, 3], "stride": 1}, MAP),
    ("global_pool", {}, MAP),
    ("global_pool", {"form": "max"}, SEQUENCE),
    ("channel_pool", {"size": 2, "stride": 1}, MAP),
    ("channel_pool", {"size": 2, "form": "average"}, MAP),
    ("batch_norm", {}, MAP),
    ("batch_norm", {}, FEATURES),
    ("batch_norm", {"average": "cumulative"}, MAP),
    ("batch_norm", {"center": False}, MAP),
    ("batch_norm", {"scale": False}, FEATURES),
    ("batch_norm", {"per": "position"}, MAP),
    ("batch_norm", {"ghost": 2}, MAP),
    ("layer_norm", {}, FEATURES),
    ("layer_norm", {}, MAP),
    ("group_norm", {"groups": 2}, MAP),
    ("instance_norm", {"affine": True}, MAP),
    ("local_response_norm", {"size": 3}, MAP),
    ("rnn", {"units": 4}, SEQUENCE),
    ("lstm", {"units": 2, "layers": 2, "bidirectional": True, "output": "all"}, SEQUENCE),
    ("gru", {"units": 2, "layers": 2}, SEQUENCE),
    ("attention", {"heads": 3}, SEQUENCE),
    ("attention", {"heads": 1, "causal": True, "bias": False}, SEQUENCE),
    ("positions", {}, SEQUENCE),
    ("positions", {"form": "sinusoidal"}, SEQUENCE),
    ("transformer_block", {"heads": 3, "factor": 2, "dropout": 0.2}, SEQUENCE),
    ("transformer_block", {"heads": 1, "norm": "after", "activation": "relu"}, SEQUENCE),
    ("maxout", {"pieces": 2}, MAP),
    *[
        (name, {}, FEATURES)
        for name in (
            "relu",
            "sigmoid",
            "tanh",
            "hard_sigmoid",
            "hard_tanh",
            "softplus",
            "softsign",
            "leaky_relu",
            "prelu",
            "elu",
            "selu",
            "gelu",
            "silu",
            "softmax",
            "log_softmax",
        )
    ],
    ("prelu", {"channels": True}, MAP),
    ("softmax", {"axis": 0}, MAP),
]
IDS = [f"{name}-{i}" for i, (name, _, _) in enumerate(ROWS)]
MAPPED = [row for row in ROWS if row[0] not in ("rnn", "lstm", "gru")]
PER_MEMBER = {
    **dict.fromkeys(("dropout", "spatial_dropout", "alpha_dropout"), ("rate", (0.0, 0.3, 0.6))),
    "gaussian_noise": ("std", (0.0, 0.5, 1.0)),
    "leaky_relu": ("slope", (0.0, 0.1, 0.5)),
    "elu": ("alpha", (0.5, 1.0, 2.0)),
}


def inputs(shape, name="", batch=6, seed=0):
    draws = torch.Generator().manual_seed(seed)
    if name == "embedding":
        return torch.randint(9, (batch, *shape), generator=draws)
    return torch.randn(batch, *shape, generator=draws, dtype=torch.float64)


def one(name, fields, shape, seed=0):
    """A model of this one layer (a tied one after the layer it repeats)."""
    layers = [{"kind": name, **fields}]
    if name == "tied":
        layers = [{"kind": "dense", "units": shape[0]}, "tanh", *layers]
    return build({"kind": "layers", "layers": layers}, shape, 1, seed=seed, dtype=torch.float64)


def test_every_layer_has_a_row():
    assert {name for name, _, _ in ROWS} == set(table("layer"))


@pytest.mark.parametrize(("name", "fields", "shape"), ROWS, ids=IDS)
def test_shape_on_the_meta_device_is_the_real_one(name, fields, shape):
    module = one(name, fields, shape)
    assert output_shape(module, shape) == tuple(module(inputs(shape, name)).shape[1:])


@pytest.mark.parametrize(("name", "fields", "shape"), MAPPED, ids=[row[0] for row in MAPPED])
def test_members_mapped_equal_direct_calls(name, fields, shape):
    field, values = PER_MEMBER.get(name, ("", (None,) * 3))
    parts = [{**fields, **({field: value} if field else {})} for value in values]
    modules = [one(name, part, shape, seed=i) for i, part in enumerate(parts)]
    for i, module in enumerate(modules):
        randomized.set_keys(module, i, "test")
        for parameter in module.parameters():  # normalisation starts at 1 and 0: move away from it
            parameter.data += inputs(parameter.shape[1:], batch=len(parameter), seed=i)
    x = inputs(shape, name)
    scales = torch.tensor([1, 1, 1] if name == "embedding" else [1.0, -0.5, 2.0])
    leaves, buffers = stack_module_state(modules)
    template = copy.deepcopy(modules[0])
    mapped = vmap(lambda p, b, s: functional_call(template, (p, b), (x * s,)))(
        leaves, buffers, scales
    )
    direct = [module(x * s) for module, s in zip(modules, scales, strict=True)]
    torch.testing.assert_close(mapped, torch.stack(direct), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(buffers, stack_module_state(modules)[1], rtol=1e-12, atol=1e-12)
    if leaves:
        found = torch.autograd.grad(mapped.square().sum(), list(leaves.values()))
        for i, (module, y) in enumerate(zip(modules, direct, strict=True)):
            own = torch.autograd.grad(y.square().sum(), list(module.parameters()))
            for g, h in zip(found, own, strict=True):
                torch.testing.assert_close(g[i], h, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("name", "fields", "shape"), ROWS, ids=IDS)
def test_gradients_by_central_differences(name, fields, shape):
    module = one(name, fields, shape)
    randomized.set_keys(module, 0, "test")
    x = inputs(shape, name, batch=1 if name in ("lstm", "gru") else 4)
    names = [n for n, _ in module.named_parameters()]
    buffers = {n: b.clone() for n, b in module.named_buffers()}

    def call(x, *parameters):
        fresh = {n: b.clone() for n, b in buffers.items()}
        return functional_call(module, (dict(zip(names, parameters, strict=True)), fresh), (x,))

    parameters = [p.detach().clone().requires_grad_() for p in module.parameters()]
    x = x if name == "embedding" else x.requires_grad_()
    assert torch.autograd.gradcheck(call, (x, *parameters), atol=1e-6, rtol=1e-5)


# --- held against torch.nn and closed forms -------------------------------------------------------

REFERENCES = [
    ("sigmoid", {}, torch.sigmoid),
    ("tanh", {}, torch.tanh),
    ("relu", {}, torch.relu),
    ("hard_sigmoid", {}, lambda x: (x / 6 + 0.5).clamp(0, 1)),
    ("hard_tanh", {}, lambda x: x.clamp(-1, 1)),
    ("softplus", {}, lambda x: torch.log1p(x.exp())),
    ("softsign", {}, lambda x: x / (1 + x.abs())),
    ("leaky_relu", {"slope": 0.2}, lambda x: F.leaky_relu(x, 0.2)),
    ("prelu", {"start": 0.1}, lambda x: F.leaky_relu(x, 0.1)),
    ("elu", {"alpha": 1.3}, lambda x: F.elu(x, 1.3)),
    ("selu", {}, F.selu),
    ("gelu", {}, lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2),
    ("silu", {}, lambda x: x * torch.sigmoid(x)),
    ("softmax", {}, lambda x: torch.softmax(x, -1)),
    ("log_softmax", {}, lambda x: torch.log_softmax(x, -1)),
    ("maxout", {"pieces": 3}, lambda x: torch.stack([x[:, 0::3], x[:, 1::3], x[:, 2::3]]).amax(0)),
]


@pytest.mark.parametrize(
    ("name", "fields", "reference"), REFERENCES, ids=[r[0] for r in REFERENCES]
)
def test_activations_against_their_formulas(name, fields, reference):
    x = inputs(FEATURES) * 3
    torch.testing.assert_close(one(name, fields, FEATURES)(x), reference(x), rtol=1e-12, atol=1e-12)


def convolve(x, w, stride, dilation, groups, pad):
    """Convolution by its definition, in numpy; pad is ((top, bottom), (left, right))."""
    x = np.pad(x, ((0, 0), (0, 0), *pad))
    out, per = w.shape[0], w.shape[1]
    extent = [d * (k - 1) + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]
    sizes = [(n - e) // s + 1 for n, e, s in zip(x.shape[2:], extent, stride, strict=True)]
    y = np.zeros((len(x), out, *sizes))
    for o in range(out):
        group = o // (out // groups)
        for i, j in np.ndindex(*sizes):
            rows = i * stride[0] + dilation[0] * np.arange(w.shape[2])
            columns = j * stride[1] + dilation[1] * np.arange(w.shape[3])
            patch = x[:, group * per : (group + 1) * per][:, :, rows][:, :, :, columns]
            y[:, o, i, j] = (patch * w[o]).sum((1, 2, 3))
    return y


CONVOLUTIONS = [
    ({"kernel": 3}, (1, 1), (1, 1), 1, ((0, 0), (0, 0))),
    ({"kernel": [3, 2], "stride": [2, 1], "padding": "same"}, (2, 1), (1, 1), 1, ((0, 1), (0, 1))),
    ({"kernel": 3, "dilation": 2, "groups": 4, "padding": 2}, (1, 1), (2, 2), 4, ((2, 2), (2, 2))),
    ({"kernel": 5, "padding": "same"}, (1, 1), (1, 1), 1, ((2, 2), (2, 2))),
    ({"kernel": 1, "stride": 2}, (2, 2), (1, 1), 1, ((0, 0), (0, 0))),
]


@pytest.mark.parametrize(("fields", "stride", "dilation", "groups", "pad"), CONVOLUTIONS)
def test_convolution_against_its_definition(fields, stride, dilation, groups, pad):
    module = one("conv", {"channels": 8, "bias": False, **fields}, MAP)
    x = inputs(MAP, batch=2)
    weight = next(module.parameters()).detach().numpy()
    expected = convolve(x.numpy(), weight, stride, dilation, groups, pad)
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [5, 6, 7, 28])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["conv", "maxpool", "avgpool"])
def test_same_padding_gives_the_extent_divided_by_the_stride_rounded_up(kind, kernel, stride, n):
    fields = {"channels": 2, "kernel": kernel} if kind == "conv" else {"size": kernel}
    _, shape = build_layer(
        make("layer", {"kind": kind, "stride": stride, "padding": "same", **fields}), (1, n, n)
    )
    assert shape[1:] == (-(-n // stride),) * 2


def test_padding_never_wins_a_maximum():
    module = one("maxpool", {"size": 3, "stride": 2, "padding": "same"}, MAP)
    assert bool((module(inputs(MAP) - 100) < -50).all())


def test_locally_connected_with_equal_kernels_is_a_convolution():
    untied, conv = (
        one("locally_connected", {"channels": 3, "kernel": 3}, MAP),
        nn.Conv2d(4, 3, 3).double(),
    )
    untied[0].weight.data[:] = conv.weight.data.flatten(1)
    untied[0].bias.data[:] = conv.bias.data[:, None]
    x = inputs(MAP)
    torch.testing.assert_close(untied(x), conv(x), rtol=1e-12, atol=1e-12)


def test_channel_pool_takes_neighbouring_channels():
    x = inputs(MAP)
    y = one("channel_pool", {"size": 3, "stride": 1}, MAP)(x)
    torch.testing.assert_close(y, torch.stack([x[:, 0:3].amax(1), x[:, 1:4].amax(1)], 1))


@pytest.mark.parametrize("ghost", [0, 4])
@pytest.mark.parametrize("shape", [FEATURES, MAP])
def test_own_batch_norm_is_torchs_where_both_can(shape, ghost):
    ours = one("batch_norm", {"ghost": ghost} if ghost else {"average": "cumulative"}, shape)[0]
    momentum = 0.1 if ghost else None
    theirs = (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(
        shape[0], momentum=momentum
    ).double()
    for seed in range(3):
        x = inputs(shape, batch=9, seed=seed)  # with ghost 4: parts of 4 and 5
        parts = [x[:4], x[4:]] if ghost else [x]
        torch.testing.assert_close(
            ours(x), torch.cat([theirs(part) for part in parts]), rtol=1e-10, atol=1e-10
        )
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    x = inputs(shape, seed=9)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-10, atol=1e-10)


def test_batch_norm_by_position_normalises_each_position():
    y = one("batch_norm", {"per": "position"}, MAP)(inputs(MAP, batch=50) * 3 + 1)
    torch.testing.assert_close(y.mean(0), torch.zeros(MAP, dtype=torch.float64), atol=1e-10, rtol=0)
    assert y.shape[1:] == MAP


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_local_response_norm(size):
    x = inputs(MAP) * 10
    found = one("local_response_norm", {"size": size}, MAP)(x)
    torch.testing.assert_close(found, F.local_response_norm(x, size))


def test_local_response_norm_of_the_paper_is_alexnets():
    """b = a / (2 + 1e-4 * the sum of 5 neighbours' squares)^0.75, with activations of raw pixels."""
    x = inputs((8, 4, 4)) * 300
    squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    total = sum(squares[:, i : i + 8] for i in range(5))
    fields = {"bias": 2.0, "alpha_on": "sum"}
    found = one("local_response_norm", fields, (8, 4, 4))(x)
    torch.testing.assert_close(found, x / (2 + 1e-4 * total) ** 0.75)
    norms = [m for m in build("alexnet", (3, 67, 67), 2).modules() if "Response" in str(type(m))]
    assert [(n.size, n.alpha, n.beta, n.k) for n in norms] == [(5, 5e-4, 0.75, 2.0)] * 2


def test_switches_of_batch_norm_leave_out_parameters():
    assert [n for n, _ in one("batch_norm", {"center": False}, MAP).named_parameters()] == [
        "0.weight"
    ]
    assert [n for n, _ in one("batch_norm", {"scale": False}, MAP).named_parameters()] == ["0.bias"]


@pytest.mark.parametrize(
    ("fields", "reference"),
    [({}, lambda x: F.layer_norm(x, MAP)), ({"over": "last"}, lambda x: F.layer_norm(x, MAP[-1:]))],
)
def test_layer_norm(fields, reference):
    x = inputs(MAP)
    torch.testing.assert_close(one("layer_norm", fields, MAP)(x), reference(x))


@pytest.mark.parametrize(("name", "theirs"), [("rnn", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers_are_torchs(name, theirs, bidirectional):
    ours = one(
        name, {"units": 4, "layers": 2, "bidirectional": bidirectional, "output": "all"}, SEQUENCE
    )
    reference = theirs(3, 4, 2, batch_first=True, bidirectional=bidirectional).double()
    for i, cell in enumerate(ours[0].cells):
        for parameter, value in cell.named_parameters():
            dict(reference.named_parameters())[parameter.replace("_l0", f"_l{i}")].data = value.data
    x = inputs(SEQUENCE)
    output, state = reference(x)
    torch.testing.assert_close(ours(x), output)
    ours[0].last = True
    hidden = state[0] if isinstance(state, tuple) else state
    torch.testing.assert_close(
        ours(x), torch.cat(list(hidden[-2:] if bidirectional else hidden[-1:]), 1)
    )


def test_tied_layers_share_one_parameter():
    net = one("tied", {"layer": 0}, FEATURES)
    x = inputs(FEATURES)
    torch.testing.assert_close(net(x), net[0](torch.tanh(net[0](x))))
    assert len(list(net.parameters())) == 2


def test_a_transposed_embedding_scores_symbols_by_inner_products():
    decoder = {"kind": "tied", "layer": 0, "transposed": True, "bias": False}
    layers = [{"kind": "embedding", "size": 4, "vocabulary": 9}, decoder]
    net = build({"kind": "layers", "layers": layers}, (5,), 9, dtype=torch.float64)
    x = inputs((5,), "embedding")
    table_ = net[0].weight
    torch.testing.assert_close(net(x), table_[x] @ table_.T)


def test_residual_and_parallel_are_their_formulas():
    net = one("residual", {"layers": [{"kind": "dense", "units": 12}, "tanh"]}, FEATURES)
    x = inputs(FEATURES)
    torch.testing.assert_close(net(x), x + torch.tanh(net[0].body[0](x)))
    net = one("parallel", {"layers": [DENSE, "relu"]}, FEATURES)
    torch.testing.assert_close(net(x), torch.cat([net[0].branches[0](x), x.relu()], 1))


def test_a_relu_moves_behind_a_maxpool_without_changing_values_or_gradients():
    layers = [{"kind": "conv", "channels": 4}, "relu", "maxpool", "flatten", DENSE]
    moved = build({"kind": "layers", "layers": layers}, MAP, 3, dtype=torch.float64)
    assert [type(m).__name__ for m in moved][1:3] == ["MaxPool2d", "ReLU"]
    plain = nn.Sequential(*[moved.get_submodule(str(i)) for i in range(5)])
    x = inputs(MAP)
    torch.testing.assert_close(moved(x), plain(x), rtol=0, atol=0)
    gradients = [
        torch.autograd.grad(net(x).square().sum(), list(moved.parameters()))
        for net in (moved, plain)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for after in ("avgpool", "tanh"):  # with any other layer it would be another network
        other = build({"kind": "layers", "layers": [*layers[:2], after, *layers[3:]]}, MAP, 3)
        assert list(other._modules) == ["0", "1", "2", "3", "4"]


# --- random layers --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["inverted", "classic"])
def test_dropout_drops_the_rate_and_keeps_the_mean(form):
    layer = one("dropout", {"rate": 0.3, "form": form}, (100,))
    randomized.set_keys(layer, 1)
    x = torch.ones(400, 100, dtype=torch.float64)
    trained, evaluated = layer.train()(x), layer.eval()(x)
    assert abs(float((trained == 0).double().mean()) - 0.3) < 0.01
    assert abs(float(trained.mean() - evaluated.mean())) < 0.01
    assert float(evaluated.mean()) == pytest.approx(1.0 if form == "inverted" else 0.7)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_dropout_at_its_limits(rate):
    layer = one("dropout", {"rate": rate}, (4,))
    x = torch.ones(3, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x * (1 - rate))


def test_alpha_dropout_keeps_mean_and_variance():
    layer = one("alpha_dropout", {"rate": 0.2}, (200,))
    randomized.set_keys(layer, 3)
    x = F.selu(
        torch.randn(2000, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )
    y = layer(x)
    assert abs(float(y.mean() - x.mean())) < 0.01
    assert abs(float(y.var() - x.var())) < 0.02


def test_a_key_decides_the_draws_and_releasing_it_gives_torchs_behaviour():
    layer = one("dropout", {"rate": 0.5}, (100,))
    x = torch.ones(10, 100, dtype=torch.float64)
    randomized.set_keys(layer, 7)
    first, again = layer(x), layer(x)
    assert torch.equal(first, again)
    randomized.set_keys(layer, 8)
    assert not torch.equal(first, layer(x))
    randomized.release(layer)
    torch.manual_seed(0)
    drawn = layer(x)
    assert not torch.equal(drawn, layer(x))
    torch.manual_seed(0)
    assert torch.equal(drawn, layer(x))


def test_a_layer_moved_before_it_has_a_key_is_not_taken_for_keyed():
    layer = nn.Sequential(randomized.Dropout(0.5)).to(torch.float64)
    assert not copy.deepcopy(layer)[0].keyed
    randomized.set_keys(layer, 1)
    assert layer.to(torch.float32)[0].keyed


def test_seeded_replaces_torchs_dropout_in_a_copy():
    theirs = nn.Sequential(
        nn.Linear(3, 4), nn.Dropout(0.2), nn.Sequential(nn.Dropout2d(0.3), nn.AlphaDropout(0.4))
    )
    ours = randomized.seeded(theirs)
    kinds = [randomized.Dropout, randomized.SpatialDropout, randomized.AlphaDropout]
    assert [type(layer) for layer in (ours[1], *ours[2])] == kinds
    assert [float(layer.rate) for layer in (ours[1], *ours[2])] == [0.2, 0.3, 0.4]
    assert type(theirs[1]) is nn.Dropout
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_settle_spares_only_what_no_member_uses():
    net = nn.Sequential(randomized.Dropout(0.0), randomized.GaussianNoise(0.0))
    buffers = {"0.rate": torch.tensor([0.0, 0.5]), "1.std": torch.zeros(2)}
    randomized.mark_idle_layers(net, buffers)
    assert [layer.idle for layer in net] == [False, True]


def test_monte_carlo_averages_over_masks():
    net = nn.Sequential(randomized.Dropout(0.5), nn.Linear(8, 1, bias=False)).double()
    net[1].weight.data.fill_(1.0)
    x = torch.ones(1, 8, dtype=torch.float64)
    mean, std = randomized.monte_carlo(net, x, samples=2000)
    assert float(mean) == pytest.approx(8.0, abs=0.3)
    assert float(std) == pytest.approx(math.sqrt(8), abs=0.2)  # each entry is 0 or 2: variance 1
    assert net.training


# --- shapes that do not fit -----------------------------------------------------------------------

WRONG = [
    ([DENSE], MAP, "model.layers.0", "flatten"),
    (["flatten", {"kind": "conv", "channels": 2}], MAP, "model.layers.1", "before flatten"),
    ([{"kind": "conv", "channels": 2, "kernel": 9}], MAP, "model.layers.0", "smaller kernel"),
    (["maxpool", "maxpool", "maxpool"], MAP, "model.layers.2", "less pooling"),
    ([{"kind": "conv", "channels": 3, "groups": 2}], MAP, "model.layers.0.groups", "divisor"),
    (
        [{"kind": "group_norm", "groups": 3}],
        MAP,
        "model.layers.0.groups",
        "divisor of the 4 channels",
    ),
    ([{"kind": "lstm", "units": 3}], FEATURES, "model.layers.0", "embedding"),
    ([{"kind": "embedding", "size": 3}], (5,), "model.layers.0.vocabulary", "number of symbols"),
    ([{"kind": "maxout", "pieces": 5}], FEATURES, "model.layers.0", "divides by 5"),
    ([{"kind": "reshape", "to": [5, 5]}], FEATURES, "model.layers.0", "(12,)"),
    (
        [{"kind": "residual", "layers": [DENSE], "shortcut": "identity"}],
        FEATURES,
        "model.layers.0.shortcut",
        "projec",
    ),
    (
        [
            {"kind": "reshape", "to": [2, 2, 3, 1]},
            {"kind": "residual", "layers": [{"kind": "reshape", "to": [3, 2, 2, 1]}]},
        ],
        FEATURES,
        "model.layers.1.shortcut",
        "use none",
    ),
    (
        [{"kind": "chain", "layers": [{"kind": "conv", "channels": 1}]}],
        FEATURES,
        "model.layers.0.layers.0",
        "maps",
    ),
    (
        [{"kind": "parallel", "layers": [DENSE, "relu"], "merge": "sum"}],
        FEATURES,
        "model.layers.0.layers",
        "concat",
    ),
    ([{"kind": "tied", "layer": 3}], FEATURES, "model.layers.0.layer", "earlier layer"),
    (
        ["relu", {"kind": "tied", "layer": 0, "transposed": True}],
        FEATURES,
        "model.layers.1.layer",
        "dense layer",
    ),
    ([{"kind": "channel_pool", "size": 9}], MAP, "model.layers.0.size", "4 channels"),
    ([{"kind": "softmax", "axis": 4}], MAP, "model.layers.0.axis", "axis"),
    ([{"kind": "spatial_dropout"}], FEATURES, "model.layers.0", "dropout"),
    ([{"kind": "transpose"}], MAP, "model.layers.0", "two axes"),
    ([{"kind": "conv", "channels": 2, "kernel": [2, 2]}], SEQUENCE, "model.layers.0", "one number"),
    (["dens"], MAP, "model.layers.0.kind", "dense"),
]


@pytest.mark.parametrize(
    ("layers", "shape", "where", "said"), WRONG, ids=[str(i) for i in range(len(WRONG))]
)
def test_a_layer_that_cannot_take_its_input_says_which_and_how_to_repair(
    layers, shape, where, said
):
    with pytest.raises(InputError) as caught:
        build({"kind": "layers", "layers": layers}, shape, 3)
    assert caught.value.where == where
    assert said in str(caught.value)


def test_layers_stand_in_recipes_and_their_init_differs_by_member():
    layers = [{"kind": "dense", "units": 3, "init": "zeros"}, {"kind": "dropout", "rate": 0.1}]
    recipe = Recipe(model={"layers": layers})
    other = recipe.edit({"model.layers.0.init": "he_normal", "model.layers.1.rate": 0.5})
    assert recipe.program == other.program != recipe.edit({"model.layers.0.units": 4}).program
    assert Recipe.from_toml(recipe.to_toml()) == recipe


# --- padded sequences in a list of layers ---------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("symbols", [False, True])
def test_a_list_reads_each_sequence_to_its_own_end(symbols, bidirectional):
    cells = [
        {"kind": "lstm", "units": 4, "output": "all", "bidirectional": bidirectional},
        "layer_norm",
        {"kind": "gru", "units": 3, "layers": 2, "bidirectional": bidirectional},
        {"kind": "dense", "units": 2},
    ]
    ends = [7, 4, 1]
    if symbols:
        net, _ = stack([{"kind": "embedding", "size": 5, "vocabulary": 9}, *cells], (7,))
        x = torch.randint(1, 9, (3, 7))
    else:
        net, _ = stack(cells, (7, 2))
        x = torch.randn(3, 7, 2)
    for row, end in enumerate(ends):
        x[row, end:] = 0
    with torch.no_grad():
        alone = torch.cat([net(x[r : r + 1, :end]) for r, end in enumerate(ends)])
        torch.testing.assert_close(net(x), alone)


def test_a_list_with_an_answer_at_every_step_reads_all_of_it():
    layers = [{"kind": "gru", "units": 3, "output": "all"}, {"kind": "dense", "units": 2}]
    net, _ = stack(layers, (5, 2))
    x = torch.randn(2, 5, 2)
    x[:, 3:] = 0  # blanks that are to be answered
    assert net.read_to_end == 0
    torch.testing.assert_close(net(x), net[1](net[0](x)))


def test_steps_that_are_mixed_before_are_read_whole():
    layers = [
        {"kind": "conv", "channels": 4, "kernel": 3},
        "transpose",
        {"kind": "gru", "units": 3},
    ]
    assert stack(layers, (2, 9))[0].read_to_end == 0
