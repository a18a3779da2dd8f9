"""The network made for tables: each layer against its formula, written as a loop."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.preprocessing import PowerTransformer, RobustScaler
from typer.testing import CliRunner

from ravine.data.pipeline import Pipeline
from ravine.data.preprocessing import distribution
from ravine.engine.rows.objective import Objective
from ravine.layout import Features
from ravine.nn.build import build, build_loss
from ravine.nn.models import tabular
from ravine.recipe import Data

G = torch.Generator().manual_seed(0)


def test_periodic_embedding_is_its_formula():
    layer = tabular.PeriodicEmbedding(3, frequency=0.4).double()
    x = torch.randn(5, 3, generator=G).double()
    found = layer(x).view(5, 3, 4)
    for b in range(5):
        for f in range(3):
            value = float(x[b, f])
            waves = [
                math.cos(2 * math.pi * 0.4 * w * value + p)
                for w, p in zip(layer.weight[f].tolist(), layer.phase_bias[f].tolist(), strict=True)
            ]
            expected = (
                np.array(waves) @ layer.mix[f].detach().numpy() + layer.bias[f].detach().numpy()
            )
            np.testing.assert_allclose(found[b, f].detach().numpy(), [value, *expected], rtol=1e-12)


def test_shared_weights_are_each_members_own_linear_map():
    """W with a member's factors before and after it is that member's weight."""
    layer = tabular.SharedLinear(3, 5, 4).double()
    assert set(layer.before_bias.unique().tolist()) == {-1.0, 1.0}
    torch.nn.init.normal_(layer.behind_bias)
    x = torch.randn(3, 7, 5, generator=G).double()
    for m in range(3):
        own = layer.behind_bias[m].T * layer.weight * layer.before_bias[m] / 5**0.5
        plain = torch.nn.functional.linear(x[m], own, layer.bias[m, 0])
        torch.testing.assert_close(layer(x)[m], plain)
    head = tabular.MemberLinear(3, 5, 2).double()
    for m in range(3):
        plain = torch.nn.functional.linear(x[m], head.weight[m] / (10 * 5**0.5), head.bias[m, 0])
        torch.testing.assert_close(head(x)[m], plain)


def test_activations_are_their_formulas():
    x = torch.randn(7, 5, generator=G).double()
    for kind, reference in (
        ("mish", torch.nn.Mish()),
        ("selu", torch.nn.SELU()),
        ("relu", torch.nn.ReLU()),
    ):
        layer = tabular.MixedActivation(5, kind).double()
        torch.testing.assert_close(layer(x), reference(x))  # a = 1 at first
        torch.nn.init.constant_(layer.bias, -5.0)  # a = 1/2
        torch.testing.assert_close(layer(x), (x + reference(x)) / 2)
    scale = tabular.FeatureScale(5).double()
    torch.nn.init.constant_(scale.bias, 0.5)
    torch.testing.assert_close(scale(x), 4 * x)


def test_mish_in_training_is_its_formula_and_its_gradients():
    """There it has a pass of its own, for one network and for several at once."""
    layer = tabular.MixedActivation(5, "mish").double().train()
    x = (10 * torch.randn(2, 7, 5, generator=G)).double().requires_grad_()
    own = torch.randn(3, 5, generator=G).double().requires_grad_()

    def mixed(a: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"bias": a}, (x,))

    torch.testing.assert_close(mixed(own[0], x), x + (1 + own[0] / 10) * (torch.nn.Mish()(x) - x))
    assert torch.autograd.gradcheck(mixed, (own[0], x))
    slope = torch.func.vmap(torch.func.grad(lambda a: mixed(a, x.detach()).square().sum()))(own)
    alone = [torch.autograd.grad(mixed(a, x).square().sum(), a)[0] for a in own]
    torch.testing.assert_close(slope, torch.stack(alone))


@pytest.mark.parametrize(
    ("outputs", "loss"), [(3, "cross_entropy"), (1, "squared"), (2, "squared"), (1, "huber")]
)
def test_each_member_has_its_own_loss(outputs, loss):
    """Training makes the mean of the members' losses small, evaluation measures their mean answer."""
    network = build({"kind": "tabular", "dropout": 0.0, "members": 4}, (5,), outputs).double()
    criterion = build_loss(loss, None)
    objective = Objective(network, criterion)
    x = torch.randn(6, 5, generator=G).double()
    y = torch.arange(6) % 3 if outputs == 3 else torch.randn(6, outputs, generator=G).double()
    each = network(x)
    assert each.shape == (6, 4, outputs)
    own = [criterion(each[:, m], y).mean() for m in range(4)]
    torch.testing.assert_close(objective(x, y), torch.stack(own).mean())
    torch.testing.assert_close(network.eval()(x), each.mean(1))
    torch.testing.assert_close(objective.eval()(x, y), criterion(each.mean(1), y).mean())


