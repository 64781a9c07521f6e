"""What a PyTorch checkpoint may name: plain containers, NumPy's arrays, and PyTorch's tensors and storages."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from . import torchtypes
from .errors import CheckpointError, refused
from .unpickle import Builder, Internal, Reader

__all__ = ["finder", "set_state"]

_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's names
_STATE_DICT = "where it was made, save model.state_dict() with torch.save, and load that"
_TYPES = {"list": list, "dict": dict, "set": set, "int": int, "float": float, "str": str, "bool": bool}
_NUMPY_TYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|[SU][1-9][0-9]{0,3}|\?)")
_NUMPY_STATE = 5  # version, byte order or shape … of NumPy's __setstate__


class TypeName(Internal):
    """A class that the file may name as a value or a default factory."""

    def __init__(self, kind: type) -> None:
        self.kind = kind


class _NumpyArrayType(Internal):
    """``numpy.ndarray``, the first argument of NumPy's ``_reconstruct``."""


_NDARRAY = _NumpyArrayType()


def finder(name: str, more: Callable[[str, str], Any] | None = None) -> Callable[[str, str], Any]:
    """The function that a `Reader` of the file `name` asks for globals.

    Args:
        more: asked first; None means it does not know the global.
    """

    def find(module: str, attribute: str) -> Any:
        if more is not None and (found := more(module, attribute)) is not None:
            return found
        full = f"{_RENAMED.get(module, module)}.{attribute}"
        if full in _TABLE:
            return _TABLE[full]
        if full in torchtypes.UNSUPPORTED:
            raise refused(name, f"it holds {torchtypes.UNSUPPORTED[full]}")
        found = torchtypes.named_type(full)
        if found is not None:
            return found
        shown = repr(full[:100])
        if module.startswith("torch.nn.") or module.partition(".")[0] == "torch":
            cause = f"it holds a whole Python object ({shown}), whose code would have to be run"
            raise refused(name, cause, _STATE_DICT)
        raise CheckpointError(
            f"{name} is refused: its pickle asks for {shown}, which is no tensor and no plain data; nothing was run",
            f"if that is a class of a model, {_STATE_DICT}",
        )

    return find


def set_state(reader: Reader, target: Any, state: Any) -> None:
    """Gives an object that a builder made the state that the pickle has for it."""
    if type(target) is OrderedDict and type(state) is dict:
        # A state dict carries the versions of its modules there; other attributes are of no use.
        if isinstance(metadata := state.get("_metadata"), dict):
            target._metadata = metadata  # type: ignore[attr-defined]
    elif isinstance(target, np.dtype):
        if not isinstance(state, tuple) or len(state) < _NUMPY_STATE or state[1] not in ("<", ">", "|", "="):
            raise reader.bad("a NumPy dtype with a strange state")
        if any(part is not None for part in state[2:5]):
            raise reader.bad("a structured NumPy dtype")
        if state[1] in "<>" and target.kind != "S" and target.itemsize > 1:
            sizes = (target.itemsize, target.alignment) if target.kind == "U" else (-1, -1)
            target.__setstate__((3, state[1], None, None, None, *sizes, 0))  # type: ignore[attr-defined]
    elif isinstance(target, np.ndarray):
        if not isinstance(state, tuple) or len(state) != _NUMPY_STATE:
            raise reader.bad("a NumPy array with a strange state")
        _, shape, kind, column_major, raw = state
        array = _array(reader, raw, kind, shape, "F" if column_major else "C")
        content: Any = (1, array.shape, array.dtype, bool(column_major), array.tobytes("A"))
        target.__setstate__(content)
    else:
        raise reader.bad(f"a state for a {type(target).__name__}")


# plain Python


def _listed(reader: Reader, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple, set, frozenset, dict)):
        raise TypeError(f"a {type(value).__name__}")
    reader.spend(len(value))
    return list(value)


def _ordered_dict(reader: Reader, items: Any = ()) -> OrderedDict:
    made: OrderedDict = OrderedDict()
    for key, value in items.items() if isinstance(items, dict) else _listed(reader, items):
        reader.spend()
        made[reader.key(key)] = value
    return made


def _default_dict(reader: Reader, factory: Any = None, *rest: Any) -> defaultdict:
    if rest or not (factory is None or isinstance(factory, TypeName) or factory is _TABLE["collections.OrderedDict"]):
        raise TypeError("a default factory that is not a plain type")
    kind: Any = OrderedDict if isinstance(factory, Builder) else factory and factory.kind
    return defaultdict(kind)


def _counter(reader: Reader, counts: Any = None) -> Counter:
    made: Counter = Counter()
    if counts is not None and not isinstance(counts, dict):
        raise TypeError("counts that are not a dict")
    reader.spend(len(counts or ()))
    for key, value in (counts or {}).items():
        made[reader.key(key)] = value
    return made


