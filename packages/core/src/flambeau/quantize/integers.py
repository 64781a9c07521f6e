"""Rounding a weight matrix to integers with scales."""

from __future__ import annotations

from typing import Any

from .. import backends, ops
from ..tensor import Tensor

#: Scales tried for each group of 4-bit numbers, as parts of the one that reaches its largest element.
CANDIDATES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
ROUNDED_AT_ONCE = 1 << 17  # elements, so that the intermediate results stay in the cache


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

    Each group of a row gets the scale whose squared error is smallest: of six between the one that reaches its largest
    element and 75 % of it, and of the same six with the sign that makes this element -8 where it would be 7.

    Raises:
        ValueError: the group is not a positive number.
    """
    if group < 1:
        raise ValueError(f"group must be at least 1, not {group}")
    xp, rows = _matrix(weight)
    features = rows.shape[1]
    step = max(1, ROUNDED_AT_ONCE // max(features, 1))
    parts = [_round_rows(xp, rows[i : i + step], group) for i in range(0, max(len(rows), 1), step)]
    nibbles = xp.concatenate([values for values, _ in parts])[:, :features]
    if features % 2:
        nibbles = xp.concatenate([nibbles, xp.full((len(nibbles), 1), 8, "uint8")], 1)
    packed = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    return Tensor._wrap(packed), Tensor._wrap(xp.concatenate([scale for _, scale in parts]))


def _round_rows(xp: Any, rows: Any, group: int) -> tuple[Any, Any]:
    """Numbers from 0 to 15, with padding behind each row, and their scales."""
    out, features = rows.shape
    count = -(-features // group)
    padded = xp.zeros((out, count * group), "float32")
    padded[:, :features] = rows
    groups = padded.reshape(out, count, group)
    largest = xp.take_along_axis(groups, xp.abs(groups).argmax(2)[..., None], 2)[..., 0]
    best = error = None
    for reach in (xp.abs(largest) / 7, largest / -8):
        for part in CANDIDATES:
            scale = reach * xp.float32(part)
            miss = xp.square(_nearest(xp, groups, scale) * scale[..., None] - groups).sum(2)
            if best is None:
                best, error = scale, miss
            else:
                better = miss < error
                best, error = xp.where(better, scale, best), xp.where(better, miss, error)
    return (_nearest(xp, groups, best) + 8).astype("uint8").reshape(out, -1), best


def _nearest(xp: Any, groups: Any, scale: Any) -> Any:
    inverse = xp.where(scale != 0, 1 / xp.where(scale != 0, scale, 1), 0)
    return xp.clip(xp.rint(groups * inverse[..., None]), -8, 7)


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