def test_a_category_is_its_row_of_the_table():
    table = tabular.CategoryTable(9, 4).double()
    codes = torch.tensor([0, 8, 3])
    one_hot = torch.nn.functional.one_hot(codes, 9).double()
    torch.testing.assert_close(table(one_hot), table.weight[codes])
    assert (
        table(torch.zeros(1, 9).double()).abs().max() == 0
    )  # a category that training did not have


def test_features_go_where_they_belong():
    shape = Features(
        (14,), [("number", 1), ("flag", 1), ("number", 2), ("category", 9), ("flag", 1)]
    )
    network = build("tabular", shape, 2)
    assert network.numbers == [slice(0, 1), slice(2, 4)]
    assert network.categories == [slice(4, 13)]
    assert network.rest == [(slice(1, 2), False), (slice(13, 14), False)]
    assert network(torch.zeros(3, 14)).shape == (3, 16, 2)
    moved = [torch.zeros(1, 14) for _ in range(15)]
    for place in range(14):
        moved[place][0, place] = 1.0
    answers = [network.eval()(x) for x in moved]
    assert all(not torch.equal(answer, answers[14]) for answer in answers[:14])  # each one counts


def test_neighbours_are_one_place_and_texts_are_their_own():
    groups = [("flag", 1), ("category", 3), ("text", 4), ("flag", 1), ("text", 5), ("text", 2)]
    network = build("tabular", Features((16,), groups), 2)
    assert [(place.start, place.stop, text) for place, text in network.rest] == [
        (0, 4, False), (4, 8, True), (8, 9, False), (9, 14, True), (14, 16, True),
    ]  # fmt: skip
    assert len(network.words) == 3


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
def test_words_are_left_out_in_training_alone(rate):
    """What the first layer sees: of a text a share of 1 - rate, divided by it; all else as it is."""
    shape = Features((402,), [("flag", 1), ("text", 400), ("flag", 1)])
    network = build({"kind": "tabular", "text_dropout": rate, "dropout": 0.0}, shape, 2)
    seen = []
    network.scale.register_forward_hook(lambda module, given, found: seen.append(found))
    x = torch.ones(50, 402)
    network.train()(x)
    network.eval()(x)
    trained, judged = seen
    torch.testing.assert_close(judged, x)
    torch.testing.assert_close(trained[:, [0, 401]], x[:, [0, 401]])
    words = trained[:, 1:401]
    assert {round(v, 4) for v in words.unique().tolist()} <= {0.0, round(1 / (1 - rate), 4)}
    assert abs(float((words == 0).float().mean()) - rate) < 0.03  # 20,000 draws


def test_members_are_solo_networks():
    """Mapped over members, as a population runs it, the network gives each member's own outputs."""
    shape = Features((13,), [("number", 3), ("category", 9), ("flag", 1)])
    members = [
        build({"kind": "tabular", "hidden": [16], "frequency": 0.1 * (k + 1)}, shape, 2, seed=k)
        .double()
        .eval()
        for k in range(3)
    ]
    x = torch.randn(6, 13, generator=G).double()
    parameters, buffers = torch.func.stack_module_state(members)
    mapped = torch.func.vmap(lambda p, b: torch.func.functional_call(members[0], (p, b), (x,)))(
        parameters, buffers
    )
    for k, member in enumerate(members):
        torch.testing.assert_close(mapped[k], member(x))


def test_the_network_is_told_the_columns_of_a_table(tmp_path):
    rows = [
        f"{i * 0.37 % 5},{'abcdefghij'[i % 10]},{'yes' if i % 3 else 'no'},{i // 7 % 2}"
        for i in range(200)
    ]
    (tmp_path / "t.csv").write_text("a,letter,flag,y\n" + "\n".join(rows))
    data = Data(source=f"csv:{tmp_path / 't.csv'}", preprocess=["robust"])
    pipeline = Pipeline(data)
    assert pipeline.input_shape.groups == (("number", 1), ("category", 10), ("flag", 1))
    again = Pipeline.from_state(data, *pipeline.state())
    assert again.input_shape.groups == pipeline.input_shape.groups
    network = build("tabular", again.input_shape, 2)
    assert len(network.tables) == 1
    mixed = Pipeline(data.model_copy(update={"preprocess": Data(preprocess=["pca"]).preprocess}))
    assert not hasattr(mixed.input_shape, "groups")  # principal components are no columns


