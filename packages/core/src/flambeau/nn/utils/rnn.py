"""Sequences of different lengths: padded to one tensor, or packed row by row so that no padding is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ... import ops
from ...tensor import Tensor


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """The rows of all sequences, time step by time step, longest sequence first.

    data: (total rows, *). batch_sizes: how many sequences are still running at each step. sorted_indices: the order
    of the sequences by length; unsorted_indices: its inverse. Made by :func:`pack_padded_sequence` and
    :func:`pack_sequence`; the recurrent layers take and return it.
    """

    def __new__(
        cls,
        data: Tensor,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if batch_sizes is None:
            raise ValueError("PackedSequence needs batch_sizes; use pack_sequence or pack_padded_sequence to make one")
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """With the data on another device or in another dtype; the batch sizes stay on the CPU."""
        data = self.data.to(*args, **kwargs)
        order, back = (
            None if indices is None else indices.to(data.device)
            for indices in (self.sorted_indices, self.unsorted_indices)
        )
        return type(self)(data, self.batch_sizes, order, back)

    def cpu(self) -> PackedSequence:
        return self.to("cpu")

    def cuda(self, device: Any = None) -> PackedSequence:
        return self.to("cuda" if device is None else device)

    def float(self) -> PackedSequence:
        return self._with(self.data.float())

    def double(self) -> PackedSequence:
        return self._with(self.data.double())

    def half(self) -> PackedSequence:
        return self._with(self.data.half())

    def _with(self, data: Tensor) -> PackedSequence:
        return type(self)(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)

    @property
    def is_cuda(self) -> bool:
        """Whether the data is on a GPU."""
        return self.data.is_cuda


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes ``permutation``; None stays None."""
    if permutation is None:
        return None
    return permutation.argsort(0)


def _indices(values: np.ndarray, like: Tensor) -> Tensor:
    return ops.tensor(values, device=like.device)


def _lengths(lengths: Any, batch: int) -> np.ndarray:
    values = np.asarray(lengths.tolist() if isinstance(lengths, Tensor) else [int(n) for n in lengths], np.int64)
    if values.ndim != 1 or len(values) != batch:
        raise RuntimeError(f"expected one length per sequence ({batch}), got lengths of shape {values.shape}")
    if batch == 0 or (values <= 0).any():
        raise RuntimeError(
            "the length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    return values


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs sequences padded to (T, B, *), or (B, T, *) with ``batch_first``.

    ``enforce_sorted=True`` demands that the lengths do not increase; otherwise the sequences are sorted here and
    restored by :func:`pad_packed_sequence`.

    Raises:
        RuntimeError: lengths that are unsorted, not positive, longer than T, or not one per sequence.

    >>> import flambeau
    >>> packed = pack_padded_sequence(flambeau.tensor([[1, 2], [3, 0]]), [2, 1], batch_first=True)
    >>> packed.data, packed.batch_sizes
    (tensor([1, 3, 2]), tensor([2, 1]))
    """
    if input.ndim < 2 or 0 in input.shape:
        raise RuntimeError(f"pack_padded_sequence: cannot pack an empty tensor or one of shape {tuple(input.shape)}")
    steps, batch = (input.shape[1], input.shape[0]) if batch_first else (input.shape[0], input.shape[1])
    values = _lengths(lengths, batch)
    order = None
    if enforce_sorted:
        if (values[1:] > values[:-1]).any():
            raise RuntimeError(
                "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True; "
                "pass enforce_sorted=False and the sequences are sorted for you"
            )
        rows = np.arange(batch)
    else:
        rows = np.argsort(-values, kind="stable")
        values = values[rows]
        order = _indices(rows, input)
    if values[0] > steps:
        raise RuntimeError(f"a sequence of length {values[0]} does not fit into the {steps} time steps of the input")
    sizes = (values[:, None] > np.arange(values[0])).sum(0)
    which = np.concatenate([rows[:n] for n in sizes])
    when = np.repeat(np.arange(len(sizes)), sizes)
    position = which * steps + when if batch_first else when * batch + which
    data = input.reshape(steps * batch, *input.shape[2:]).index_select(0, _indices(position, input))
    return PackedSequence(data, ops.tensor(sizes), order)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`pack_padded_sequence`: the padded tensor (T, B, *), or (B, T, *), and the lengths.

    Raises:
        ValueError: ``total_length`` is shorter than the longest sequence.
    """
    data, batch_sizes, _, unsorted = sequence
    sizes = np.asarray(batch_sizes.tolist(), np.int64)
    steps, batch = len(sizes), int(sizes[0])
    if total_length is not None:
        if total_length < steps:
            raise ValueError(
                "Expected total_length to be at least the length of the longest sequence in input, "
                f"but got total_length={total_length} and max sequence length being {steps}"
            )
        steps = total_length
    position = np.full((steps, batch), data.shape[0], np.int64)  # padding: the row after the last
    running = np.arange(batch) < sizes[:, None]
    position[: len(sizes)][running] = np.arange(data.shape[0])
    lengths = running.sum(0)
    if unsorted is not None:
        back = np.asarray(unsorted.tolist(), np.int64)
        position, lengths = position[:, back], lengths[back]
    if batch_first:
        position = position.T
    padding = ops.full((1, *data.shape[1:]), padding_value, dtype=data.dtype, device=data.device)
    rows = ops.cat([data, padding], 0).index_select(0, _indices(position.reshape(-1), data))
    return rows.reshape(*position.shape, *data.shape[1:]), ops.tensor(lengths)


def pad_sequence(
    sequences: Tensor | Iterable[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Stacks tensors (T_i, *) to (T, B, *), or (B, T, *), filled up to the longest on ``padding_side``.

    >>> import flambeau
    >>> pad_sequence([flambeau.tensor([1, 2]), flambeau.tensor([3])], batch_first=True)
    tensor([[1, 2],
            [3, 0]])
    """
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"padding_side should be 'left' or 'right', got {padding_side!r}")
    sequences = list(sequences)
    if not sequences:
        raise RuntimeError("pad_sequence: received an empty list of sequences")
    trailing = tuple(sequences[0].shape[1:])
    longest = max(s.shape[0] for s in sequences)
    rows = []
    for s in sequences:
        if tuple(s.shape[1:]) != trailing:
            raise RuntimeError(f"pad_sequence: sequences of shapes {tuple(sequences[0].shape)} and {tuple(s.shape)}")
        missing = longest - s.shape[0]
        if missing:
            padding = ops.full((missing, *trailing), padding_value, dtype=s.dtype, device=s.device)
            s = ops.cat([s, padding] if padding_side == "right" else [padding, s], 0)
        rows.append(s)
    return ops.stack(rows, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded tensor, each cut to its length (padding on the right)."""
    if not batch_first:
        padded_sequences = padded_sequences.transpose(0, 1)
    return [padded_sequences[k, : int(n)] for k, n in enumerate(lengths)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs tensors (T_i, *) of different lengths."""
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a :class:`PackedSequence`, in their first order."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
