"""Models: a row for every name; parameters and operations as published, members mapped as called,
and the summary."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from ravine.catalogue import find, make, table
from ravine.errors import InputError
from ravine.nn import randomized
from ravine.nn.analysis import layer_table
from ravine.nn.analysis.layer_table import summarise
from ravine.nn.build import build, build_loss, layout
from ravine.nn.models.characters import NgramLogits
from ravine.nn.stack import call
from ravine.recipe import Recipe

IMAGE = (3, 32, 32)

# (name, fields, shape of one sample, shape of the output); at least one row for every model
ROWS = [
    ("layers", {"layers": ["flatten", {"kind": "dense", "units": 5}]}, (2, 3), (5,)),
    ("linear", {}, (2, 3), (5,)),
    ("softmax", {}, (2, 3), (5,)),
    (
        "mlp",
        {"hidden": [7, 6], "activation": "tanh", "dropout": 0.3, "norm": "batch"},
        (2, 3),
        (5,),
    ),
    ("mlp", {"hidden": [], "norm": "layer"}, (6,), (5,)),
    ("mlp", {"activation": {"kind": "leaky_relu", "slope": 0.2}}, (6,), (5,)),
    ("maxout_mlp", {"hidden": [6]}, (6,), (5,)),
    ("lenet", {"channels": [3, 4], "dense": [8], "dropout": 0.2}, (1, 12, 12), (5,)),
    (
        "lenet",
        {
            "channels": [6, 16],
            "dense": [120, 84],
            "padding": "valid",
            "activation": "tanh",
            "pool": "avgpool",
        },
        (1, 32, 32),
        (5,),
    ),
    ("alexnet", {}, (3, 16, 16), (5,)),
    ("vgg", {"depth": 11, "width": 2, "dense": [8], "norm": "batch"}, (3, 16, 16), (5,)),
    ("all_cnn", {"width": 4}, (3, 16, 16), (5,)),
    ("resnet", {"depth": 8, "width": 4}, (3, 16, 16), (5,)),
    ("resnet", {"depth": 14, "width": 4, "shortcuts": False}, (3, 16, 16), (5,)),
    ("resnet", {"depth": 8, "width": 4, "projection": True}, (3, 16, 16), (5,)),
    ("resnet", {"depth": 18, "form": "imagenet", "width": 4}, IMAGE, (5,)),
    ("resnet", {"depth": 50, "form": "imagenet", "width": 4}, IMAGE, (5,)),
    ("rnn", {"units": 6}, (7, 3), (5,)),
    (
        "lstm",
        {"units": 6, "layers": 2, "dropout": 0.2, "bidirectional": True, "vocabulary": 11},
        (7,),
        (5,),
    ),
    ("gru", {"units": 6}, (7, 3), (5,)),
    ("char_lstm", {"units": 6, "embedding": 4, "dropout": 0.2, "vocabulary": 5}, (7,), (7, 5)),
    ("char_rnn", {"units": 6, "embedding": 4, "vocabulary": 5}, (7,), (7, 5)),
    (
        "char_cnn_lstm",
        {"units": 6, "embedding": 4, "context": 3, "dropout": 0.2, "vocabulary": 5},
        (7,),
        (7, 5),
    ),
    ("char_cnn_lstm", {"units": 6, "ngrams": [1, 3, 2], "vocabulary": 5}, (7,), (7, 5)),
    ("char_gru", {"units": 6, "embedding": 6, "vocabulary": 5, "tied": True}, (7,), (7, 5)),
    ("resnet18", {"width": 2}, IMAGE, (5,)),
    ("resnet34", {"width": 2}, IMAGE, (5,)),
    ("resnet50", {"width": 2}, IMAGE, (5,)),
    ("resnet9", {"width": 2}, IMAGE, (5,)),
    # while it trains, the outputs of each of its members
    ("tabular", {"hidden": [6], "members": 2, "dropout": 0.2}, (3,), (2, 5)),
    ("resnet9", {"width": 2}, (1, 8, 12), (5,)),
    ("gpt", {"units": 8, "layers": 2, "vocabulary": 5, "dropout": 0.1}, (7,), (7, 5)),
    (
        "gpt",
        {"units": 8, "layers": 1, "vocabulary": 5, "positions": "learned", "tied": False},
        (7,),
        (7, 5),
    ),
    ("transformer", {"units": 8, "layers": 1, "vocabulary": 11}, (7,), (5,)),
    ("word_bag", {"units": 6, "hidden": [4], "vocabulary": 11, "dropout": 0.2}, (7,), (5,)),
    ("transformer", {"units": 8, "layers": 1}, (7, 3), (5,)),
]
IDS = [f"{row[0]}-{i}" for i, row in enumerate(ROWS)]
SEQUENCES = ("rnn", "lstm", "gru", "char_lstm", "char_rnn", "char_gru", "char_cnn_lstm")
MAPPED = [
    row
    for row in ROWS
    if row[0] not in (*SEQUENCES, "alexnet", "gpt", "resnet18", "resnet34", "resnet50", "tabular")
    and row[1].get("depth") != 50
]


def inputs(shape, batch=4, symbols=5):
    draws = torch.Generator().manual_seed(0)
    if len(shape) == 1 and shape[0] == 7:
        return torch.randint(1, symbols, (batch, *shape), generator=draws)
    return torch.randn(batch, *shape, generator=draws, dtype=torch.float64)


def test_every_model_has_a_row():
    theirs = {"module", "hf", "timm"}  # test_published
    assert {row[0] for row in ROWS} | theirs == set(table("model"))


@pytest.mark.parametrize(("name", "fields", "shape", "out"), ROWS, ids=IDS)
def test_outputs_and_gradients(name, fields, shape, out):
    net = build({"kind": name, **fields}, shape, 5, dtype=torch.float64)
    randomized.set_keys(net, 0)
    y = net(inputs(shape))
    assert tuple(y.shape) == (4, *out)
    gradients = torch.autograd.grad(y.square().sum(), list(net.parameters()))
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert [n for n, _ in net.named_parameters()] == sorted(
        [e.name for e in layout(net).entries], key=[n for n, _ in net.named_parameters()].index
    )


@pytest.mark.parametrize(("name", "fields", "shape", "out"), MAPPED, ids=[row[0] for row in MAPPED])
def test_members_mapped_equal_direct_calls(name, fields, shape, out):
    modules = [
        build({"kind": name, **fields}, shape, 5, seed=i, dtype=torch.float64) for i in range(3)
    ]
    for i, module in enumerate(modules):
        randomized.set_keys(module, i, "test")
    x, y, loss = inputs(shape), torch.arange(4), build_loss("cross_entropy", None).double()
    leaves, buffers = stack_module_state(modules)
    template = copy.deepcopy(modules[0])
    mapped = vmap(lambda p, b: loss(functional_call(template, (p, b), (x,)), y).mean())(
        leaves, buffers
    )
    direct = torch.stack([loss(module(x), y).mean() for module in modules])
    torch.testing.assert_close(mapped, direct, rtol=1e-12, atol=1e-12)
    found = dict(zip(leaves, torch.autograd.grad(mapped.sum(), list(leaves.values())), strict=True))
    for i, module in enumerate(modules):
        own = torch.autograd.grad(direct[i], list(module.parameters()), retain_graph=True)
        for (n, _), g in zip(module.named_parameters(), own, strict=True):
            torch.testing.assert_close(found[n][i], g, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(buffers, stack_module_state(modules)[1], rtol=1e-10, atol=1e-12)


# --- as published ---------------------------------------------------------------------------------

BIG = (3, 224, 224)
PUBLISHED = [
    # name, fields, shape, outputs, parameters, multiply-adds (millions), layers with weights
    (
        "lenet",
        {"channels": [6, 16], "dense": [120, 84], "padding": "valid"},
        (1, 32, 32),
        10,
        61_706,
        None,
        5,
    ),
    ("mlp", {"hidden": [300, 100]}, (1, 28, 28), 10, 266_610, 0.2662, 3),
    ("alexnet", {}, (3, 227, 227), 1000, 62_378_344, 1135.26, 8),
    ("alexnet", {"version": "later"}, (3, 224, 224), 1000, 61_100_840, 714.19, 8),
    ("vgg", {"depth": 11}, BIG, 1000, 132_863_336, 7609.09, 11),
    ("vgg", {"depth": 16}, BIG, 1000, 138_357_544, 15470.26, 16),
    ("all_cnn", {}, IMAGE, 10, 1_369_738, None, 9),
    ("resnet", {"depth": 20}, IMAGE, 10, 269_722, 40.55, 20),
    ("resnet", {"depth": 56}, IMAGE, 10, 853_018, 125.49, 56),
    ("resnet", {"depth": 110}, IMAGE, 10, 1_727_962, 252.89, 110),
    ("resnet9", {}, IMAGE, 10, 6_573_120 + 10, None, 9),  # Page has no bias in the last layer
    ("resnet", {"depth": 18, "form": "imagenet"}, BIG, 1000, 11_689_512, 1814.07, 18),
    ("resnet", {"depth": 34, "form": "imagenet"}, BIG, 1000, 21_797_672, 3663.76, 34),
    ("resnet", {"depth": 50, "form": "imagenet"}, BIG, 1000, 25_557_032, 4089.18, 50),
]


@pytest.mark.parametrize(
    ("name", "fields", "shape", "outputs", "parameters", "millions", "depth"), PUBLISHED
)
def test_parameters_operations_and_depth_are_the_published_ones(
    name, fields, shape, outputs, parameters, millions, depth
):
    with torch.device("meta"):  # nothing is drawn
        net = call("model", make("model", {"kind": name, **fields}), shape, outputs)
    found = summarise(net, shape)
    assert found["parameters"] == parameters
    if millions is not None:
        assert found["flops"] / 2e6 == pytest.approx(millions, rel=1e-4)
    weighted = [
        r
        for r in found["layers"]
        if r["layer"] in ("Conv2d", "Linear")
        and ".shortcut" not in r["name"]
        and ".downsample" not in r["name"]
    ]
    assert len(weighted) == depth


def published_names(counts, bottleneck):
    """The tensors of the published checkpoints of ResNet-18, 34 and 50, by their rule."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def pair(prefix, conv, bn):
        return [f"{prefix}{conv}.weight", *(f"{prefix}{bn}.{leaf}" for leaf in norm)]

    names = pair("", "conv1", "bn1")
    for stage, count in enumerate(counts, 1):
        for i in range(count):
            for k in range(1, 4 if bottleneck else 3):
                names += pair(f"layer{stage}.{i}.", f"conv{k}", f"bn{k}")
            if i == 0 and (stage > 1 or bottleneck):
                names += pair(f"layer{stage}.{i}.downsample.", "0", "1")
    return {*names, "fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("name", "counts", "entries"),
    [
        ("resnet18", (2, 2, 2, 2), 122),
        ("resnet34", (3, 4, 6, 3), 218),
        ("resnet50", (3, 4, 6, 3), 320),
    ],
)
def test_residual_networks_are_named_as_the_published_checkpoints(name, counts, entries):
    with torch.device("meta"):
        net = call("model", make("model", name), BIG, 1000)
    assert set(net.state_dict()) == published_names(counts, name == "resnet50")
    assert len(net.state_dict()) == entries


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_residual_networks_compute_what_was_published(name):
    """The forward pass written plainly over the state dict of a checkpoint."""
    net = build({"kind": name, "width": 8}, (3, 64, 64), 7, dtype=torch.float64).eval()
    state = net.state_dict()

    def norm(y, at):
        mean, var, w, b = (
            state[f"{at}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt() * w[
            :, None, None
        ] + b[:, None, None]

    def conv(y, at, stride=1):
        weight = state[f"{at}.weight"]
        return F.conv2d(y, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = F.max_pool2d(F.relu(norm(conv(x, "conv1", 2), "bn1")), 3, 2, 1)
    for at in dict.fromkeys(".".join(key.split(".")[:2]) for key in state if "layer" in key):
        stride = 2 if at.endswith(".0") and not at.startswith("layer1") else 1
        last = 3 if name == "resnet50" else 2
        strided = 2 if name == "resnet50" else 1
        z = y
        for k in range(1, last + 1):
            z = norm(conv(z, f"{at}.conv{k}", stride if k == strided else 1), f"{at}.bn{k}")
            z = F.relu(z) if k < last else z
        if f"{at}.downsample.0.weight" in state:
            y = norm(conv(y, f"{at}.downsample.0", stride), f"{at}.downsample.1")
        y = F.relu(z + y)
    expected = F.linear(y.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    torch.testing.assert_close(net(x), expected, rtol=1e-10, atol=1e-10)


def test_shortcuts_of_option_a_have_no_parameters():
    plain = build({"kind": "resnet", "depth": 8, "shortcuts": False}, IMAGE, 10)
    residual = build({"kind": "resnet", "depth": 8}, IMAGE, 10)
    assert list(plain.state_dict()) == list(residual.state_dict())
    projected = build({"kind": "resnet", "depth": 8, "projection": True}, IMAGE, 10)
    assert len(list(projected.parameters())) > len(list(residual.parameters()))


def test_option_a_takes_every_second_position_and_pads_with_zero_maps():
    shortcut = build({"kind": "resnet", "depth": 8, "width": 4}, IMAGE, 10).stages[1][0].shortcut
    x = torch.randn(2, 4, 8, 8)
    y = shortcut(x)
    assert torch.equal(y[:, :4], x[:, :, ::2, ::2])
    assert not bool(y[:, 4:].any())


# --- sequences ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("symbols", [True, False])
def test_padding_changes_nothing(name, bidirectional, symbols):
    shape = (7,) if symbols else (7, 3)
    part = {"kind": name, "units": 6, "layers": 2, "bidirectional": bidirectional, "vocabulary": 11}
    net = build(part, shape, 5, dtype=torch.float64).eval()
    x = torch.randint(1, 11, (3, 7)) if symbols else torch.randn(3, 7, 3, dtype=torch.float64)
    lengths = [7, 4, 1]
    padded = x.clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = 0
    alone = torch.cat([net(x[row : row + 1, :length]) for row, length in enumerate(lengths)])
    torch.testing.assert_close(net(padded), alone, rtol=1e-12, atol=1e-12)


def test_a_bag_of_words_is_the_mean_of_its_vectors():
    net = build({"kind": "word_bag", "units": 4, "vocabulary": 9}, (7,), 5, dtype=torch.float64)
    x = torch.tensor([[3, 8, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]])
    vectors = net.embedding.weight
    mean = (2 * vectors[3] + vectors[8]) / 3
    torch.testing.assert_close(net(x)[0], net.head.weight @ mean + net.head.bias)
    torch.testing.assert_close(net(x)[1], net.head.bias)


def test_words_are_left_out_of_the_bag_at_random():
    """Of three words each of the eight subsets comes equally often, and gives its mean."""
    model = {"kind": "word_bag", "units": 4, "vocabulary": 9, "word_dropout": 0.5}
    net = build(model, (5,), 3, dtype=torch.float64).train()
    words = torch.tensor([3, 8, 5])
    subsets = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)  # [8, 3]
    means = subsets @ net.embedding.weight[words] / subsets.sum(1, keepdim=True).clamp_min(1)
    torch.manual_seed(0)
    found = net(torch.tensor([[3, 8, 5, 0, 0]]).expand(4000, -1))
    distance = (found[:, None] - net.head(means)).detach().abs().amax(-1)  # [4000, 8]
    assert distance.min(1).values.max() < 1e-12
    counts = distance.argmin(1).bincount(minlength=8)
    assert (counts - 500).abs().max() < 5 * 500**0.5


def test_the_vectors_of_words_begin_small():
    """With deviation 1 rare words would add what training never takes away again."""
    net = build({"kind": "word_bag", "vocabulary": 5000}, (5,), 3)
    assert float(net.embedding.weight.detach().std()) == pytest.approx(0.02, rel=0.02)


def test_an_empty_sequence_is_read_as_one_step():
    net = build({"kind": "lstm", "units": 4, "vocabulary": 9}, (7,), 5)
    assert bool(net(torch.zeros(2, 7, dtype=torch.int64)).isfinite().all())


def test_a_character_model_does_not_look_ahead():
    net = build({"kind": "char_lstm", "units": 8}, (9,), 5, vocabulary=5, dtype=torch.float64)
    x = torch.randint(5, (2, 9))
    other = x.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 5
    torch.testing.assert_close(net(x)[:, :5], net(other)[:, :5])
    assert not torch.allclose(net(x)[:, 5], net(other)[:, 5])


def test_tables_of_ngrams_add_what_the_last_symbols_say():
    """Against sums over Python's own integers: with one table's row changed, the logits change where
    that n-gram ends, and nowhere else; at the beginning the tables change nothing."""
    plain = {"kind": "char_cnn_lstm", "units": 6, "embedding": 3}
    net = build(plain | {"ngrams": [3, 2]}, (40,), 4, vocabulary=4, dtype=torch.float64)
    bare = build(plain, (40,), 4, vocabulary=4, dtype=torch.float64)
    bare.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("ngrams.")})
    x = torch.randint(4, (3, 40), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x), bare(x))
    for place in net.ngrams.tables:
        assert place.weight.shape == (8192, 4)
        nn.init.normal_(place.weight)
    expected = bare(x)
    for n, place in zip((3, 2), net.ngrams.tables, strict=True):
        for row, symbols in enumerate(x.tolist()):
            for step in range(40):
                last = [s + 1 for s in symbols[max(0, step - n + 1) : step + 1]]
                last = [0] * (n - len(last)) + last
                code = 0
                for symbol in reversed(last):
                    code = (code * 1_481_765_933 + symbol) % (2**31 - 1)
                expected[row, step] += 0.2 * place.weight[code % 8192]
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(
    ("symbols", "rows"), [(2, 8192), (64, 8192), (65, 8192), (200, 4096), (10**6, 1)]
)
def test_tables_of_ngrams_have_fewer_rows_for_many_symbols(symbols, rows):
    with torch.device("meta"):
        assert NgramLogits((2,), symbols).tables[0].num_embeddings == rows


