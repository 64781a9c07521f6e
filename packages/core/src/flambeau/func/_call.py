"""One call of an op on batched tensors, and the batching rules that serve whole categories of ops."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from .. import dtypes, ops
from ..ops._op import Op, normalize_dim
from ..tensor import Tensor
from ._batched import expand_front

_Like = namedtuple("_Like", ["dtype", "ndim"])
DIMS = ("dim", "dims", "dim0", "dim1", "dim2", "dimension")


class Call:
    """An op with its arguments; batched ones (named in `batched`) are physical tensors with the batch in front."""

    __slots__ = ("batched", "level", "op", "size", "values")

    def __init__(self, op: Op, values: list[Any], batched: set, level: int, size: int):
        self.op = op
        self.values = values
        self.batched = batched
        self.level = level
        self.size = size

    def __getitem__(self, name: str) -> Any:
        return self.values[self.op.params.index(name)]

    def __setitem__(self, name: str, value: Any) -> None:
        self.values[self.op.params.index(name)] = value

    @property
    def first(self) -> str:
        """The name of the first parameter."""
        return self.op.params[0]

    @property
    def tensors(self) -> list[str]:
        """The names of the arguments that are tensors."""
        return [n for n, v in zip(self.op.params, self.values, strict=True) if isinstance(v, Tensor)]

    def rank(self, name: str) -> int:
        """Dimensions of one sample of a tensor argument."""
        return self[name].array.ndim - (name in self.batched)

    def shape(self, name: str) -> tuple:
        """Sizes of one sample of a tensor argument."""
        return tuple(self[name].array.shape[name in self.batched :])

    def batch(self, name: str) -> Tensor:
        """The tensor argument with a batch dimension, expanded if it had none."""
        if name not in self.batched:
            self[name] = expand_front(self[name], self.size)
            self.batched.add(name)
        return self[name]

    def align(self, name: str, rank: int) -> Tensor:
        """Puts dimensions of size 1 behind the batch dimension until a sample has `rank` dimensions."""
        t = self[name]
        if name in self.batched and t.array.ndim <= rank:
            shape = t.array.shape
            self[name] = t = ops.reshape(t, (shape[0], *[1] * (rank + 1 - len(shape)), *shape[1:]))
        return t

    def run(self) -> Any:
        """The op on the arguments as they are now."""
        return self.op.function(*self.values)


def each(outputs: Any, function: Any) -> Any:
    """`function` on every output of an op."""
    if isinstance(outputs, tuple | list):
        items = [each(o, function) for o in outputs]
        return type(outputs)(*items) if hasattr(outputs, "_fields") else type(outputs)(items)
    return function(outputs) if isinstance(outputs, Tensor) else outputs


def one_by_one(call: Call) -> Any:
    """The rule for ops that have no other: sample by sample, the results stacked. Right for all, differentiable."""
    if call.size == 0:
        raise RuntimeError(f"vmap: {call.op.name} has no batching rule for an empty batch")
    results = []
    for i in range(call.size):
        values = [
            [ops.select(t, 0, i) if k in call.batched else t for k, t in enumerate(v)]
            if call.op.has_list and n == "tensors"
            else ops.select(v, 0, i) if n in call.batched else v
            for n, v in zip(call.op.params, call.values, strict=True)
        ]  # fmt: skip
        results.append(call.op.function(*values))
    return _stack(results, call.op.name)


def _stack(results: list[Any], name: str) -> Any:
    first = results[0]
    if isinstance(first, tuple | list):
        items = [_stack(list(column), name) for column in zip(*results, strict=True)]
        return type(first)(*items) if hasattr(first, "_fields") else type(first)(items)
    if not isinstance(first, Tensor):
        return first
    if any(r.array.shape != first.array.shape for r in results):
        raise RuntimeError(f"vmap: the output shape of {name} depends on the values, so it differs between samples")
    return ops.stack(results)


def elementwise(call: Call) -> Any:
    """Samples' dimensions are aligned at the end, as broadcasting does without a batch."""
    names = call.tensors
    if len(names) > 1:
        rank = max(call.rank(n) for n in names)
        _promote(call, names)
        for n in names:
            call.align(n, rank)
    return call.run()


