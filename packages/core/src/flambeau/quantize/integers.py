"""Rounding a weight matrix to integers with scales."""

from __future__ import annotations

from typing import Any

from .. import backends, ops
from ..tensor import Tensor

#: Scales tried for each group of 4-bit numbers, as parts of the one that reaches its largest element.
CANDIDATES = tuple(1 - 0.025 * i for i in range(15))


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 weights (out, in) and float32 scales (out,): each row's largest element becomes 127 or -127.

    >>> import flambeau
    >>> weight, scale = to_int8(flambeau.tensor([[0.5, -1.0], [0.0, 0.0]]))
    >>> weight.tolist()
    [[64, -127], [0, 0]]
    """
    xp, rows = _matrix(weight)
    scale = xp.abs(rows).max(1) / 127
    inverse = xp.where(scale > 0, 1 / xp.where(scale > 0, scale, 1), 0)
    return Tensor._wrap(xp.rint(rows * inverse[:, None]).astype("int8")), Tensor._wrap(scale)


def to_int4(weight: Tensor, group: int = 64) -> tuple[Tensor, Tensor]:
    """Packed 4-bit weights (out, ceil(in / 2)) and float32 scales (out, ceil(in / group)), see `dequantize_int4`.

    Each group of a row gets the scale, of fifteen between the one that reaches its largest element and 65 % of it
    (and the same with the sign that makes this element -8, not 7), whose squared error is smallest.

    Raises:
        ValueError: the group is not a positive number.
    """
    if group < 1:
        raise ValueError(f"group must be at least 1, not {group}")
    xp, rows = _matrix(weight)
    out, features = rows.shape
    count = -(-features // group)
    padded = xp.zeros((out, count * group), "float32")
    padded[:, :features] = rows
    groups = padded.reshape(out, count, group)
    largest = xp.take_along_axis(groups, xp.abs(groups).argmax(2)[..., None], 2)[..., 0]
    best = error = values = None
    for reach in (xp.abs(largest) / 7, largest / -8):
        for part in CANDIDATES:
            scale = reach * xp.float32(part)
            inverse = xp.where(scale != 0, 1 / xp.where(scale != 0, scale, 1), 0)
            found = xp.clip(xp.rint(groups * inverse[..., None]), -8, 7)
            miss = xp.square(found * scale[..., None] - groups).sum(2)
            if best is None:
                best, error, values = scale, miss, found
                continue
            better = miss < error
            best, error = xp.where(better, scale, best), xp.where(better, miss, error)
            values = xp.where(better[..., None], found, values)
    nibbles = (values.reshape(out, -1)[:, :features] + 8).astype("uint8")
    if features % 2:
        nibbles = xp.concatenate([nibbles, xp.full((out, 1), 8, "uint8")], 1)
    return Tensor._wrap(nibbles[:, ::2] | nibbles[:, 1::2] << 4), Tensor._wrap(best.astype("float32"))


def _matrix(weight: Tensor) -> tuple[Any, Any]:
    array = weight.array
    if array.ndim != 2 or array.dtype.kind not in "fV":
        raise ValueError(f"only matrices of floats can be quantized, not shape {tuple(array.shape)} of {weight.dtype}")
    xp = backends.of(array).xp
    rows = array.astype("float32")
    if not xp.isfinite(rows).all():
        raise ValueError("the weights hold a NaN or an infinity, which no integer stands for")
    return xp, rows


def rows_of(weight: Tensor, scale: Tensor, ids: Tensor, features: int, group: int | None) -> Tensor:
    """The rows of quantized weights that `ids` names, as floats (*ids, features)."""
    flat = ids.reshape(-1)
    chosen, scales = weight[flat], scale[flat]
    rows = (
        ops.dequantize_int8(chosen, scales)
        if group is None
        else ops.dequantize_int4(chosen, scales, features, group)
    )
    return rows.reshape(*ids.shape, features)
