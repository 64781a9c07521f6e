"""Element types and PyTorch's promotion rules."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np

BOOL, INT, FLOAT, COMPLEX = range(4)


class dtype:  # PyTorch's name
    """An element type, as ``torch.dtype``; ``.numpy`` is the NumPy dtype behind it."""

    __slots__ = ("_category", "is_complex", "is_floating_point", "is_signed", "itemsize", "name", "numpy")

    def __init__(self, name: str, numpy: Any):
        self.name = name
        self.numpy = np.dtype(numpy)
        self.itemsize = self.numpy.itemsize
        kind = self.numpy.kind
        # ml_dtypes types report kind "V" (bfloat16, float8) yet are floats.
        self._category = {"b": BOOL, "i": INT, "u": INT, "f": FLOAT, "c": COMPLEX, "V": FLOAT}[kind]
        self.is_floating_point = self._category == FLOAT
        self.is_complex = self._category == COMPLEX
        self.is_signed = kind not in "bu"

    def __repr__(self) -> str:
        return f"flambeau.{self.name}"

    def __reduce__(self) -> str:
        return self.name


bool = dtype("bool", np.bool_)  # PyTorch's name
uint8 = dtype("uint8", np.uint8)
int8 = dtype("int8", np.int8)
int16 = dtype("int16", np.int16)
int32 = dtype("int32", np.int32)
int64 = dtype("int64", np.int64)
float16 = dtype("float16", np.float16)
bfloat16 = dtype("bfloat16", ml_dtypes.bfloat16)
float32 = dtype("float32", np.float32)
float64 = dtype("float64", np.float64)
float8_e4m3fn = dtype("float8_e4m3fn", ml_dtypes.float8_e4m3fn)
float8_e5m2 = dtype("float8_e5m2", ml_dtypes.float8_e5m2)
float8_e4m3fnuz = dtype("float8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz)
float8_e5m2fnuz = dtype("float8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz)
complex64 = dtype("complex64", np.complex64)
complex128 = dtype("complex128", np.complex128)
half, float, double, short, int, long = float16, float32, float64, int16, int32, int64
cfloat, cdouble = complex64, complex128

ALL = (
    bool, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64,
    float8_e4m3fn, float8_e5m2, float8_e4m3fnuz, float8_e5m2fnuz, complex64, complex128,
)  # fmt: skip
# To store numbers in: PyTorch does not compute in them either.
_STORAGE = {d.numpy for d in (float8_e4m3fn, float8_e5m2, float8_e4m3fnuz, float8_e5m2fnuz)}
_FROM_NUMPY = {d.numpy: d for d in ALL}
_CATEGORY = {d.numpy: d._category for d in ALL}
_BY_NAME = {d.name: d for d in ALL}
_default = float32


def get_default_dtype() -> dtype:
    """The dtype that Python floats become."""
    return _default


def set_default_dtype(d: dtype) -> None:
    """Sets the dtype that Python floats become; `d` must be a floating-point dtype."""
    global _default
    d = as_dtype(d)
    if not d.is_floating_point:
        raise TypeError(f"the default dtype must be a floating-point dtype, not {d}")
    _default = d


def as_dtype(d: Any) -> dtype:
    """A `dtype` from a dtype, a NumPy dtype or scalar type, Python's float/int/bool/complex, or a name."""
    if isinstance(d, dtype):
        return d
    if d in _PYTHON:
        return _PYTHON[d]() if d is _PY_FLOAT else _PYTHON[d]
    if isinstance(d, str) and d.removeprefix("flambeau.").removeprefix("torch.") in _BY_NAME:
        return _BY_NAME[d.removeprefix("flambeau.").removeprefix("torch.")]
    found = _FROM_NUMPY.get(np.dtype(d))
    if found is None:
        raise TypeError(f"no dtype corresponds to {d!r}; the dtypes are {', '.join(_BY_NAME)}")
    return found


_PY_FLOAT = type(1.0)
_PYTHON: dict[Any, Any] = {
    _PY_FLOAT: get_default_dtype,
    type(1): int64,
    type(True): bool,
    type(1j): complex64,
}


def from_numpy_dtype(d: np.dtype) -> dtype:
    """The dtype for a NumPy dtype; TypeError when there is none (strings, objects, unsigned 16+ bits)."""
    try:
        return _FROM_NUMPY[d]
    except KeyError:
        mend = "convert it with .astype(...) first"
        raise TypeError(f"arrays of NumPy dtype {d} are not supported; {mend}") from None


