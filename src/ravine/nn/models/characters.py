"""Models of the next symbol: recurrent layers over characters; they give logits at every step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ravine.catalogue import Count, Flag, LayerCount, Orders, PerMember, Probability
from ravine.errors import InputError
from ravine.nn.randomized import Dropout
from ravine.nn.recurrent import Recurrent
from ravine.nn.stack import Shape, need_sequences, symbols

NGRAM_ROWS, NGRAM_WEIGHTS = 2**13, 2**19  # of a table of n-grams: at most, and about
# Adam moves what is rarely seen as far as what is often seen: rare n-grams would be learnt by heart.
NGRAM_SCALE = 0.2
_PRIME, _FACTOR = 2**31 - 1, 1_481_765_933  # of the hash: products stay below 2^62


def char_lstm(
    shape: Shape,
    outputs: int,
    *,
    embedding: Count = 64,
    units: Count = 256,
    layers: LayerCount = 2,
    dropout: PerMember[Probability] = 0.0,
    vocabulary: Count | None = None,
    tied: Flag = False,
) -> nn.Module:
    """Character language model: embedding, LSTM layers, logits of the next character at each step:
    (T,) -> (T, K).

    ``dropout`` acts after the embedding and after each LSTM layer. ``tied`` uses the embedding as
    output weights (then ``embedding`` must equal ``units``).

    >>> import torch
    >>> char_lstm((50,), 65, vocabulary=65, units=32)(torch.zeros(2, 50, dtype=torch.int64)).shape
    torch.Size([2, 50, 65])

    Source: Graves, "Generating sequences with recurrent neural networks", 2013.
    """
    return CharacterModel(
        nn.LSTM, shape, outputs, embedding, units, layers, dropout, vocabulary, tied
    )


def char_cnn_lstm(
    shape: Shape,
    outputs: int,
    *,
    context: Count = 4,
    embedding: Count = 48,
    units: Count = 256,
    layers: LayerCount = 1,
    dropout: PerMember[Probability] = 0.0,
    ngrams: Orders = (),
    vocabulary: Count | None = None,
) -> nn.Module:
    """Character language model: a causal convolution over the last ``context`` characters, LSTM
    layers beside a shortcut, logits of the next character at each step: (T,) -> (T, K).

    x_t = silu(W [e_t, e_{t-1}, …] + b) with the embeddings e (zeros before the first), then
    layer_norm(x + lstm(x)) and a dense layer. The convolution sees all steps at once, which on a
    processor costs little; what it learns of neighbours the LSTM need not keep in its state.
    For each n of ``ngrams`` a table holds logits for what follows the last n characters, which are
    added: what short contexts say need not pass through the LSTM. Rows of a table (8,192 up to
    64 symbols, then fewer; they begin at 0) are found by a hash, and contexts may share one.

    ``embedding`` is the size of e, ``units`` that of x and of each of the ``layers`` of LSTM;
    ``dropout`` acts after the convolution and after the shortcut. ``vocabulary`` is the number of
    symbols (none: that of the data).

    >>> import torch
    >>> net = char_cnn_lstm((50,), 65, vocabulary=65, units=32)
    >>> net(torch.zeros(2, 50, dtype=torch.int64)).shape
    torch.Size([2, 50, 65])

    Source: after Kim, Jernite, Sontag and Rush, "Character-aware neural language models", 2016; n-grams
    beside a recurrent network: Mikolov et al., "Strategies for training large scale neural network
    language models", 2011.
    """
    need_sequences(shape, (1,))
    known = symbols(vocabulary or outputs)
    return ConvolvedCharacters(outputs, context, embedding, units, layers, dropout, ngrams, known)


def char_rnn(
    shape: Shape,
    outputs: int,
    *,
    embedding: Count = 64,
    units: Count = 256,
    layers: LayerCount = 1,
    dropout: PerMember[Probability] = 0.0,
    vocabulary: Count | None = None,
    tied: Flag = False,
) -> nn.Module:
    """Character language model of simple recurrent layers.

    ``embedding``, ``units``, ``layers``, ``dropout`` and ``tied`` as for ``char_lstm``.

    >>> import torch
    >>> char_rnn((50,), 65, vocabulary=65, units=32)(torch.zeros(2, 50, dtype=torch.int64)).shape
    torch.Size([2, 50, 65])

    Source: Sutskever, Martens and Hinton, "Generating text with recurrent neural networks", 2011.
    """
    return CharacterModel(
        nn.RNN, shape, outputs, embedding, units, layers, dropout, vocabulary, tied
    )


def char_gru(
    shape: Shape,
    outputs: int,
    *,
    embedding: Count = 64,
    units: Count = 256,
    layers: LayerCount = 2,
    dropout: PerMember[Probability] = 0.0,
    vocabulary: Count | None = None,
    tied: Flag = False,
) -> nn.Module:
    """Character language model of gated recurrent units.

    ``embedding``, ``units``, ``layers``, ``dropout`` and ``tied`` as for ``char_lstm``.

    >>> import torch
    >>> char_gru((50,), 65, vocabulary=65, units=32)(torch.zeros(2, 50, dtype=torch.int64)).shape
    torch.Size([2, 50, 65])

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014.
    """
    return CharacterModel(
        nn.GRU, shape, outputs, embedding, units, layers, dropout, vocabulary, tied
    )


class ConvolvedCharacters(nn.Module):
    """See ``char_cnn_lstm``."""

    def __init__(
        self,
        outputs: int,
        context: int,
        embedding: int,
        units: int,
        layers: int,
        dropout: float,
        ngrams: tuple[int, ...],
        vocabulary: int,
    ):
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.enter = nn.Linear(context * embedding, units)
        self.drop_in = Dropout(dropout)
        self.recurrent = Recurrent(nn.LSTM, units, units, layers, dropout=dropout)
        self.norm = nn.LayerNorm(units)
        self.drop_out = Dropout(dropout)
        self.head = nn.Linear(units, outputs)
        self.ngrams = NgramLogits(ngrams, outputs) if ngrams else None

    def forward(self, x: Tensor) -> Tensor:
        e = self.embedding(x)  # [B, T, embedding]
        steps = e.shape[1]
        past = [F.pad(e, (0, 0, k, 0))[:, :steps] for k in range(1, self.context)]
        y = self.drop_in(F.silu(self.enter(torch.cat([e, *past], -1))))  # [B, T, units]
        z = self.head(self.drop_out(self.norm(y + self.recurrent(y))))  # [B, T, K]
        return z if self.ngrams is None else z + self.ngrams(x)


class NgramLogits(nn.Module):
    """Logits of the next symbol from the last n, for each n of ``orders``, summed: (T,) -> (T, K)."""

    def __init__(self, orders: tuple[int, ...], outputs: int):
        super().__init__()
        self.orders = orders
        fewer = 2 ** max(0, math.ceil(math.log2(NGRAM_WEIGHTS / outputs)))
        self.rows = min(NGRAM_ROWS, fewer)
        self.tables = nn.ModuleList(ZeroEmbedding(self.rows, outputs) for _ in orders)

    def forward(self, x: Tensor) -> Tensor:
        codes = _ngram_codes(x, max(self.orders))
        pairs = zip(self.orders, self.tables, strict=True)
        logits = [table(codes[n - 1] % self.rows) for n, table in pairs]  # [B, T, K] each
        return NGRAM_SCALE * torch.stack(logits).sum(0)


class ZeroEmbedding(nn.Embedding):
    """An embedding that begins at 0."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


def _ngram_codes(x: Tensor, longest: int) -> list[Tensor]:
    """Of each step of x [B, T] a number for the last 1, 2, …, ``longest`` symbols, [B, T] each: a
    polynomial modulo a prime, zeros before the first step.

    >>> a, b = _ngram_codes(torch.tensor([[3, 5, 3, 5, 9]]), 2)
    >>> bool(a[0, 0] == a[0, 2]), bool(b[0, 1] == b[0, 3]), bool(b[0, 1] == b[0, 2])
    (True, True, False)
    """
    codes = [x + 1]
    for back in range(1, longest):
        earlier = F.pad(x + 1, (back, 0))[:, : x.shape[1]]
        codes.append((codes[-1] * _FACTOR + earlier) % _PRIME)
    return codes


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
        need_sequences(shape, (1,))
        self.embedding = nn.Embedding(symbols(vocabulary or outputs), embedding)
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
