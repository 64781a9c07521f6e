"""Einstein summation."""

from __future__ import annotations

import math
from typing import Any

from .. import backends
from .index import getitem
from .linalg_common import _array
from .matmul import matmul
from .reduce import sum
from .shape import permute, reshape

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DOT = 0x10000  # labels of an ellipsis' dimensions are the characters from here on, the last dimension first


def einsum(*args: Any) -> Any:
    """Einstein summation over labelled dimensions: `einsum("bij,bjk->bik", x, y)`.

    Labels may repeat within an operand (a diagonal), "..." stands for any number of broadcast dimensions, and the
    operands may come as one list or as operand, labels, operand, labels, …, output labels. More than two operands
    are contracted pair by pair, the pair first whose result is smallest beside what it replaces.

    >>> import flambeau
    >>> flambeau.einsum("ii->i", flambeau.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [1.0, 4.0]
    """
    if not args:
        raise ValueError("einsum needs an equation and its operands")
    equation, operands = args[0], args[1:]
    if not isinstance(equation, str):
        equation, operands = _from_sublists(args)
    elif len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if not operands:
        raise ValueError("einsum needs at least one operand")
    terms, output = _parse(equation, operands)
    tensors = [_merge_repeats(x, term) for x, term in zip(operands, terms, strict=True)]
    sizes: dict[str, int] = {}
    for x, term in tensors:
        for c, n in zip(term, x.shape, strict=True):
            if sizes.setdefault(c, n) != n and n != 1:
                if sizes[c] != 1:
                    raise RuntimeError(f"einsum: label {_show(c)} of {equation!r} has the sizes {sizes[c]} and {n}")
                sizes[c] = n
    while len(tensors) > 1:
        i, j = _cheapest(tensors, output, sizes)
        right, left = tensors.pop(j), tensors.pop(i)
        keep = set(output).union(*[t for _, t in tensors])
        tensors.insert(i, _pair(*left, *right, keep))
    return _finish(*tensors[0], output)


def _show(c: str) -> str:
    return "'...'" if ord(c) >= _DOT else repr(c)