def test_a_convolution_before_an_lstm_is_pytorchs():
    """Against PyTorch's own convolution, cell by cell of its LSTM; it does not look ahead."""
    fields = {"kind": "char_cnn_lstm", "units": 6, "embedding": 3, "context": 4}
    net = build(fields, (9,), 5, vocabulary=5, dtype=torch.float64)
    x = torch.randint(5, (2, 9), generator=torch.Generator().manual_seed(0))
    e = F.pad(net.embedding(x).mT, (3, 0))  # [B, 3, 12]
    kernel = net.enter.weight.view(6, 4, 3).flip(1).mT  # [6, 3, 4], the newest step last
    y = F.silu(F.conv1d(e, kernel, net.enter.bias)).mT
    (layer,) = [m for m in net.modules() if isinstance(m, nn.LSTM)]
    cell = nn.LSTMCell(6, 6, dtype=torch.float64)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    state, states = (torch.zeros(2, 6), torch.zeros(2, 6)), []
    state = tuple(part.double() for part in state)
    for step in range(9):
        state = cell(y[:, step], state)
        states.append(state[0])
    expected = net.head(net.norm(y + torch.stack(states, 1)))
    torch.testing.assert_close(net(x), expected)
    other = x.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 5
    torch.testing.assert_close(net(x)[:, :5], net(other)[:, :5])


