"""Error messages of ops: which op, the shapes and dtypes it was called with, and the likely mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from .. import dtypes

_KINDS = (TypeError, IndexError, RuntimeError, NotImplementedError)


def explain(op: Any, raw: Sequence[Any], error: Exception) -> Exception:
    """The array library's error with the op's name and its arguments; the error itself if it says that already."""
    if getattr(error, "_explained", False):
        return error
    message = str(error).removeprefix(f"{op.name}: ")
    kind = type(error) if type(error) in _KINDS else ValueError
    if "could not be broadcast" in message or "cannot be broadcast" in message or "Can not broadcast" in message:
        kind, message = RuntimeError, _broadcast(op, raw) or message
    new = kind(f"{op.name}: {message} (called with {', '.join(_arguments(op, raw))})")
    new._explained = True  # type: ignore[attr-defined]
    return new


def _arguments(op: Any, raw: Sequence[Any]) -> list[str]:
    """Arrays by shape and dtype, and the options that differ from their defaults."""
    parts = []
    for name, value, default in zip(op.params, raw, op.defaults, strict=True):
        if hasattr(value, "shape"):
            parts.append(f"{name} {list(value.shape)} {value.dtype}")
        elif isinstance(value, list) and value and hasattr(value[0], "shape"):
            parts.append(f"{name} [" + ", ".join(str(list(a.shape)) for a in value) + "]")
        elif value is not None and not isinstance(value, list) and value is not default and value != default:
            parts.append(f"{name}={value!r}")
    return parts


def _broadcast(op: Any, raw: Sequence[Any]) -> str:
    """Which two arguments do not broadcast, and where."""
    arrays = [(name, v.shape) for name, v in zip(op.params, raw, strict=True) if getattr(v, "shape", ())]
    for k, (name, shape) in enumerate(arrays):
        for other, shape2 in arrays[k + 1 :]:
            for back in range(1, min(len(shape), len(shape2)) + 1):
                a, b = shape[-back], shape2[-back]
                if a != b and 1 not in (a, b):
                    return (
                        f"the size of {name} ({a}) must match the size of {other} ({b}) at dimension -{back}, or be 1; "
                        "reshape, slice or unsqueeze one of them"
                    )
    return ""


def check_castable(source: numpy.dtype, target: numpy.dtype) -> None:
    """RuntimeError when values would lose their kind (complex to float, float to integer) in a given tensor."""
    if source != target and not numpy.can_cast(source, target, "same_kind"):
        result, wanted = dtypes.from_numpy_dtype(source), dtypes.from_numpy_dtype(target)
        raise RuntimeError(f"result type {result} can't be cast to the desired output type {wanted}")


def check_same_dtype(op: Any, raw: Sequence[Any]) -> None:
    """RuntimeError unless the promoted arguments that are arrays have one dtype (products do not promote)."""
    dtype = getattr(raw[op.positions[0]], "dtype", None)
    if dtype is not None and dtype.kind == "f" and dtype.itemsize > 1:  # the usual case, found fast
        for i in op.positions:
            if getattr(raw[i], "dtype", dtype) is not dtype:
                break
        else:
            return
    found = [(op.params[i], raw[i].dtype) for i in op.positions if hasattr(raw[i], "dtype")]
    if found and found[0][1].itemsize == 1 and found[0][1].kind in "fV":
        dtypes.result_numpy([raw[i] for i in op.positions])  # float8 is for storage: raises
    for name, dtype in found[1:]:
        if dtype != found[0][1]:
            first = found[0]
            raise RuntimeError(
                f"{op.name}: expected {first[0]} and {name} to have the same dtype, but got {first[1]} and {dtype}; "
                f"cast one with .to(dtype), or the model with model.to(dtype)"
            )
