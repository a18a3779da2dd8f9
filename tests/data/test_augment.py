"""Augmentation: each technique against an independent way to do the same, and what holds for all of
them."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

import ravine
from ravine.catalogue import find, table
from ravine.data.augmentation import augment, geometry
from ravine.data.augmentation import draw as draw_file
from ravine.data.augmentation.draw import Draw, Samples
from ravine.data.augmentation.warp import Warp, matrix, resolve
from ravine.data.pipeline import Pipeline
from ravine.errors import InputError
from ravine.recipe import Data

GENERATOR = torch.Generator().manual_seed(0)
BYTES = torch.randint(0, 256, (64, 3, 9, 8), generator=GENERATOR, dtype=torch.uint8)
FLOATS = torch.rand(64, 3, 9, 8, generator=GENERATOR) * 6 - 2
SEQUENCES = torch.randn(64, 12, 2, generator=GENERATOR)
TOKENS = torch.randint(1, 20, (64, 12), generator=GENERATOR)
ROWS = torch.randn(64, 5, generator=GENERATOR) * torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0]) + 3
CLASSES = torch.arange(64) % 4


def samples(x, y=CLASSES, task="classification"):
    return draw_file.samples(x.clone(), y.clone(), outputs=4, task=task)


def within(x, wide):
    """Samples whose statistics are those of ``wide``."""
    of = samples(wide)
    return Samples(
        x,
        CLASSES,
        outputs=4,
        task="classification",
        low=of.low,
        high=of.high,
        mean=of.mean,
        deviation=of.deviation,
    )


def run(name, x, draw=None, y=CLASSES, task="classification", **settings):
    return find("augment", name).function()(samples(x, y, task), draw or Draw(0, name), **settings)


# every technique, with data that it is for
ALL = [
    ("flip", BYTES, {}),
    ("shift", BYTES, {}),
    ("crop", BYTES, {}),
    ("resized_crop", BYTES, {}),
    ("rotate", BYTES, {}),
    ("zoom", BYTES, {}),
    ("shear", BYTES, {}),
    ("brightness", BYTES, {}),
    ("contrast", BYTES, {}),
    ("saturation", BYTES, {}),
    ("noise", BYTES, {}),
    ("erase", BYTES, {}),
    ("cutout", BYTES, {"size": 3}),
    ("mixup", BYTES, {}),
    ("cutmix", BYTES, {}),
    ("flip", FLOATS, {}),
    ("shift", FLOATS, {}),
    ("rotate", FLOATS, {}),
    ("brightness", FLOATS, {}),
    ("erase", FLOATS, {}),
    ("noise", SEQUENCES, {}),
    ("noise", ROWS, {}),
    ("time_shift", SEQUENCES, {}),
    ("time_shift", TOKENS, {}),
    ("time_mask", SEQUENCES, {}),
    ("time_mask", TOKENS, {}),
    ("feature_dropout", ROWS, {"rate": 0.5}),
    ("mixup", ROWS, {}),
]
EACH = pytest.mark.parametrize(
    ("name", "x", "settings"), ALL, ids=lambda v: v if isinstance(v, str) else ""
)


def test_every_technique_has_a_row():
    assert {row[0] for row in ALL} == set(table("augment"))


@EACH
def test_the_draw_is_the_only_randomness(name, x, settings):
    torch.manual_seed(1)
    first = run(name, x, **settings)
    torch.manual_seed(2)
    again, other = run(name, x, **settings), run(name, x, Draw(1, name), **settings)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.x, other.x)


@EACH
def test_shape_and_labels_are_kept_and_the_data_are_not_written_to(name, x, settings):
    before = x.clone()
    result = find("augment", name).function()(within(x, x), Draw(0), **settings)
    assert result.x.shape == x.shape
    assert torch.equal(x, before)
    if name in ("mixup", "cutmix"):
        torch.testing.assert_close(result.y.sum(1), torch.ones(64))
        assert result.y.shape == (64, 4)
    else:
        assert torch.equal(result.y, CLASSES)


@EACH
def test_each_sample_has_its_own_draw(name, x, settings):
    same = x[:1].expand_as(x).contiguous()
    result = find("augment", name).function()(within(same, x), Draw(3), **settings)
    changed = result.y if name in ("mixup", "cutmix") else result.x
    assert len(changed.flatten(1).unique(dim=0)) > 1


# --- geometry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [BYTES, FLOATS], ids=["bytes", "floats"])
@pytest.mark.parametrize(
    ("axis", "dims"), [("horizontal", [(3,)]), ("vertical", [(2,)]), ("both", [(3,), (2,), (2, 3)])]
)
def test_flip(x, axis, dims):
    result = run("flip", x, axis=axis).x
    assert result.dtype == x.dtype
    ways = torch.stack([x] + [x.flip(d) for d in dims])
    same = (result == ways).flatten(2).all(2)
    assert same.any(0).all()
    assert same.float().mean(1).sub(1 / len(ways)).abs().max() < 0.25
    assert torch.equal(run("flip", x, axis=axis, p=0.0).x, x)
    assert torch.equal(
        run("flip", x, axis=axis, p=1.0).x, x.flip((2, 3) if axis == "both" else dims[0])
    )


@pytest.mark.parametrize("x", [BYTES, FLOATS], ids=["bytes", "floats"])
@pytest.mark.parametrize(
    ("fill", "mode"), [("constant", "constant"), ("nearest", "edge"), ("reflect", "symmetric")]
)
def test_shift_is_a_cut_from_the_padded_image(x, fill, mode):
    result = run("shift", x, pixels=2, fill=fill).x.numpy()
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), (2, 2), (2, 2)], mode=mode)
    cuts = np.stack([padded[:, :, i : i + 9, j : j + 8] for i in range(5) for j in range(5)])
    same = (cuts == result).reshape(25, 64, -1).all(2)
    assert same.any(0).all()
    assert same.any(1).sum() > 15  # nearly all shifts occur in 64 draws


def test_shift_fills_with_a_value():
    result = run("shift", BYTES, pixels=9, value=77).x
    assert result.dtype == torch.uint8
    assert (result == 77).float().mean() > 0.4


def test_shift_by_a_fraction_of_each_side():
    """Up to a fifth of 20 columns and of 10 rows: 4 and 2 pixels."""
    x = torch.zeros(400, 1, 10, 20)
    x[:, :, 5, 10] = 1.0
    places = run("shift", x, fraction=0.2).x.flatten(1).argmax(1)
    assert set((places % 20 - 10).tolist()) == set(range(-4, 5))
    assert set((places // 20 - 5).tolist()) == set(range(-2, 3))


def test_zoom_of_both_sides_apart():
    def scales(**fields):
        batch = geometry.zoom(samples(FLOATS), Draw(0), low=0.5, high=2.0, **fields)
        return batch._warp.matrix[:, 0, 0], batch._warp.matrix[:, 1, 1]

    together, apart = scales(), scales(apart=True)
    assert torch.equal(*together)
    assert not torch.isclose(*apart).any()
    assert all(bool(((s >= 0.5) & (s <= 2.0)).all()) for s in apart)


def test_crop_is_shift():
    assert torch.equal(
        run("crop", BYTES, padding=3).x, run("shift", BYTES, Draw(0, "crop"), pixels=3).x
    )


SCIPY = {"nearest": "nearest", "constant": "grid-constant", "reflect": "reflect"}


def by_scipy(image, m, fill, value=0.0):
    """Bilinear sampling of [C, H, W] by a matrix in centred (x, y) coordinates."""
    height, width = image.shape[1:]
    swap = np.array([[0, 1], [1, 0]])
    linear = swap @ m[:2, :2] @ swap
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = centre - linear @ centre + m[:2, 2][::-1]
    return np.stack(
        [
            ndimage.affine_transform(c, linear, offset, order=1, mode=SCIPY[fill], cval=value)
            for c in image
        ]
    )


@pytest.mark.parametrize("fill", SCIPY)
def test_warp_against_scipy(fill):
    generator = torch.Generator().manual_seed(4)
    m = torch.eye(3).repeat(8, 1, 1)
    m[:, :2, :2] += 0.4 * torch.randn(8, 2, 2, generator=generator)
    m[:, :2, 2] = 2 * torch.randn(8, 2, generator=generator)
    x = FLOATS[:8]
    got = resolve(x, Warp(m, fill, 1.5, exact=False))
    expected = np.stack(
        [by_scipy(x[i].double().numpy(), m[i].double().numpy(), fill, 1.5) for i in range(8)]
    )
    torch.testing.assert_close(got, torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("fill", SCIPY)
def test_the_exact_way_is_the_bilinear_one(fill):
    m = matrix(
        1 - 2.0 * (torch.arange(64) % 2),
        0,
        torch.randint(-3, 4, (64,)).float(),
        0,
        1,
        torch.randint(-3, 4, (64,)).float(),
    )
    exact, sampled = (resolve(FLOATS, Warp(m, fill, 0.5, exact=e)) for e in (True, False))
    torch.testing.assert_close(exact, sampled, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "of"),
    [
        (
            "rotate",
            {"degrees": 30.0},
            lambda m: (m[0, 0] ** 2 + m[1, 0] ** 2, m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]),
        ),
        ("zoom", {"low": 0.5, "high": 2.0}, lambda m: (m[0, 0] / m[1, 1], 1.0)),
        ("shear", {"degrees": 20.0}, lambda m: (m[0, 0], m[1, 1])),
    ],
)
def test_matrices(name, settings, of):
    """Rotations are orthogonal, zooms are even, shears keep the diagonal; and each is within its
    bounds."""
    batch = run(name, FLOATS, **settings)
    matrices = batch._warp.matrix
    for m in matrices:
        assert [float(v) for v in of(m)] == pytest.approx([1.0, 1.0], abs=1e-5)
    if name == "zoom":
        assert 0.5 <= matrices[:, 0, 0].min() < 0.7 < 1.4 < matrices[:, 0, 0].max() <= 2.0
    else:
        angle = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0])).abs()
        assert 0.75 * settings["degrees"] < angle.max() <= settings["degrees"] + 1e-3


def test_rotation_turns_about_the_centre():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 7] = 1.0  # right of the centre
    quarter = resolve(
        image, Warp(matrix(torch.zeros(1), -1.0, 0, 1.0, 0.0, 0), "constant", 0.0, exact=False)
    )
    assert quarter[0, 0].argmax() == 1 * 9 + 4  # above it


def test_geometry_in_a_row_is_sampled_once():
    both = geometry.zoom(geometry.rotate(geometry.flip(samples(FLOATS), Draw(0)), Draw(1)), Draw(2))
    parts = [
        f(samples(FLOATS), Draw(i))._warp.matrix
        for i, f in enumerate((geometry.flip, geometry.rotate, geometry.zoom))
    ]
    torch.testing.assert_close(both._warp.matrix, parts[0] @ parts[1] @ parts[2])
    once = resolve(FLOATS, Warp(parts[0] @ parts[1] @ parts[2], "constant", 0.0, exact=False))
    torch.testing.assert_close(both.x, once)


def test_flip_then_shift_is_the_same_as_one_after_the_other():
    both = geometry.shift(geometry.flip(samples(BYTES), Draw(0)), Draw(1), fill="reflect")
    first = geometry.flip(samples(BYTES), Draw(0)).x
    assert torch.equal(both.x, geometry.shift(samples(first), Draw(1), fill="reflect").x)


def test_different_fills_are_not_joined():
    both = geometry.shift(
        geometry.shift(samples(BYTES), Draw(0), pixels=4), Draw(1), pixels=4, fill="nearest"
    )
    first = geometry.shift(samples(BYTES), Draw(0), pixels=4).x
    assert torch.equal(both.x, geometry.shift(samples(first), Draw(1), pixels=4, fill="nearest").x)


def test_resized_crop_takes_the_area_and_aspect_it_says():
    size = 4000
    x = torch.zeros(size, 1, 20, 20)
    m = run(
        "resized_crop",
        x,
        y=torch.zeros(size, dtype=torch.int64),
        scale=(0.2, 0.6),
        ratio=(0.8, 1.25),
    )._warp.matrix
    across, down = m[:, 0, 0], m[:, 1, 1]
    area, ratio = across * down, across / down
    assert 0.2 - 1e-4 <= area.min() < 0.22 < 0.58 < area.max() <= 0.6 + 1e-4
    assert 0.8 - 1e-4 <= ratio.min() < 0.82 < 1.22 < ratio.max() <= 1.25 + 1e-4
    assert abs(area.mean() - 0.4) < 0.01
    for axis, extent in ((0, across), (1, down)):  # the rectangle lies inside
        assert (m[:, axis, 2].abs() / 20 + extent / 2).max() <= 0.5 + 1e-5


# --- light, noise, rectangles ---------------------------------------------------------------------


def test_brightness_adds_one_number_to_each_image():
    x = FLOATS * 0.1 + 1  # far from the ends of the range, so that nothing is cut
    added = (augment.brightness(within(x, FLOATS), Draw(0), amount=0.1).x - x).flatten(1)
    assert added.std(1).max() < 1e-5
    assert 0.05 < added.mean(1).abs().max() / (FLOATS.max() - FLOATS.min()) <= 0.1 + 1e-5


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_light_stays_in_the_range_of_the_data(name):
    batch = run(name, FLOATS, amount=3.0)
    assert batch.x.min() >= FLOATS.min()
    assert batch.x.max() <= FLOATS.max()


@pytest.mark.parametrize("name", ["contrast", "saturation"])
def test_contrast_and_saturation_scale_what_they_say(name):
    x = FLOATS * 0.1 + 1
    result = find("augment", name).function()(within(x, FLOATS), Draw(0), amount=0.5).x
    gray = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    centre = (
        x.mean((1, 2, 3), keepdim=True) if name == "contrast" else (x * gray).sum(1, keepdim=True)
    )
    factor = ((result - centre) * (x - centre)).sum((1, 2, 3)) / (x - centre).square().sum(
        (1, 2, 3)
    )
    torch.testing.assert_close(
        result, centre + factor.view(-1, 1, 1, 1) * (x - centre), rtol=1e-4, atol=1e-5
    )
    assert 0.5 <= factor.min() < 0.7 < 1.3 < factor.max() <= 1.5


@pytest.mark.parametrize(
    "x",
    [ROWS.repeat(40, 1), FLOATS, SEQUENCES.repeat(20, 1, 1)],
    ids=["table", "images", "sequences"],
)
def test_noise_is_in_units_of_the_deviation(x):
    y = torch.zeros(len(x), dtype=torch.int64)
    added = run("noise", x, y=y, std=0.5).x - x
    axis = 1 if x.ndim == 4 else x.ndim - 1
    over = [d for d in range(x.ndim) if d != axis]
    ratio = added.std(over) / x.std(over)
    assert ratio.sub(0.5).abs().max() < 0.05
    assert (added.mean(over) / x.std(over)).abs().max() < 0.05


def test_erased_and_cut_out_pixels_have_the_mean():
    for name, settings in (("erase", {"p": 1.0}), ("cutout", {"size": 3})):
        result = run(name, FLOATS, **settings)
        mean = result.mean.expand_as(FLOATS)
        changed = result.x != FLOATS
        assert torch.equal(result.x[changed], mean[changed])
        one_channel = changed[:, 0]
        assert one_channel.flatten(1).any(1).all()
        for mask in one_channel:  # a rectangle: the outer product of its rows and columns
            assert torch.equal(mask, mask.any(1)[:, None] & mask.any(0)[None])
    assert one_channel.sum((1, 2)).max() == 9
    assert torch.equal(run("erase", FLOATS, p=0.0).x, FLOATS)
    erased = (
        (
            run("erase", FLOATS.repeat(20, 1, 1, 1), y=CLASSES.repeat(20), p=0.3).x
            != FLOATS.repeat(20, 1, 1, 1)
        )
        .flatten(1)
        .any(1)
    )
    assert abs(erased.float().mean() - 0.3) < 0.06


# --- sequences and tables -------------------------------------------------------------------------


@pytest.mark.parametrize("x", [SEQUENCES, TOKENS], ids=["numbers", "tokens"])
def test_time_shift(x):
    result = run("time_shift", x, steps=3).x
    steps = torch.arange(12)
    ways = torch.stack([x[:, (steps - by).clamp(0, 11)] for by in range(-3, 4)])
    same = (ways == result).flatten(2).all(2)
    assert same.any(0).all()
    assert same.any(1).all()


@pytest.mark.parametrize("name", ["time_shift", "time_mask"])
def test_padding_stays_where_it_is(name):
    lengths = torch.randint(3, 13, (64,), generator=GENERATOR)
    padding = torch.arange(12) >= lengths[:, None]
    tokens = run(name, TOKENS.masked_fill(padding, 0)).x
    assert (tokens[padding] == 0).all()
    numbers = run(name, torch.where(padding[..., None], torch.nan, SEQUENCES)).x
    assert torch.equal(torch.isnan(numbers).all(2), padding)


def test_time_mask():
    result = run("time_mask", SEQUENCES, steps=4)
    masked = (result.x != SEQUENCES).any(2)
    assert set(masked.sum(1).tolist()) == {0, 1, 2, 3, 4}
    assert (masked.int().diff(dim=1).abs().sum(1) <= 2).all()  # in one piece
    assert torch.equal(result.x[masked], result.mean.expand_as(SEQUENCES)[masked])
    assert (run("time_mask", TOKENS, steps=4).x == 0).any()


def test_feature_dropout():
    x = ROWS.repeat(60, 1)
    result = run("feature_dropout", x, y=CLASSES.repeat(60), rate=0.3)
    dropped = result.x != x
    assert torch.equal(result.x[dropped], result.mean.expand_as(x)[dropped])
    assert dropped.float().mean(0).sub(0.3).abs().max() < 0.03


# --- pairs ----------------------------------------------------------------------------------------


def test_mixup_mixes_inputs_and_targets_alike():
    x = torch.eye(64)  # each sample is a one-hot of itself, so that the mixture can be read off
    result = run("mixup", x, alpha=1.0)
    expected = result.x @ torch.nn.functional.one_hot(CLASSES, 4).float()
    torch.testing.assert_close(result.y, expected)
    own = result.x.diag()
    assert own.min() < 0.2 < 0.8 < own.max()
    torch.testing.assert_close(result.x.sum(1), torch.ones(64))


def test_mixup_share_is_beta():
    x = torch.eye(2000)
    result = run("mixup", x, y=torch.zeros(2000, dtype=torch.int64), alpha=0.4).x.diag()
    mixed = result[result < 1]
    assert abs(mixed.mean() - 0.5) < 0.03
    assert abs(mixed.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.01  # the variance of Beta(a, a)


def test_mixup_of_a_regression():
    y = torch.randn(64, 2)
    result = run("mixup", torch.eye(64), y=y, task="regression", alpha=1.0)
    torch.testing.assert_close(result.y, result.x @ y)


def test_cutmix_shares_are_areas():
    x = CLASSES.view(-1, 1, 1, 1).expand(64, 1, 16, 16).to(torch.uint8).contiguous()
    result = run("cutmix", x)
    assert result.x.dtype == torch.uint8
    areas = torch.stack([(result.x == k).float().mean((1, 2, 3)) for k in range(4)], 1)
    torch.testing.assert_close(result.y, areas)
    assert (areas.max(1).values < 1).sum() > 20


# --- in the pipeline ------------------------------------------------------------------------------


def test_preprocessing_comes_after_and_only_training_is_augmented():
    x, y = BYTES, CLASSES
    data = Data(
        preprocess=["rescale"],
        augment=["flip", {"kind": "shift", "pixels": 2}],
        batch=16,
        test=0.0,
        validation=0.25,
    )
    pipeline = Pipeline(data, arrays=(x, y))
    batch = pipeline.batch(5)
    assert batch.x.dtype == torch.float32
    assert 0 <= batch.x.min() <= batch.x.max() <= 1
    raw_x, raw_y = pipeline.raw("train", 64)
    again = pipeline.augmented(raw_x[batch.index], raw_y[batch.index], 5)[0].float() / 255
    torch.testing.assert_close(batch.x, again)
    plain = Pipeline(data.model_copy(update={"augment": ()}), arrays=(x, y))
    for part in ("train", "validation"):
        assert torch.equal(
            torch.cat([b.x for b in pipeline.split(part)]),
            torch.cat([b.x for b in plain.split(part)]),
        )


def test_any_step_can_be_entered():
    data = Data(augment=["rotate", "noise", "mixup"], batch=16)
    first, second = (Pipeline(data, arrays=(FLOATS, CLASSES)) for _ in range(2))
    walked = [first.batch(step) for step in range(8)][-1]
    entered = second.batch(7)
    assert torch.equal(walked.x, entered.x)
    assert torch.equal(walked.y, entered.y)


def test_soft_targets_reach_the_batch():
    batch = Pipeline(Data(augment=["mixup"], batch=16), arrays=(FLOATS, CLASSES)).batch(0)
    assert batch.y.shape == (16, 4)
    torch.testing.assert_close(batch.y.sum(1), torch.ones(16))


BAD = {
    "flip of a table": ("flip", ROWS, {}, {}, "images"),
    "saturation of gray": ("saturation", FLOATS[:, :1], {}, {}, "1 channel"),
    "zoom upside down": ("zoom", FLOATS, {"low": 2.0, "high": 1.0}, {}, "low at most high"),
    "shear by a right angle": ("shear", FLOATS, {"degrees": 90.0}, {}, "below 90"),
    "crop of nothing": ("resized_crop", FLOATS, {"scale": (0.0, 0.5)}, {}, "low > 0"),
    "time shift of images": ("time_shift", FLOATS, {}, {}, "sequences"),
    "time shift with a target a step": (
        "time_shift",
        TOKENS,
        {},
        {"y": TOKENS, "task": "sequence"},
        "each step",
    ),
    "feature dropout of images": ("feature_dropout", FLOATS, {}, {}, "rows of a table"),
    "mixup of tokens": ("mixup", TOKENS, {}, {}, "tokens"),
    "cutmix of a table": ("cutmix", ROWS, {}, {}, "images"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(case):
    name, x, settings, more, message = BAD[case]
    with pytest.raises(InputError, match=message):
        run(name, x, **settings, **more)


def test_draws():
    draw = Draw(0, "test")
    numbers = draw.uniform(20_000)
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(numbers.var() - 1 / 12) < 0.002
    assert not torch.equal(numbers, draw.uniform(20_000))
    whole = draw.integers(20_000, low=-2, high=2)
    assert set(whole.tolist()) == {-2, -1, 0, 1, 2}
    assert ((whole == 2).float().mean() - 0.2).abs() < 0.02
    normal = draw.normal(20_000)
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    assert math.isclose(draw.chance(20_000, 0.25).float().mean(), 0.25, abs_tol=0.02)
    assert sorted(draw.permutation(100).tolist()) == list(range(100))


# --- predictions averaged over augmentations ------------------------------------------------------


def test_predictions_are_averaged_over_augmented_copies(tmp_path):
    """Against the plain mean over the shifts that were drawn, and over flips in full."""
    from sklearn.datasets import load_digits

    x, y = load_digits().images[:300, None].astype(np.float32), load_digits().target[:300]
    options = {"quiet": True, "doctor": False, "data": (x, y), "epochs": 2, "model": "softmax"}
    flip = {"kind": "flip", "p": 1.0}
    run = ravine.train(augment=[flip], out=tmp_path / "flip", **options)
    plain, flipped = run.predict_proba(x), run.predict_proba(np.ascontiguousarray(x[..., ::-1]))
    for copies in (1, 3):  # every copy is the flipped one
        expected = (plain + copies * flipped) / (1 + copies)
        assert np.allclose(run.predict_proba(x, augment=copies), expected, atol=1e-6)
    assert (run.predict(x, augment=1) == (plain + flipped).argmax(1)).all()

    shift = ravine.train(
        augment=[{"kind": "shift", "pixels": 1}, "mixup"], out=tmp_path / "s", **options
    )
    few = shift.predict_proba(x, augment=4)
    assert np.array_equal(few, shift.predict_proba(x, augment=4))  # the same draws
    assert not np.allclose(few, shift.predict_proba(x), atol=1e-3)
    wide = shift.predict_proba(x, augment=60)
    wide_x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    apart = [wide_x[:, :, a : a + 8, b : b + 8] for a in range(3) for b in range(3)]
    mean = np.mean([shift.predict_proba(one) for one in apart], 0)
    assert np.abs(wide - mean).mean() < 0.03

    bare = ravine.train(out=tmp_path / "bare", **options)
    with pytest.raises(ravine.InputError, match=r"data\.augment"):
        bare.predict(x, augment=2)
    with pytest.raises(ravine.InputError, match="at least 0"):
        shift.predict(x, augment=-1)
