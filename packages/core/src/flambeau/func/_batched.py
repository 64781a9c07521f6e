"""Batched tensors: what a function under `vmap` sees in place of its arguments.

A batched tensor hides dimension 0 of the tensor `value` that it holds and bears the level of its `vmap`; nested
`vmap`s nest them, the outermost level inside. Every op that meets one is carried out by a batching rule.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

from .. import backends, ops
from ..autograd.modes import intercepting
from ..ops.inplace import raw_index
from ..tensor import Tensor

_CONTROL_FLOW = (
    "vmap: a batched tensor is used in data-dependent control flow, where every sample may want another branch; "
    "use where() or mask the result"
)
_ITEM = (
    "vmap: .item() (or another read of a single value) was called on a batched tensor, which stands for many values; "
    "rewrite it with tensor operations"
)


class _Levels(threading.local):
    active: tuple[tuple[int, int], ...] = ()  # (level, batch size) of the running vmaps, outermost first


levels = _Levels()


class Memory:
    """What a batched tensor and its views have in common: how often it was changed in place."""

    __slots__ = ("changes",)

    def __init__(self) -> None:
        self.changes = 0


class BatchedArray:
    """Stands in `Tensor.array` of a batched tensor: tells shape and dtype of one sample, refuses to show values."""

    __slots__ = ("__weakref__", "_value", "level", "memory", "origin", "seen")
    base = None
    __array_ufunc__ = None  # ndarray + BatchedArray asks BatchedArray

    def __init__(self, value: Tensor, level: int):
        self._value = value
        self.level = level
        self.memory: Memory | None = Memory()  # None: the caller's, not to be changed
        self.seen = 0  # the changes that are in the value
        self.origin: tuple[BatchedArray, Any] | None = None  # of base[index]: the base and the index

    @property
    def value(self) -> Tensor:
        """The tensor of the whole batch."""
        if self.memory is not None and self.memory.changes != self.seen:
            raise NotImplementedError(
                "vmap: a tensor is used whose base or view was changed in place; use the out-of-place form, or take "
                "the view again after the change"
            )
        return self._value

    def view_of(self, base: BatchedArray, index: Any = None) -> None:
        """Notes that a change of one would be a change of the other; with `index` it can be carried over."""
        self.memory, self.seen = base.memory, base.seen
        if index is not None:
            self.origin = base, index

    def _change(self, value: Tensor) -> None:
        assert self.memory is not None
        self.memory.changes += 1
        array = self
        while True:
            array._value = value
            array.seen = self.memory.changes
            if array.origin is None:
                return
            base, index = array.origin
            value = ops.index_put(wrap(base._value, base.level), index, wrap(value, array.level)).array.value
            array = base

    @property
    def shape(self) -> tuple:
        return tuple(self._value.array.shape[1:])

    @property
    def dtype(self) -> Any:
        return self._value.array.dtype

    @property
    def ndim(self) -> int:
        return self._value.array.ndim - 1

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    def astype(self, dtype: Any, copy: bool = True) -> BatchedArray:
        return ops.cast(wrap(self.value, self.level), dtype).array

    def copy(self) -> BatchedArray:
        return ops.clone(wrap(self.value, self.level)).array

    def get(self) -> Any:
        """The values of the whole batch on the host: for checks (singular matrices), as CuPy's arrays give them."""
        array = bottom(self.value)[0].array
        return backends.of(array).to_host(array)

    def any(self) -> bool:
        """Over the whole batch: for checks of arguments."""
        return bool(bottom(self.value)[0].array.any())

    def all(self) -> bool:
        """Over the whole batch: for checks of arguments."""
        return bool(bottom(self.value)[0].array.all())

    def __setitem__(self, index: Any, new: Any) -> None:
        """What the in-place forms end with: the value is replaced by a changed one, as nothing else refers to it."""
        if self.memory is None:
            raise NotImplementedError(
                "vmap: in-place operations on an argument of the function are not supported; clone() it first"
            )
        new = as_tensor(new)
        array = getattr(new, "array", None)
        if (
            index is Ellipsis
            and isinstance(array, BatchedArray)
            and array.level == self.level
            and array.shape == self.shape
        ):
            self._change(ops.cast(array.value, self.dtype) if array.dtype != self.dtype else array.value)
        else:
            if array is not None and array.dtype != self.dtype:
                new = ops.cast(new, self.dtype)
            self._change(ops.index_put(wrap(self.value, self.level), index, new).array.value)

    def item(self) -> Any:
        raise RuntimeError(_ITEM)

    tolist = __int__ = __float__ = __index__ = __complex__ = item

    def __bool__(self) -> bool:
        raise RuntimeError(_CONTROL_FLOW)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            "vmap: the values of a batched tensor cannot be read as a NumPy array, nor be written into a tensor that "
            "is the same for all samples"
        )

    __hash__ = None  # type: ignore[assignment]


def _operator(name: str, swapped: bool) -> Any:
    def operate(self: BatchedArray, other: Any) -> BatchedArray:
        pair = (wrap(self.value, self.level), as_tensor(other))
        return getattr(ops, name)(*(pair[::-1] if swapped else pair)).array

    return operate


for _python, _name in dict(
    add="add", sub="sub", mul="mul", truediv="true_divide", eq="eq", ne="ne", lt="lt", le="le", gt="gt", ge="ge",
    **{"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"},
).items():  # fmt: skip
    setattr(BatchedArray, f"__{_python}__", _operator(_name, False))
    if _name not in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(BatchedArray, f"__r{_python}__", _operator(_name, True))


