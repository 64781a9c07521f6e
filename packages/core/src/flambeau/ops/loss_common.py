"""What all losses share: reductions, and shapes that must not broadcast by accident."""

from __future__ import annotations

from typing import Any

import numpy as np

from .reduce import mean, sum
from .shape import broadcast_tensors


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """PyTorch's former pair of flags as the `reduction` that it stands for."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


def _reduce(loss: Any, reduction: str) -> Any:
    if reduction == "mean":
        return mean(loss)
    if reduction == "sum":
        return sum(loss)
    if reduction == "none":
        return loss
    raise ValueError(f"{reduction!r} is not a valid value for reduction: use 'none', 'mean' or 'sum'")


def _shape_error(name: str, input: Any, target: Any) -> ValueError:
    return ValueError(
        f"{name}: input has shape {list(input.shape)} but target {list(target.shape)}; "
        "make them equal, for example with .squeeze(-1) or .unsqueeze(-1)"
    )


def _refuse_column(name: str, input: Any, target: Any) -> None:
    """(n, 1) against (n,) would silently give (n, n), the shape of neither: that is never what is meant."""
    if tuple(input.shape) != tuple(target.shape):
        try:
            joint = np.broadcast_shapes(tuple(input.shape), tuple(target.shape))
        except ValueError:
            raise _shape_error(name, input, target) from None
        if joint not in (tuple(input.shape), tuple(target.shape)):
            raise _shape_error(name, input, target)


def _same(name: str, input: Any, target: Any) -> tuple:
    """Broadcast only where nobody can be surprised."""
    if tuple(input.shape) != tuple(target.shape):
        _refuse_column(name, input, target)
        pair = broadcast_tensors(input, target)
        wider = tuple(pair[0].shape) != tuple(input.shape) or input.ndim != target.ndim
        if wider and input.ndim and target.ndim:
            raise _shape_error(name, input, target)
        return pair
    return input, target


def _weighted(loss: Any, weight: Any, reduction: str) -> Any:
    """With a weight for each element the mean is the weighted one."""
    if weight is None:
        return _reduce(loss, reduction)
    return sum(loss * weight) / sum(weight) if reduction == "mean" else _reduce(loss * weight, reduction)
