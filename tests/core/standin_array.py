"""The arrays and ufuncs of the stand-in for CuPy (see standin.py, which sets `xp` here to its namespace)."""

from __future__ import annotations

import types
from typing import Any

import ml_dtypes
import numpy as np

xp: Any = None
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_SUPPORTED = {np.dtype(c) for c in "?bhilqBHILQefdFD"} | {_BFLOAT16}
_SCALARS = (int, float, bool, complex)
# Arguments of other functions that CuPy converts by itself, and those that are not arrays at all.
_HOST_ARGUMENTS = {"indices", "fill_value", "shape", "axis", "axes", "s", "reps", "repeats", "shift", "dtype"}
_COMPARISONS = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"}
# The dtypes for which `ufunc.at` works with integer arrays as indices (cupy/_core/_routines_indexing.pyx).
_BITS = ("int32", "int64", "uint32", "uint64")
_ORDER = ("int32", "float32", "float64", "uint32", "uint64")
_AT = {
    "add": ("int32", "float16", "float32", "float64", "uint32", "uint64"),
    "subtract": ("int32", "uint32"),
    "maximum": _ORDER,
    "minimum": _ORDER,
    "bitwise_and": _BITS,
    "bitwise_or": _BITS,
    "bitwise_xor": _BITS,
}


def _owner(array: Any) -> Any:
    while getattr(array, "base", None) is not None:  # of as_strided it is an object that has the array as its base
        array = array.base
    return array


def _make(array: Any, base: DeviceArray | None = None) -> DeviceArray:
    """A device array around a NumPy array (which is not copied)."""
    made = DeviceArray.__new__(DeviceArray)
    made._a, made._base = np.asarray(array), base
    return made


def _wrap(done: Any, sources: list) -> Any:
    """A result of NumPy as CuPy gives it: 0-d arrays for scalars, views of the device arrays it came from."""
    if isinstance(done, tuple | list):
        parts = [_wrap(d, sources) for d in done]
        return type(done)(*parts) if hasattr(done, "_fields") else type(done)(parts)
    if isinstance(done, np.generic):
        return _make(done)
    if not isinstance(done, np.ndarray):
        return done
    for s in sources:
        if done is s._a:
            return s
    for s in sources:
        if _owner(done) is _owner(s._a):
            return _make(done, s if s._base is None else s._base)
    return _make(done.copy(order="K") if done.base is not None else done)


def _devices(value: Any) -> list:
    """The device arrays in an argument."""
    if isinstance(value, DeviceArray):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [d for v in value for d in _devices(v)] if isinstance(value, tuple | list) else []


def _unwrap(value: Any) -> Any:
    """What NumPy computes with. Host arrays are copied, so that no result shares their memory."""
    if isinstance(value, DeviceArray):
        return value._a
    if isinstance(value, np.ndarray):
        return value.copy(order="K")
    return type(value)([_unwrap(v) for v in value]) if type(value) in (tuple, list) else value


def _refuse(path: str, name: str, value: Any) -> None:
    """An error for host arrays where CuPy does not convert them."""
    if name in _HOST_ARGUMENTS:
        return
    if isinstance(value, np.ndarray):
        raise TypeError(f"cupy.{path}: Unsupported type {type(value)} for argument {name!r}")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        for v in value:
            _refuse(path, name, v)
        if name in ("tup", "arys") and not all(isinstance(v, DeviceArray) for v in value):
            raise TypeError(f"cupy.{path}: only cupy arrays can be joined")


def _check_dtype(dtype: Any) -> None:
    if np.dtype(dtype) not in _SUPPORTED:
        raise ValueError(f"Unsupported dtype {np.dtype(dtype)}")


def _index(array: np.ndarray, index: Any) -> tuple:
    """An index as NumPy takes it. Integer arrays wrap around at the ends, as on the GPU."""
    key: list = []
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, DeviceArray | np.ndarray | list | tuple | bool | np.bool_):
            host = np.asarray(_unwrap(part))
            part = host.astype(np.int32) if isinstance(part, list | tuple) and not host.size else host
            if part.dtype.kind not in "biu":
                raise IndexError(f"arrays used as indices must be of integer or boolean type. (actual: {part.dtype})")
        key.append(part)
    used = sum((p.ndim if p.dtype.kind == "b" else 1) if isinstance(p, np.ndarray) else p is not None for p in key)
    used -= sum(p is Ellipsis for p in key)
    axis = 0
    for i, part in enumerate(key):
        if part is Ellipsis:
            axis += array.ndim - used
        elif isinstance(part, np.ndarray) and part.dtype.kind == "b":
            axis += part.ndim
        elif part is not None:
            if isinstance(part, np.ndarray) and axis < array.ndim and array.shape[axis]:
                key[i] = np.asarray(part.astype(np.int64) % array.shape[axis])
            axis += 1
    return tuple(key)


