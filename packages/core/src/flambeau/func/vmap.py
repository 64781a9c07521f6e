"""`vmap`: a function of one sample made a function of a batch, without a loop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .. import ops
from ..autograd.modes import mode
from ..ops._op import Op
from ..tensor import Tensor
from . import _tree
from ._batched import BatchedArray, BatchedTensor, as_tensor, levels, wrap
from ._call import Call, each
from ._draws import Draws, drawing, draws_of
from ._rules import rule_for
from ._rules_index import INDEXING

_RANDOMNESS = ("error", "different", "same")


class _Interceptor:
    """Carries out the ops that meet a batched tensor of one level; the others it hands on."""

    __slots__ = ("level", "previous", "size")

    def __init__(self, level: int, size: int, previous: Callable | None):
        self.level = level
        self.size = size
        self.previous = previous

    def __call__(self, op: Op, args: tuple, kwargs: dict) -> Any:
        values = op.bind(args, kwargs) if kwargs or len(args) != len(op.params) else [*args]
        batched: set = set()
        physical = list(values)
        for i, (name, v) in enumerate(zip(op.params, values, strict=True)):
            if isinstance(v, list | tuple):
                if op.has_list and i == 0:
                    physical[i], batched = self._list(v)
                elif (
                    i == 1
                    and op.name in INDEXING
                    and any(isinstance(p, BatchedArray) and p.level == self.level for p in v)
                ):
                    batched.add(name)
                continue
            array = v.array if isinstance(v, Tensor) else v
            if isinstance(array, BatchedArray) and array.level == self.level:
                if not (i == 1 and op.name in INDEXING):
                    physical[i] = array.value
                batched.add(name)
            elif isinstance(array, Draws) and array.level == self.level:
                physical[i] = draws_of(array)
                batched.add(name)
            elif array is v and hasattr(v, "shape") and not (isinstance(v, type) or (i == 1 and op.name in INDEXING)):
                physical[i] = as_tensor(v)
        rule = rule_for(op) if batched else None
        if batched and rule is None:
            return op.forward(*values)  # a composite: its ops come here one by one
        outer, mode.intercept = mode.intercept, self.previous
        try:
            if rule is None:
                return op.function(*values)
            out = rule(Call(op, physical, batched, self.level, self.size))
        finally:
            mode.intercept = outer
        result = each(out, lambda t: wrap(t, self.level))
        if op.view:
            self._share(op, values, result, batched)
        return result

    def _list(self, tensors: Any) -> tuple[list, set]:
        mine = [isinstance(t, BatchedTensor) and t.array.level == self.level for t in tensors]
        return [t.array.value if m else t for t, m in zip(tensors, mine, strict=True)], {
            i for i, m in enumerate(mine) if m
        }

    def _share(self, op: Op, values: list, result: Any, batched: set) -> None:
        base = values[0].array if isinstance(values[0], Tensor) else values[0]
        if not isinstance(base, BatchedArray):
            return
        simple = op.name == "getitem" and batched == {"input"}
        each(result, lambda t: t.array.view_of(base, values[1] if simple else None))


def vmap(
    func: Callable,
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable:
    """`func` over a batch: it sees one sample of each argument, and all samples are computed at once.

    in_dims: the dimension of each positional argument that is the batch (None: the same for every sample), nested
    as the arguments are; keyword arguments are the same for all. out_dims: where the batch goes in each output.
    randomness: whether random operations raise ("error"), draw anew for each sample ("different") or once for all
    ("same"). chunk_size: samples at a time.

    Errors: ValueError for in_dims, out_dims or sizes that do not fit; RuntimeError where `func` reads values
    (`.item()`, `if`) or gives shapes that depend on them.

    >>> import flambeau
    >>> dot = flambeau.func.vmap(lambda a, b: (a * b).sum())
    >>> dot(flambeau.ones(3, 2), flambeau.ones(3, 2))
    tensor([2., 2., 2.])
    """
    if randomness not in _RANDOMNESS:
        raise RuntimeError(f"vmap: randomness must be one of {', '.join(_RANDOMNESS)}, not {randomness!r}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"vmap: chunk_size should be None or greater than 0, but got {chunk_size}")

    name = getattr(func, "__name__", "func")

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        leaves, structure, dims, size = _inputs(in_dims, args, name)

        def run(start: int, length: int) -> Any:
            parts = [
                v if d is None or length == size else ops.narrow(v, d, start, length)
                for v, d in zip(leaves, dims, strict=True)
            ]
            return _run(lambda *a: func(*a, **kwargs), parts, dims, structure, length, randomness, name)

        if chunk_size is None or chunk_size >= size:
            flat, out_structure = run(0, size)
            return _outputs(flat, out_structure, out_dims, size, name)
        runs = [run(start, min(chunk_size, size - start)) for start in range(0, size, chunk_size)]
        lengths = [min(chunk_size, size - start) for start in range(0, size, chunk_size)]
        chunks = [_outputs(flat, s, 0, n, name) for (flat, s), n in zip(runs, lengths, strict=True)]
        columns = zip(*[_tree.flatten(c)[0] for c in chunks], strict=True)
        joined = [(ops.cat(list(column)), True) for column in columns]
        return _outputs(joined, runs[0][1], out_dims, size, name)

    return wrapped


def _inputs(in_dims: Any, args: tuple, name: str) -> tuple[list, Any, list, int]:
    leaves, structure = _tree.flatten(args)
    if not isinstance(in_dims, int | tuple | list | None):
        raise ValueError(
            f"vmap({name}): in_dims must be an int, None or a tuple of these, not {type(in_dims).__name__}"
        )
    if not args:
        raise ValueError(f"vmap({name}): the function was called without arguments; there is nothing to batch over")
    dims = _tree.broadcast(tuple(in_dims) if isinstance(in_dims, list) else in_dims, structure)
    if dims is None:
        raise ValueError(
            f"vmap({name}): in_dims {in_dims} does not have the structure of the {len(args)} arguments; "
            "give an int, or a tuple with one entry for each"
        )
    fixed: list[int | None] = []
    for v, d in zip(leaves, dims, strict=True):
        if d is None:
            fixed.append(None)
            continue
        if not isinstance(d, int):
            raise ValueError(f"vmap({name}): an in_dim must be an int or None, not {d!r}")
        if not isinstance(v, Tensor):
            raise ValueError(
                f"vmap({name}): in_dim {d} was given for an argument of type {type(v).__name__}; "
                "only tensors have a batch dimension, use None"
            )
        if not -v.ndim <= d < v.ndim:
            raise ValueError(f"vmap({name}): in_dim {d} is out of range for a tensor with {v.ndim} dimensions")
        fixed.append(d % v.ndim)
    sizes = [v.shape[d] for v, d in zip(leaves, fixed, strict=True) if d is not None]
    if not sizes:
        raise ValueError(f"vmap({name}): at least one argument must be batched, but every in_dim is None")
    if len(set(sizes)) > 1:
        raise ValueError(f"vmap({name}): expected all batched arguments to have the same batch size, got {sizes}")
    return leaves, structure, fixed, sizes[0]


def _run(func: Callable, parts: list, dims: list, form: Any, size: int, randomness: str, name: str) -> tuple[list, Any]:
    """The outputs as (tensor, whether batched in dimension 0) pairs, and their structure."""
    level = levels.active[-1][0] + 1 if levels.active else 1
    outer_levels, outer = levels.active, mode.intercept
    inputs = []
    for v, d in zip(parts, dims, strict=True):
        if d is not None:
            v = wrap(v if d == 0 else ops.movedim(v, d, 0), level)
            v.array.memory = None  # the caller's
        inputs.append(v)
    levels.active = (*outer_levels, (level, size))
    mode.intercept = _Interceptor(level, size, outer)
    try:
        with drawing(randomness, level, size):
            out = func(*_tree.unflatten(inputs, form))
    finally:
        levels.active, mode.intercept = outer_levels, outer
    flat, structure = _tree.flatten(out)
    pairs = []
    for t in flat:
        if not isinstance(t, Tensor):
            raise ValueError(f"vmap({name}): the function must only return tensors, but it returned {type(t).__name__}")
        if isinstance(t.array, Draws) and t.array.level == level:
            pairs.append((draws_of(t.array), True))
        elif isinstance(t, BatchedTensor) and t.array.level == level:
            pairs.append((t.array.value, True))
        else:
            pairs.append((t, False))
    return pairs, structure


def _outputs(pairs: list, structure: Any, out_dims: Any, size: int, name: str) -> Any:
    dims = _tree.broadcast(tuple(out_dims) if isinstance(out_dims, list) else out_dims, structure)
    if dims is None and structure.kind is None and isinstance(out_dims, tuple | list) and len(out_dims) == 1:
        dims = [out_dims[0]]
    if dims is None:
        raise ValueError(f"vmap({name}): out_dims {out_dims} does not have the structure of what the function returns")
    results = []
    for (t, batched), d in zip(pairs, dims, strict=True):
        if d is None:
            if batched:
                raise ValueError(f"vmap({name}): out_dims is None for an output that depends on the batch")
            results.append(t)
            continue
        if not batched:
            t = ops.expand(t, (size, *t.shape))
        if not -t.ndim <= d < t.ndim:
            raise IndexError(f"vmap({name}): out_dim {d} is out of range for an output with {t.ndim - 1} dimensions")
        results.append(t if d == 0 else ops.movedim(t, 0, d))
    return _tree.unflatten(results, structure)