@functools.lru_cache(maxsize=1024)
def promote_numpy(a: np.dtype, b: np.dtype) -> np.dtype:
    """PyTorch's `promote_types` on NumPy dtypes: across categories the higher category's own type wins."""
    if a == b:
        return a
    ca, cb = _CATEGORY[a], _CATEGORY[b]
    if ca != cb and COMPLEX not in (ca, cb):
        return a if ca > cb else b
    if ca == cb == FLOAT and a.itemsize == b.itemsize:
        return float32.numpy  # float16 with bfloat16
    if ca == cb == FLOAT:
        return a if a.itemsize > b.itemsize else b
    if ca != cb:
        lower, upper = (a, b) if ca < cb else (b, a)
        if _CATEGORY[lower] != FLOAT or lower.itemsize <= 4:
            return upper
    return np.promote_types(a, b)


def promote_types(a: dtype, b: dtype) -> dtype:
    """The smallest dtype that both can become, by PyTorch's rules.

    >>> promote_types(int64, float16)
    flambeau.float16
    """
    return _FROM_NUMPY[promote_numpy(a.numpy, b.numpy)]


def _scalar_category(value: Any) -> Any:
    if value is True or value is False:
        return BOOL
    if isinstance(value, _PY_FLOAT):
        return FLOAT
    return INT if isinstance(value, type(1)) else COMPLEX


def result_numpy(values: Iterable[Any]) -> np.dtype:
    """The common dtype of arrays and Python scalars: dimensioned arrays, then 0-d arrays, then scalars.

    A lower priority decides only when its category (bool < int < float < complex) is higher.
    """
    best: list[Any] = [None, None, None]  # dtype by priority: dimensioned, 0-d, Python scalar
    for v in values:
        if v is None:
            continue
        d = getattr(v, "dtype", None)
        if d is None:
            category = _scalar_category(v)
            d, rank = (bool.numpy, int64.numpy, _default.numpy, complex64.numpy)[category], 2
            if category == COMPLEX and _default is float64:
                d = complex128.numpy
        else:
            rank = 0 if v.ndim else 1
            if d.itemsize == 1 and d in _STORAGE:
                name = from_numpy_dtype(d)
                raise RuntimeError(
                    f"arithmetic on {name} is not supported; convert it with .to(flambeau.float32) first"
                )
        best[rank] = d if best[rank] is None else promote_numpy(best[rank], d)
    result = None
    for d in best:
        if d is None:
            continue
        if result is None:
            result = d
        elif _CATEGORY[d] > _CATEGORY[result]:
            # A complex scalar with a float64 tensor gives complex128: precision comes from the tensor.
            result = np.promote_types(d, result) if _CATEGORY[result] == FLOAT and result.kind != "V" else d
    assert result is not None
    return result


def stored(array: Any, d: np.dtype) -> Any:
    """The array in a float8 dtype, as PyTorch converts: float8_e4m3fn has no infinity and takes the largest number."""
    if d == float8_e4m3fn.numpy:
        array = array.clip(-448.0, 448.0) if array.dtype.kind != "b" else array
    return array.astype(d)


def category(d: np.dtype) -> Any:
    """BOOL, INT, FLOAT or COMPLEX of a NumPy dtype."""
    return _CATEGORY[d]


class finfo:  # PyTorch's name
    """Limits of a floating-point dtype: bits, eps, max, min, tiny (smallest_normal), resolution.

    >>> finfo(float32).eps
    1.1920928955078125e-07
    """

    def __init__(self, type: dtype | None = None):
        d = _default if type is None else as_dtype(type)
        if not (d.is_floating_point or d.is_complex):
            raise TypeError(f"finfo is for floating-point dtypes, not {d}; use iinfo")
        info = ml_dtypes.finfo(np.empty(0, d.numpy).real.dtype)
        self.dtype, self.bits = d.name, info.bits
        self.eps, self.max, self.min = _PY_FLOAT(info.eps), _PY_FLOAT(info.max), _PY_FLOAT(info.min)
        self.tiny = self.smallest_normal = _PY_FLOAT(info.smallest_normal)
        self.resolution = _PY_FLOAT(info.resolution)

    def __repr__(self) -> str:
        return f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, dtype={self.dtype})"  # noqa: E501


class iinfo:  # PyTorch's name
    """Limits of an integer dtype: bits, max, min."""

    def __init__(self, type: dtype):
        d = as_dtype(type)
        if d._category != INT:
            raise TypeError(f"iinfo is for integer dtypes, not {d}; use finfo")
        info = np.iinfo(d.numpy)
        self.dtype, self.bits, self.max, self.min = d.name, info.bits, info.max, info.min

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"
