"""Recurrent layers over sequences (T, F), by PyTorch's own kernels.

Each of the ``layers`` reads the whole output of the one below. ``output`` last: the state after
the last step, (units,) (default); all: the states of all steps, (T, units). A bidirectional layer
gives both directions side by side: twice the units; its last output is each direction's state at
its own end. In a list of layers whose recurrent layers end in one with output last, sequences that are padded at
their end (symbol 0 before an embedding, else rows of zeros) are read to their own end, as by the models ``rnn``,
``lstm`` and ``gru``; layers between them must act on each step alone (embedding, dense, layer_norm, dropout,
activations). ``dropout`` acts between the layers. Parameters of a layer: weight_ih [gates * units,
F], weight_hh [gates * units, units] and two biases (PyTorch keeps both).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ravine.catalogue import Count, Flag, LayerCount, PerMember, Probability
from ravine.nn.randomized import Dropout
from ravine.nn.stack import Shape, need_rank


def rnn(
    shape: Shape,
    *,
    units: Count,
    layers: LayerCount = 1,
    bidirectional: Flag = False,
    output: Literal["last", "all"] = "last",
    dropout: PerMember[Probability] = 0.0,
    nonlinearity: Literal["tanh", "relu"] = "tanh",
) -> nn.Module:
    """Simple (Elman) recurrence: h_t = tanh(W x_t + U h_{t-1} + b), h_0 = 0.

    ``layers`` is the number of stacked layers, ``bidirectional`` ones read both ways, ``output`` is last or
    all, ``dropout`` acts between the layers. ``nonlinearity`` is tanh or relu.

    Errors: the input is not a sequence (T, F).

    >>> rnn((7, 3), units=4, output="all")(torch.zeros(5, 7, 3)).shape
    torch.Size([5, 7, 4])

    Source: Elman, "Finding structure in time", 1990.
    """
    return _recurrent(
        nn.RNN, shape, units, layers, bidirectional, output, dropout, nonlinearity=nonlinearity
    )


def lstm(
    shape: Shape,
    *,
    units: Count,
    layers: LayerCount = 1,
    bidirectional: Flag = False,
    output: Literal["last", "all"] = "last",
    dropout: PerMember[Probability] = 0.0,
) -> nn.Module:
    """Long short-term memory: c_t = f c_{t-1} + i g, h_t = o tanh(c_t).

    The gates i, f, o are sigmoid(W x_t + U h_{t-1} + b), each with weights of its own, g = tanh(W
    x_t + U h_{t-1} + b).

    ``layers`` is the number of stacked layers, ``bidirectional`` ones read both ways, ``output`` is last or
    all, ``dropout`` acts between the layers. In a list of layers, with ``layer_norm`` between them or
    not, padded sequences are read to their own end where the last recurrent layer's ``output`` is last.

    Errors: the input is not a sequence (T, F).

    >>> lstm((7, 3), units=4, layers=2)(torch.zeros(5, 7, 3)).shape
    torch.Size([5, 4])

    Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997; forget gate: Gers,
    Schmidhuber and Cummins, 2000.
    """
    return _recurrent(nn.LSTM, shape, units, layers, bidirectional, output, dropout)


def gru(
    shape: Shape,
    *,
    units: Count,
    layers: LayerCount = 1,
    bidirectional: Flag = False,
    output: Literal["last", "all"] = "last",
    dropout: PerMember[Probability] = 0.0,
) -> nn.Module:
    """Gated recurrent unit: h_t = (1 - z) n + z h_{t-1}, n = tanh(W x_t + b + r (U h_{t-1} + c)),
    r, z sigmoid gates.

    This is PyTorch's form: the reset gate r acts after the product with U (in the paper, before
    it).

    ``layers`` is the number of stacked layers, ``bidirectional`` ones read both ways, ``output`` is last or
    all, ``dropout`` acts between the layers.

    Errors: the input is not a sequence (T, F).

    >>> gru((7, 3), units=4, bidirectional=True)(torch.zeros(5, 7, 3)).shape
    torch.Size([5, 8])

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014.
    """
    return _recurrent(nn.GRU, shape, units, layers, bidirectional, output, dropout)


class Recurrent(nn.Module):
    """Recurrent layers one on the other, with stateless dropout between them.

    ``forward(x, lengths)``: x [B, T, F]; with ``lengths`` [B] what lies after a sequence's end is
    not read.
    """

    def __init__(
        self,
        cell: Callable[..., nn.RNNBase],
        inputs: int,
        units: int,
        layers: int = 1,
        bidirectional: bool = False,
        last: bool = False,
        dropout: float = 0.0,
        **options: str,
    ):
        super().__init__()
        width = units * (2 if bidirectional else 1)
        self.cells = nn.ModuleList(
            cell(
                inputs if i == 0 else width,
                units,
                batch_first=True,
                bidirectional=bidirectional,
                **options,
            )
            for i in range(layers)
        )
        self.drops = nn.ModuleList(Dropout(dropout) for _ in range(layers - 1))
        self.last = last

    def to_ends(self, x: Tensor, lengths: Tensor) -> Tensor:
        """``forward(x, lengths)`` without branching on the data, so that it can be exported; read both
        ways it does so in an export alone, where each layer runs twice."""
        both = self.cells[0].bidirectional
        if both and not torch.compiler.is_exporting():
            return self(x, lengths)
        for i, cell in enumerate(self.cells):
            x = self.drops[i - 1](x) if i > 0 else x
            x = _both_ways(cell, x, lengths) if both else cell(x)[0]
        if not self.last:
            return x  # [B, T, units]; what lies after the end is not looked at
        # an index by sample: the gradient of gather takes two to four times as long (CPU)
        found = x[torch.arange(x.shape[0], device=x.device), lengths - 1]  # [B, directions * units]
        if not both:
            return found
        units = self.cells[0].hidden_size
        return torch.cat([found[:, :units], x[:, 0, units:]], 1)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        for i, cell in enumerate(self.cells):
            if i > 0:
                x = self.drops[i - 1](x)
            x, state = cell(x) if lengths is None else _packed(cell, x, lengths)
        if not self.last:
            return x  # [B, T, units]
        hidden = state[0] if isinstance(state, tuple) else state  # [directions, B, units]
        return torch.cat(list(hidden), dim=1)


def _both_ways(cell: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    """What a layer gives that is read both ways [B, T, 2 units]; right up to each sequence's end.

    The way back begins at the last step: sequences are moved to the end, so that no padding is read
    before it, and what was read is moved back.
    """
    steps = torch.arange(x.shape[1], device=x.device)[None]  # [1, T]
    shift = x.shape[1] - lengths[:, None]  # [B, 1]
    moved = _at(x, (steps - shift).clamp_min(0))
    units = cell.hidden_size
    back = cell(moved)[0][..., units:]
    back = _at(back, (steps + shift).clamp_max(x.shape[1] - 1))
    return torch.cat([cell(x)[0][..., :units], back], 2)


def _at(x: Tensor, steps: Tensor) -> Tensor:
    """x [B, T, F] at the steps [B, T] of each sequence."""
    return x.gather(1, steps[..., None].expand(-1, -1, x.shape[2]))


def _packed(cell: nn.Module, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    output, state = cell(packed)
    return pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])[0], state


def _recurrent(
    cell: Callable[..., nn.RNNBase],
    shape: Shape,
    units: int,
    layers: int,
    bidirectional: bool,
    output: str,
    dropout: float,
    **options: str,
) -> Recurrent:
    need_rank(
        shape,
        (2,),
        "sequences (T, F)",
        "put an embedding before it, or reshape the sample to (steps, features)",
    )
    return Recurrent(
        cell, shape[1], units, layers, bidirectional, output == "last", dropout, **options
    )
