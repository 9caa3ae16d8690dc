"""LSTM, GRU and plain recurrent layers over rows or columns of a map, one step after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from slimseg.frontends.aten.call import Call

LONGEST = 128  # steps; each becomes some fifteen layers
State = tuple[Tensor | None, ...]
Step = Callable[[Tensor, State, Tensor, Tensor | None], State]


def lstm_step(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    """Gates are those of input, forgetting, cell and output, in this order."""
    hidden, cell = state
    given, kept, new, out = (gates + F.linear(hidden, weight, bias) if hidden is not None else gates).chunk(4, -1)
    update = torch.sigmoid(given) * torch.tanh(new)
    cell = update if cell is None else torch.sigmoid(kept) * cell + update
    return torch.sigmoid(out) * torch.tanh(cell), cell


def gru_step(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    """Gates are those of reset and update, and the new value, in this order."""
    (hidden,) = state
    reset, update, new = gates.chunk(3, -1)
    if hidden is None:
        rest = 0.0 if bias is None else bias.chunk(3)[2].reshape(1, -1)
        own = (0.0, 0.0) if bias is None else [each.reshape(1, -1) for each in bias.chunk(3)[:2]]
        new = torch.tanh(new + torch.sigmoid(reset + own[0]) * rest)
        return ((1.0 - torch.sigmoid(update + own[1])) * new,)
    own_reset, own_update, own_new = F.linear(hidden, weight, bias).chunk(3, -1)
    new = torch.tanh(new + torch.sigmoid(reset + own_reset) * own_new)
    kept = torch.sigmoid(update + own_update)
    return (new + kept * (hidden - new),)


def plain_step(function: Callable[[Tensor], Tensor]) -> Step:
    def step(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
        (hidden,) = state
        return (function(gates if hidden is None else gates + F.linear(hidden, weight, bias)),)

    return step


def layers(
    input: Tensor,
    hx: Sequence[Tensor] | None,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    step: Step,
    states: int,
) -> tuple[Tensor]:
    """Layers of one or two directions on (batch, steps, features), or (steps, batch, features).

    `hx` holds the states before the first step, one for each layer and direction; None if they are zero.
    """
    x = input if batch_first else input.transpose(0, 1)
    if input.ndim != 3 or (train and dropout) or x.shape[1] > LONGEST:
        raise NotImplementedError("no sequence, or a long one")
    ways, each = 2 if bidirectional else 1, 4 if has_biases else 2
    if len(params) != num_layers * ways * each:
        raise NotImplementedError("projected states")
    for layer in range(num_layers):
        results = []
        for way in range(ways):
            place = layer * ways + way
            given = list(params[place * each : (place + 1) * each])
            state: State = (None,) * states if hx is None else tuple(one[place] for one in hx)
            results.append(one_way(x, given, state, step, backwards=way == 1))
        x = torch.cat(results, 2) if ways == 2 else results[0]
    return (x if batch_first else x.transpose(0, 1),)


def one_way(x: Tensor, params: Sequence[Tensor], state: State, step: Step, backwards: bool) -> Tensor:
    to_gates, to_own, *biases = params
    is_gated = step is gru_step  # whose new value multiplies what comes from the state, its bias included
    first = biases[0] if biases else None
    own = biases[1] if biases and is_gated else None
    if biases and not is_gated:
        first = biases[0] + biases[1]
    gates = F.linear(x, to_gates, first)
    found: list[Tensor] = []
    for place in _places(x.shape[1], backwards):
        state = step(gates[:, place], state, to_own, own)
        assert state[0] is not None
        found.append(state[0].unsqueeze(1))
    return torch.cat(found[::-1] if backwards else found, 1)


def _places(steps: int, backwards: bool) -> Iterator[int]:
    return iter(range(steps)[::-1] if backwards else range(steps))


def lstm(hx: Any = None, **given: Any) -> tuple[Tensor]:
    return layers(hx=hx, step=lstm_step, states=2, **given)


def with_states(call: Call) -> dict[str, Any]:
    """The arguments of a call, without states that are zero."""
    return {**call.arguments, "hx": None if all(map(_is_zero(call), _listed(call["hx"]))) else _listed(call["hx"])}


def _listed(value: Any) -> list[fx.Node]:
    return [value] if isinstance(value, fx.Node) else list(value)


def _is_zero(call: Call) -> Callable[[fx.Node], bool]:
    return lambda node: node in call.parameters and not bool(call.parameters[node].tensor.any())


def of_kind(step: Step) -> Callable[..., tuple[Tensor]]:
    def run(hx: Any = None, **given: Any) -> tuple[Tensor]:
        return layers(hx=hx, step=step, states=1, **given)

    return run


TABLE = {
    "lstm.input": lstm,
    "gru.input": of_kind(gru_step),
    "rnn_tanh.input": of_kind(plain_step(torch.tanh)),
    "rnn_relu.input": of_kind(plain_step(F.relu)),
}
PREPARED = dict.fromkeys(TABLE, with_states)
