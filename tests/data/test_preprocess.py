"""Preprocessing against scikit-learn: forward, undone, restored, and fitted to the training part
alone."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.kernel_approximation import RBFSampler
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, PolynomialFeatures, StandardScaler

from ravine.catalogue import table
from ravine.data.pipeline import Pipeline
from ravine.data.preprocessing import preprocess, whitening
from ravine.data.preprocessing.statistics import Rows, _scaled, covariance, moments
from ravine.data.preprocessing.transform import Affine, Chain, fused, pack, unpack
from ravine.data.source import CHUNK, rows_per_chunk
from ravine.errors import InputError
from ravine.recipe import Data

GENERATOR = torch.Generator().manual_seed(0)
TABLE = (
    torch.randn(200, 5, generator=GENERATOR).double()
    @ torch.randn(5, 5, generator=GENERATOR).double()
    + 3
)
IMAGES = torch.randint(0, 256, (60, 3, 6, 5), generator=GENERATOR, dtype=torch.uint8)
CODES = torch.randint(0, 4, (50, 3), generator=GENERATOR) * 3
N = TABLE.numpy()

# (technique, settings, data, the same by scikit-learn or by hand); every technique has at least one
# row
REFERENCES = [
    ("standardize", {}, TABLE, StandardScaler().fit_transform(N)),
    ("standardize", {"per": "global"}, TABLE, (N - N.mean()) / N.std()),
    ("center", {}, TABLE, StandardScaler(with_std=False).fit_transform(N)),
    ("center", {"per": "global"}, TABLE, N - N.mean()),
    ("minmax", {}, TABLE, MinMaxScaler().fit_transform(N)),
    ("minmax", {"low": -1.0}, TABLE, MinMaxScaler((-1, 1)).fit_transform(N)),
    ("rescale", {}, TABLE, (N - N.min()) / (N.max() - N.min())),
    ("rescale", {"low": -1.0}, TABLE, 2 * (N - N.min()) / (N.max() - N.min()) - 1),
    ("rescale", {}, IMAGES, IMAGES.numpy() / 255),
    ("rescale", {"low": -1.0}, IMAGES, IMAGES.numpy() / 127.5 - 1),
    ("normalize", {"mean": 2.0, "std": 4.0}, TABLE, (N - 2) / 4),
    ("per_sample", {"epsilon": 0.0}, TABLE, StandardScaler().fit_transform(N.T).T),
    ("per_sample", {"center": False, "epsilon": 0.0}, TABLE, N / N.std(1, keepdims=True)),
    ("pca", {}, TABLE, PCA().fit_transform(N)),
    ("pca", {"components": 2}, TABLE, PCA(2).fit_transform(N)),
    ("pca", {"components": 0.9}, TABLE, PCA(0.9).fit_transform(N)),
    ("pca_whiten", {"epsilon": 0.0}, TABLE, PCA(whiten=True).fit_transform(N)),
    ("pca_whiten", {"components": 3, "epsilon": 0.0}, TABLE, PCA(3, whiten=True).fit_transform(N)),
    (
        "zca",
        {"epsilon": 0.0},
        TABLE,
        PCA(whiten=True).fit(N).transform(N) @ PCA().fit(N).components_,
    ),
    ("one_hot", {}, CODES, OneHotEncoder(sparse_output=False).fit_transform(CODES.numpy())),
    ("polynomial", {}, TABLE, PolynomialFeatures(include_bias=False).fit_transform(N)),
    (
        "polynomial",
        {"degree": 3},
        TABLE,
        PolynomialFeatures(3, include_bias=False).fit_transform(N),
    ),
    (
        "polynomial",
        {"interactions": True},
        TABLE,
        PolynomialFeatures(interaction_only=True, include_bias=False).fit_transform(N),
    ),
    ("fourier", {"features": 7, "gamma": 0.3}, TABLE, None),
]
CHANNELS = IMAGES.double().numpy()
MEANS, DEVIATIONS = CHANNELS.mean((0, 2, 3), keepdims=True), CHANNELS.std((0, 2, 3), keepdims=True)
REFERENCES += [
    ("standardize", {"per": "channel"}, IMAGES, (CHANNELS - MEANS) / DEVIATIONS),
    ("center", {"per": "channel"}, IMAGES, CHANNELS - MEANS),
    (
        "normalize",
        {"mean": (1.0, 2.0, 3.0), "std": (4.0, 5.0, 6.0)},
        IMAGES,
        (CHANNELS - np.array([1, 2, 3])[:, None, None]) / np.array([4, 5, 6])[:, None, None],
    ),
    (
        "per_sample",
        {"per": "channel", "epsilon": 0.0},
        IMAGES,
        (CHANNELS - CHANNELS.mean((2, 3), keepdims=True)) / CHANNELS.std((2, 3), keepdims=True),
    ),
]
UNDONE = [
    "standardize",
    "center",
    "minmax",
    "rescale",
    "pca",
    "pca_whiten",
    "zca",
    "polynomial",
    "one_hot",
]


def fit(name, settings, x):
    return table("preprocess")[name].function()(x, **settings)


def test_every_technique_has_a_row():
    in_its_own_file = {"robust", "yeo_johnson"}  # test_tabular.py
    assert {row[0] for row in REFERENCES} | in_its_own_file == set(table("preprocess"))


@pytest.mark.parametrize(
    ("name", "settings", "x", "expected"), [r for r in REFERENCES if r[3] is not None]
)
def test_against_reference(name, settings, x, expected):
    got = fit(name, settings, x)(x.double())
    torch.testing.assert_close(
        got, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("name", "settings", "x"), [r[:3] for r in REFERENCES])
def test_restored_without_the_data(name, settings, x):
    chain = Chain([fit(name, settings, x)])
    tensors, plain = pack(chain, "inputs")
    again = unpack(tensors, json.loads(json.dumps(plain)), "inputs")
    assert torch.equal(chain(x.double()), again(x.double()))


@pytest.mark.parametrize("name", UNDONE)
def test_undone(name):
    x = CODES if name == "one_hot" else TABLE
    transform = fit(name, {}, x)
    torch.testing.assert_close(
        transform.inverse(transform(x.double())), x.double(), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", ["per_sample", "fourier"])
def test_not_undone(name):
    transform = fit(name, {}, TABLE)
    with pytest.raises(InputError, match="undone"):
        transform.inverse(transform(TABLE))


def test_pca_undone_is_the_best_approximation():
    transform, reference = whitening.pca(TABLE, components=2), PCA(2).fit(N)
    expected = reference.inverse_transform(reference.transform(N))
    np.testing.assert_allclose(transform.inverse(transform(TABLE)), expected, atol=1e-9)


@pytest.mark.parametrize("epsilon", [1e-5, 0.5, 10.0])
@pytest.mark.parametrize("name", ["pca_whiten", "zca"])
def test_whitening_gives_lambda_over_lambda_plus_epsilon(name, epsilon):
    _, matrix = covariance(TABLE)
    variance, vectors = torch.linalg.eigh(matrix)
    white = fit(name, {"epsilon": epsilon}, TABLE)(TABLE)
    got = torch.cov(white.T)
    if name == "zca":
        got = vectors.T @ got @ vectors
    expected = (variance / (variance + epsilon)).sort().values
    torch.testing.assert_close(got.diag().sort().values, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got, torch.diag(got.diag()), rtol=0, atol=1e-9)


def test_whitening_is_the_identity_where_epsilon_is_small():
    torch.testing.assert_close(
        torch.cov(whitening.zca(TABLE)(TABLE).T), torch.eye(5).double(), rtol=0, atol=1e-3
    )


def test_a_direction_without_variance_is_not_blown_up():
    flat = torch.cat([TABLE, TABLE[:, :1]], 1)
    white = whitening.pca_whiten(flat, epsilon=0.0)(flat)
    assert torch.isfinite(white).all()
    torch.testing.assert_close(torch.cov(white.T).diag()[:5], torch.ones(5).double())


def test_zca_of_images_looks_like_them():
    pipeline = Pipeline(Data(source="digits", validation=0.0, test=0.0))
    x = pipeline.raw("train", 1797)[0].double()
    white = whitening.zca(x, epsilon=0.1)(x)
    assert white.shape == x.shape
    varying = x.std(0) > 1
    pairs = torch.stack([x[:, varying], white[:, varying]]).flatten(2)
    pairs = pairs - pairs.mean(1, keepdim=True)
    alike = (pairs[0] * pairs[1]).sum(0) / (pairs[0].norm(dim=0) * pairs[1].norm(dim=0))
    other = pairs[1][:, torch.randperm(pairs.shape[2], generator=GENERATOR)]
    unlike = (pairs[0] * other).sum(0) / (pairs[0].norm(dim=0) * other.norm(dim=0))
    assert alike.mean() > 0.5 > 4 * unlike.mean().abs()  # each pixel stays itself


def test_fourier_features_approach_the_kernel():
    x = TABLE[:40] / 4
    features = preprocess.fourier(x, features=20_000, gamma=0.3)(x)
    expected = rbf_kernel(x.numpy(), gamma=0.3)
    assert (features @ features.T - torch.from_numpy(expected)).abs().max() < 0.05
    sampler = RBFSampler(gamma=0.3, n_components=20_000, random_state=0).fit_transform(x.numpy())
    assert np.abs(sampler @ sampler.T - expected).max() < 0.05  # the reference is no closer


def test_fourier_scale_is_that_of_scikit_learn():
    gamma = 1 / (TABLE.shape[1] * TABLE.var(correction=0).item())
    torch.testing.assert_close(
        preprocess.fourier(TABLE)(TABLE), preprocess.fourier(TABLE, gamma=gamma)(TABLE)
    )


def test_one_hot_of_what_training_did_not_have():
    transform = preprocess.one_hot(torch.tensor([[1, 5], [2, 6]]))
    assert transform(torch.tensor([[3.0, 6.0]])).tolist() == [[0, 0, 0, 1]]


def test_one_hot_by_step():
    transform = preprocess.one_hot(torch.tensor([[1, 0, 2]]), per="step")
    assert transform(torch.tensor([[2, 0, 9]])).tolist() == [[[0, 0, 1], [1, 0, 0], [0, 0, 0]]]
    assert transform.inverse(transform(torch.tensor([[2, 0]]))).tolist() == [[2, 0]]


def test_a_constant_feature_is_centred_and_not_scaled():
    x = torch.tensor([[1.0, 0.1], [3.0, 0.1], [5.0, 0.1]])
    assert preprocess.standardize(x)(x.double())[:, 1].abs().max() < 1e-6
    assert preprocess.minmax(x)(x.double())[:, 1].tolist() == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("per", ["feature", "channel", "global"])
@pytest.mark.parametrize(
    "x",
    [TABLE, IMAGES, IMAGES.double(), TABLE.view(40, 5, 5), torch.randn(3000, 200)],
    ids=lambda x: f"{x.dtype}{list(x.shape)}",
)
def test_moments(x, per):
    over = {
        "feature": 0,
        "global": tuple(range(x.ndim)),
        "channel": (0, 2, 3) if x.ndim == 4 else tuple(range(x.ndim - 1)),
    }[per]
    seen, plain = moments(x, per), x.double().numpy()
    for got, expected in (
        (seen.mean, plain.mean(over)),
        (seen.variance, plain.var(over)),
        (seen.low, plain.min(over)),
        (seen.high, plain.max(over)),
    ):
        np.testing.assert_allclose(got.numpy().squeeze(), expected.squeeze(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [0.3, -2.0])
def test_moments_of_scaled_rows_follow_from_those_of_the_rows(scale):
    by = Affine(shift=torch.tensor(1.5).double(), scale=torch.tensor(scale).double())
    direct, followed = (
        moments(by(TABLE.double()), "feature"),
        _scaled(moments(TABLE, "feature"), by),
    )
    for name in ("count", "mean", "variance", "low", "high"):
        torch.testing.assert_close(getattr(followed, name), getattr(direct, name))


def test_a_chunk_has_as_many_rows_as_its_entries_allow():
    assert rows_per_chunk(torch.zeros(9, 3, 5)) == CHUNK // 15
    assert rows_per_chunk(torch.zeros(1, 1).expand(1, 2 * CHUNK)) == 1


def test_moments_pass_over_padding():
    x = torch.randn(30, 6, 2)
    lengths = torch.randint(1, 7, (30,))
    padding = torch.arange(6) >= lengths[:, None]
    seen = moments(torch.where(padding[..., None], torch.nan, x), "channel")
    known = x[~padding].double()
    torch.testing.assert_close(seen.mean.flatten(), known.mean(0))
    torch.testing.assert_close(seen.variance.flatten(), known.var(0, correction=0))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e3),
    st.integers(0, 2**31),
)
def test_chunks_make_no_difference(rows, width, shift, scale, seed):
    x = (
        torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).double() * scale
        + shift
    )
    cut = Rows((width,), x.dtype, lambda: x.split(3))
    whole, parts = moments(x, "feature"), moments(cut, "feature")
    torch.testing.assert_close(whole.mean, parts.mean, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(whole.variance, parts.variance, rtol=1e-6, atol=1e-12)


def test_fused_affine_maps_are_the_same_map():
    chain = Chain(
        [
            preprocess.rescale(IMAGES),
            preprocess.standardize(IMAGES.double() / 255, per="channel"),
            preprocess.per_sample(IMAGES),
            preprocess.center(TABLE.view(40, 1, 5, 5), per="global"),
        ]
    )
    short = fused(chain)
    assert len(short) == 3
    torch.testing.assert_close(short(IMAGES.double()), chain(IMAGES.double()))


@pytest.mark.parametrize(
    "steps",
    [
        ["rescale", {"kind": "standardize", "per": "channel"}],
        ["rescale", "zca"],
        ["standardize", {"kind": "pca", "components": 10}],
    ],
)
def test_statistics_do_not_move_with_the_validation_data(steps):
    x, y = torch.rand(80, 1, 4, 4) * 9, torch.arange(80) % 2
    states = []
    for factor in (1.0, 100.0):
        pipeline = Pipeline(
            Data(preprocess=steps), arrays=(x, y, factor * x[:20], y[:20], -factor * x[:10], y[:10])
        )
        states.append(pipeline.state()[0])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_each_transform_is_fitted_to_what_the_one_before_makes():
    pipeline = Pipeline(
        Data(
            preprocess=["minmax", "polynomial", "standardize"],
            validation=0.0,
            test=0.0,
            batch="full",
        ),
        arrays=(TABLE, torch.arange(200) % 2),
        dtype=torch.float64,
    )
    x = pipeline.batch(0).x
    torch.testing.assert_close(x.mean(0), torch.zeros(20).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(20).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("of", ["standardize", "minmax", "rescale", "center"])
def test_targets_come_back_in_their_units(of):
    x, y = torch.randn(100, 3), torch.randn(100, 2).double() * 1e3 + 5e4
    data = Data(
        preprocess=[{"kind": of, "of": "targets"}],
        validation=0.0,
        test=0.2,
        batch="full",
        order="fixed",
    )
    pipeline = Pipeline(data, arrays=(x, y), dtype=torch.float64)
    batch = pipeline.batch(0)
    raw = pipeline.raw("train", 100)[1][batch.index]
    assert batch.y.abs().max() < 1e4
    torch.testing.assert_close(pipeline.target_units(batch.y), raw)
    again = Pipeline.from_state(data, *pipeline.state(), dtype=torch.float64)
    torch.testing.assert_close(again.target_units(batch.y), raw)
    assert pipeline.target_units(batch.y.float()).dtype == torch.float32


BAD = {
    "low above high": ("rescale", {"low": 1.0, "high": 0.0}, TABLE, "low below high"),
    "too many components": ("pca", {"components": 6}, TABLE, "1 to 5"),
    "no share of variance": ("pca", {"components": 0.0}, TABLE, "above 0"),
    "means of another number": ("normalize", {"mean": (1.0, 2.0), "std": 1.0}, IMAGES, "1 or 3"),
    "polynomial of images": ("polynomial", {}, IMAGES, "rows of a table"),
    "polynomial too large": ("polynomial", {"degree": 9}, torch.randn(5, 60), "products"),
    "one-hot of fractions": ("one_hot", {}, TABLE, "whole numbers"),
    "one-hot of images": ("one_hot", {}, IMAGES, "whole numbers"),
    "one-hot of too many": ("one_hot", {}, torch.arange(2000)[:, None], "at most 1000"),
    "channels of a table": ("per_sample", {"per": "channel"}, TABLE, "no channels"),
    "whitening of padding": ("zca", {}, torch.full((3, 2, 2), torch.nan), "padding"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(case):
    name, settings, x, message = BAD[case]
    with pytest.raises(InputError, match=message):
        fit(name, settings, x)


def test_targets_of_classes_are_not_standardised():
    with pytest.raises(InputError, match="classification"):
        Pipeline(
            Data(preprocess=[{"kind": "standardize", "of": "targets"}]),
            arrays=(TABLE, torch.arange(200) % 2),
        )


def test_an_unknown_kind_of_transform_is_not_restored():
    with pytest.raises(InputError, match="one of"):
        unpack({}, [{"kind": "os.system", "settings": {}, "buffers": []}], "inputs")
