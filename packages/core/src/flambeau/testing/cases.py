"""Test cases generated from op declarations: `op_cases()` lists them, `check_*` run one.

A test module only needs

    @pytest.mark.parametrize("case", op_cases(), ids=str)
    def test_gradient(case): case.check_gradient()

With FLAMBEAU_DEVICE=cuda the arrays of all cases are on the GPU.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import backends, ops
from ..device import device
from ..ops._op import REGISTRY, Op
from ..tensor import Tensor
from .compare import assert_close
from .gradients import gradcheck, gradgradcheck


def _maker(seed: int) -> Any:
    """`t(*shape, low, high, dtype)`: seeded random arrays."""
    rng = np.random.default_rng(seed)

    def make(*shape: int, low: float = -1.0, high: float = 1.0, dtype: str = "float64") -> np.ndarray:
        if dtype == "bool":
            return np.asarray(rng.random(shape) < 0.5)
        if dtype.startswith("int"):
            return np.asarray(rng.integers(int(low), int(high) if high > low + 1 else int(low) + 6, shape), dtype)
        return np.asarray(rng.uniform(low, high, shape), dtype)

    return make


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _map(value: Any, function: Any) -> Any:
    if _is_array(value):
        return function(value)
    if isinstance(value, list) and value and _is_array(value[0]):
        return [function(v) for v in value]
    return value


def _to_device(array: np.ndarray) -> Any:
    """The array where the tests are to run: FLAMBEAU_DEVICE, the CPU when it is not set."""
    where = device(os.environ.get("FLAMBEAU_DEVICE", "cpu"))
    return array if where.type == "cpu" else backends.get(where).from_host(array, where)


@dataclass
class OpCase:
    """One sample of one op."""

    op: Op
    number: int

    def __str__(self) -> str:
        return f"{self.op.name}-{self.number}"

    def arguments(self) -> list[Any]:
        """All arguments by position, with fresh raw arrays (seeded by the op's name)."""
        assert self.op.samples is not None
        sample = self.op.samples(_maker(zlib.crc32(self.op.name.encode())))[self.number]
        kwargs = sample[-1] if isinstance(sample[-1], dict) else {}
        return [_map(v, _to_device) for v in self.op.bind(sample[: len(sample) - bool(kwargs)], kwargs)]

    def tensors(self, dtype: Any = None, requires_grad: bool = False) -> list[Any]:
        """The arguments with Tensors where arrays stand (integers and booleans too)."""

        def wrap(position: int, a: Any) -> Tensor:
            if dtype is not None and a.dtype.kind == "f":
                a = a.astype(dtype)
            t = Tensor._wrap(a)
            differentiable = self.op.composite or position in self.op.vjp_of
            if requires_grad and differentiable and a.dtype.kind == "f":
                t.requires_grad_()
            return t

        return [_map(v, lambda a, i=i: wrap(i, a)) for i, v in enumerate(self.arguments())]

    def _flat(self, args: list[Any]) -> list[Tensor]:
        return [t for v in args for t in (v if isinstance(v, list) else [v]) if isinstance(t, Tensor)]

    def check_reference(self) -> bool:
        """Output against the op's independent reference; False when it has none."""
        if self.op.ref is None or self.op.samples is None:
            return False
        sample = self.op.samples(_maker(zlib.crc32(self.op.name.encode())))[self.number]
        kwargs = sample[-1] if isinstance(sample[-1], dict) else {}
        expected = self.op.ref(*sample[: len(sample) - bool(kwargs)], **kwargs)
        actual = self.op.function(*self.tensors())
        first = actual if not isinstance(expected, tuple) else list(actual)
        got = first[0] if isinstance(first, tuple) else first
        if isinstance(expected, tuple):
            for a, e in zip(got, expected, strict=True):
                assert_close(a.array.reshape(np.shape(e)), np.asarray(e), rtol=1e-9, atol=1e-12, check_dtype=False)
        else:
            assert_close(got, np.asarray(expected), rtol=1e-9, atol=1e-12, check_dtype=False)
        return True

    def check_forms(self) -> None:
        """Raw arrays = Tensors; inputs unchanged; non-contiguous inputs give the same."""
        raw = self.arguments()
        kept = [_map(v, lambda a: a.copy()) for v in raw]
        plain = self.op.function(*raw)
        for a, b in zip(raw, kept, strict=True):
            if _is_array(a) or (isinstance(a, list) and a and _is_array(a[0])):
                assert_close(a, b, rtol=0, atol=0)
        assert_close(self.op.function(*self.tensors()), plain, rtol=0, atol=0)

        def strided(a: Any) -> Any:
            return backends.of(a).xp.repeat(a, 2, -1)[..., ::2] if a.ndim else a

        args = [_map(v, strided) for v in self.arguments()]
        assert_close(self.op.function(*args), plain, rtol=1e-12, atol=1e-14)

    def check_precision(self) -> None:
        """float32 (through fast kernels, if any) close to float64, and in float32."""
        expected = self.op.function(*self.tensors())
        actual = self.op.function(*self.tensors(np.float32))
        for a, e in zip(_list(actual), _list(expected), strict=True):
            if e is None or a is None:
                continue
            if e.array.dtype == np.float64 and any(
                t.array.dtype == np.float32 for t in self._flat(self.tensors(np.float32))
            ):
                assert a.array.dtype == np.float32 or self.op.name == "cast", f"float32 in, {a.dtype} out"
            assert_close(a, e, rtol=3e-5, atol=3e-5, check_dtype=False)

    def check_kernel(self) -> bool:
        """The fast kernel against the plain form, in float32; False when the op has none."""
        if self.op.kernel is None:
            return False
        fast = self.op.function(*self.tensors(np.float32))
        kernel, self.op.kernel = self.op.kernel, None
        try:
            slow = self.op.function(*self.tensors(np.float32))
        finally:
            self.op.kernel = kernel
        for a, e in zip(_list(fast), _list(slow), strict=True):
            if e is not None and a is not None:
                assert_close(a, e, rtol=2e-5, atol=2e-5)
        return True

    def _function(self, args: list[Any]) -> Any:
        def call(*tensors: Tensor) -> Any:
            supply = iter(tensors)
            filled = [
                [next(supply) for _ in v] if isinstance(v, list) and v and isinstance(v[0], Tensor)
                else next(supply) if isinstance(v, Tensor) else v
                for v in args
            ]  # fmt: skip
            return self.op.function(*filled)

        return call

    def check_gradient(self, order: int = 1) -> bool:
        """First- or second-order gradients against finite differences; False when nothing is differentiable."""
        args = self.tensors(requires_grad=True)
        flat = self._flat(args)
        if not any(t.requires_grad for t in flat):
            return False
        function = self._function(args)
        out = function(*flat)
        if not any(o.requires_grad and o.array.dtype == np.float64 for o in _list(out) if isinstance(o, Tensor)):
            return False
        if out.__class__ is tuple and not self.op.composite:
            inner = function
            function = lambda *a: inner(*a)[0]  # statistics and indices carry no gradient
        return gradcheck(function, flat) if order == 1 else gradgradcheck(function, flat, atol=1e-4)


def _list(out: Any) -> list[Any]:
    return list(out) if isinstance(out, tuple | list) else [out]


def op_cases() -> list[OpCase]:
    """Every sample of every registered op."""
    assert ops is not None  # the import registers all ops
    return [
        OpCase(record, k)
        for name in sorted(REGISTRY)
        if (record := REGISTRY[name]).samples is not None
        for k in range(len(record.samples(_maker(0))))
    ]