class Ufunc:
    """A ufunc with the loops, keywords and methods that CuPy's has."""

    def __init__(self, name: str, loops: list):
        self.__name__ = self.name = name
        self.types = loops
        self._numpy = getattr(np, name)
        self._loops = [
            tuple([tuple([_BFLOAT16 if c == "E" else np.dtype(c) for c in side]) for side in loop.split("->")])
            for loop in loops
        ]
        self.nin, self.nout = (len(side) for side in self._loops[0])
        self.nargs = self.nin + self.nout

    def __repr__(self) -> str:
        return f"<ufunc 'cupy_{self.name}'>"

    def _loop(self, inputs: list, dtype: Any) -> tuple:
        """The first loop that takes the inputs; Python numbers are weak unless their kind is above all arrays'."""
        if dtype is not None:
            _check_dtype(dtype)
            for loop in self._loops:
                if all(t == np.dtype(dtype) for t in loop[1]):
                    return loop
            raise TypeError(f"Wrong type ({np.dtype(dtype)}) of arguments for cupy_{self.name}")
        weak = [type(x) if type(x) in (int, float, complex) else None for x in inputs]
        given = [x.dtype if isinstance(x, DeviceArray | np.generic) else np.asarray(x).dtype for x in inputs]
        score = [{"b": 0, "i": 1, "u": 1, "f": 2, "c": 2}.get(t.kind, 3) for t in given]
        strong = [s for s, w in zip(score, weak) if w is None]
        if not strong or max([s for s, w in zip(score, weak) if w], default=0) > max(strong):
            weak = [None] * self.nin
        for loop in self._loops:
            if all(
                np.can_cast(t, want) or (w is not None and _keeps(w, want)) for t, w, want in zip(given, weak, loop[0])
            ):
                for x, w, want in zip(inputs, weak, loop[0]):
                    if w is int:
                        want.type(x)  # OverflowError where the number does not fit
                return loop
        raise TypeError(f"Wrong type ({tuple(str(t) for t in given)}) of arguments for cupy_{self.name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out, dtype, casting = kwargs.pop("out", None), kwargs.pop("dtype", None), kwargs.pop("casting", "same_kind")
        if kwargs:
            raise TypeError(f"cupy.{self.name}: Wrong arguments {kwargs} (unexpected keyword)")
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"Wrong number of arguments for cupy_{self.name}: {len(args)}")
        inputs, outs = list(args[: self.nin]), args[self.nin :]
        if out is not None:
            if outs:
                raise ValueError("Cannot specify 'out' as both a positional and keyword argument")
            outs = out if isinstance(out, tuple) else (out,)
            if len(outs) != self.nout:
                raise ValueError("The 'out' tuple must have exactly one entry per ufunc output")
        for x in inputs:
            if not isinstance(x, (DeviceArray, np.generic, *_SCALARS)):
                raise TypeError(f"Unsupported type {type(x)}")
        if not all(o is None or isinstance(o, DeviceArray) for o in outs):
            raise TypeError("Output arguments type must be cupy.ndarray")
        takes, gives = self._loop(inputs, dtype)
        hosts = [np.asarray(_unwrap(x)).astype(t, copy=False) for x, t in zip(inputs, takes)]
        results = self._numpy(*hosts, order="C")
        results = [np.asarray(r).astype(t, copy=False) for r, t in zip(results if self.nout > 1 else [results], gives)]
        done = []
        for result, o in zip(results, outs or (None,) * self.nout):
            if o is None:
                done.append(_make(result))
                continue
            if not np.can_cast(result.dtype, o.dtype, casting):
                raise TypeError(f"output of cupy_{self.name} ({result.dtype}) could not be cast to {o.dtype}")
            if np.broadcast_shapes(result.shape, o.shape) != o.shape:
                raise ValueError("Out shape is mismatched")
            np.copyto(o._a, result, casting="unsafe")
            done.append(o)
        return tuple(done) if self.nout > 1 else done[0]

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        """In place at `indices`, repeated ones included; for a few dtypes only."""
        if self.name not in _AT:
            raise NotImplementedError(f"`cupy_{self.name}.at` is not supported yet")
        if not isinstance(a, DeviceArray):
            raise AttributeError(f"'{type(a).__name__}' object has no attribute '_scatter_op'")
        key = _index(a._a, indices)
        arrays = [k for k in key if isinstance(k, np.ndarray)]
        if not arrays:
            view = a[key]
            self(view, b, view)
            return
        if (len(arrays) > 1 or arrays[0].dtype.kind != "b") and a.dtype.name not in _AT[self.name]:
            raise TypeError(f"cupy.{self.name}.at does not support {a.dtype}, only {', '.join(_AT[self.name])}")
        self._numpy.at(a._a, key, np.asarray(_unwrap(b)).astype(a.dtype))

    def _only(self, method: str, *names: str) -> None:
        if self.name not in names:
            raise NotImplementedError(f"`cupy_{self.name}.{method}` is not supported yet")

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Sums and products."""
        self._only("reduce", "add", "multiply")
        return (array.sum if self.name == "add" else array.prod)(axis, dtype, out, keepdims)

    def accumulate(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
        """Cumulative sums and products."""
        self._only("accumulate", "add", "multiply")
        return (array.cumsum if self.name == "add" else array.cumprod)(axis, dtype, out)

    def reduceat(self, array: Any, indices: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
        """Sums of slices."""
        self._only("reduceat", "add")
        if not isinstance(array, DeviceArray):
            raise TypeError(f"Unsupported type {type(array)}")
        return _wrap(np.add.reduceat(array._a, _unwrap(indices), axis, dtype, _unwrap(out)), _devices([out]))

    def outer(self, a: Any, b: Any, **kwargs: Any) -> Any:
        """All pairs."""
        a, b = xp.array(a), xp.array(b)
        return self(a.reshape(a.shape + (1,) * b.ndim), b.reshape((1,) * a.ndim + b.shape), **kwargs)


def _keeps(number: type, dtype: np.dtype) -> bool:
    """Whether a Python number does not promote an array of `dtype`."""
    try:
        return np.result_type(number(0), dtype) == dtype
    except TypeError:
        return False


class DeviceArray:
    """`cupy.ndarray`: a NumPy array that does not turn into one by itself."""

    __module__ = "cupy"
    __array_priority__ = 100
    __hash__: Any = None
    _a: np.ndarray
    _base: DeviceArray | None

    def __init__(self, shape: Any, dtype: Any = float, order: str = "C"):
        _check_dtype(dtype)
        self._a, self._base = np.empty(shape, dtype, order), None

    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    dtype = property(lambda self: self._a.dtype)
    strides = property(lambda self: self._a.strides)
    itemsize = property(lambda self: self._a.itemsize)
    nbytes = property(lambda self: self._a.nbytes)
    base = property(lambda self: self._base)
    shape = property(lambda self: self._a.shape, lambda self, shape: setattr(self._a, "shape", shape))
    T = property(lambda self: _wrap(self._a.T, [self]))
    device = property(lambda self: xp.cuda.Device(0))
    data = property(lambda self: types.SimpleNamespace(ptr=self._a.ctypes.data, device_id=0))
    flags = property(
        lambda self: types.SimpleNamespace(
            c_contiguous=self._a.flags.c_contiguous,
            f_contiguous=self._a.flags.f_contiguous,
            owndata=self._base is None,
        )
    )
    __cuda_array_interface__ = property(
        lambda self: {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._a.ctypes.data, False),
            "strides": self.strides,
            "version": 3,
        }
    )

    @property
    def real(self) -> DeviceArray:
        """The real part: a view of complex arrays, the array itself otherwise."""
        return _wrap(self._a.real, [self]) if self.dtype.kind == "c" else self

    @real.setter
    def real(self, value: Any) -> None:
        _make(self._a.real)[...] = value

    @property
    def imag(self) -> DeviceArray:
        """The imaginary part: a view of complex arrays, zeros otherwise."""
        return _wrap(self._a.imag, [self]) if self.dtype.kind == "c" else _make(np.zeros_like(self._a))

    @imag.setter
    def imag(self, value: Any) -> None:
        _make(self._a.imag)[...] = value

    def get(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """A copy in host memory."""
        return self._a.copy()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        function = getattr(xp, ufunc.__name__, None)
        if function is None:
            return NotImplemented
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        if ufunc.__name__ in _COMPARISONS:
            inputs = tuple([x.item() if isinstance(x, np.ndarray) and x.ndim == 0 else x for x in inputs])
        return (function if method == "__call__" else getattr(function, method))(*inputs, **kwargs)

    def __array_function__(self, func: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        if not all(issubclass(k, DeviceArray | np.ndarray) for k in kinds):
            return NotImplemented
        module: Any = xp
        for part in func.__module__.split(".")[1:]:
            module = getattr(module, part, None)
        function = getattr(module, func.__name__, None)
        return NotImplemented if function is None else function(*args, **kwargs)

    def __getitem__(self, index: Any) -> Any:
        return _wrap(self._a[_index(self._a, index)], [self])

    def __setitem__(self, index: Any, value: Any) -> None:
        key = _index(self._a, index)
        advanced = [i for i in key if isinstance(i, np.ndarray)]
        if sum(i.dtype.kind == "b" for i in advanced) > 1:
            raise ValueError("more than one boolean array in an assignment is not supported")
        if not advanced and isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if not advanced and isinstance(value, list | tuple):
            raise TypeError(f"Unsupported type {type(value)}")
        host = value._a if isinstance(value, DeviceArray) else np.asarray(value)
        self._a[key] = host.astype(self.dtype)

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Any:
        return iter([self[i] for i in range(len(self._a))])

    def __repr__(self) -> str:
        return repr(self._a)

    def __bool__(self) -> bool:
        return bool(self._a)

    def __int__(self) -> int:
        return int(self._a.item())

    def __float__(self) -> float:
        return float(self._a.item())

    def __complex__(self) -> complex:
        return complex(self._a.item())

    def __index__(self) -> int:
        return self._a.__index__()

    def __deepcopy__(self, memo: Any) -> DeviceArray:
        return _make(self._a.copy())

    def item(self) -> Any:
        """The only element as a Python number."""
        return self._a.item()

    def tolist(self) -> Any:
        """Nested lists."""
        return self._a.tolist()

    def reshape(self, *shape: Any, order: str = "C") -> DeviceArray:
        """A view where possible."""
        return _wrap(self._a.reshape(*shape, order=order), [self])

    def transpose(self, *axes: Any) -> DeviceArray:
        """A view with the axes in another order."""
        return _wrap(self._a.transpose(*axes), [self])

    def view(self, dtype: Any = None, type: Any = None) -> DeviceArray:
        """The same memory."""
        if dtype is not None:
            _check_dtype(dtype)
        return _wrap(self._a.view() if dtype is None else self._a.view(dtype), [self])

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> Any:
        """Another dtype."""
        if casting is not None or subok is not None:
            raise TypeError("casting and subok are not supported yet")
        _check_dtype(dtype)
        return self if not copy and self.dtype == np.dtype(dtype) else _make(self._a.astype(dtype, order=order))

    def fill(self, value: Any) -> None:
        """One value everywhere."""
        self[...] = value


def _operator(ufunc: str, swapped: bool = False, inplace: bool = False) -> Any:
    def apply(self: DeviceArray, other: Any) -> Any:
        if not isinstance(other, DeviceArray) and getattr(other, "__array_ufunc__", 0) is None:
            return NotImplemented
        if not hasattr(other, "__array_ufunc__") and getattr(other, "__array_priority__", 0) > 100:
            return NotImplemented
        if isinstance(other, np.ndarray) and other.ndim == 0 and ufunc in _COMPARISONS:
            other = other.item()
        function = getattr(xp, ufunc)
        if inplace:
            return function(self, other, out=self)
        return function(other, self) if swapped else function(self, other)

    return apply


for _symbol, _ufunc in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift",
}.items():  # fmt: skip
    setattr(DeviceArray, f"__{_symbol}__", _operator(_ufunc))
    setattr(DeviceArray, f"__r{_symbol}__", _operator(_ufunc, swapped=True))
    setattr(DeviceArray, f"__i{_symbol}__", _operator(_ufunc, inplace=True))
for _symbol, _ufunc in {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal",
                        "ne": "not_equal"}.items():  # fmt: skip
    setattr(DeviceArray, f"__{_symbol}__", _operator(_ufunc))
for _symbol, _ufunc in {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}.items():
    setattr(DeviceArray, f"__{_symbol}__", lambda self, _u=_ufunc: getattr(xp, _u)(self))
