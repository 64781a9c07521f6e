"""Nested plain containers as named arrays plus JSON, so that they fit a safetensors file and need no pickle."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import FlambeauError
from .errors import CheckpointError

__all__ = ["flatten", "unflatten"]

_NAMES_OF_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_PLAIN_KEYS = (str, int, float, bool, type(None))


def flatten(obj: Any) -> tuple[dict[str, Any], str]:
    """Splits `obj` into arrays by dotted name and a JSON description of the rest.

    Understood: dict, list, tuple, str, bytes, bool, int, float, None, NumPy scalars, arrays, Tensors and dtypes.

    Raises:
        FlambeauError: anything else, with the place where it is.

    >>> arrays, text = flatten({"w": np.zeros(2), "steps": [1, 2]})
    >>> list(arrays), text
    (['w'], '{"dict":[["w",{"array":"w"}],["steps",{"list":[1,2]}]]}')
    """
    arrays: dict[str, Any] = {}
    return arrays, json.dumps(_encode(obj, "", arrays, ()), separators=(",", ":"), allow_nan=False)


def unflatten(arrays: Mapping[str, np.ndarray], text: str, name: str = "the file") -> Any:
    """The inverse of `flatten`; Tensors come back as Tensors, arrays as arrays.

    Raises:
        FlambeauError: the description is damaged or names arrays that are not there.
    """
    try:
        return _decode(json.loads(text), arrays, name)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{name} is damaged: its description cannot be read ({error})", "use another copy"
        ) from error


def _encode(obj: Any, path: str, arrays: dict[str, Any], parents: tuple[int, ...]) -> Any:
    if obj is None or isinstance(obj, (bool, str)):
        return obj
    if isinstance(obj, int):
        return int(obj)
    if isinstance(obj, float):
        value = float(obj)
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(obj, np.generic) and obj.dtype.kind in "biufc":
        return _store("scalar", np.asarray(obj), path, arrays)
    if isinstance(obj, np.ndarray):
        return _store("array", obj, path, arrays)
    if isinstance(obj, bytes):
        return {"bytes": base64.b64encode(obj).decode("ascii")}
    if id(obj) in parents or len(parents) > 200:
        raise FlambeauError(
            f"cannot save {path or 'the object'}: it contains itself or is nested too deeply", "save plain data"
        )
    parents = (*parents, id(obj))
    if isinstance(obj, Mapping):
        for key in obj:
            if not isinstance(key, _PLAIN_KEYS):
                raise FlambeauError(
                    f"cannot save {path or 'the object'}: key {key!r} is not a text or number", "use texts as keys"
                )
        return {
            "dict": [
                [_encode(key, "", arrays, ()), _encode(value, _join(path, key), arrays, parents)]
                for key, value in obj.items()
            ]
        }
    if isinstance(obj, (list, tuple)):
        kind = "tuple" if isinstance(obj, tuple) else "list"
        return {kind: [_encode(value, _join(path, index), arrays, parents) for index, value in enumerate(obj)]}

    from .. import Tensor
    from ..dtypes import dtype

    if isinstance(obj, Tensor):
        return _store("tensor", obj, path, arrays)
    if isinstance(obj, dtype):
        return {"dtype": obj.name}
    kind = f"{type(obj).__module__}.{type(obj).__qualname__}"
    where = f" at {path!r}" if path else ""
    mend = "save its state_dict() or plain data (dict, list, tuple, text, numbers, arrays, Tensors)"
    raise FlambeauError(f"cannot save a {kind}{where}", mend)


def _store(kind: str, value: Any, path: str, arrays: dict[str, Any]) -> dict[str, str]:
    name = path or "value"
    while name in arrays or name == "__metadata__":
        name += "'"
    arrays[name] = value
    return {kind: name}


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _decode(node: Any, arrays: Mapping[str, np.ndarray], name: str) -> Any:
    if not isinstance(node, dict):
        if isinstance(node, list):
            raise ValueError("a bare list")
        return node
    ((kind, value),) = node.items()
    if kind == "dict":
        return {_decode(key, arrays, name): _decode(item, arrays, name) for key, item in value}
    if kind == "list":
        return [_decode(item, arrays, name) for item in value]
    if kind == "tuple":
        return tuple(_decode(item, arrays, name) for item in value)
    if kind == "float":
        return _NAMES_OF_FLOATS[value]
    if kind == "bytes":
        return base64.b64decode(value, validate=True)
    if kind == "array":
        return arrays[value]
    if kind == "scalar":
        return arrays[value][()]
    if kind == "tensor":
        from .safetensors import to_tensor

        return to_tensor(arrays[value], value, name)
    if kind == "dtype":
        from ..dtypes import as_dtype

        return as_dtype(value)
    raise ValueError(f"unknown kind {kind!r}")