def _set(reader: Reader, items: Any = ()) -> set:
    return set(map(reader.key, _listed(reader, items)))


def _frozen_set(reader: Reader, items: Any = ()) -> frozenset:
    return frozenset(map(reader.key, _listed(reader, items)))


def _encode(reader: Reader, text: str, encoding: str = "utf-8") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise TypeError("not a text and its encoding")
    reader.spend(nbytes=2 * len(text))
    return text.encode(encoding)


def _byte_array(reader: Reader, content: Any = b"", encoding: str = "latin-1") -> bytearray:
    if isinstance(content, str):
        content = _encode(reader, content, encoding)
    if type(content) is not bytes:
        raise TypeError("not bytes")
    reader.spend(nbytes=len(content))
    return bytearray(content)


def _empty_bytes(reader: Reader) -> bytes:
    return b""


def _complex(reader: Reader, real: float, imaginary: float) -> complex:
    if type(real) not in (int, float) or type(imaginary) not in (int, float):
        raise TypeError("not two numbers")
    return complex(real, imaginary)


def _whole(*values: Any) -> None:
    if not all(value is None or type(value) is int for value in values):
        raise TypeError("not whole numbers")


def _slice(reader: Reader, start: Any, stop: Any, step: Any) -> slice:
    _whole(start, stop, step)
    return slice(start, stop, step)


def _range(reader: Reader, start: int, stop: int, step: int) -> range:
    _whole(start, stop, step)
    return range(start, stop, step)


# NumPy


def _numpy_dtype(reader: Reader, kind: Any, align: Any = False, copy: Any = True) -> np.dtype:
    if isinstance(kind, bytes):
        kind = kind.decode("ascii")
    if not isinstance(kind, str) or not _NUMPY_TYPE.fullmatch(kind):
        raise TypeError(f"the NumPy dtype {str(kind)[:40]!r}")
    return np.dtype(kind, copy=True)


def _array(reader: Reader, raw: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(raw, str):
        raw = raw.encode("latin-1") if all(ord(c) < 256 for c in raw) else raw.encode("utf-8")
    if not isinstance(raw, (bytes, bytearray)) or not isinstance(kind, np.dtype) or order not in ("C", "F"):
        raise TypeError("not bytes, a dtype and an order")
    if type(shape) is not tuple or len(shape) > 32 or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise TypeError("not a shape")
    count = 1
    for extent in shape:
        count *= extent
    if count * kind.itemsize != len(raw):
        raise ValueError(f"{len(raw):,} bytes for an array of {str(shape)[:60]}")
    if kind == np.bool_ and raw and max(raw) > 1:
        raise ValueError("booleans that are neither 0 nor 1")
    reader.spend(nbytes=2 * len(raw))
    return np.frombuffer(bytearray(raw), kind).reshape(shape, order=order) if raw else np.empty(shape, kind)


def _numpy_scalar(reader: Reader, kind: Any, raw: Any = b"") -> Any:
    return _array(reader, raw, kind, (), "C")[()]


def _reconstruct(reader: Reader, kind: Any, shape: Any, letter: Any) -> np.ndarray:
    if kind is not _NDARRAY:
        raise TypeError("not a plain NumPy array")
    return np.empty(0, np.int8)


def _from_buffer(reader: Reader, raw: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
    return _array(reader, raw, kind, shape, order)


_TABLE: dict[str, Any] = {
    "builtins.set": Builder("set", _set),
    "builtins.frozenset": Builder("frozenset", _frozen_set),
    "builtins.bytearray": Builder("bytearray", _byte_array),
    "builtins.bytes": Builder("bytes", _empty_bytes),
    "builtins.complex": Builder("complex", _complex),
    "builtins.slice": Builder("slice", _slice),
    "builtins.range": Builder("range", _range),
    "builtins.xrange": Builder("range", _range),
    "_codecs.encode": Builder("encode", _encode),
    "collections.OrderedDict": Builder("OrderedDict", _ordered_dict),
    "collections.defaultdict": Builder("defaultdict", _default_dict),
    "collections.Counter": Builder("Counter", _counter),
    "numpy.dtype": Builder("numpy.dtype", _numpy_dtype),
    "numpy.ndarray": _NDARRAY,
    **{f"builtins.{name}": TypeName(kind) for name, kind in _TYPES.items() if name != "set"},
    **torchtypes.BUILDERS,
}
for _place in ("numpy.core", "numpy._core"):
    _TABLE[f"{_place}.multiarray.scalar"] = Builder("numpy scalar", _numpy_scalar)
    _TABLE[f"{_place}.multiarray._reconstruct"] = Builder("numpy array", _reconstruct)
    _TABLE[f"{_place}.numeric._frombuffer"] = Builder("numpy array", _from_buffer)
