"""What stands in `Tensor.array` while a function is traced: an array that notes what is done with it.

It is no NumPy array, on purpose: compiled code cannot read its memory, so nothing that depends on the inputs can
slip past the tracer. What it cannot note raises `GraphBreak`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .trace import Tracer


class GraphBreak(RuntimeError):
    """A function does something that a graph cannot hold; the message says what."""


_READ = "a value is read (.item(), float(), int(), bool() or `if` on a tensor)"


class Unread:
    """The number that `.item()` gives, while a function is traced: it can be returned, but not looked at."""

    __slots__ = ("symbol",)

    def __init__(self, symbol: Symbol):
        self.symbol = symbol

    def _refused(self, *args: Any) -> Any:
        raise self.symbol.tracer.broken(_READ)

    def __getattr__(self, name: str) -> Any:
        self.symbol.tracer.broken(_READ)
        raise AttributeError(f"a value that was read while tracing has no attribute {name!r}")

    __hash__ = None  # type: ignore[assignment]


_READING = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "divmod", "radd", "rsub", "rmul", "rtruediv", "rfloordiv",
    "rmod", "rpow", "rdivmod", "lt", "le", "gt", "ge", "eq", "ne", "neg", "pos", "abs", "int", "float", "bool", "index",
    "complex", "round", "trunc", "floor", "ceil", "str", "repr", "format", "array",
)  # fmt: skip
for _name in _READING:
    setattr(Unread, f"__{_name}__", Unread._refused)


class Symbol:
    """An array of the trace: the real values, and the number of the value in the graph."""

    __slots__ = ("__weakref__", "id", "tracer", "value")

    def __init__(self, tracer: Tracer, id: int, value: np.ndarray):
        self.tracer = tracer
        self.id = id
        self.value = value

    # -- what may be known: the same at every run ------------------------------------------------------------------
    @property
    def shape(self) -> tuple:
        return self.value.shape

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    @property
    def ndim(self) -> int:
        return self.value.ndim

    @property
    def size(self) -> int:
        return self.value.size

    @property
    def itemsize(self) -> int:
        return self.value.itemsize

    @property
    def nbytes(self) -> int:
        return self.value.nbytes

    @property
    def strides(self) -> tuple:
        return self.value.strides

    @property
    def flags(self) -> Any:
        return self.value.flags

    @property
    def base(self) -> Symbol | None:
        """The symbol whose memory this one is a view of; the engine finds by it what was changed in place."""
        root = self.tracer.graph.values[self.id].root
        return None if root == self.id else self.tracer.symbols[root]

    def __len__(self) -> int:
        return len(self.value)

    # -- what is noted -------------------------------------------------------------------------------------------
    def astype(self, dtype: Any, copy: bool = True) -> Symbol:
        if not copy and self.value.dtype == dtype:
            return self
        return self.tracer.raw("numpy.astype", (self, np.dtype(dtype)))

    def copy(self) -> Symbol:
        return self.tracer.raw("numpy.copy", (self,))

    def reshape(self, *shape: Any) -> Symbol:
        return self.tracer.raw("numpy.reshape", (self, shape[0] if len(shape) == 1 else shape))

    def __getitem__(self, index: Any) -> Symbol:
        return self.tracer.raw("numpy.getitem", (self, index))

    def __setitem__(self, index: Any, new: Any) -> None:
        self.tracer.write(self, index, new)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        if method != "__call__" or kwargs or ufunc.nout != 1:
            raise self.tracer.broken(f"numpy.{ufunc.__name__} in the form {method} is called on an array of a tensor")
        made = self.tracer.raw(f"numpy.{ufunc.__name__}", inputs)
        if out is None:
            return made
        (target,) = out
        if not isinstance(target, Symbol):
            raise self.tracer.broken("memory that the graph does not know is changed in place")
        self.tracer.write(target, Ellipsis, made)
        return target

    def clip(self, min: Any = None, max: Any = None) -> Symbol:
        return self.tracer.raw("numpy.clip", (self, min, max))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if kwargs or function not in (np.stack, np.linalg.norm):
            raise self.tracer.broken(f"numpy.{function.__name__} is called on the array of a tensor")
        return self.tracer.raw("numpy.stack" if function is np.stack else "numpy.linalg.norm", args)

    # -- what needs the values -----------------------------------------------------------------------------------
    def item(self) -> Any:
        """A stand-in for the number, which may be returned from the traced function and nothing else."""
        return Unread(self.tracer.raw("numpy.copy", (self,)))

    def tolist(self, *args: Any) -> Any:
        raise self.tracer.broken(_READ)

    __int__ = __float__ = __index__ = __complex__ = __bool__ = tolist

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise self.tracer.broken("the values of a tensor are read as a NumPy array")

    def __getattr__(self, name: str) -> Any:
        if hasattr(np.ndarray, name) and not name.startswith("_"):
            self.tracer.broken(f"`.array.{name}` of a tensor is used")
        raise AttributeError(f"the array of a traced tensor has no attribute {name!r}")

    __hash__ = None  # type: ignore[assignment]


def _operator(ufunc: Any, swapped: bool, inplace: bool) -> Any:
    def operate(self: Symbol, other: Any) -> Any:
        made = self.tracer.raw(f"numpy.{ufunc.__name__}", (other, self) if swapped else (self, other))
        if not inplace:
            return made
        self.tracer.write(self, Ellipsis, made)
        return self

    return operate


for _name, _ufunc in dict(
    add=np.add, sub=np.subtract, mul=np.multiply, truediv=np.true_divide, floordiv=np.floor_divide, mod=np.remainder,
    pow=np.power, matmul=np.matmul, lt=np.less, le=np.less_equal, gt=np.greater, ge=np.greater_equal, eq=np.equal,
    ne=np.not_equal, **{"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor},
).items():  # fmt: skip
    setattr(Symbol, f"__{_name}__", _operator(_ufunc, False, False))
    if _name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(Symbol, f"__r{_name}__", _operator(_ufunc, True, False))
        setattr(Symbol, f"__i{_name}__", _operator(_ufunc, False, True))
for _name, _ufunc in dict(neg=np.negative, abs=np.absolute, invert=np.invert).items():
    setattr(Symbol, f"__{_name}__", lambda self, u=_ufunc: self.tracer.raw(f"numpy.{u.__name__}", (self,)))
