"""Rows of a table, their gradient, and one-hot codes."""

from __future__ import annotations

import numpy as np

from ._op import op
from .index import _add_slices_at
from .logic import cast
from .shape import unsqueeze

__all__ = ["embedding", "embedding_grad", "index_frequency", "one_hot"]


@op(
    vjp=dict(
        weight=lambda g, input, weight_shape, padding_idx, scale_grad_by_freq: embedding_grad(
            g, input, weight_shape, padding_idx, scale_grad_by_freq
        )
    ),
    samples=lambda t: [
        (t(2, 3, low=0, high=5, dtype="int64"), t(5, 4)),
        (t(4, low=0, high=5, dtype="int64"), t(5, 4), 1),
    ],
    ref=lambda input, weight, padding_idx=None: np.take(weight, input, 0),
    method=False,
)
def embedding(xp, input, weight, padding_idx=None, scale_grad_by_freq=False):
    """Rows of `weight` (V, D) for the integers `input`; the row `padding_idx` gets no gradient.

    scale_grad_by_freq divides the gradient of a row by how often it occurs in `input`.
    """
    if input.dtype.kind not in "iu":
        raise TypeError(f"embedding expects integer indices, not {input.dtype}; use .long()")
    if input.size and (int(input.max()) >= weight.shape[0] or int(input.min()) < 0):
        raise IndexError(
            f"index out of range: the indices span {int(input.min())} to {int(input.max())} "
            f"but the table has {weight.shape[0]} rows"
        )
    return xp.take(weight, input, 0)


@op(
    vjp=dict(
        g=lambda g, index, padding_idx, scale_grad_by_freq: _embed_unpadded(g, index, padding_idx, scale_grad_by_freq)
    ),
    samples=lambda t: [
        (t(4, 3), t(4, low=0, high=5, dtype="int64"), (5, 3)),
        (t(4, 3), t(4, low=0, high=5, dtype="int64"), (5, 3), 1, True),
    ],
    method=False,
)
def embedding_grad(xp, g, index, shape, padding_idx=None, scale_grad_by_freq=False):
    """Rows of `g` added up at `index` into zeros of `shape`: the gradient of an embedding table."""
    rows = g.reshape(-1, shape[1])
    index = index.reshape(-1)
    if padding_idx is not None:
        keep = index != padding_idx % shape[0]
        rows, index = rows[keep], index[keep]
    if scale_grad_by_freq:
        rows = rows / _frequencies(xp, index, shape[0]).astype(g.dtype)[:, None]
    return _add_slices_at(rows, 0, index, shape)  # always in the same order


def _frequencies(xp, index, size):
    return xp.bincount(index, minlength=size)[index] if index.size else index


@op(samples=lambda t: [(t(4, low=0, high=3, dtype="int64"),)], method=False)
def index_frequency(xp, input):
    """How often each non-negative integer of `input` occurs in it, in the place of each."""
    return _frequencies(xp, input.reshape(-1), 0).reshape(input.shape)


def _embed_unpadded(g, index, padding_idx, scale_grad_by_freq):
    out = embedding(index, g)
    if scale_grad_by_freq:
        out = out / cast(unsqueeze(index_frequency(index), -1), "like", out)
    if padding_idx is None:
        return out
    return out * cast(unsqueeze(index != padding_idx % g.shape[0], -1), "like", out)


@op(samples=lambda t: [(t(4, low=0, high=3, dtype="int64"), 3)], method=False)
def one_hot(xp, input, num_classes=-1):
    """0/1 rows (int64): a 1 at the class. Classes are counted from the data when num_classes is -1."""
    if input.size == 0 and num_classes <= 0:
        raise RuntimeError("one_hot: the number of classes cannot be counted from an empty tensor; give num_classes")
    n = int(input.max()) + 1 if num_classes == -1 else num_classes
    if input.size and (int(input.max()) >= n or int(input.min()) < 0):
        raise RuntimeError(f"class values must be between 0 and num_classes - 1 ({n - 1})")
    return (input[..., None] == xp.arange(n)).astype(np.int64)