def test_the_vocabulary_of_the_data_reaches_nested_layers():
    layers = [
        {"kind": "chain", "layers": [{"kind": "embedding", "size": 3}]},
        {"kind": "embedding", "size": 3, "vocabulary": 4},
    ]
    net = build({"kind": "layers", "layers": layers[:1]}, (7,), 5, vocabulary=13)
    assert net[0][0].num_embeddings == 13
    assert (
        build({"kind": "layers", "layers": layers[1:]}, (7,), 5, vocabulary=13)[0].num_embeddings
        == 4
    )


# --- what is refused ------------------------------------------------------------------------------

WRONG = [
    ({"kind": "resnet", "depth": 18}, IMAGE, 'form = "imagenet"'),
    ({"kind": "resnet", "depth": 21}, IMAGE, "try 20"),
    ({"kind": "resnet", "depth": 20, "form": "imagenet"}, IMAGE, "18, 34, 50"),
    ({"kind": "resnet"}, (5,), "images"),
    ({"kind": "lenet"}, (28, 28), "images"),
    ({"kind": "lenet", "padding": "valid"}, (1, 8, 8), "kernel"),
    ({"kind": "char_lstm"}, (7, 3), "sequences"),
    ({"kind": "lstm"}, (7,), "vocabulary"),
    ({"kind": "char_lstm", "tied": True, "units": 8}, (7,), "both alike"),
    ({"kind": "module"}, (7,), "given in Python"),
    ({"kind": "mlp", "hidden": [0]}, (7,), "at least 1"),
    ({"kind": "mlp", "dropout": 1.5}, (7,), "at most 1"),
    ({"kind": "mpl"}, (7,), "'mlp'"),
]