class _Below:
    """Stands for the node of a batched tensor's value: the in-place forms may ask, the engine must not come here."""

    saved = ()

    @property
    def _hooks(self) -> Any:
        raise RuntimeError(
            "autograd.grad or backward was called on a batched tensor inside a function under vmap; "
            "use flambeau.func.grad, vjp or jacrev there"
        )

    def __repr__(self) -> str:
        return "<of the batch>"


class BatchedTensor(Tensor):
    """A tensor of one sample's shape that stands for a whole batch of them."""

    array: BatchedArray

    @classmethod
    def _wrap(cls, array: Any) -> Tensor:
        if isinstance(array, BatchedArray):
            return wrap(array.value, array.level)
        return array if isinstance(array, Tensor) else Tensor._wrap(array)

    @property
    def device(self) -> Any:
        return self.array.value.device

    def detach(self) -> Tensor:
        t = wrap(self.array.value.detach(), self.array.level)
        t.array.view_of(self.array)
        return t

    @property
    def data(self) -> Tensor:
        return self.detach()

    def is_contiguous(self, *args: Any, **kwargs: Any) -> bool:
        return self.array.value.is_contiguous()

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(value, Tensor):
            value = ops.as_tensor(value, dtype=self.dtype, device=self.device)
        self.array[raw_index(index)] = value
        below = self.array.value
        self.requires_grad, self._edge = below.requires_grad, below._edge and (_Below(), 0)

    def __bool__(self) -> bool:
        raise RuntimeError(_CONTROL_FLOW)

    def item(self) -> Any:
        raise RuntimeError(_ITEM)

    def numpy(self, *, force: bool = False) -> Any:
        raise RuntimeError("vmap: the values of a batched tensor cannot be read as a NumPy array")

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        raise RuntimeError(
            "requires_grad_() was called inside a function under vmap; use flambeau.func.grad, vjp or jacrev there"
        )

    def backward(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            "backward() was called inside a function under vmap; use flambeau.func.grad, vjp or jacrev there"
        )

    def __repr__(self) -> str:
        return f"BatchedTensor(level={self.array.level}, shape={list(self.shape)}, value={self.array.value!r})"

    def __deepcopy__(self, memo: dict) -> Tensor:
        raise RuntimeError("vmap: a batched tensor cannot be copied out of the function; return it instead")

    def __reduce__(self) -> Any:
        raise RuntimeError("vmap: a batched tensor cannot be pickled; return it from the function instead")


def wrap(value: Tensor, level: int) -> BatchedTensor:
    """The batched tensor of `level` over dimension 0 of `value`."""
    t = object.__new__(BatchedTensor)
    t.array = BatchedArray(value, level)
    t.requires_grad = value.requires_grad
    t._edge = value._edge and (_Below(), 0)  # the graph is that of the value
    return t


def as_tensor(value: Any) -> Any:
    """Arrays (also those of batched tensors) as Tensors; numbers and Tensors as they are."""
    if isinstance(value, BatchedArray):
        return wrap(value.value, value.level)
    return value if isinstance(value, Tensor) or not hasattr(value, "dtype") else Tensor._wrap(value)


def expand_front(value: Tensor, size: int) -> Tensor:
    """`value` repeated (without copying) along a new dimension 0."""
    return ops.expand(value, (size, *value.array.shape))


def bottom(t: Tensor) -> tuple[Tensor, list[int]]:
    """The tensor under all levels, and the levels of its first dimensions in their order (outermost vmap first)."""
    found: list[int] = []
    while isinstance(t, BatchedTensor):
        found.insert(0, t.array.level)
        t = t.array.value
    return t, found


def lower(t: Tensor, target: Sequence[tuple[int, int]]) -> Tensor:
    """`t` without the levels of `target` (level, size), as dimensions in front; where `t` lacks one it is expanded.

    Levels of `t` that are not in `target` stay: the result is a batched tensor of these.
    """
    raw, have = bottom(t)
    if not target and not have:
        return t
    wanted = [level for level, _ in target]
    kept = [level for level in have if level not in wanted]
    present = [level for level in wanted if level in have]
    with intercepting(None):
        order = [have.index(level) for level in (*kept, *present)]
        raw = _permuted(raw, (*order, *range(len(have), raw.array.ndim)))
        for position, (level, size) in enumerate(target, len(kept)):
            if level not in have:
                shape = raw.array.shape
                raw = ops.expand(ops.unsqueeze(raw, position), (*shape[:position], size, *shape[position:]))
    for level in kept:
        raw = wrap(raw, level)
    return raw


def lift(t: Tensor, target: Sequence[tuple[int, int]]) -> Tensor:
    """The inverse of `lower`: the first dimensions become levels again."""
    if not target:
        return t
    raw, kept = bottom(t)
    found = [*kept, *[level for level, _ in target]]
    ordered = sorted(found)
    with intercepting(None):
        raw = _permuted(raw, (*[found.index(level) for level in ordered], *range(len(found), raw.array.ndim)))
    for level in ordered:
        raw = wrap(raw, level)
    return raw


def _permuted(t: Tensor, order: tuple) -> Tensor:
    return t if order == tuple(range(len(order))) else ops.permute(t, order)
