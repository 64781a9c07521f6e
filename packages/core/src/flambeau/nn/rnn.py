"""Recurrent layers: RNN, LSTM, GRU and their cells."""

from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..ops.recurrent import gru_sequence, lstm_sequence, rnn_sequence
from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import new_parameter
from .utils.rnn import PackedSequence

_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "GRU": 3, "LSTM": 4}
State = Any  # a hidden state, or for LSTM a pair (hidden, cell)


def _step(mode: str, projected: Tensor, state: State, w_hh: Any, b_hh: Tensor | None, w_hr: Tensor | None) -> State:
    """One time step from the projected input ``x @ w_ih.T + b_ih``."""
    if mode == "LSTM":
        hidden, cell = state
        i, f, g, o = (projected + F.linear(hidden, w_hh, b_hh)).chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        return (hidden if w_hr is None else F.linear(hidden, w_hr)), cell
    if mode == "GRU":
        x_r, x_z, x_n = projected.chunk(3, -1)
        h_r, h_z, h_n = F.linear(state, w_hh, b_hh).chunk(3, -1)
        update = (x_z + h_z).sigmoid()
        candidate = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
        return candidate + update * (state - candidate)
    summed = projected + F.linear(state, w_hh, b_hh)
    return summed.tanh() if mode == "RNN_TANH" else summed.relu()


class RNNBase(Module):
    """What RNN, LSTM and GRU share. Weights are ``weight_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0``, ``bias_hh_l0``,
    ``weight_hr_l0`` (projection), with the layer's number and ``_reverse`` for the second direction.

    The input projections of all time steps are done in one product.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout should be a number in range [0, 1], got {dropout}")
        if hidden_size <= 0 or num_layers <= 0:
            raise ValueError("hidden_size and num_layers must be greater than zero")
        if proj_size and (mode != "LSTM" or not 0 < proj_size < hidden_size):
            raise ValueError("proj_size is for LSTM only and must be smaller than hidden_size")
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        gates = _GATES[mode] * hidden_size
        output_size = proj_size or hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else output_size * (1 + bidirectional)
            for suffix in self._suffixes(layer):
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, width), "weight_hh": (gates, output_size)}
                if bias:
                    shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                for name, shape in shapes.items():
                    setattr(self, name + suffix, new_parameter(*shape, device=device, dtype=dtype))
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"] if self.bidirectional else [f"_l{layer}"]

    @property
    def all_weights(self) -> list[list[Any]]:
        """The weights of each layer and direction."""
        return [
            [tensor for name, tensor in self._parameters.items() if name.endswith(suffix)]
            for layer in range(self.num_layers)
            for suffix in self._suffixes(layer)
        ]

    def reset_parameters(self) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing to do here; kept for programs that call it."""

    def forward(self, input: Any, hx: State = None) -> tuple[Any, State]:
        """(T, N, input_size), or (N, T, input_size) with ``batch_first``, or (T, input_size), or a
        :class:`~flambeau.nn.utils.rnn.PackedSequence`, and an initial state of (layers * directions, N, size);
        returns all outputs of the last layer, packed if the input was, and the final state."""
        if isinstance(input, PackedSequence):
            order = input.sorted_indices
            hx = hx if order is None else _map_state(lambda t: t.index_select(1, order), hx)
            data, final = self._layers(self._checked(input.data, 2), hx, tuple(input.batch_sizes.tolist()))
            back = input.unsorted_indices
            final = final if back is None else _map_state(lambda t: t.index_select(1, back), final)
            return PackedSequence(data, input.batch_sizes, order, back), final
        if input.ndim not in (2, 3):
            raise ValueError(f"{self._get_name()}: expected input to be 2D or 3D, got {input.ndim}D instead")
        batched = input.ndim == 3
        for part in hx if isinstance(hx, tuple | list) else () if hx is None else (hx,):
            if part.ndim != input.ndim:
                raise RuntimeError(
                    f"for {'batched 3-D' if batched else 'unbatched 2-D'} input, hx should also be {input.ndim}-D, "
                    f"got {part.ndim}-D"
                )
        if not batched:
            input = input.unsqueeze(1)
            hx = _map_state(lambda t: t.unsqueeze(1), hx)
        elif self.batch_first:
            input = input.transpose(0, 1)
        steps, batch, _ = self._checked(input, 3).shape
        if not steps:
            raise RuntimeError(f"{self._get_name()}: expected at least one time step, got {tuple(input.shape)}")
        rows, final = self._layers(input.reshape(steps * batch, self.input_size), hx, (batch,) * steps)
        output = rows.reshape(steps, batch, rows.shape[1])
        if not batched:
            return output.squeeze(1), _map_state(lambda t: t.squeeze(1), final)
        return (output.transpose(0, 1) if self.batch_first else output), final

    def _checked(self, input: Tensor, ndim: int) -> Tensor:
        if input.ndim != ndim or input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}"
            )
        if input.dtype is not self.weight_ih_l0.dtype:
            raise ValueError(
                f"{self._get_name()}: input has dtype {input.dtype} but the weights have {self.weight_ih_l0.dtype}; "
                "convert one of them with .to(dtype)"
            )
        return input

    def _layers(self, rows: Tensor, hx: State, batch_sizes: tuple[int, ...]) -> tuple[Tensor, State]:
        """All layers and directions on the rows of a packed sequence."""
        states = self._initial_states(rows, hx, batch_sizes[0])
        finals: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self._suffixes(layer):
                state = states[len(finals)]
                output, final = self._run(rows, state, suffix, batch_sizes, suffix.endswith("_reverse"))
                outputs.append(output)
                finals.append(final)
            rows = outputs[0] if len(outputs) == 1 else ops.cat(outputs, -1)
            if self.dropout and self.training and layer < self.num_layers - 1:
                rows = F.dropout(rows, self.dropout, True)
        if self.mode == "LSTM":
            return rows, (_stacked([h for h, _ in finals]), _stacked([c for _, c in finals]))
        return rows, _stacked(finals)

    def _initial_states(self, input: Tensor, hx: State, batch: int) -> list[State]:
        """The state of each layer and direction."""
        rows = self.num_layers * (1 + self.bidirectional)
        sizes = [self.proj_size or self.hidden_size] + ([self.hidden_size] if self.mode == "LSTM" else [])
        if hx is None:
            zeros = [ops.zeros(batch, size, dtype=input.dtype, device=input.device) for size in sizes]
            return [tuple(zeros) if self.mode == "LSTM" else zeros[0]] * rows
        parts = list(hx) if self.mode == "LSTM" else [hx]
        for part, size in zip(parts, sizes, strict=True):
            if tuple(part.shape) != (rows, batch, size):
                raise RuntimeError(f"Expected hidden size {(rows, batch, size)}, got {list(part.shape)}")
        return [tuple(part[i] for part in parts) if self.mode == "LSTM" else parts[0][i] for i in range(rows)]

    def _run(
        self, input: Tensor, state: State, suffix: str, batch_sizes: tuple[int, ...], reverse: bool
    ) -> tuple[Tensor, State]:
        """All time steps of one layer in one direction: (rows, size) of all steps, as in a packed sequence."""
        weights = self._parameters
        w_hh, b_ih, b_hh = (weights.get(name + suffix) for name in ("weight_hh", "bias_ih", "bias_hh"))
        apart = self.mode == "GRU"  # the reset gate stands between the two biases
        bias = b_ih if apart or b_ih is None else b_ih + b_hh
        projected = F.linear(input, weights["weight_ih" + suffix], bias)
        if self.mode == "LSTM":
            w_hr = weights.get("weight_hr" + suffix)
            h, c = state
            output, h, c, *_ = lstm_sequence(projected, h, c, w_hh, w_hr, batch_sizes, reverse)
            return output, (h, c)
        if apart:
            output, h, *_ = gru_sequence(projected, state, w_hh, b_hh, batch_sizes, reverse)
        else:
            output, h = rnn_sequence(projected, state, w_hh, self.nonlinearity, batch_sizes, reverse)
        return output, h

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (
            ("proj_size", 0),
            ("num_layers", 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0),
            ("bidirectional", False),
        ):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