def _from_sublists(args: tuple) -> tuple[str, tuple]:
    def text(labels: Any) -> str:
        parts = []
        for k in labels:
            if k is not Ellipsis and not 0 <= k < len(_LETTERS):
                raise ValueError(f"einsum: labels in a sublist must be from 0 to {len(_LETTERS) - 1}, not {k}")
            parts.append("..." if k is Ellipsis else _LETTERS[k])
        return "".join(parts)

    equation = ",".join(text(labels) for labels in args[1::2][: len(args) // 2])
    return equation + ("->" + text(args[-1]) if len(args) % 2 else ""), args[: len(args) - len(args) % 2 : 2]


def _parse(equation: str, operands: tuple) -> tuple[list[str], str]:
    """The labels of each operand and of the output, one character a dimension."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise RuntimeError(f"einsum: {len(terms)} terms in {equation!r} but {len(operands)} operands")
    widest = 0
    labels = []
    for term, x in zip(terms, operands, strict=True):
        given = term.replace("...", "", 1)
        if not set(given) <= set(_LETTERS):
            raise ValueError(f"einsum: term {term!r} of {equation!r} has characters that are no letters")
        extra = x.ndim - len(given)
        if extra < 0 or (extra and given == term):
            raise RuntimeError(f"einsum: term {term!r} has {len(given)} labels for {x.ndim} dimensions")
        widest = max(widest, extra)
        labels.append(term.replace("...", _dots(extra)))
    joined = "".join(labels)
    if not arrow:
        once = sorted(c for c in set(joined) if ord(c) < _DOT and joined.count(c) == 1)
        return labels, _dots(widest) + "".join(once)
    output = right.replace("...", _dots(widest), 1)
    if len(set(output)) != len(output):
        raise RuntimeError(f"einsum: the output of {equation!r} has a label twice")
    if not set(output) <= set(joined):
        raise RuntimeError(f"einsum: the output of {equation!r} has a label that no operand has")
    return labels, output


def _dots(n: int) -> str:
    return "".join(chr(_DOT + k) for k in range(n))[::-1]


def _merge_repeats(x: Any, term: str) -> tuple[Any, str]:
    """Takes the diagonal over labels that an operand has twice."""
    for c in sorted(set(term)):
        while term.count(c) > 1:
            i = term.index(c)
            j = term.index(c, i + 1)
            if x.shape[i] != x.shape[j]:
                raise RuntimeError(f"einsum: label {c!r} stands for the sizes {x.shape[i]} and {x.shape[j]}")
            rest = [k for k in range(x.ndim) if k not in (i, j)]
            along = backends.namespace([_array(x)]).arange(x.shape[i])
            x = getitem(permute(x, (i, j, *rest)), (along, along))
            term = c + "".join(term[k] for k in rest)
    return x, term


def _cheapest(tensors: list, output: str, sizes: dict) -> tuple[int, int]:
    if len(tensors) == 2:
        return 0, 1
    best: tuple = ()
    for i in range(len(tensors)):
        for j in range(i + 1, len(tensors)):
            a, b = tensors[i][1], tensors[j][1]
            keep = set(output).union(*[t for k, (_, t) in enumerate(tensors) if k not in (i, j)])
            both = set(a) | set(b)
            made = math.prod(sizes[c] for c in both & keep)
            cost = made - math.prod(sizes[c] for c in a) - math.prod(sizes[c] for c in b)
            entry = (cost, math.prod(sizes[c] for c in both), i, j)
            if not best or entry < best:
                best = entry
    return best[2], best[3]


def _without(x: Any, term: str, gone: set) -> tuple[Any, str]:
    """The labels `gone` summed away."""
    dims = tuple(i for i, c in enumerate(term) if c in gone)
    return (sum(x, dims), "".join(c for c in term if c not in gone)) if dims else (x, term)


def _pair(a: Any, la: str, b: Any, lb: str, keep: set) -> tuple[Any, str]:
    """Contracts two labelled tensors as one batched matrix product (or one product, when nothing is summed)."""
    a, la = _narrow(a, la, b, lb)
    b, lb = _narrow(b, lb, a, la)
    a, la = _without(a, la, {c for c in la if c not in lb and c not in keep})
    b, lb = _without(b, lb, {c for c in lb if c not in la and c not in keep})
    batch = [c for c in la if c in lb and c in keep]
    inner = [c for c in la if c in lb and c not in keep]
    rows = [c for c in la if c not in lb]
    cols = [c for c in lb if c not in la]
    labels = "".join(batch + rows + cols)
    if not inner:
        return _arranged(a, la, labels) * _arranged(b, lb, labels), labels
    size = dict(zip(lb, b.shape, strict=True)) | dict(zip(la, a.shape, strict=True))

    def grouped(x: Any, lx: str, one: list, two: list) -> Any:
        x = permute(x, tuple(lx.index(c) for c in (*batch, *one, *two)))
        lead = tuple(size[c] for c in batch)
        return reshape(x, (*lead, math.prod(size[c] for c in one), math.prod(size[c] for c in two)))

    out = matmul(grouped(a, la, rows, inner), grouped(b, lb, inner, cols))
    return reshape(out, tuple(size[c] for c in labels)), labels


def _narrow(a: Any, la: str, b: Any, lb: str) -> tuple[Any, str]:
    """`a` without the dimensions of size 1 that broadcast against `b`."""
    ones = {c for i, c in enumerate(la) if a.shape[i] == 1 and c in lb and b.shape[lb.index(c)] != 1}
    if not ones:
        return a, la
    shape = tuple(n for n, c in zip(a.shape, la, strict=True) if c not in ones)
    return reshape(a, shape), "".join(c for c in la if c not in ones)


def _arranged(x: Any, lx: str, labels: str) -> Any:
    """`x` with a dimension for each label, of size 1 where it has none."""
    x = permute(x, tuple(lx.index(c) for c in labels if c in lx))
    supply = iter(x.shape)
    return reshape(x, tuple(next(supply) if c in lx else 1 for c in labels))


def _finish(x: Any, term: str, output: str) -> Any:
    x, term = _without(x, term, {c for c in term if c not in output})
    return permute(x, tuple(term.index(c) for c in output)) if term != output else x
