"""assert_close: equality within tolerances that depend on the dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends
from ..tensor import Tensor

# As torch.testing.assert_close: (rtol, atol) by dtype name.
_TOLERANCES = {
    "float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5), "complex64": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7), "complex128": (1e-7, 1e-7),
}  # fmt: skip


def _host(x: Any) -> np.ndarray:
    array = x.array if isinstance(x, Tensor) else x
    return np.asarray(backends.of(array).to_host(array) if hasattr(array, "dtype") else array)


def assert_close(
    actual: Any,
    expected: Any,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_dtype: bool = True,
    msg: str = "",
) -> None:
    """Raises AssertionError unless both have one shape, one dtype and close values.

    Works on tensors, arrays, numbers and (nested) sequences and dicts of them.
    """
    if isinstance(expected, dict):
        assert isinstance(actual, dict) and actual.keys() == expected.keys(), f"keys differ {msg}"
        for k in expected:
            assert_close(actual[k], expected[k], rtol, atol, equal_nan, check_dtype, f"{msg}[{k!r}]")
        return
    if isinstance(expected, list | tuple):
        assert len(actual) == len(expected), f"{len(actual)} items, not {len(expected)} {msg}"
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            assert_close(a, e, rtol, atol, equal_nan, check_dtype, f"{msg}[{i}]")
        return
    a, e = _host(actual), _host(expected)
    if a.shape != e.shape:
        raise AssertionError(f"shape {a.shape}, not {e.shape} {msg}")
    if check_dtype and a.dtype != e.dtype:
        raise AssertionError(f"dtype {a.dtype}, not {e.dtype} {msg}")
    defaults = [_TOLERANCES.get(x.dtype.name, (0.0, 0.0)) for x in (a, e)]
    r = max(d[0] for d in defaults) if rtol is None else rtol
    t = max(d[1] for d in defaults) if atol is None else atol
    if a.dtype.kind == "V" or e.dtype.kind == "V":
        a, e = a.astype(np.float32), e.astype(np.float32)
    np.testing.assert_allclose(a, e, rtol=r, atol=t, equal_nan=equal_nan, err_msg=msg)
