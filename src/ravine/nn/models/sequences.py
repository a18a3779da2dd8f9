"""Classifiers of whole sequences, recurrent or by the mean of their words; they give logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ravine.catalogue import Count, Flag, Integer, LayerCount, PerMember, Probability, Widths
from ravine.nn.models.transformers import NormalEmbedding
from ravine.nn.padding import lengths_of
from ravine.nn.randomized import Dropout
from ravine.nn.recurrent import Recurrent
from ravine.nn.stack import Shape, need_sequences, symbols


def rnn(
    shape: Shape,
    outputs: int,
    *,
    units: Count = 128,
    layers: LayerCount = 1,
    bidirectional: Flag = False,
    dropout: PerMember[Probability] = 0.0,
    embedding: Count = 64,
    vocabulary: Count | None = None,
    padding: Integer = 0,
) -> nn.Module:
    """Sequence classifier of simple recurrent layers: the state after a sequence's last step, then
    a dense layer.

    Takes (T, F), or whole numbers (T,), which are embedded (``vocabulary`` symbols; none: those of
    the data). Sequences of different lengths are padded at their end, with symbol ``padding`` or
    rows of zeros, and are read to their own end. ``dropout`` acts between layers and before the
    dense one.

    ``embedding`` is the size of the symbols' vectors; ``bidirectional`` layers read both ways.

    >>> sum(p.numel() for p in rnn((28, 28), 10, units=8).parameters())
    394

    Source: Elman, "Finding structure in time", 1990.
    """
    return SequenceClassifier(
        nn.RNN,
        shape,
        outputs,
        units,
        layers,
        bidirectional,
        dropout,
        embedding,
        vocabulary,
        padding,
    )


def lstm(
    shape: Shape,
    outputs: int,
    *,
    units: Count = 128,
    layers: LayerCount = 1,
    bidirectional: Flag = False,
    dropout: PerMember[Probability] = 0.0,
    embedding: Count = 64,
    vocabulary: Count | None = None,
    padding: Integer = 0,
) -> nn.Module:
    """Sequence classifier of LSTM layers, read as by ``rnn``.

    ``embedding`` is the size of the vectors, ``bidirectional`` layers read both ways; ``units``,
    ``layers``, ``dropout``, ``vocabulary`` and ``padding`` as for ``rnn``.

    >>> sum(p.numel() for p in lstm((28, 28), 10, units=8).parameters())
    1306

    Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997.
    """
    return SequenceClassifier(
        nn.LSTM,
        shape,
        outputs,
        units,
        layers,
        bidirectional,
        dropout,
        embedding,
        vocabulary,
        padding,
    )


def gru(
    shape: Shape,
    outputs: int,
    *,
    units: Count = 128,
    layers: LayerCount = 1,
    bidirectional: Flag = False,
    dropout: PerMember[Probability] = 0.0,
    embedding: Count = 64,
    vocabulary: Count | None = None,
    padding: Integer = 0,
) -> nn.Module:
    """Sequence classifier of gated recurrent units, read as by ``rnn``.

    ``embedding`` is the size of the vectors, ``bidirectional`` layers read both ways; ``units``,
    ``layers``, ``dropout``, ``vocabulary`` and ``padding`` as for ``rnn``.

    >>> sum(p.numel() for p in gru((28, 28), 10, units=8).parameters())
    1002

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014.
    """
    return SequenceClassifier(
        nn.GRU,
        shape,
        outputs,
        units,
        layers,
        bidirectional,
        dropout,
        embedding,
        vocabulary,
        padding,
    )


def word_bag(
    shape: Shape,
    outputs: int,
    *,
    units: Count = 64,
    hidden: Widths = (),
    dropout: PerMember[Probability] = 0.0,
    word_dropout: PerMember[Probability] = 0.0,
    vocabulary: Count | None = None,
    padding: Integer = 0,
) -> nn.Module:
    """Text classifier: the mean of the vectors of all tokens (T,), then dense layers with relu of
    ``hidden`` widths, then a dense layer of logits.

    ``units`` is the size of the vectors, which begin normal with deviation 0.02, so that a word that
    training hardly knows says little. ``vocabulary`` is the number of symbols (none: those of the
    data); symbol ``padding`` is not counted. While training each token is left out of the mean with
    probability ``word_dropout``; ``dropout`` acts on the mean and after each hidden layer.

    >>> import torch
    >>> word_bag((9,), 3, vocabulary=50)(torch.ones(2, 9, dtype=torch.int64)).shape
    torch.Size([2, 3])

    Errors: samples that are no whole numbers (T,), or a vocabulary that neither the data nor the field gives.

    Source: Joulin et al., "Bag of tricks for efficient text classification", 2017; word dropout: Iyyer et al.,
    "Deep unordered composition rivals syntactic methods for text classification", 2015.
    """
    need_sequences(shape, (1,))
    return WordBag(symbols(vocabulary), outputs, units, hidden, dropout, word_dropout, padding)


class SequenceClassifier(nn.Module):
    """Recurrent layers read each sequence to its own end; a dense layer reads the last state."""

    def __init__(
        self,
        cell: Callable[..., nn.RNNBase],
        shape: Shape,
        outputs: int,
        units: int,
        layers: int,
        bidirectional: bool,
        dropout: float,
        embedding: int,
        vocabulary: int | None,
        padding: int,
    ):
        super().__init__()
        need_sequences(shape, (1, 2))
        self.embedding = nn.Embedding(symbols(vocabulary), embedding) if len(shape) == 1 else None
        self.padding = padding
        inputs = embedding if len(shape) == 1 else shape[1]
        self.recurrent = Recurrent(
            cell, inputs, units, layers, bidirectional, last=True, dropout=dropout
        )
        self.drop = Dropout(dropout)
        self.head = nn.Linear(units * (2 if bidirectional else 1), outputs)

    def forward(self, x: Tensor) -> Tensor:
        lengths = lengths_of(x, self.padding)
        if self.embedding is not None:
            x = self.embedding(x)
        if torch.compiler.is_exporting():  # an export cannot ask how long the sequences are
            return self.head(self.drop(self.recurrent.to_ends(x, lengths)))
        full = x.device.type == "meta" or bool((lengths == x.shape[1]).all())
        return self.head(self.drop(self.recurrent(x, None if full else lengths)))


class WordBag(nn.Module):
    """See ``word_bag``."""

    def __init__(
        self,
        vocabulary: int,
        outputs: int,
        units: int,
        hidden: tuple[int, ...],
        dropout: float,
        word_dropout: float,
        padding: int,
    ):
        super().__init__()
        self.embedding = NormalEmbedding(vocabulary, units)
        self.padding = padding
        self.word_dropout = Dropout(word_dropout)
        between: list[nn.Module] = [Dropout(dropout)]
        for width in hidden:
            between += [nn.Linear(units, width), nn.ReLU(), Dropout(dropout)]
            units = width
        self.between = nn.Sequential(*between)
        self.head = nn.Linear(units, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embedding(x)  # [B, T, units]
        used = self.word_dropout((x != self.padding).to(y.dtype))  # [B, T]
        # The factor 1 / (1 - p) of dropout stands above and below: what is left is the mean. [B, units]
        mean = torch.einsum("bt,btu->bu", used, y) / used.sum(1, keepdim=True).clamp_min(1)
        return self.head(self.between(mean))
