"""A stand-in for CuPy on machines without a GPU: NumPy arrays that refuse what CuPy refuses.

`install()` makes it the library behind device "cuda" until the returned function is called. Names, signatures and
ufunc loops come from `standin_cupy.json`, written from an installed CuPy by `python tests/core/standin.py`; the rules
that no signature tells (what is converted from the host, which dtypes `add.at` takes) are in this file and in
`standin_array.py`. What this proves and what it cannot: docs/decisions/0008-testing-gpu-code-without-a-gpu.md.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import standin_array
from standin_array import DeviceArray, Ufunc, _check_dtype, _devices, _make, _refuse, _unwrap, _wrap

TABLE_FILE = Path(__file__).with_name("standin_cupy.json")
# Functions that make device arrays of host arrays and sequences; the others want device arrays.
_FROM_HOST = {"array", "asarray", "ascontiguousarray", "asanyarray", "asfortranarray"}
# What gives a 0-d array in CuPy and a Python number in NumPy.
_ARRAY_RESULTS = {"allclose", "array_equal", "array_equiv", "count_nonzero"}


def _signature(text: str) -> inspect.Signature:
    """The signature that a line of the table describes: names, `name=` for what has a default, `*`, `*a` and `**k`."""
    parameters = []
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for word in text.split():
        if word.startswith("**"):
            parameters.append(inspect.Parameter(word[2:], inspect.Parameter.VAR_KEYWORD))
        elif word.startswith("*"):
            kind = inspect.Parameter.KEYWORD_ONLY
            if word != "*":
                parameters.append(inspect.Parameter(word[1:], inspect.Parameter.VAR_POSITIONAL))
        else:
            default = None if word.endswith("=") else inspect.Parameter.empty
            parameters.append(inspect.Parameter(word.rstrip("="), kind, default=default))
    return inspect.Signature(parameters)


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
        if name in _ARRAY_RESULTS and not isinstance(done, np.ndarray):
            return _make(done)
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
    xp = standin_array.xp = _build()