# --- preprocessing --------------------------------------------------------------------------------

TABLE = torch.randn(301, 4, generator=G).double().exp() * torch.tensor([1.0, 10.0, 0.1, 3.0])


def test_robust_is_scikit_learns_and_the_clip_its_formula():
    expected = RobustScaler().fit_transform(TABLE.numpy())
    np.testing.assert_allclose(
        distribution.robust(TABLE, clip=0.0)(TABLE).numpy(), expected, rtol=1e-12
    )
    clipped = distribution.robust(TABLE)
    np.testing.assert_allclose(
        clipped(TABLE).numpy(), expected / np.sqrt(1 + (expected / 3) ** 2), rtol=1e-12
    )
    torch.testing.assert_close(clipped.inverse(clipped(TABLE)), TABLE, rtol=1e-6, atol=1e-9)
    flags = torch.tensor([[0.0, 7.0]] * 9 + [[1.0, 7.0]]).double()
    assert distribution.robust(flags, clip=0.0)(flags)[:, 0].unique().tolist() == [0.0, 2.0]
    assert distribution.robust(flags)(flags)[:, 1].abs().max() == 0  # constant


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_yeo_johnson_is_scikit_learns(sign):
    x = sign * (TABLE - 0.3)
    reference = PowerTransformer(standardize=False).fit(x.numpy())
    transform = distribution.yeo_johnson(x, least_skew=0.0)
    np.testing.assert_allclose(transform.power.numpy(), reference.lambdas_, rtol=1e-4)
    expected = np.stack(
        [
            stats.yeojohnson(c, p)
            for c, p in zip(x.numpy().T, transform.power.tolist(), strict=True)
        ],
        1,
    )
    np.testing.assert_allclose(transform(x).numpy(), expected, rtol=1e-10)
    torch.testing.assert_close(transform.inverse(transform(x)), x, rtol=1e-8, atol=1e-9)
    far = transform.inverse(torch.full((1, 4), 1e9).double())
    assert torch.isfinite(far).all()  # beyond what training had, within reach of it


def test_what_is_not_skewed_stays():
    x = torch.randn(500, 1, generator=G).double()
    assert distribution.yeo_johnson(x).power.item() == 1.0
    torch.testing.assert_close(distribution.yeo_johnson(x)(x), x)


# --- beside it ------------------------------------------------------------------------------------


def test_the_last_line_says_what_classical_models_have(tmp_path, capsys):
    """The scores are those of scikit-learn's own models on the same rows."""
    import ravine
    from ravine.app.cli import app

    x = torch.randn(300, 3, generator=G).numpy()
    y = np.where(x[:, 0] + x[:, 1] ** 2 > 0.5, "high", "low")
    rows = "\n".join(f"{a:.4f},{b:.4f},{c:.4f},{k}" for (a, b, c), k in zip(x, y, strict=True))
    (tmp_path / "t.csv").write_text(f"a,b,c,y\n{rows}\n")
    more = ["--set", "stop.after=2ep", "--out"]
    done = CliRunner().invoke(app, ["train", str(tmp_path / "t.csv"), *more, str(tmp_path / "a")])
    last = done.stderr.strip().splitlines()[-1]
    found = re.fullmatch(
        r"a linear model has ([\d.]+) %, gradient boosting has ([\d.]+) % "
        r"\(accuracy; scikit-learn on the same split, [\d.]+ s\)",
        last,
    )
    assert found, last
    pipeline = Pipeline(ravine.Run(tmp_path / "a").recipe.data)
    held = [torch.cat(part).numpy() for part in zip(*pipeline.part("test").chunks(), strict=True)]
    fit = [
        torch.cat([c[i] for name in ("train", "validation") for c in pipeline.part(name).chunks()])
        for i in (0, 1)
    ]
    own = HistGradientBoostingClassifier(random_state=0).fit(*fit).score(*held)
    assert float(found[2]) == pytest.approx(100 * own, abs=0.01)
    none = ["train", str(tmp_path / "t.csv"), "--no-baselines", *more, str(tmp_path / "b")]
    assert "linear model" not in CliRunner().invoke(app, none).stderr
    ravine.train(tmp_path / "t.csv", epochs=1, out=tmp_path / "c")
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("a linear model has")
