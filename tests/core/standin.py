"""A stand-in for CuPy on machines without a GPU: NumPy arrays that refuse what CuPy refuses.

`install()` makes it the library behind device "cuda" until the returned function is called. Names, signatures and
ufunc loops come from `standin_cupy.json`, written from an installed CuPy by `python tests/core/standin.py`; the rules
that no signature tells (what is converted from the host, which dtypes `add.at` takes) are in this file. What this
proves and what it cannot: docs/decisions/0008-testing-gpu-code-without-a-gpu.md.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

TABLE_FILE = Path(__file__).with_name("standin_cupy.json")
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_SUPPORTED = {np.dtype(c) for c in "?bhilqBHILQefdFD"} | {_BFLOAT16}
_SCALARS = (int, float, bool, complex)
# Functions that make device arrays of host arrays and sequences; the others want device arrays.
_FROM_HOST = {"array", "asarray", "ascontiguousarray", "asanyarray", "asfortranarray"}
# Arguments of other functions that CuPy converts by itself, and those that are not arrays at all.
_HOST_ARGUMENTS = {"indices", "fill_value", "shape", "axis", "axes", "s", "reps", "repeats", "shift", "dtype"}
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


def _method(name: str, text: str) -> Any:
    signature = _signature(text)

    def call(self: DeviceArray, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        for k, v in bound.arguments.items():
            _refuse(f"ndarray.{name}", k, v)
        done = getattr(self._a, name)(*_unwrap(args), **{k: _unwrap(v) for k, v in kwargs.items()})
        return _wrap(done, [self, *_devices(list(args)), *_devices(kwargs)])

    return call


def _function(path: str, text: str, numpy_function: Any) -> Any:
    name, signature = path.rpartition(".")[2], _signature(text)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as e:
            raise TypeError(f"cupy.{path}() {e}") from None
        if bound.get("dtype") is not None:
            _check_dtype(bound["dtype"])
        if name in _FROM_HOST:
            first = next(iter(bound.values()))
            if isinstance(first, np.ndarray | np.generic):
                _check_dtype(first.dtype)
            bound.pop("blocking", None)
            kwargs.pop("blocking", None)
        else:
            for k, v in bound.items():
                _refuse(path, k, v)
            array = next(iter(bound.items()), None)
            # What CuPy calls "a", "x", "ar" … it uses as an array without converting it.
            if array and array[0] in ("a", "x", "ar", "m", "element", "keys", "condition", "arr", "dst", "prototype"):
                if not isinstance(array[1], DeviceArray):
                    raise AttributeError(f"cupy.{path} expects a device array, not {type(array[1])}")
                if name == "lexsort" and array[1].ndim > 2:
                    raise NotImplementedError("Keys with the rank of three or more is not supported in lexsort")
        done = numpy_function(*_unwrap(args), **{k: _unwrap(v) for k, v in kwargs.items()})
        return _wrap(done, [*_devices(list(args)), *_devices(kwargs)])

    call.__name__ = name
    return call


class Namespace(types.ModuleType):
    """`cupy` as far as its names, signatures and loops go."""

    def __init__(self, table: dict, prefix: str = ""):
        super().__init__("cupy" + (f".{prefix.rstrip('.')}" if prefix else ""))
        numpy_module: Any = np
        for part in prefix.split(".")[:-1]:
            numpy_module = getattr(numpy_module, part)
        for full, text in table["functions"].items():
            if full.startswith(prefix):
                name = full[len(prefix) :]
                head, dot, _ = name.partition(".")
                if dot:
                    if not hasattr(self, head):
                        setattr(self, head, Namespace(table, f"{prefix}{head}."))
                elif isinstance(text, list):
                    if isinstance(getattr(np, name, None), np.ufunc):
                        setattr(self, name, Ufunc(name, text))
                    elif hasattr(np, name):  # fix, i0, sinc: ufuncs in CuPy alone
                        setattr(self, name, _function(name, "x", getattr(np, name)))
                elif hasattr(numpy_module, name):
                    setattr(self, name, _function(full, text, getattr(numpy_module, name)))
        if prefix == "linalg.":
            self.LinAlgError = np.linalg.LinAlgError

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"module '{self.__name__}' has no attribute {name!r}")


def _build() -> Any:
    table = json.loads(TABLE_FILE.read_text())
    for name, text in table["methods"].items():
        if not hasattr(DeviceArray, name) and hasattr(np.ndarray, name):
            setattr(DeviceArray, name, _method(name, text))
    made: Any = Namespace(table)
    made.__version__, made.ndarray = table["version"], DeviceArray
    for name in table["constants"]:
        if not hasattr(made, name) and hasattr(np, name):
            setattr(made, name, getattr(np, name))
    made.asnumpy = lambda a, *args, **kwargs: a.get() if isinstance(a, DeviceArray) else np.asarray(a)

    class Device:
        """The only device."""

        id = 0

        def __init__(self, index: int = 0):
            self.id = index

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: Any) -> None:
            pass

    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1, CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {})
    )
    stream = types.SimpleNamespace(synchronize=lambda: None)
    made.cuda = types.SimpleNamespace(Device=Device, runtime=runtime, get_current_stream=lambda: stream)
    return made


def install() -> Any:
    """Puts the stand-in behind device "cuda"; returns the function that takes it away again."""
    from flambeau import backends
    from flambeau.backends.cupy import CupyBackend

    missing = object()
    previous, sys_module = backends._cuda, sys.modules.get("cupy", missing)
    sys.modules["cupy"] = xp
    try:
        backends._cuda = CupyBackend()
    finally:
        if sys_module is missing:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = sys_module

    def remove() -> None:
        backends._cuda = previous

    return remove


def write_table() -> None:
    """Writes the table from the CuPy that is installed here (needs no GPU)."""
    import cupy

    def text(function: Any) -> str:
        words, star = [], False
        for p in inspect.signature(function).parameters.values():
            if p.kind is p.KEYWORD_ONLY and not star:
                words.append("*")
                star = True
            if p.kind is p.VAR_POSITIONAL:
                words.append(f"*{p.name}")
                star = True
            elif p.kind is p.VAR_KEYWORD:
                words.append(f"**{p.name}")
            else:
                words.append(p.name + ("" if p.default is p.empty else "="))
        return " ".join(words)

    functions: dict[str, Any] = {}
    constants = []
    for prefix in ("", "linalg.", "fft.", "lib.stride_tricks."):
        module = cupy
        for part in prefix.split(".")[:-1]:
            module = getattr(module, part)
        for name in sorted(n for n in dir(module) if not n.startswith("_")):
            value = getattr(module, name)
            if isinstance(value, cupy.ufunc):
                functions[prefix + name] = value.types
            elif inspect.isclass(value) or not callable(value):
                constants += [name] if not prefix else []
            else:
                try:
                    functions[prefix + name] = text(value)
                except (TypeError, ValueError):
                    functions[prefix + name] = "*args **kwargs"
    methods = {}
    for name in sorted(n for n in dir(cupy.ndarray) if not n.startswith("_")):
        line = (getattr(cupy.ndarray, name).__doc__ or "").split("\n")[0]
        if "(" in line:
            inside = line[line.index("(") + 1 : line.rindex(")")].split(", ")[1:]
            methods[name] = " ".join(w.split("=")[0].split()[-1] + ("=" if "=" in w else "") for w in inside if w)
    table = {"version": cupy.__version__, "functions": functions, "methods": methods, "constants": constants}
    lines = []
    for key, value in table.items():
        if isinstance(value, dict):
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f"{json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    TABLE_FILE.write_text("{" + ",\n ".join(lines) + "}\n")


if __name__ == "__main__":
    write_table()
else:
    xp = _build()
