"""A network made for tables: embeddings of numbers and categories, and an ensemble of perceptrons
that share their weights, with the defaults of RealMLP and the ensemble of TabM.

Linear maps are in the neural tangent parametrisation, y = W x / sqrt(F) + b with W standard normal
at first, so that one learning rate suits every width. What learns at another rate than the rest is
written as that multiple of its parameter: with Adam, p = c q moves c times as fast as q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ravine.catalogue import Count, PerMember, Positive, Probability, Widths
from ravine.nn.randomized import Dropout
from ravine.nn.stack import Shape, need_rank

_ACTIVATIONS = {"mish": F.mish, "selu": F.selu, "relu": F.relu}
_LARGEST_ONE_HOT = 8  # categories of a column up to which its columns of 0 and 1 go in as they are


def tabular(
    shape: Shape,
    outputs: int,
    *,
    members: Count = 16,
    hidden: Widths = (128, 128, 128),
    activation: Literal["mish", "selu", "relu"] = "mish",
    dropout: PerMember[Probability] = 0.15,
    embedding: Literal["periodic", "none"] = "periodic",
    frequency: PerMember[Positive] = 0.1,
    category_size: Count = 8,
    text_dropout: PerMember[Probability] = 0.5,
) -> nn.Module:
    """An ensemble of perceptrons for rows of a table (F,), with embeddings of numbers and
    categories.

    Each number x becomes (x, V cos(2 pi w x + b) + c) in 4 dimensions, with 16 frequencies w of
    standard deviation ``frequency`` (``embedding = "none"``: x alone); each category of a column
    with more than 8 a vector of ``category_size``; of the hashed words of a text a share of
    ``text_dropout`` is left out while it trains. Then a factor for each feature, and for each
    width of ``hidden`` a linear map, ``activation`` in the form (1 - a) x + a f(x) with a learned
    for each unit, and ``dropout``; then the outputs.

    The ``members`` share the embeddings and the weights W of the hidden layers; each has factors of
    its own before and after each W, its own biases and its own output layer. While it trains each
    member has its own loss, and the mean of these is made small; the answer is the mean of the
    members' outputs.

    Which features are numbers and which columns belong to one category it knows from the table
    (``csv``); elsewhere all are numbers. Made for numbers of about unit scale (``robust``), adamw
    with lr 0.04, beta2 0.95 and decay 0.02.

    >>> tabular((3,), 2, hidden=(16,))(torch.zeros(5, 3)).shape
    torch.Size([5, 16, 2])
    >>> tabular((3,), 2, hidden=(16,)).eval()(torch.zeros(5, 3)).shape
    torch.Size([5, 2])

    Source: Holzmüller, Grinsztajn and Steinwart, "Better by default: strong pre-tuned MLPs and
    boosted trees on tabular data", 2024; Gorishniy, Kotelnikov and Babenko, "TabM: advancing
    tabular deep learning with parameter-efficient ensembling", 2025; Gorishniy, Rubachev and
    Babenko, "On embeddings for numerical features in tabular deep learning", 2022.
    """
    need_rank(shape, (1,), "rows of a table (F,)", "put images into a convolutional network")
    groups = getattr(shape, "groups", ()) or (("number", shape[0]),)
    return TabularNetwork(
        groups, outputs, members, hidden, activation, dropout, embedding == "periodic", frequency,
        category_size, text_dropout,
    )  # fmt: skip


class TabularNetwork(nn.Module):
    """Features in ``groups`` of (what, width), one after the other -> outputs [B, K], the mean of
    M ``members``; while training, those of each member [B, M, K]."""

    def __init__(
        self,
        groups: Sequence[tuple[str, int]],
        outputs: int,
        members: int,
        hidden: Sequence[int],
        activation: str,
        dropout: float,
        periodic: bool,
        frequency: float,
        category_size: int,
        text_dropout: float,
    ):
        super().__init__()
        self.members = members
        self.numbers, self.categories, self.rest = _places(groups)
        count = sum(place.stop - place.start for place in self.numbers)
        self.embedding = PeriodicEmbedding(count, frequency) if periodic and count else None
        self.tables = nn.ModuleList(
            CategoryTable(place.stop - place.start, category_size) for place in self.categories
        )
        width = count * (PeriodicEmbedding.SIZE if self.embedding else 1)
        width += category_size * len(self.tables)
        self.words = nn.ModuleList(Dropout(text_dropout) for _, text in self.rest if text)
        width += sum(place.stop - place.start for place, _ in self.rest)
        self.scale = FeatureScale(width)
        self.layers = nn.ModuleList(
            nn.Sequential(SharedLinear(members, a, b), MixedActivation(b, activation), Dropout(dropout))
            for a, b in pairwise((width, *hidden))
        )  # fmt: skip
        for part in self.layers.modules():
            if isinstance(part, Dropout):
                part.samples_axis = 1  # of [M, B, W]
        self.head = MemberLinear(members, hidden[-1] if hidden else width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)  # [B, F]
        parts = []
        if self.numbers:
            numbers = torch.cat([x[:, place] for place in self.numbers], 1)
            parts.append(numbers if self.embedding is None else self.embedding(numbers))
        for place, table in zip(self.categories, self.tables, strict=True):
            parts.append(table(x[:, place]))
        words = iter(self.words)
        parts += [next(words)(x[:, place]) if text else x[:, place] for place, text in self.rest]
        x = self.scale(torch.cat(parts, 1)).expand(self.members, -1, -1)  # [M, B, W]
        for layer in self.layers:
            x = layer(x)
        outputs = self.head(x)  # [M, B, K]
        if self.training and self.members > 1:
            return outputs.transpose(0, 1)
        return outputs.mean(0)


def _places(
    groups: Sequence[tuple[str, int]],
) -> tuple[list[slice], list[slice], list[tuple[slice, bool]]]:
    """The places of the numbers (neighbours as one), of the categories with an embedding, and of
    all else, with whether it is a text."""
    numbers: list[slice] = []
    categories: list[slice] = []
    rest: list[tuple[slice, bool]] = []
    start = 0
    for what, width in groups:
        place = slice(start, start + width)
        if what == "category" and width > _LARGEST_ONE_HOT:
            categories.append(place)
        elif what == "text":
            rest.append((place, True))
        elif what == "number":
            numbers[-1:] = _joined(numbers[-1:], place)
        else:
            before = [one for one, text in rest[-1:] if not text]
            rest[len(rest) - len(before) :] = [(one, False) for one in _joined(before, place)]
        start += width
    return numbers, categories, rest


def _joined(before: list[slice], place: slice) -> list[slice]:
    """One place of two neighbours."""
    if before and before[0].stop == place.start:
        return [slice(before[0].start, place.stop)]
    return [*before, place]


class PeriodicEmbedding(nn.Module):
    """Each number x_i -> (x_i, V_i cos(2 pi w_i x_i + b_i) + c_i): [B, F] -> [B, 4 F], the feature's
    own numbers side by side. w is normal with standard deviation ``frequency``, b uniform in
    [-pi, pi), V uniform in +- 1 / 4, c zero at first.

    Source: Holzmüller et al., 2024 ("PBLD"); Gorishniy et al., 2022.
    """

    SIZE, WAVES = 4, 16
    frequency: Tensor

    def __init__(self, features: int, frequency: float = 0.1):
        super().__init__()
        self.register_buffer(
            "frequency", torch.tensor(frequency, dtype=torch.float64), persistent=False
        )
        self.weight = nn.Parameter(torch.empty(features, self.WAVES))  # in units of frequency
        self.phase_bias = nn.Parameter(torch.empty(features, self.WAVES))
        self.mix = nn.Parameter(torch.empty(features, self.WAVES, self.SIZE - 1))
        self.bias = nn.Parameter(torch.empty(features, self.SIZE - 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        nn.init.uniform_(self.phase_bias, -math.pi, math.pi)
        nn.init.uniform_(self.mix, -1 / math.sqrt(self.WAVES), 1 / math.sqrt(self.WAVES))
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        w = 2 * math.pi * self.frequency.to(x.dtype) * self.weight
        waves = torch.cos(x[..., None] * w + self.phase_bias)  # [B, F, waves]
        mixed = torch.einsum("bfw,fwk->bfk", waves, self.mix) + self.bias
        return torch.cat([x[..., None], mixed], -1).flatten(1)


class CategoryTable(nn.Module):
    """A vector for each category: columns of 0 and 1 [B, K] -> [B, size]; a row of zeros, a
    category that is not known, gives zeros. Standard normal at first."""

    def __init__(self, categories: int, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(categories, size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class FeatureScale(nn.Module):
    """A factor for each feature, 1 at first: y = x (1 + 6 q); its factors learn 6 times as fast."""

    RATE = 6.0

    def __init__(self, features: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(features))  # no weight: decay would not pull it to 1

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.RATE * self.bias)


class SharedLinear(nn.Module):
    """y_m = s_m * (W (r_m * x_m)) / sqrt(F) + b_m of each of M members: [M, B, F] -> [M, B, units].
    W [units, F] is the members' own together, standard normal at first; r is 1 or -1 at random, s
    is 1, b normal with deviation 1/2.

    Source: Wen, Tran and Ba, "BatchEnsemble", 2020; Gorishniy et al., "TabM", 2025; Jacot, Gabriel
    and Hongler, "Neural tangent kernel", 2018.
    """

    def __init__(self, members: int, features: int, units: int):
        super().__init__()
        self.gain = 1 / math.sqrt(features)
        self.weight = nn.Parameter(torch.empty(units, features))
        self.bias = nn.Parameter(torch.empty(members, 1, units))
        self.before_bias = nn.Parameter(torch.empty(members, 1, features))  # r; it does not decay
        self.behind_bias = nn.Parameter(torch.empty(members, 1, units))  # s
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        nn.init.normal_(self.bias, std=0.5)
        nn.init.uniform_(self.before_bias, -1, 1)
        nn.init.ones_(self.behind_bias)
        with torch.no_grad():
            self.before_bias.copy_(torch.where(self.before_bias < 0, -1.0, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        product = F.linear(x * (self.gain * self.before_bias), self.weight)
        return torch.addcmul(self.bias, product, self.behind_bias)


class MemberLinear(nn.Module):
    """y_m = W_m x_m / (10 sqrt(F)) + b_m of each of M members: [M, B, F] -> [M, B, units]. W
    [M, units, F] is standard normal and b zero at first."""

    unit_axes = 2
    GAIN = 0.1

    def __init__(self, members: int, features: int, units: int):
        super().__init__()
        self.gain, self.fans = self.GAIN / math.sqrt(features), (features, units)
        self.weight = nn.Parameter(torch.empty(members, units, features))
        self.bias = nn.Parameter(torch.empty(members, 1, units))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x * self.gain, self.weight.mT)


class MixedActivation(nn.Module):
    """(1 - a) x + a f(x), a = 1 + q / 10 for each unit, 1 at first: it learns a tenth as fast."""

    RATE = 0.1

    def __init__(self, units: int, kind: str):
        super().__init__()
        self.kind = kind
        self.bias = nn.Parameter(torch.zeros(units))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        share = 1 + self.RATE * self.bias
        if self.kind == "mish" and self.training and x.dtype == share.dtype:
            return _MixedMish.apply(x, share)[0]
        return x + share * (_ACTIVATIONS[self.kind](x) - x)


class _MixedMish(torch.autograd.Function):
    """x + a (mish(x) - x) with half as many passes over memory as autograd's, and one exponential:
    mish(x) = x (1 - 2 v), v = 1 / (e^2 + 2 e + 2), e = exp(x). Its gradient in x is
    1 - 2 a v + 4 a x v^2 e (e + 1), that in a -2 x v."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        e = x.clamp_max(20.0).exp_()  # above it mish(x) = x
        v = (e + 2).mul_(e).add_(2).reciprocal_()
        gate = torch.addcmul(x.new_ones(()), v, a, value=-2.0)
        return gate * x, e, v, gate

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        x, a, e, v, gate = ctx.saved_tensors
        xv = x * v
        of_a = (slope * xv).flatten(0, -2).sum(0).mul_(-2)
        bent = (e + 1).mul_(e).mul_(v).mul_(xv)
        return torch.addcmul(gate, bent, a, value=4.0) * slope, of_a
