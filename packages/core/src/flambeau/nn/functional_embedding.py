"""Functions of ``flambeau.nn.functional`` on tables of rows: embedding, bags of embeddings, and bilinear maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends, ops
from ..ops.index import embedding_grad
from ..ops.matmul import linear
from ..tensor import Tensor


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """sum over i, j of input1[i] weight[k, i, j] input2[j] + bias[k] along the last dimensions"""
    outputs, width1, width2 = weight.shape
    pairs = (input1.unsqueeze(-1) * input2.unsqueeze(-2)).flatten(-2)
    return linear(pairs, weight.reshape(outputs, width1 * width2), bias)


def _row(padding_idx: int | None, weight: Tensor) -> int | None:
    if padding_idx is None:
        return None
    rows = weight.shape[0]
    if not -rows <= padding_idx < rows:
        raise ValueError(f"padding_idx {padding_idx} must be within the {rows} embeddings")
    return padding_idx % rows


def _renormalize(weight: Tensor, input: Tensor, max_norm: float, norm_type: float) -> None:
    """Rows that ``input`` names and whose norm is above ``max_norm`` are scaled down to it, in place."""
    xp = backends.of(weight.array).xp
    rows = xp.unique(input.array)
    values = weight.array[rows]
    norms = xp.linalg.norm(values, norm_type, 1)
    long = norms > max_norm
    weight.array[rows[long]] = values[long] * (max_norm / (norms[long] + 1e-7))[:, None]
    weight._bump_version()


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of ``weight`` at the indices ``input``; the row ``padding_idx`` gets no gradient.

    ``max_norm`` first shortens the rows used, in place; ``scale_grad_by_freq`` divides each row's gradient by how often
    it is used. ``sparse=True`` raises NotImplementedError: there are no sparse gradients.
    """
    if sparse:
        raise NotImplementedError("embedding: sparse gradients are not supported; leave out sparse=True")
    padding_idx = _row(padding_idx, weight)
    if max_norm is not None:
        _renormalize(weight, input, max_norm, norm_type)
    rows = ops.embedding(input, weight, padding_idx)
    if not scale_grad_by_freq or not rows.requires_grad:
        return rows
    xp = backends.of(weight.array).xp
    counts = xp.bincount(input.array.ravel(), minlength=weight.shape[0])[input.array]
    share = Tensor._wrap((1 / counts).astype(weight.array.dtype)[..., None])
    # The same values; of the gradient only the share 1 / count arrives.
    return rows.detach() + (rows - rows.detach()) * share


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sums, means or maxima of the rows of ``weight`` (V, D) that each bag names: (bags, D).

    input: (B, L), one bag a row; or (L,), bags starting at ``offsets`` (B,), with ``include_last_offset`` also their
    end. Indices ``padding_idx`` do not count; an empty bag gives zeros. ``per_sample_weights``, like the input, are for
    mode "sum".
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"embedding_bag: mode must be 'sum', 'mean' or 'max', not {mode!r}")
    if per_sample_weights is not None:
        if mode != "sum":
            raise NotImplementedError(f"embedding_bag: per_sample_weights are for mode='sum' only, not {mode!r}")
        if tuple(per_sample_weights.shape) != tuple(input.shape):
            raise ValueError(
                f"embedding_bag: per_sample_weights {list(per_sample_weights.shape)} must have the shape of the input "
                f"{list(input.shape)}"
            )
        per_sample_weights = per_sample_weights.reshape(-1)
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("embedding_bag: scale_grad_by_freq is not supported with mode='max'")
    padding_idx = _row(padding_idx, weight)
    backend = backends.of(weight.array)
    xp = backend.xp
    bag, bags = _bags(xp, input, offsets, include_last_offset)
    flat = input.reshape(-1)
    used = None if padding_idx is None else flat.array != padding_idx
    if mode == "max":
        if max_norm is not None:
            _renormalize(weight, flat, max_norm, norm_type)
        return _bag_maxima(weight, flat.array, bag, bags, used)
    rows = embedding(flat, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    share = per_sample_weights
    if used is not None:
        mask = Tensor._wrap(used.astype(weight.array.dtype))
        share = mask if share is None else share * mask
    if share is not None:
        rows = rows * share.unsqueeze(-1)
    total = embedding_grad(rows, Tensor._wrap(bag), (bags, weight.shape[1]))
    if mode == "sum":
        return total
    counts = xp.bincount(bag if used is None else bag[used], minlength=bags)
    return total / Tensor._wrap(xp.maximum(counts, 1).astype(weight.array.dtype)[:, None])


def _bags(xp: Any, input: Tensor, offsets: Tensor | None, include_last: bool) -> tuple[Any, int]:
    """The bag of each index, in order, and the number of bags."""
    if input.ndim == 2:
        if offsets is not None:
            raise ValueError("embedding_bag: offsets must be None when the input is 2-d, one bag a row")
        return xp.repeat(xp.arange(input.shape[0]), input.shape[1]), input.shape[0]
    if input.ndim != 1:
        raise ValueError(f"embedding_bag: the input must be 1-d or 2-d, not {input.ndim}-d")
    if offsets is None or offsets.ndim != 1:
        raise ValueError("embedding_bag: a 1-d input needs 1-d offsets, where each bag starts")
    starts = offsets.array
    if not len(starts) or int(starts[0]) != 0:
        raise ValueError("embedding_bag: offsets[0] has to be 0, so that the first bag starts at the first index")
    if int(starts[-1]) > input.shape[0] or bool((starts[1:] < starts[:-1]).any()):
        raise ValueError(f"embedding_bag: offsets must ascend, to at most the number of indices {input.shape[0]}")
    starts = starts[:-1] if include_last else starts
    return xp.searchsorted(starts, xp.arange(input.shape[0]), side="right") - 1, len(starts)


def _bag_maxima(weight: Tensor, flat: Any, bag: Any, bags: int, used: Any) -> Tensor:
    """Per bag and column the largest entry; found on a padded block, then gathered, so that its gradient is exact."""
    xp = backends.of(weight.array).xp
    if used is not None:
        flat, bag = flat[used], bag[used]
    counts = xp.bincount(bag, minlength=bags)
    longest = int(counts.max()) if len(counts) else 0
    if not longest:
        return ops.zeros_like(weight[:1]).expand(bags, weight.shape[1]) * 1
    place = xp.arange(len(flat)) - (xp.cumsum(counts) - counts)[bag]
    rows = xp.zeros((bags, longest), np.int64)
    rows[bag, place] = flat
    block = weight.array[rows]
    block[xp.arange(longest) >= counts[:, None]] = -np.inf
    best = xp.take_along_axis(rows, xp.argmax(block, 1), 1)
    picked = ops.gather(weight, 0, Tensor._wrap(best))
    full = Tensor._wrap(counts[:, None] > 0)
    return ops.where(full, picked, 0.0)
