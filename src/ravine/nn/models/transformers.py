"""Transformers of sequences: a model of the next symbol, and a classifier of whole sequences."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ravine.catalogue import Count, Flag, Integer, LayerCount, PerMember, Probability
from ravine.errors import InputError
from ravine.nn.attention import Positions, SelfAttention, TransformerBlock
from ravine.nn.randomized import Dropout
from ravine.nn.stack import Shape, need_sequences, symbols

STD = 0.02  # of GPT-2's initial weights


def gpt(
    shape: Shape,
    outputs: int,
    *,
    units: Count = 128,
    layers: LayerCount = 4,
    heads: Count = 4,
    positions: Literal["rotary", "learned"] = "rotary",
    dropout: PerMember[Probability] = 0.0,
    vocabulary: Count | None = None,
    tied: Flag = True,
) -> nn.Module:
    """Language model: embedding, causal pre-norm transformer blocks, norm, logits of the next
    symbol at each step: (T,) -> (T, K).

    ``units`` is the size of the embedding and of every block, ``layers`` their number, ``heads``
    the number of heads of each. ``positions`` are rotary, or learned for at most T steps. ``dropout`` acts after
    the embedding and on what each half of a block adds. ``tied`` uses the embedding as output
    weights too. ``vocabulary`` is the number of symbols (none: that of the data). Weights begin as
    GPT-2's: normal with deviation 0.02, what is added to a shortcut 1 / sqrt(2 layers) of it; no
    biases.

    >>> net = gpt((50,), 65, vocabulary=65, units=32, layers=2)
    >>> net(torch.zeros(2, 50, dtype=torch.int64)).shape
    torch.Size([2, 50, 65])

    Errors: ``units`` is not a multiple of ``heads``; ``tied`` where the number of outputs is not
    the number of symbols.

    Source: Radford et al., "Language models are unsupervised multitask learners", 2019.
    """
    need_sequences(shape, (1,))
    return LanguageModel(
        shape[0],
        outputs,
        units,
        layers,
        heads,
        positions,
        dropout,
        symbols(vocabulary or outputs),
        tied,
    )


def transformer(
    shape: Shape,
    outputs: int,
    *,
    units: Count = 64,
    layers: LayerCount = 2,
    heads: Count = 4,
    dropout: PerMember[Probability] = 0.1,
    vocabulary: Count | None = None,
    padding: Integer = 0,
) -> nn.Module:
    """Sequence classifier: embedding, learned positions, pre-norm transformer blocks, the mean over
    the steps, a dense layer.

    Takes (T, F), through a dense layer to ``units`` features, or whole numbers (T,), which are
    embedded (``vocabulary`` symbols; none: those of the data). Sequences of different lengths are
    padded at their end, with symbol ``padding`` or rows of zeros, which no step reads. ``layers``,
    ``heads`` and ``dropout`` as for ``gpt``.

    >>> sum(p.numel() for p in transformer((28, 28), 10, units=8, layers=1).parameters())
    1434

    Errors: ``units`` is not a multiple of ``heads``; the number of symbols is unknown.

    Source: Vaswani et al., "Attention is all you need", 2017.
    """
    need_sequences(shape, (1, 2))
    return SequenceTransformer(shape, outputs, units, layers, heads, dropout, vocabulary, padding)


class NormalLinear(nn.Linear):
    """A dense layer without bias whose weights begin normal with deviation ``std``."""

    def __init__(self, inputs: int, outputs: int, std: float = STD):
        self.std = std
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.std)


class NormalEmbedding(nn.Embedding):
    """An embedding that begins normal with deviation 0.02."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=STD)


class LanguageModel(nn.Module):
    """See ``gpt``."""

    def __init__(
        self,
        steps: int,
        outputs: int,
        units: int,
        layers: int,
        heads: int,
        positions: str,
        dropout: float,
        vocabulary: int,
        tied: bool,
    ):
        super().__init__()
        if tied and outputs != vocabulary:
            raise InputError(
                "model.tied",
                got=f"{outputs} outputs, {vocabulary} symbols",
                expected="one output a symbol",
                repair="set tied = false",
            )
        rotary = positions == "rotary"
        self.embedding = NormalEmbedding(vocabulary, units)
        self.positions = nn.Identity() if rotary else Positions(steps, units, STD)
        self.drop = Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                _block(units, heads, rotary, dropout, STD / math.sqrt(2 * layers))
                for _ in range(layers)
            )
        )
        self.norm = nn.LayerNorm(units, bias=False)
        self.head = NormalLinear(units, outputs)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.positions(self.embedding(x)))  # [B, T, units]
        return self.head(self.norm(self.blocks(y)))  # [B, T, K]


def _block(units: int, heads: int, rotary: bool, dropout: float, std: float) -> TransformerBlock:
    """A causal block with GPT-2's initial weights; ``std``: of the layers that end in a shortcut."""
    attend = SelfAttention(units, heads, causal=True, rotary=rotary, bias=False)
    attend.qkv, attend.out = NormalLinear(units, 3 * units), NormalLinear(units, units, std)
    block = TransformerBlock(attend, 4, "gelu", before=True, dropout=dropout, bias=False)
    block.mlp[0], block.mlp[2] = NormalLinear(units, 4 * units), NormalLinear(4 * units, units, std)
    return block


class SequenceTransformer(nn.Module):
    """See ``transformer``."""

    def __init__(
        self,
        shape: Shape,
        outputs: int,
        units: int,
        layers: int,
        heads: int,
        dropout: float,
        vocabulary: int | None,
        padding: int,
    ):
        super().__init__()
        tokens = len(shape) == 1
        self.enter = (
            NormalEmbedding(symbols(vocabulary), units) if tokens else nn.Linear(shape[1], units)
        )
        self.tokens, self.padding = tokens, padding
        self.positions = Positions(shape[0], units, STD)
        self.drop = Dropout(dropout)
        attend = [SelfAttention(units, heads, False, False, True) for _ in range(layers)]
        self.blocks = nn.ModuleList(
            TransformerBlock(one, 4, "gelu", True, dropout, True) for one in attend
        )
        self.norm = nn.LayerNorm(units)
        self.head = nn.Linear(units, outputs)

    def forward(self, x: Tensor) -> Tensor:
        used = x != self.padding if self.tokens else (x != 0).any(-1)  # [B, T]
        used = used | (used.sum(1, keepdim=True) == 0)  # a sequence of padding alone is read whole
        y = self.drop(self.positions(self.enter(x)))  # [B, T, units]
        for block in self.blocks:
            y = block(y, used)
        weight = used[..., None].to(y.dtype)
        mean = torch.sum(self.norm(y) * weight, 1) / torch.sum(weight, 1)
        return self.head(mean)  # [B, K]
