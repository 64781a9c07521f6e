"""What the parts of linear algebra share: shapes, triangles, checks with their messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends
from ..tensor import Tensor
from .logic import conj
from .shape import permute, transpose


class LinAlgError(RuntimeError):
    """A matrix that the operation cannot take: singular, not positive definite, no convergence."""

    _explained = True  # the message is complete: the dispatcher adds nothing


def _array(x: Any) -> Any:
    return x.array if isinstance(x, Tensor) else x


def _dtype(x: Any) -> Any:
    return _array(x).dtype


def _like(x: Any, array: Any) -> Any:
    """`array` as a Tensor when `x` is one: formulas run on both kinds."""
    return Tensor._wrap(array) if isinstance(x, Tensor) else array


def _eye(x: Any, n: int, dtype: Any = None) -> Any:
    raw = _array(x)
    return _like(x, backends.namespace([raw]).eye(n, dtype=raw.dtype if dtype is None else dtype))


def _real_dtype(dtype: Any) -> Any:
    return np.dtype({"c8": "f4", "c16": "f8"}.get(dtype.str[1:], dtype))


def _mT(x: Any) -> Any:
    return transpose(x, -1, -2)


def _mH(x: Any) -> Any:
    return conj(transpose(x, -1, -2))


def _diagonal(x: Any) -> Any:
    """The diagonals of the last two dimensions."""
    from .index import getitem

    n = min(x.shape[-2:])
    i = backends.namespace([_array(x)]).arange(n)
    return getitem(x, (Ellipsis, i, i))


def _last_two(x: Any, dim: tuple[int, int]) -> Any:
    """`x` with the dims `dim` moved to the end."""
    return permute(x, (*[i for i in range(x.ndim) if i not in dim], *dim))


def _check_float(name: str, *tensors: Any) -> None:
    for x in tensors:
        if _dtype(x).kind not in "fcV":
            raise RuntimeError(f"{name}: expected a floating point or complex tensor as input, got {_dtype(x)}")


def _check_matrix(name: str, *tensors: Any) -> None:
    for x in tensors:
        if x.ndim < 2:
            raise RuntimeError(f"{name}: the input tensor must have at least 2 dimensions, not {x.ndim}")


def _check_square(name: str, x: Any) -> None:
    _check_matrix(name, x)
    if x.shape[-1] != x.shape[-2]:
        raise RuntimeError(f"{name}: the input must be batches of square matrices, not {_by(x)}")
    _check_float(name, x)


def _by(x: Any) -> str:
    return "x".join(map(str, x.shape))


def _raise_on(name: str, info: Any, cause: str) -> None:
    """LinAlgError that names the first bad matrix of the batch; `{k}` in `cause` is its info."""
    host = _array(info)
    host = host if isinstance(host, np.ndarray) else host.get()
    if host.any():
        first = int(np.flatnonzero(host)[0])
        where = f" (batch element {first})" if host.ndim else ""
        raise LinAlgError(f"{name}: the matrix{where} " + cause.format(k=int(host.reshape(-1)[first])))


SINGULAR = "is singular: the diagonal element {k} of its U factor is zero"
NOT_POSITIVE = "is not positive-definite: its leading minor of order {k} is not"


def _failing(function: Any, A: Any, *others: Any) -> Any:
    """One result a matrix, for a batch in which some fail: those that do become NaN."""
    outs = []
    flat = A.reshape(-1, *A.shape[-2:])
    others = tuple(o.reshape(-1, *o.shape[-2:]) for o in others)
    for k, a in enumerate(flat):
        try:
            outs.append(function(a, *[o[k] for o in others]))
        except np.linalg.LinAlgError:
            last = others[0][k] if others else a
            outs.append(np.full_like(last, np.nan))
    out = np.stack(outs)
    return out.reshape(A.shape[:-2] + out.shape[1:])
