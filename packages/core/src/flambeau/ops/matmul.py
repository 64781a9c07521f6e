"""Matrix products: matmul, linear, and matmul's forms for given shapes; `linalg_products.py` has those beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._half import widened
from ._op import method, op
from .activation import gelu, gelu_grad, relu, relu_grad, silu, silu_grad
from .logic import conj
from .reduce import sum
from .shape import reshape, squeeze, transpose, unsqueeze


def _half(xp: Any, a: Any) -> bool:
    """Whether products go through float32: NumPy has slow ones of 16-bit floats, which round each sum."""
    return xp is np and a.dtype.itemsize == 2 and a.dtype.kind in "fV"


def _swap(x: Any) -> Any:
    return conj(transpose(x, -1, -2))


@op(
    vjp=dict(
        input=lambda g, input_shape, other: _matmul_left(g, input_shape, other),
        other=lambda g, input, other_shape: _matmul_right(g, input, other_shape),
    ),
    samples=lambda t: [
        (t(3, 4), t(4, 5)), (t(4), t(4)), (t(3, 4), t(4)), (t(4), t(4, 2)), (t(2, 3, 4), t(4, 5)),
        (t(2, 3, 4), t(2, 4, 2)), (t(3, 4), t(2, 4, 5)), (t(2, 1, 3, 4), t(3, 4, 2)), (t(2, 3, 4), t(4)),
    ],
    promote="same",
    ref=lambda a, b: np.einsum("...ij,...jk->...ik", a, b) if min(a.ndim, b.ndim) > 1 else np.dot(a, b),
)  # fmt: skip
def matmul(xp, input, other):
    """The matrix product; leading dimensions broadcast, vectors are rows (left) or columns (right)."""
    if not input.ndim or not other.ndim:
        raise RuntimeError("matmul needs tensors with at least one dimension each; use * for scalars")
    if input.shape[-1] != other.shape[-2 if other.ndim > 1 else 0]:
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({_by(input)} and {_by(other)})")
    if _half(xp, input):
        return matmul(widened(input), widened(other)).astype(input.dtype)
    if input.ndim > 2 and other.ndim == 2:
        # One large product instead of many small ones.
        out = xp.matmul(input.reshape(math.prod(input.shape[:-1]), input.shape[-1]), other)
        return out.reshape(input.shape[:-1] + other.shape[1:])
    return xp.matmul(input, other)


def _by(a: Any) -> str:
    return "x".join(map(str, a.shape))


def _flat(x: Any) -> Any:
    """All leading dimensions in one (-1 would not do: it is unknown where the last dimension is empty)."""
    return reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _matmul_left(g: Any, shape: tuple, other: Any) -> Any:
    if other.ndim == 1:
        return unsqueeze(g, -1) * conj(other)
    if len(shape) == 1:
        return matmul(conj(other), unsqueeze(g, -1))[..., 0] if other.ndim == 2 else _row(g, shape, other)
    return matmul(g, _swap(other))


def _row(g: Any, shape: tuple, other: Any) -> Any:
    product = squeeze(matmul(conj(other), unsqueeze(g, -1)), -1)
    return sum(product, tuple(range(product.ndim - 1)))


def _matmul_right(g: Any, input: Any, shape: tuple) -> Any:
    if input.ndim == 1:
        return conj(input) * g if len(shape) == 1 else unsqueeze(conj(input), -1) * unsqueeze(g, -2)
    if len(shape) == 1:
        flat = _flat(input)
        return matmul(reshape(g, (-1,)), conj(flat))
    if len(shape) == 2 and input.ndim > 2:
        flat = _flat(input)
        return matmul(_swap(flat), _flat(g))
    return matmul(_swap(input), g)


@op(
    vjp=dict(
        input=lambda g, weight: matmul(g, conj(weight)),
        weight=lambda g, input: matmul(transpose(_flat(g), 0, 1), conj(_flat(input))),
        bias=lambda g: g,
    ),
    samples=lambda t: [(t(3, 4), t(5, 4), t(5)), (t(2, 3, 4), t(5, 4)), (t(4), t(5, 4), t(5))],
    promote="same",
    ref=lambda x, w, b=0: np.einsum("...i,oi->...o", x, w) + b,
    method=False,
)
def linear(xp, input, weight, bias=None):
    """input @ weight.T + bias: input (…, in), weight (out, in), bias (out)."""
    if input.shape[-1:] != weight.shape[-1:]:
        raise RuntimeError(
            f"the last dimension of the input ({_by(input)}) must be {weight.shape[-1]}, the layer's in_features"
        )
    if _half(xp, input):
        return linear(widened(input), widened(weight), None if bias is None else widened(bias)).astype(input.dtype)
    rows = input if input.ndim == 2 else input.reshape(math.prod(input.shape[:-1]), input.shape[-1])
    out = xp.dot(rows, weight.T)  # for small layers half the time of matmul
    if bias is not None:
        out += bias
    return out if input.ndim == 2 else out.reshape(input.shape[:-1] + weight.shape[:1])


_ACTIVATIONS = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, "tanh"),
    "silu": silu,
}


def _linear_activation_grad(g: Any, out: Any, input: Any, weight: Any, bias: Any, kind: str, need: tuple) -> tuple:
    if kind == "relu":
        g = relu_grad(g, out)
    elif kind == "silu":
        g = silu_grad(g, linear(input, weight, bias))
    else:
        g = gelu_grad(g, linear(input, weight, bias), "tanh" if kind == "gelu_tanh" else "none")
    return (
        matmul(g, conj(weight)) if need[0] else None,
        matmul(transpose(_flat(g), 0, 1), conj(_flat(input))) if need[1] else None,
        g if need[2] else None,
    )


@op(
    vjp={("input", "weight", "bias"): _linear_activation_grad},
    samples=lambda t: [
        (t(3, 4), t(5, 4), t(5), "gelu"), (t(2, 3, 4), t(5, 4), None, "silu"), (t(3, 4), t(5, 4), t(5), "gelu_tanh"),
        (t(3, 4, low=0.1), t(5, 4, low=0.1), t(5, low=0.1), "relu"),
    ],
    promote="same",
    method=False,
)  # fmt: skip
def linear_activation(xp, input, weight, bias=None, kind="relu"):
    """relu, gelu, gelu_tanh or silu (`kind`) of `linear`, in one pass over memory where a kernel has it.

    The gradient of all but relu computes the layer once more: this form is for inference.
    """
    if kind not in _ACTIVATIONS:
        raise ValueError(f"kind must be one of {', '.join(_ACTIVATIONS)}, not {kind!r}")
    return _ACTIVATIONS[kind](linear(input, weight, bias))


@method()
def mm(input: Any, mat2: Any) -> Any:
    """The product of two matrices."""
    if input.ndim != 2 or mat2.ndim != 2:
        raise RuntimeError(f"mm expects two matrices, not tensors with {input.ndim} and {mat2.ndim} dimensions")
    return matmul(input, mat2)


@method()
def bmm(input: Any, mat2: Any) -> Any:
    """The product of two batches of matrices, (b, n, m) and (b, m, p)."""
    if input.ndim != 3 or mat2.ndim != 3 or input.shape[0] != mat2.shape[0]:
        raise RuntimeError(f"bmm expects (b, n, m) and (b, m, p), not {_by(input)} and {_by(mat2)}")
    return matmul(input, mat2)


@method()
def mv(input: Any, vec: Any) -> Any:
    """Matrix times vector."""
    if input.ndim != 2 or vec.ndim != 1:
        raise RuntimeError(f"mv expects a matrix and a vector, not {_by(input)} and {_by(vec)}")
    return matmul(input, vec)


@method()
def dot(input: Any, other: Any) -> Any:
    """The inner product of two vectors (not conjugated)."""
    if input.ndim != 1 or other.ndim != 1 or input.shape != other.shape:
        raise RuntimeError(f"dot expects two vectors of one size, not {_by(input)} and {_by(other)}")
    return matmul(input, other)


@method()
def outer(input: Any, vec2: Any) -> Any:
    """The outer product of two vectors."""
    if input.ndim != 1 or vec2.ndim != 1:
        raise RuntimeError(f"outer expects two vectors, not {_by(input)} and {_by(vec2)}")
    return reshape(input, (-1, 1)) * reshape(vec2, (1, -1))


def _scaled(x: Any, factor: float) -> Any:
    return x if factor == 1 else x * factor


def _added(input: Any, product: Any, beta: float, alpha: float) -> Any:
    """beta * input + alpha * product; with beta 0 the input (NaN, too) does not count."""
    product = _scaled(product, alpha)
    return product if beta == 0 else _scaled(input, beta) + product


@method()
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * mat1 @ mat2."""
    if beta == alpha == 1 and input.ndim == 1 and mat1.ndim == mat2.ndim == 2 and input.shape == mat2.shape[1:]:
        return linear(mat1, transpose(mat2, 0, 1), input)  # the sum in the product's own pass
    return _added(input, matmul(mat1, mat2), beta, alpha)


@method()
def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * bmm(batch1, batch2)."""
    return _added(input, bmm(batch1, batch2), beta, alpha)