def _stacked(states: list[Any]) -> Any:
    """The last states of all layers and directions as one tensor."""
    return states[0].unsqueeze(0) if len(states) == 1 else ops.stack(states)


def _map_state(fn: Any, state: State) -> State:
    if state is None:
        return None
    return tuple(fn(part) for part in state) if isinstance(state, tuple | list) else fn(state)


class RNN(RNNBase):
    """Elman network: h = tanh(x @ w_ih.T + b_ih + h @ w_hh.T + b_hh), or relu.

    >>> import flambeau
    >>> output, h = RNN(10, 20, num_layers=2)(flambeau.randn(5, 3, 10))
    >>> output.shape, h.shape
    (flambeau.Size([5, 3, 20]), flambeau.Size([2, 3, 20]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"unknown nonlinearity {nonlinearity!r}: select from 'tanh' or 'relu'")
        super().__init__(
            f"RNN_{nonlinearity.upper()}",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter & Schmidhuber 1997); gates in the order i, f, g, o.

    ``proj_size`` multiplies the hidden state by a learnt matrix after each step (Sak et al. 2014).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )


class GRU(RNNBase):
    """Gated recurrent unit (Cho et al. 2014); gates in the order r, z, n."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )


class RNNCellBase(Module):
    """One time step on (N, input_size) or (input_size); the public cells only set the mode."""

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, bias: bool, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = _GATES[mode] * hidden_size
        self.weight_ih = new_parameter(gates, input_size, device=device, dtype=dtype)
        self.weight_hh = new_parameter(gates, hidden_size, device=device, dtype=dtype)
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, new_parameter(gates, device=device, dtype=dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def forward(self, input: Tensor, hx: State = None) -> State:
        if input.ndim not in (1, 2):
            raise ValueError(f"{type(self).__name__}: expected input to be 1D or 2D, got {input.ndim}D instead")
        if hx is None:
            zeros = ops.zeros(*input.shape[:-1], self.hidden_size, dtype=input.dtype, device=input.device)
            hx = (zeros, zeros) if self.mode == "LSTM" else zeros
        projected = F.linear(input, self.weight_ih, self.bias_ih)
        return _step(self.mode, projected, hx, self.weight_hh, self.bias_hh, None)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        return text + (", nonlinearity=relu" if self.mode == "RNN_RELU" else "")


class RNNCell(RNNCellBase):
    """One step of :class:`RNN`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity


class LSTMCell(RNNCellBase):
    """One step of :class:`LSTM`; takes and returns a pair (hidden, cell)."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__("LSTM", input_size, hidden_size, bias, device, dtype)


class GRUCell(RNNCellBase):
    """One step of :class:`GRU`."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__("GRU", input_size, hidden_size, bias, device, dtype)