@pytest.mark.parametrize(("part", "shape", "said"), WRONG)
def test_models_that_cannot_be_built_say_why(part, shape, said):
    with pytest.raises(InputError) as caught:
        build(part, shape, 5, vocabulary=5 if part["kind"] == "char_lstm" else None)
    assert said in str(caught.value)
    assert caught.value.where.startswith("model")


# --- the summary ----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_the_depth_of_vgg_counts_its_layers_with_weights(depth):
    fields = {"kind": "vgg", "depth": depth, "width": 2, "dense": [4, 4]}
    layers = list(build(fields, (3, 16, 16), 5).modules())
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in layers) == depth


def test_layers_are_named_by_their_place():
    module = nn.Sequential(
        nn.Linear(4, 3), nn.Sequential(nn.Tanh(), nn.Sequential(nn.Linear(3, 2)))
    )
    assert [row["name"] for row in summarise(module, (4,))["layers"]] == ["0", "1.0", "1.1.0"]


def test_a_small_module_is_run_on_ones_since_zeros_may_be_padding():
    class Kept(nn.Linear):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    seen = []
    summarise(Kept(4, 2), (4,))
    assert all(bool((x == 1).all()) for x in seen)
    assert seen


def test_receptive_fields_of_a_chain_follow_the_recursion():
    steps = [
        ("conv", 5, 1, 1),
        ("maxpool", 2, 2, 1),
        ("conv", 3, 1, 2),
        ("avgpool", 3, 2, 1),
        ("conv", 3, 2, 1),
    ]
    layers = [
        {
            "kind": k,
            "stride": s,
            **({"channels": 2, "kernel": n, "dilation": d} if k == "conv" else {"size": n}),
        }
        for k, n, s, d in steps
    ]
    rows = summarise(build({"kind": "layers", "layers": layers}, (1, 64, 64), 1), (1, 64, 64))[
        "layers"
    ]
    reach = jump = 1
    for (_, kernel, stride, dilation), row in zip(steps, rows, strict=True):
        reach += dilation * (kernel - 1) * jump
        jump *= stride
        assert row["receptive_field"] == [reach, reach]


