"""Batching rules of indexing."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..tensor import Tensor
from ._batched import BatchedArray, as_tensor, expand_front
from ._call import Call, along, one_by_one, shifted

# Ops whose second argument is not a tensor but an index: slices, numbers, None and arrays, which may be batched.
INDEXING = ("getitem", "place", "index_put")


def _parts(index: Any) -> tuple:
    return index if isinstance(index, tuple) else (index,)


def _is_array(part: Any) -> bool:
    return hasattr(part, "dtype") or isinstance(part, list)


def _front(index: tuple) -> int | None:
    """Where a batch dimension that the index leaves alone ends up: None in front, else behind so many dimensions.

    The dimensions of arrays that are separated by slices go to the front of the result; integers do not count.
    """
    parts = [p for p in index if not isinstance(p, int) or isinstance(p, bool)]
    arrays = [i for i, p in enumerate(parts) if _is_array(p)]
    if not arrays or arrays[-1] - arrays[0] == len(arrays) - 1:
        return None
    shapes = [
        np.shape(parts[i]) if getattr(parts[i], "dtype", None) != np.bool_ else (int(np.count_nonzero(parts[i])),)
        for i in arrays
    ]  # fmt: skip
    return len(np.broadcast_shapes(*shapes))


def _index(call: Call) -> tuple[tuple, bool]:
    """The index as a tuple, and whether it has batched arrays."""
    return _parts(call.values[1]), call.op.params[1] in call.batched


def _is_batched(part: Any, call: Call) -> bool:
    return isinstance(part, BatchedArray) and part.level == call.level


def _getitem(call: Call) -> Any:
    index, batched = _index(call)
    if batched:
        return _pick(call, index)
    call.values[1] = (slice(None), *index)
    out = call.run()
    place = _front(index)
    return out if place is None else ops.movedim(out, place, 0)


def _pick(call: Call, index: tuple) -> Any:
    """x[i] with a batched index i: one array (or several) in front, the batch counted along with them."""
    arrays = [p for p in index if _is_array(p)]
    leading = all(_is_array(p) for p in index[: len(arrays)])
    if not leading or any(p.dtype == bool for p in arrays if hasattr(p, "dtype")):
        return _one_index_each(call, index)
    tensors = [as_tensor(np.asarray(p) if isinstance(p, list) else p) for p in arrays]
    rank = max(t.array.ndim for t in tensors)
    wide = [
        _spread(p.value, rank).array if _is_batched(p, call) else t.array
        for t, p in zip(tensors, arrays, strict=True)
    ]  # fmt: skip
    rows = [np.arange(call.size).reshape(-1, *[1] * rank)] if "input" in call.batched else []
    call.values[1] = (*rows, *wide, *index[len(arrays) :])
    return call.run()


def _spread(t: Tensor, rank: int) -> Tensor:
    """An index with `rank` dimensions behind the batch dimension."""
    shape = t.array.shape
    return ops.reshape(t, (shape[0], *[1] * (rank + 1 - len(shape)), *shape[1:]))


def _one_index_each(call: Call, index: tuple) -> Any:
    """Sample by sample: the index of each one has its own arrays."""
    if any(p.dtype == bool for p in index if _is_batched(p, call)):
        raise RuntimeError(
            "vmap: indexing with a batched mask gives an output whose shape depends on the values; use where()"
        )
    results = []
    for i in range(call.size):
        values = [
            ops.select(v, 0, i) if n in call.batched and k != 1 else v
            for k, (n, v) in enumerate(zip(call.op.params, call.values, strict=True))
        ]  # fmt: skip
        values[1] = tuple(ops.select(p.value, 0, i).array if _is_batched(p, call) else p for p in index)
        results.append(call.op.function(*values))
    return ops.stack(results)


def _place(call: Call) -> Any:
    index, batched = _index(call)
    if batched:
        return _one_index_each(call, index)
    shape = tuple(call["shape"])
    call.values[1] = (slice(None), *index)
    call["shape"] = (call.size, *shape)
    position = _front(index)
    if position is not None:
        call["g"] = ops.movedim(call["g"], 0, position)
    return call.run()


def _index_put(call: Call) -> Any:
    index, batched = _index(call)
    if batched:
        return _one_index_each(call, index)
    shape = call.shape("input")
    call.batch("input")
    call.values[1] = (slice(None), *index)
    if "values" in call.batched:
        rank = np.broadcast_to(np.zeros(()), shape)[index].ndim
        values = call.align("values", rank)
        position = _front(index)
        if position is not None:
            call["values"] = ops.movedim(values, 0, position)
    return call.run()


def _index_select(call: Call) -> Any:
    if "index" not in call.batched:
        return along(call, others=True)
    if "input" in call.batched:
        return one_by_one(call)
    dim = shifted(call["dim"], call.rank("input")) - 1
    index = call["index"]
    out = ops.index_select(call["input"], dim, ops.reshape(index, (-1,)))
    shape = out.array.shape
    out = ops.reshape(out, (*shape[:dim], call.size, -1, *shape[dim + 1 :]))
    return ops.movedim(out, dim, 0)


def _embedding(call: Call) -> Any:
    if "weight" not in call.batched:
        return call.run()
    if call.values[3:] and call.values[3]:  # scale_grad_by_freq counts within a sample
        return one_by_one(call)
    # One long table: row v of sample b is row b * V + v.
    weight, index, padding = call["weight"], call["input"], call["padding_idx"]
    size, rows, width = weight.array.shape
    index = index if "input" in call.batched else expand_front(index, size)
    start = Tensor._wrap((np.arange(size) * rows).reshape(-1, *[1] * (index.array.ndim - 1)))
    out = ops.embedding(index + start, ops.reshape(weight, (size * rows, width)))
    if padding is None:
        return out
    return ops.where(ops.unsqueeze(index == padding, -1), out.detach(), out)


RULES = {
    "getitem": _getitem,
    "place": _place,
    "index_put": _index_put,
    "index_select": _index_select,
    "embedding": _embedding,
}
