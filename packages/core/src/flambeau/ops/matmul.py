"""Matrix products: matmul, linear, einsum, outer, baddbmm."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._op import op
from .logic import conj
from .reduce import sum
from .shape import permute, reshape, squeeze, transpose, unsqueeze


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
    promote="arith",
    ref=lambda a, b: np.einsum("...ij,...jk->...ik", a, b) if min(a.ndim, b.ndim) > 1 else np.dot(a, b),
)  # fmt: skip
def matmul(xp, input, other):
    """The matrix product; leading dimensions broadcast, vectors are rows (left) or columns (right)."""
    if not input.ndim or not other.ndim:
        raise RuntimeError("matmul needs tensors with at least one dimension each; use * for scalars")
    if input.shape[-1] != other.shape[-2 if other.ndim > 1 else 0]:
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({_by(input)} and {_by(other)})")
    if input.ndim > 2 and other.ndim == 2:
        # One large product instead of many small ones.
        out = xp.matmul(input.reshape(-1, input.shape[-1]), other)
        return out.reshape(input.shape[:-1] + other.shape[1:])
    return xp.matmul(input, other)


def _by(a: Any) -> str:
    return "x".join(map(str, a.shape))


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
        flat = reshape(input, (-1, input.shape[-1]))
        return matmul(reshape(g, (-1,)), conj(flat))
    if len(shape) == 2 and input.ndim > 2:
        flat = reshape(input, (-1, input.shape[-1]))
        return matmul(_swap(flat), reshape(g, (-1, g.shape[-1])))
    return matmul(_swap(input), g)


@op(
    vjp=dict(
        input=lambda g, weight: matmul(g, conj(weight)),
        weight=lambda g, input: matmul(
            transpose(reshape(g, (-1, g.shape[-1])), 0, 1), conj(reshape(input, (-1, input.shape[-1])))
        ),
        bias=lambda g: g,
    ),
    samples=lambda t: [(t(3, 4), t(5, 4), t(5)), (t(2, 3, 4), t(5, 4)), (t(4), t(5, 4), t(5))],
    promote="arith",
    ref=lambda x, w, b=0: np.einsum("...i,oi->...o", x, w) + b,
    method=False,
)
def linear(xp, input, weight, bias=None):
    """input @ weight.T + bias: input (…, in), weight (out, in), bias (out)."""
    if input.shape[-1:] != weight.shape[-1:]:
        raise RuntimeError(
            f"the last dimension of the input ({_by(input)}) must be {weight.shape[-1]}, the layer's in_features"
        )
    out = xp.matmul(input.reshape(-1, input.shape[-1]), weight.T)
    if bias is not None:
        out += bias
    return out.reshape(input.shape[:-1] + weight.shape[:1])


def mm(input: Any, mat2: Any) -> Any:
    """The product of two matrices."""
    if input.ndim != 2 or mat2.ndim != 2:
        raise RuntimeError(f"mm expects two matrices, not tensors with {input.ndim} and {mat2.ndim} dimensions")
    return matmul(input, mat2)


def bmm(input: Any, mat2: Any) -> Any:
    """The product of two batches of matrices, (b, n, m) and (b, m, p)."""
    if input.ndim != 3 or mat2.ndim != 3 or input.shape[0] != mat2.shape[0]:
        raise RuntimeError(f"bmm expects (b, n, m) and (b, m, p), not {_by(input)} and {_by(mat2)}")
    return matmul(input, mat2)


def mv(input: Any, vec: Any) -> Any:
    """Matrix times vector."""
    return matmul(input, vec)


def dot(input: Any, other: Any) -> Any:
    """The inner product of two vectors (not conjugated)."""
    if input.ndim != 1 or other.ndim != 1 or input.shape != other.shape:
        raise RuntimeError(f"dot expects two vectors of one size, not {_by(input)} and {_by(other)}")
    return matmul(input, other)


def outer(input: Any, vec2: Any) -> Any:
    """The outer product of two vectors."""
    return reshape(input, (-1, 1)) * reshape(vec2, (1, -1))


def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * mat1 @ mat2."""
    return input * beta + matmul(mat1, mat2) * alpha


def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * input + alpha * bmm(batch1, batch2)."""
    return input * beta + bmm(batch1, batch2) * alpha


def einsum(equation: str, *operands: Any) -> Any:
    """Einstein summation over labelled dimensions, two operands at a time from the left.

    Repeated labels within one operand (diagonals) are not available yet: NotImplementedError.
    """
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise RuntimeError(f"einsum: {len(terms)} terms in {equation!r} but {len(operands)} operands")
    expanded = [_expand_dots(term, x.ndim) for term, x in zip(terms, operands, strict=True)]
    dots = max((e[1] for e in expanded), default="", key=len)
    labels = [e[0] for e in expanded]
    if arrow:
        output = right.replace("...", dots)
    else:
        joined = "".join(labels)
        output = dots + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in dots))
    for term in labels:
        if len(set(term)) != len(term):
            raise NotImplementedError(f"einsum with a repeated label in one operand ({term}) is not available yet")
    result, have = operands[0], labels[0]
    for k, (x, term) in enumerate(zip(operands[1:], labels[1:], strict=True)):
        later = set(output).union(*labels[k + 2 :])
        result, have = _pair(result, have, x, term, later)
    drop = tuple(i for i, c in enumerate(have) if c not in output)
    if drop:
        result = sum(result, drop)
        have = "".join(c for c in have if c in output)
    if sorted(have) != sorted(output):
        raise RuntimeError(f"einsum: the output of {equation!r} has a label that no operand has")
    return permute(result, tuple(have.index(c) for c in output)) if have != output else result


_DOTS = "ZYXWVUTS"  # labels that stand for an ellipsis, the last dimension first


def _expand_dots(term: str, ndim: int) -> tuple[str, str]:
    if "..." not in term:
        if len(term) != ndim:
            raise RuntimeError(f"einsum: term {term!r} has {len(term)} labels for {ndim} dimensions")
        return term, ""
    dots = _DOTS[: ndim - (len(term) - 3)][::-1]
    return term.replace("...", dots), dots


def _pair(a: Any, la: str, b: Any, lb: str, keep: set) -> tuple[Any, str]:
    """Contracts two labelled tensors as one batched matrix product."""
    for x, lx, other in ((0, la, lb), (1, lb, la)):
        gone = tuple(i for i, c in enumerate(lx) if c not in other and c not in keep)
        if gone and x == 0:
            a, la = sum(a, gone), "".join(c for i, c in enumerate(la) if i not in gone)
        elif gone:
            b, lb = sum(b, gone), "".join(c for i, c in enumerate(lb) if i not in gone)
    batch = [c for c in la if c in lb and c in keep]
    inner = [c for c in la if c in lb and c not in keep]
    rows = [c for c in la if c not in lb]
    cols = [c for c in lb if c not in la]
    size = dict(zip(la, a.shape, strict=True)) | {
        c: n for c, n in zip(lb, b.shape, strict=True) if c not in la or n != 1
    }

    def arrange(x: Any, lx: str, groups: list) -> Any:
        x = permute(x, tuple(lx.index(c) for g in groups for c in g))
        sizes = dict(zip([c for g in groups for c in g], x.shape, strict=True))
        lead = tuple(sizes[c] for c in groups[0])
        return reshape(x, lead + tuple(int(np.prod([sizes[c] for c in g])) for g in groups[1:]))

    out = matmul(arrange(a, la, [batch, rows, inner]), arrange(b, lb, [batch, inner, cols]))
    labels = "".join(batch + rows + cols)
    return reshape(out, tuple(size[c] for c in labels)), labels