@pytest.mark.parametrize(("dim", "jump"), [(0, (1, 2)), (2, (3, 2)), (-1, (1, 6))])
def test_every_third_position_of_an_axis_lies_three_times_as_far_apart(dim, jump):
    field = layer_table._Field((5, 5), (1, 2), (9, 9))
    x = torch.zeros(3, 3, 9, 9)
    sliced = layer_table._sliced(
        field, 4, dim, 3, x[tuple([slice(None)] * (dim % 4) + [slice(None, None, 3)])]
    )
    assert (sliced.size, sliced.jump) == ((5, 5), jump)
    assert sliced.count == tuple(
        3 if j != before else 9 for j, before in zip(jump, (1, 2), strict=True)
    )


@pytest.mark.parametrize(
    "fields", [{"depth": 8, "width": 2}, {"depth": 8, "width": 2, "projection": True}]
)
def test_receptive_field_is_what_a_disturbance_reaches(fields):
    """Every input pixel is disturbed in turn; those that change the middle of the last maps are the
    field."""
    size = 48
    net = build({"kind": "resnet", **fields}, (1, size, size), 2, dtype=torch.float64).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.abs_()  # nothing cancels, no ReLU closes
    trunk = nn.Sequential(net.stem, net.stages)
    x = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    maps = trunk(x)
    middle = maps.shape[-1] // 2
    (g,) = torch.autograd.grad(maps[0, :, middle, middle].sum(), x)
    reached = (g[0, 0] != 0).any(1).nonzero().flatten()
    found = max(row["receptive_field"][0] for row in summarise(trunk, (1, size, size))["layers"])
    low, high = int(reached.min()), int(reached.max())
    centre = middle * 4  # the jump is 4
    assert low == max(centre - (found - 1) // 2, 0)
    assert high == min(centre + (found - 1) // 2, size - 1)


class Odd(nn.Module):
    """Functional calls, a shared layer, and a look at the values."""

    def __init__(self):
        super().__init__()
        self.conv, self.same = nn.Conv2d(2, 2, 3, padding=1), None
        self.same = self.conv

    def forward(self, x):
        y = torch.relu(self.conv(x)) + x
        y = nn.functional.max_pool2d(self.same(y), 2)
        return y if float(y.sum()) > 1e9 else y.flatten(1)


def test_any_module_can_be_summarised_and_is_left_as_it_was():
    module = Odd().train()
    before = copy.deepcopy(module.state_dict())
    found = summarise(module, (2, 8, 8))
    assert [(r["layer"], r["parameters"], r["receptive_field"]) for r in found["layers"]] == [
        ("Conv2d", 38, [3, 3]),
        ("Conv2d", 0, [5, 5]),
    ]
    assert found["flops"] == 2 * 2 * (2 * 2 * 9 * 64)
    assert module.training
    assert module.conv.weight.device.type == "cpu"
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())


PLAIN = {
    "pool": (nn.Sequential(nn.Conv1d(3, 4, 3), nn.MaxPool1d(2), nn.AvgPool1d(2), nn.Conv1d(4, 4, 2)), (3, 20)),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (6, 8)),
    "attention": (nn.TransformerDecoderLayer(8, 2, 16, batch_first=True).self_attn.out_proj, (6, 8)),
    "lstm": (nn.Sequential(nn.LSTM(3, 4, batch_first=True, bidirectional=True)), (6, 3)),
    "gru": (nn.Sequential(nn.GRU(3, 4, batch_first=True)), (6, 3)),
    "rnn": (nn.Sequential(nn.RNN(3, 4, batch_first=True)), (6, 3)),
    "volume": (nn.Sequential(nn.Conv3d(1, 2, 3), nn.MaxPool3d(2), nn.AvgPool3d(1)), (1, 9, 9, 9)),
    "adaptive": (nn.Sequential(nn.ConvTranspose2d(1, 2, 3), nn.AdaptiveMaxPool2d(2)), (1, 9, 9)),
}  # fmt: skip
SUMMARISED = {
    **{name: lambda name=name: PLAIN[name] for name in PLAIN},
    **{
        name: lambda row=row: (build({"kind": row[0], **row[1]}, row[2], 5), row[2])
        for name, row in zip(IDS, ROWS, strict=True)
    },
}


