"""Initialisers: a row for every name; their moments, and how variance travels through twenty
layers, against theory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ravine.catalogue import Init, find, make, table
from ravine.errors import InputError
from ravine.nn.build import _fans, build, initialise, kind_of, layout
from ravine.nn.initializers import orthogonal
from ravine.nn.stack import call
from ravine.recipe import Recipe

OUT, IN = 300, 200
FANS = (IN, OUT)

# (name, fields, mean, standard deviation, greatest magnitude or None)
MOMENTS = [
    ("zeros", {}, 0, 0, 0),
    ("constant", {"value": 0.3}, 0.3, 0, 0.3),
    ("uniform", {}, 0, 0.07 / math.sqrt(3), 0.07),
    ("uniform", {"range": 2.0, "mean": 1.0}, 1, 2 / math.sqrt(3), 3),
    ("normal", {}, 0, 0.01, None),
    ("normal", {"std": 2.0, "mean": -1.0}, -1, 2, None),
    ("normal", {"std": 1.0, "truncate": 2.0}, 0, 0.8796, 2),
    ("lecun_uniform", {}, 0, math.sqrt(1 / IN), math.sqrt(3 / IN)),
    ("lecun_normal", {}, 0, math.sqrt(1 / IN), None),
    ("lecun_normal", {"mode": "fan_out"}, 0, math.sqrt(1 / OUT), None),
    ("glorot_uniform", {}, 0, math.sqrt(2 / (IN + OUT)), math.sqrt(6 / (IN + OUT))),
    ("glorot_normal", {}, 0, math.sqrt(2 / (IN + OUT)), None),
    ("glorot_normal", {"gain": 3.0}, 0, 3 * math.sqrt(2 / (IN + OUT)), None),
    ("he_uniform", {}, 0, math.sqrt(2 / IN), math.sqrt(6 / IN)),
    ("he_normal", {}, 0, math.sqrt(2 / IN), None),
    ("he_normal", {"mode": "fan_out"}, 0, math.sqrt(2 / OUT), None),
    ("he_normal", {"slope": 0.5}, 0, math.sqrt(2 / (1.25 * IN)), None),
    ("orthogonal", {}, 0, math.sqrt(1 / OUT), None),
    ("orthogonal", {"method": "svd", "gain": 2.0}, 0, 2 * math.sqrt(1 / OUT), None),
    ("identity", {}, 1 / OUT, math.sqrt(1 / OUT * (1 - 1 / OUT)), 1),
    ("lsuv", {}, 0, math.sqrt(1 / OUT), None),
]


def filled(name, fields=None, shape=(OUT, IN), fans=FANS, seed=0):
    w = torch.empty(shape, dtype=torch.float64)
    call(
        "initializer",
        make("initializer", {"kind": name, **(fields or {})}),
        w,
        fans,
        torch.Generator().manual_seed(seed),
    )
    return w


def test_every_initializer_has_a_row():
    assert {row[0] for row in MOMENTS} == set(table("initializer"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("name", "fields", "mean", "std", "limit"), MOMENTS, ids=[row[0] for row in MOMENTS]
)
def test_moments(name, fields, mean, std, limit, seed):
    w = filled(name, fields, seed=seed)
    n = w.numel()
    assert float(w.mean()) == pytest.approx(mean, abs=5 * std / math.sqrt(n) + 1e-12)
    assert float(w.std(correction=0)) == pytest.approx(
        std, rel=5 / math.sqrt(2 * n) + 1e-3, abs=1e-12
    )
    if limit is not None:
        assert float(w.abs().max()) <= limit


@pytest.mark.parametrize("fields", [{}, {"method": "svd"}, {"gain": 0.5}])
@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6), (4, 3, 2, 2)])
def test_orthogonal_rows_or_columns_are_orthonormal(shape, fields):
    w = filled("orthogonal", fields, shape).flatten(1) / fields.get("gain", 1.0)
    gram = w @ w.T if len(w) <= w.shape[1] else w.T @ w
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64))


def test_each_orthogonal_method_takes_its_own_part_of_the_matrix():
    """Q^T A is the upper triangle R with a positive diagonal; (U V^T)^T A is symmetric."""
    a = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by = {}
    for method in ("qr", "svd"):
        w = torch.zeros(5, 3, dtype=torch.float64)
        orthogonal(w, (3, 5), torch.Generator().manual_seed(0), method=method)
        by[method] = w.T @ a
    torch.testing.assert_close(by["qr"].tril(-1), torch.zeros(3, 3).double(), atol=1e-12, rtol=0)
    assert (by["qr"].diagonal() > 0).all()
    torch.testing.assert_close(by["svd"], by["svd"].T)


def test_orthogonal_matrices_are_uniform_over_rotations_and_reflections():
    signs = [
        float(torch.linalg.det(filled("orthogonal", {}, (3, 3), (3, 3), seed)))
        for seed in range(200)
    ]
    assert (
        60 < sum(sign > 0 for sign in signs) < 140
    )  # both kinds; QR without its signs would give one


@pytest.mark.parametrize("shape", [(4, 4, 3), (4, 4, 3, 3)])
def test_identity_kernels_hand_their_input_through(shape):
    conv = (nn.Conv1d if len(shape) == 3 else nn.Conv2d)(4, 4, 3, padding=1, bias=False).double()
    conv.weight.data = filled("identity", {}, shape)
    x = torch.randn(2, 4, *(7 for _ in shape[2:]), dtype=torch.float64)
    torch.testing.assert_close(conv(x), x)


@pytest.mark.parametrize("name", ["orthogonal", "identity", "lsuv"])
def test_matrices_are_refused_for_biases(name):
    with pytest.raises(InputError, match=r"bias.*weights"):
        build({"kind": "linear", "init": {"biases": name}}, (3,), 2)


# --- variance through twenty layers ---------------------------------------------------------------


def signal(activation, init, seed, width=512, depth=20, batch=256):
    """Second moments of pre-activations by layer (forward), and of their gradients (backward)."""
    layers = []
    for _ in range(depth):
        layers += [{"kind": "dense", "units": width}, *([activation] if activation else [])]
    net = build(
        {"kind": "layers", "layers": layers, "init": init},
        (width,),
        width,
        seed=seed,
        dtype=torch.float64,
    )
    h = torch.randn(
        batch, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    before = []
    for layer in net:
        h = layer(h)
        if isinstance(layer, nn.Linear):
            before.append(h)
    out = torch.randn(
        h.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64
    )
    gradients = torch.autograd.grad((before[-1] * out).sum(), before)
    return [float(b.detach().square().mean()) for b in before], [
        float(g.square().mean()) for g in gradients
    ]


THEORY = [
    # activation, initialiser, factor of the second moment from layer to layer
    (None, "lecun_normal", 1.0),
    (None, "glorot_uniform", 1.0),
    (None, {"kind": "orthogonal"}, 1.0),
    ("relu", "he_normal", 1.0),
    ("relu", "he_uniform", 1.0),
    ("relu", "glorot_normal", 0.5),
    ({"kind": "leaky_relu", "slope": 0.3}, {"kind": "he_normal", "slope": 0.3}, 1.0),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("activation", "technique", "factor"), THEORY)
def test_variance_through_twenty_layers_is_what_theory_says(activation, technique, factor, seed):
    forward, backward = signal(activation, {"weights": technique, "biases": "zeros"}, seed)
    # A layer of 512 ReLUs multiplies by factor (1 +- sqrt(5 / 512)), for their squares have heavy
    # tails.
    spread = 3 * math.sqrt(19 * 5 / 512)
    assert math.log(forward[-1] / forward[0]) == pytest.approx(19 * math.log(factor), abs=spread)
    assert math.log(backward[0] / backward[-1]) == pytest.approx(19 * math.log(factor), abs=spread)


def test_small_normal_weights_let_the_signal_vanish():
    forward, backward = signal("relu", {"weights": "normal", "biases": "zeros"}, 0)
    assert forward[-1] / forward[0] < 1e-20
    assert backward[0] / backward[-1] < 1e-20


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_lsuv_gives_every_layer_unit_variance(activation):
    layers = []
    for _ in range(20):
        layers += [{"kind": "dense", "units": 64}, activation]
    x = (
        torch.randn(512, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 7
        + 2
    )
    init = {"weights": {"kind": "lsuv", "tolerance": 0.001}, "biases": "zeros"}
    net = build(
        {"kind": "layers", "layers": layers, "init": init}, (30,), 64, dtype=torch.float64, batch=x
    )
    for layer in net:
        x = layer(x).detach()
        if isinstance(layer, nn.Linear):
            assert float(x.var()) == pytest.approx(1.0, abs=0.002)


# --- which initialiser fills what -----------------------------------------------------------------


def test_defaults_are_torchs_own():
    net = build({"kind": "layers", "layers": [{"kind": "dense", "units": 400}]}, (100,), 400)
    assert net[0].weight.abs().max().item() <= 0.1
    assert net[0].weight.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)
    assert net[0].bias.abs().max().item() <= 0.1


def test_a_layers_initialiser_goes_before_the_models():
    layers = [
        {"kind": "dense", "units": 3, "init": {"weights": {"kind": "constant", "value": 5.0}}},
        {"kind": "dense", "units": 2},
    ]
    net = build(
        {"kind": "layers", "layers": layers, "init": {"weights": "zeros", "biases": "constant"}},
        (4,),
        2,
    )
    assert torch.equal(net[0].weight, torch.full((3, 4), 5.0))
    assert torch.equal(net[0].bias, torch.full((3,), 0.1))
    assert torch.equal(net[1].weight, torch.zeros(2, 3))


def test_blocks_hand_initialisers_to_their_layers():
    inner = {"kind": "dense", "units": 4, "init": "zeros"}
    net = build(
        {
            "kind": "layers",
            "layers": [{"kind": "residual", "layers": [inner]}],
            "init": "he_normal",
        },
        (4,),
        4,
    )
    assert not bool(net[0].body[0].weight.any())


def test_normalisation_and_embeddings_keep_their_own_unless_their_layer_asks():
    layers = [
        {"kind": "embedding", "size": 8, "vocabulary": 50},
        "layer_norm",
        {"kind": "gru", "units": 4},
    ]
    part = {"kind": "layers", "layers": layers, "init": {"weights": "zeros", "biases": "zeros"}}
    net = build(part, (5,), 4)
    assert float(net[0].weight.std()) == pytest.approx(1, abs=0.1)
    assert torch.equal(net[1].weight, torch.ones(8))
    assert not any(bool(p.any()) for p in net[2].parameters())
    part["layers"] = [
        {**layers[0], "init": "zeros"},
        {"kind": "layer_norm", "init": "constant"},
        layers[2],
    ]
    net = build(part, (5,), 4)
    assert not bool(net[0].weight.any())
    assert torch.equal(net[1].weight, torch.full((8,), 0.1))


def test_gates_are_filled_one_by_one():
    net = build(
        {"kind": "layers", "layers": [{"kind": "lstm", "units": 6}], "init": "orthogonal"},
        (5, 6),
        6,
        dtype=torch.float64,
    )
    for gate in net[0].cells[0].weight_hh_l0.detach().chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6, dtype=torch.float64))


@pytest.mark.parametrize(
    "model",
    [
        "mlp",
        {"kind": "mlp", "init": "he_normal"},
        {"kind": "resnet", "depth": 8},
        {"kind": "lenet"},
    ],
)
def test_draws_depend_on_the_seed_and_the_name_alone(model):
    def flat(**options):
        torch.manual_seed(torch.seed() % 1000)  # the global generator has no part in it
        net = build(model, (3, 16, 16), 4, **options)
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    assert torch.equal(flat(seed=3), flat(seed=3))
    assert not torch.equal(flat(seed=3), flat(seed=4))
    assert torch.equal(flat(seed=3), flat(seed=3, dtype=torch.float64).float())


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build("mlp", (4,), 2)
    assert torch.equal(torch.rand(3), expected)


def test_a_persons_module_is_drawn_anew_by_seed():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.MultiheadAttention(4, 2))
    initialise(net, Init(), 0)
    first = {n: p.clone() for n, p in net.state_dict().items()}
    initialise(net, Init(), 1)
    assert not torch.equal(net.state_dict()["0.weight"], first["0.weight"])
    initialise(net, Init(), 0)
    assert all(torch.equal(p, first[n]) for n, p in net.state_dict().items())


def test_recipes_name_initialisers_shortly_or_in_full():
    assert Recipe(model={"kind": "mlp", "init": "he_normal"}).model.init.weights.kind == "he_normal"
    recipe = Recipe(
        model={
            "kind": "mlp",
            "init": {"weights": {"kind": "normal", "std": 0.5}, "biases": "constant"},
        }
    )
    assert recipe.model.init.weights.std == 0.5
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe(model={"kind": "mlp", "init": "zeros"}).program == recipe.program
    with pytest.raises(InputError, match="he_normal"):
        Recipe(model={"kind": "mlp", "init": "he_norma"})


# --- the layout of a row --------------------------------------------------------------------------


class Persons(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.act = nn.Embedding(7, 4), nn.RMSNorm(4), nn.PReLU()
        self.cell, self.head = nn.LSTM(4, 4, 2), nn.Linear(4, 7)
        self.head.weight = self.embed.weight
        self.temperature = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)


def test_layout_of_a_persons_module():
    rows = {e.name: (e.kind, e.layer) for e in layout(Persons()).entries}
    assert "head.weight" not in rows
    assert "frozen" not in rows
    kinds = {name: kind for name, (kind, _) in rows.items()}
    assert {name for name, kind in kinds.items() if kind == "norm"} == {"norm.weight", "act.weight"}
    assert {name for name, kind in kinds.items() if kind == "bias"} == {
        "head.bias",
        *(f"cell.bias_{part}_l{i}" for part in ("ih", "hh") for i in range(2)),
    }
    assert kinds["temperature"] == "weight"
    places = {name: layer for name, (_, layer) in rows.items()}
    assert (
        places["cell.weight_ih_l0"]
        == places["cell.bias_hh_l0"]
        < places["cell.weight_ih_l1"]
        < places["head.bias"]
    )


@pytest.mark.parametrize("name", ["batch_norm", "layer_norm", "group_norm"])
def test_normalisation_is_not_decayed(name):
    fields = {"groups": 2} if name == "group_norm" else {}
    module = find("layer", name).function()((4, 3, 3), **fields)
    assert {kind_of(module, n) for n, _ in module.named_parameters()} == {"norm"}


class RootNorm(nn.Module):  # a person's own normalisation
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


class ByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(()))
        self.W1, self.b1 = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
        self.queryBias, self.biased = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4, 4))
        self.norm, self.attend = RootNorm(), nn.MultiheadAttention(4, 2, add_bias_kv=True)


def test_biases_are_what_their_whole_name_says():
    kinds = {e.name: e.kind for e in layout(ByHand()).entries}
    assert {name for name, kind in kinds.items() if kind == "norm"} == {"norm.weight"}
    assert {name for name, kind in kinds.items() if kind == "bias"} == {
        *("b", "b1", "queryBias", "attend.in_proj_bias", "attend.out_proj.bias"),
        *("attend.bias_k", "attend.bias_v"),
    }


GROUPED = [
    (nn.Conv2d(32, 32, 3, groups=32), (9, 9)),  # depthwise
    (nn.Conv2d(32, 64, 3, groups=4), (8 * 9, 16 * 9)),
    (nn.Conv1d(6, 4, 5), (30, 20)),
    (nn.ConvTranspose2d(32, 64, 3, groups=4), (8 * 9, 16 * 9)),
]


@pytest.mark.parametrize(("layer", "fans"), GROUPED, ids=str)
def test_fans_of_groups(layer, fans):
    """By their definition: inputs of one output, outputs of one input, far from the edges."""
    assert _fans(layer, layer.weight.detach()) == fans
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    extent = (21,) * (layer.weight.dim() - 2)
    x = torch.zeros(1, layer.in_channels, *extent)
    x[(0, 0, *(10 for _ in extent))] = 1.0
    assert int((layer(x) != 0).sum()) == fans[1]
    x = torch.ones(1, layer.in_channels, *extent, requires_grad=True)
    y = layer(x)
    y[(0, 0, *(size // 2 for size in y.shape[2:]))].backward()
    assert int((x.grad != 0).sum()) == fans[0]


@pytest.mark.parametrize("name", ["lecun_normal", "glorot_normal", "he_normal"])
@pytest.mark.parametrize("truncate", [0.5, 2.0, 3.0])
def test_rescaled_truncation_keeps_the_variance(name, truncate):
    """As Keras's VarianceScaling, whose std is divided by that of the truncated normal (SciPy's)."""
    stats = pytest.importorskip("scipy.stats")
    plain = filled(name, {"truncate": truncate})
    kept = filled(name, {"truncate": truncate, "rescale": True})
    ratio = float(stats.truncnorm(-truncate, truncate).std())
    torch.testing.assert_close(kept * ratio, plain, rtol=1e-6, atol=1e-9)
    n, wanted = kept.numel(), float(filled(name, {}).std())
    assert float(kept.std()) == pytest.approx(wanted, rel=10 / math.sqrt(2 * n))
