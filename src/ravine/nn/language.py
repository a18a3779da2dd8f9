"""Recurrent models over sequences: classifiers of whole sequences, and models of the next symbol."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ravine.errors import InputError
from ravine.nn.randomized import Dropout
from ravine.nn.recurrent import Recurrent
from ravine.nn.stack import Shape, need_rank


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
        _sequences(shape, (1, 2))
        self.embedding = nn.Embedding(_symbols(vocabulary), embedding) if len(shape) == 1 else None
        self.padding = padding
        inputs = embedding if len(shape) == 1 else shape[1]
        self.recurrent = Recurrent(cell, inputs, units, layers, bidirectional, last=True, dropout=dropout)
        self.drop = Dropout(dropout)
        self.head = nn.Linear(units * (2 if bidirectional else 1), outputs)

    def forward(self, x: Tensor) -> Tensor:
        used = x != self.padding if self.embedding is not None else (x != 0).any(-1)  # [B, T]
        lengths = used.shape[1] - used.flip(1).int().argmax(1)  # up to the last step that is used
        lengths = lengths.where(used.any(1), 1)
        if self.embedding is not None:
            x = self.embedding(x)
        full = x.device.type == "meta" or bool((lengths == x.shape[1]).all())
        return self.head(self.drop(self.recurrent(x, None if full else lengths)))


class CharacterModel(nn.Module):
    """Embedding, recurrent layers, logits of the next symbol at every step."""

    def __init__(
        self,
        cell: Callable[..., nn.RNNBase],
        shape: Shape,
        outputs: int,
        embedding: int,
        units: int,
        layers: int,
        dropout: float,
        vocabulary: int | None,
        tied: bool,
    ):
        super().__init__()
        _sequences(shape, (1,))
        self.embedding = nn.Embedding(_symbols(vocabulary or outputs), embedding)
        self.drop_in = Dropout(dropout)
        self.recurrent = Recurrent(cell, embedding, units, layers, dropout=dropout)
        self.drop_out = Dropout(dropout)
        self.head = nn.Linear(units, outputs)
        if tied:
            if embedding != units or self.embedding.num_embeddings != outputs:
                raise InputError(
                    "model.tied",
                    got=f"embedding {embedding}, units {units}",
                    expected="both alike, and one output a symbol",
                )
            self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop_in(self.embedding(x))  # [B, T, embedding]
        y = self.drop_out(self.recurrent(y))  # [B, T, units]
        return self.head(y)


def _sequences(shape: Shape, ranks: tuple[int, ...]) -> None:
    try:
        need_rank(
            shape, ranks, "sequences: (T,) of whole numbers" + (" or (T, F)" if 2 in ranks else ""), "reshape the data"
        )
    except InputError as error:
        raise error.under("model") from None


def _symbols(vocabulary: int | None) -> int:
    if vocabulary is None:
        raise InputError(
            "model.vocabulary", expected="the number of symbols, for these data do not say it", repair="set vocabulary"
        )
    return vocabulary