@pytest.mark.parametrize("name", SUMMARISED)
def test_a_small_model_that_runs_is_summarised_as_one_that_does_not(name, monkeypatch):
    module, shape = SUMMARISED[name]()
    vocabulary = 5 if len(shape) == 1 and shape[0] == 7 else None
    runs = summarise(module, shape, vocabulary=vocabulary)
    monkeypatch.setattr(layer_table, "_SMALL", 0)
    assert summarise(module, shape, vocabulary=vocabulary) == runs


def test_a_small_model_is_summarised_without_the_compiler(tmp_path):
    code = (
        "import sys; from torch import nn; from ravine.nn.analysis.layer_table import summarise; "
        "summarise(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), (3,)); "
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_recurrent_layers_are_counted_too():
    found = summarise(
        build({"kind": "layers", "layers": [{"kind": "lstm", "units": 6}]}, (7, 3), 5), (7, 3)
    )
    assert found["flops"] == 2 * 7 * (4 * 6 * (3 + 6))


def test_dropout_of_a_model_differs_by_member():
    a = Recipe(model={"kind": "mlp", "dropout": 0.0})
    b = a.edit({"model.dropout": 0.5})
    assert a.program == b.program != a.edit({"model.hidden": [3]}).program
    assert a.edit({"model.activation": "tanh"}).program != a.program


@pytest.mark.parametrize("side", [16, 32, 62, 63, 64, 66, 67])
def test_alexnet_takes_images_of_any_side(side):
    """By itself the large form only from where its three poolings have maps of 3 x 3."""
    with torch.device("meta"):
        stacked = find("model", "alexnet").function()((3, side, side), 2)
    first = next(m for m in stacked.modules() if isinstance(m, torch.nn.Conv2d))
    assert first.kernel_size == ((11, 11) if side >= 67 else (5, 5))