def _promote(call: Call, names: list[str]) -> None:
    """Promotion among dtypes depends on which tensors are 0-d, and a batched 0-d tensor is not: so it is done here."""
    if call.op.promote is None or len({call[n].array.dtype for n in names}) == 1:
        return
    chosen = [call.op.params[i] for i in call.op.positions]
    common = dtypes.result_numpy([_Like(call[n].array.dtype, call.rank(n)) if n in names else call[n] for n in chosen])
    for n in chosen:
        if n in names and call[n].array.dtype != common:
            call[n] = ops.cast(call[n], common)


def trailing(call: Call) -> Any:
    """The op works on the last dimensions (matrices) and takes any others in front, which broadcast."""
    rank = max(call.rank(n) for n in call.tensors)
    for n in call.tensors:
        call.batch(n)
        call.align(n, rank)
    return call.run()


def whole(call: Call) -> Any:
    """Reductions: `along`, and over all dimensions of a sample when no dim is given."""
    dim = call["dim"]
    if dim is not None and dim != () and dim != []:
        return along(call)
    name = call.first
    rank = call.rank(name)
    call[name] = ops.reshape(call[name], (call.size, -1))
    call["dim"] = 1
    keepdim = "keepdim" in call.op.params and call["keepdim"]
    if keepdim:
        call["keepdim"] = False
    out = call.run()
    return each(out, lambda t: ops.reshape(t, (call.size, *[1] * rank))) if keepdim else out


def along(call: Call, others: bool = False) -> Any:
    """The op works along named dimensions of its first argument: they are counted on from the batch dimension.

    `others`: whether there may be more tensors, which then mean the same to every sample.
    """
    name = call.first
    if call.batched != {name} or (not others and len(call.tensors) > 1):
        return one_by_one(call)
    rank = call.rank(name)
    if rank == 0:
        call[name] = ops.reshape(call[name], (call.size, 1))
    for d in DIMS:
        if d in call.op.params:
            value = call[d]
            if value is None or (isinstance(value, tuple | list) and not value):
                return one_by_one(call) if rank else each(_zero_d(call), lambda t: ops.reshape(t, (call.size,)))
            call[d] = shifted(value, rank)
    out = call.run()
    return out if rank else each(out, lambda t: ops.reshape(t, (call.size,)))


def _zero_d(call: Call) -> Any:
    call[call.first] = ops.reshape(call[call.first], (call.size,))
    return one_by_one(call)


def shifted(dim: Any, rank: int) -> Any:
    """A dim (or several) of a sample as that of the batch."""
    if isinstance(dim, tuple | list):
        return tuple(d + 1 for d in normalize_dim(tuple(dim), rank))
    return normalize_dim(dim, rank) + 1


def picking(call: Call) -> Any:
    """gather, scatter and their kin: all tensors have the same number of dimensions, `dim` counts them."""
    rank = max(call.rank(n) for n in call.tensors)
    for n in call.tensors:
        call.batch(n)
        if rank == 0:
            call[n] = ops.reshape(call[n], (call.size, 1))
    call["dim"] = shifted(call["dim"], rank)
    if "shape" in call.op.params:
        call["shape"] = (call.size, *(call["shape"] if rank else (1,)))
    out = call.run()
    return out if rank else ops.reshape(out, (call.size,))


def folded(call: Call) -> Any:
    """The op treats the samples of its own dimension 0 one by one (pooling, resampling): both become one dimension."""
    size = call.size
    for n in call.tensors:
        t = call.batch(n)
        call[n] = ops.reshape(t, (size * t.array.shape[1], *t.array.shape[2:]))
    for name in ("input_shape", "output_shape"):
        if name in call.op.params:
            shape = call[name]
            call[name] = (size * shape[0], *shape[1:])
    return each(call.run(), lambda t: unfold(t, size))


def unfold(t: Tensor, size: int) -> Tensor:
    """Dimension 0 split into batch and rest."""
    shape = t.array.shape
    return ops.reshape(t, (size, shape[0] // size, *shape[1:]))


def dynamic(call: Call) -> Any:
    """Ops whose output shape depends on the values."""
    raise RuntimeError(
        f"vmap: {call.op.name} gives an output whose shape depends on the values, so it would differ between samples; "
        "use where() or a mask of fixed shape"
    )
