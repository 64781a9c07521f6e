"""Matrix products and linear layers with oneDNN, on the threads that all kernels share.

NumPy's OpenBLAS is as fast, but it has threads of its own: they spin for work after each product and take the
processors from OpenMP's, on which the kernels before and after it run; and where other programs work as well, a
product may wait a scheduler slice of milliseconds for one of them. So OpenBLAS gets what it does in the calling
thread, here are the larger products. Its number of threads, which is the whole process's, is left alone.

One product goes through ``dnnl_sgemm``, which needs no plan: shapes may change with each call. Batches, and large
layers with a bias or an activation, are primitives with a plan for each shape and layout. No operand is copied to
transpose it. The error is that of a sum of k products in float32, as NumPy's, but in another order.

This module is light: oneDNN is loaded by the first product that is worth it.
"""

import functools
import importlib
import math
import platform
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["linear", "linear_activation", "matmul", "product"]

# Multiply-adds up to which OpenBLAS stays in the calling thread: of matrices, of a matrix and a vector.
_ALONE, _ALONE_VECTOR = 1 << 18, 9216
# Up to here waking a second thread takes longer than it saves.
_ONE_THREAD, _ONE_THREAD_VECTOR = 1 << 22, 1 << 18
_BATCH_ENTRY = 1 << 13  # the least product in a batch: below, oneDNN's preparations outweigh its threads
_WORTH_PLAN = 1 << 24  # building a plan takes some 0.3 ms
# Where Numba's kernel, which works at the speed of reading the matrix, is worth its import.
_FEW_VECTORS, _LARGE_MATRIX = 8, 1 << 19
# With AVX2 oneDNN packs no operand of a product of m x n where 1/m + 1/n is at least this. Lines a multiple of 2 KiB
# apart then push each other out of the cache, which halves the speed: they are copied to lines a little longer.
_UNPACKED, _ALIASED, _SKEW = 0.0038, 512, 16
_WORTH_SKEW = 32  # lines of the other operand
_FLOAT32 = np.dtype(np.float32)
_AVX2, _AVX512 = 0x4, 0x20  # bits of oneDNN's instruction sets
# Values of dnnl_types.h, and alpha.
_ACTIVATIONS = {"relu": (0x20, 0.0), "gelu": (0x31, 0.0), "gelu_tanh": (0x2B, 0.0), "silu": (0x2C, 1.0)}


class _Library:
    """What a product needs of oneDNN and OpenMP."""

    def __init__(self) -> None:
        from . import _onednn, _threads

        x86 = platform.machine().lower() in ("x86_64", "amd64")  # oneDNN's products for others are not tuned
        instructions = _onednn.lib.dnnl_get_effective_cpu_isa()
        if not x86 or not instructions & _AVX2:
            raise ImportError("oneDNN's matrix products need AVX2")
        self.unpacked = 2.0 if instructions & _AVX512 else _UNPACKED
        self.dnn = _onednn
        self.sgemm: Callable = _onednn.lib.dnnl_sgemm
        self.from_buffer = _onednn.ffi.from_buffer
        self.floats = _onednn.ffi.typeof("float[]")
        openmp = _threads.openmp()
        self.threads: Callable[[], int] = openmp.omp_get_max_threads
        self.set_threads: Callable[[int], None] = openmp.omp_set_num_threads

    def alone(self, call: Callable, *args: Any) -> Any:
        """The call with one thread, the calling one; the setting is this thread's own."""
        before = self.threads()
        self.set_threads(1)
        try:
            return call(*args)
        finally:
            self.set_threads(before)

    def start(self, matrix: np.ndarray, transposed: bool = False) -> Any:
        """The address of a matrix: that of its first line, which is contiguous."""
        return self.from_buffer(self.floats, matrix[:, 0] if transposed else matrix[0])


_found: _Library | None = None
_missing = False


def _library() -> _Library | None:
    """oneDNN, unless it is missing, or this is a forked child, which has none of OpenMP's threads."""
    global _found, _missing
    if _found is None and not _missing:
        from . import load

        try:
            _found = _Library() if load() else None
        except (ImportError, AttributeError, OSError):
            pass
        _missing = _found is None
    return None if _found is None or _found.dnn.disabled else _found


def _layout(x: np.ndarray) -> tuple[np.ndarray, bool, int]:
    """The matrix (copied if no dimension is dense), whether it is a transposed one, and the step between its lines."""
    m, n = x.shape
    down, right = x.strides
    if right == 4 or n == 1:
        if m == 1:
            return x, False, n
        if down >= 4 * n and not down & 3:
            return x, False, down >> 2
    if down == 4 or m == 1:
        if n == 1:
            return x, True, m
        if right >= 4 * m and not right & 3:
            return x, True, right >> 2
    return np.ascontiguousarray(x), False, n


def _skewed(x: np.ndarray) -> np.ndarray:
    """A copy of the matrix whose lines do not begin a multiple of 2 KiB apart."""
    copy = np.empty((x.shape[0], x.shape[1] + _SKEW), np.float32)[:, : x.shape[1]]
    copy[...] = x
    return copy


def _gemm(library: _Library, a: np.ndarray, b: np.ndarray, out: np.ndarray, alone: bool) -> None:
    (m, k), n = a.shape, b.shape[1]
    a, a_turned, a_step = _layout(a)
    b, b_turned, b_step = _layout(b)
    if m >= _WORTH_SKEW and n >= _WORTH_SKEW and 1 / m + 1 / n >= library.unpacked:
        if not b_turned and not b_step % _ALIASED:
            b, b_step = _skewed(b), n + _SKEW
        if a_turned and not a_step % _ALIASED:
            a, a_step = _skewed(a.T).T, m + _SKEW
    args = (
        b"T" if a_turned else b"N", b"T" if b_turned else b"N", m, n, k, 1.0, library.start(a, a_turned), a_step,
        library.start(b, b_turned), b_step, 0.0, library.start(out), n,
    )  # fmt: skip
    status = library.alone(library.sgemm, *args) if alone else library.sgemm(*args)
    if status:
        raise RuntimeError(f"oneDNN's matrix product failed with status {status}")


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The product of two matrices, in `out` if given (C-ordered, apart from both)."""
    m, k = a.shape
    n = b.shape[1]
    work = m * k * n
    vector = m == 1 or n == 1
    if work <= (_ALONE_VECTOR if vector else _ALONE) or a.dtype != _FLOAT32 or b.dtype != _FLOAT32:
        return NotImplemented
    library = _library()
    if library is None or b.shape[0] != k:
        return NotImplemented
    if out is None:
        out = np.empty((m, n), np.float32)
    elif out.dtype != _FLOAT32 or not out.flags.c_contiguous or out.shape != (m, n):
        return NotImplemented
    _gemm(library, a, b, out, work <= (_ONE_THREAD_VECTOR if vector else _ONE_THREAD))
    return out


def matmul(input: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The matrix product; leading dimensions broadcast."""
    if input.ndim == 0 or other.ndim == 0 or input.size * other.shape[-1] <= _ALONE_VECTOR:
        return NotImplemented
    if other.ndim == 1:
        column = matmul(input, other[:, None])
        return column if column is NotImplemented else column[..., 0]
    if input.ndim == 1:
        row = matmul(input[None], other)
        return row if row is NotImplemented else row[..., 0, :]
    if other.ndim > 2:
        return _batch(input, other)
    if input.ndim == 2:
        return product(input, other)
    lead = input.shape[:-1]
    flat = input.reshape(math.prod(lead), input.shape[-1])
    out = product(flat, other)
    return out if out is NotImplemented else out.reshape(*lead, other.shape[1])


def _batch(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    (m, k), n = a.shape[-2:], b.shape[-1]
    each = m * k * n
    if each < _BATCH_ENTRY or a.dtype != _FLOAT32 or b.dtype != _FLOAT32 or b.shape[-2] != k:
        return NotImplemented
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    count = math.prod(lead)
    if count == 1:
        out = product(a.reshape(m, k), b.reshape(k, n))
        return out if out is NotImplemented else out.reshape(*lead, m, n)
    if count * each <= _ONE_THREAD and each <= (_ALONE_VECTOR if m == 1 or n == 1 else _ALONE):
        return NotImplemented  # OpenBLAS stays in the calling thread
    library = _library()
    if library is None or not count or len(lead) > 8:
        return NotImplemented
    a, a_steps, a_turned = _stack(a, len(lead))
    b, b_steps, b_turned = _stack(b, len(lead))
    plan = library.dnn.cached(_plan, a.shape, a_steps, b.shape, b_steps, lead, False, None)
    if plan is None:
        return NotImplemented
    out = np.empty((*lead, m, n), np.float32)
    first = (0,) * len(lead)
    starts = library.start(a[first], a_turned), library.start(b[first], b_turned)
    plan.run(*starts, library.from_buffer(library.floats, out))
    return out


def _stack(x: np.ndarray, lead: int) -> tuple[np.ndarray, tuple[int, ...], bool]:
    """`x` with `lead` leading dimensions (1 where it is only repeated), its steps, and if its matrices are transposed.

    It is copied if its matrices are not dense. Steps of dimensions of size 1, which say nothing, are as if dense.
    """
    m, n = x.shape[-2:]
    down, right = x.strides[-2:]
    plain = (right == 4 or n == 1) and (down >= 4 * n or m == 1)
    turned = not plain and (down == 4 or m == 1) and (right >= 4 * m or n == 1)
    if not (plain or turned) or any(step & 3 or step < 0 for step in x.strides):
        x, turned = np.ascontiguousarray(x), False
    if 0 in x.strides:
        x = x[tuple([slice(0, 1) if step == 0 else slice(None) for step in x.strides[:-2]])]
    if x.ndim < lead + 2:
        x = x.reshape((1,) * (lead + 2 - x.ndim) + x.shape)
    down, right = x.strides[-2:]
    down, right = (4, right if n > 1 else 4 * m) if turned else (down if m > 1 else 4 * n, 4)
    around = zip(x.shape[:-2], x.strides[:-2], strict=True)
    return x, (*[step if size > 1 else 4 * m * n for size, step in around], down, right), turned


def _plan(
    a: tuple, a_strides: tuple, b: tuple, b_strides: tuple, lead: tuple, bias: bool, activation: str | None
) -> Any:
    """The product of batches of matrices with these shapes and strides (in bytes), and what follows it."""
    from . import _onednn as dnn

    def steps(strides: tuple) -> list[int]:
        return [step >> 2 for step in strides]

    shape = (*lead, a[-2], b[-1])
    source, weights = dnn.descriptor(a, steps(a_strides)), dnn.descriptor(b, steps(b_strides))
    result = dnn.descriptor(shape, dnn.dense_strides(shape) if len(shape) > 2 else (shape[1], 1))
    inputs = [(dnn.SRC, source), (dnn.WEIGHTS, weights)]
    added = dnn.NULL
    if bias:
        added = dnn.descriptor((1, shape[1]), (shape[1], 1))
        inputs.append((dnn.BIAS, added))
    attributes = dnn.attributes() if activation is None else dnn.eltwise_attributes(*_ACTIVATIONS[activation])
    make = dnn.lib.dnnl_matmul_primitive_desc_create
    desc = dnn.primitive_desc(make, source, weights, added, result, attributes)
    if "ref" in dnn.implementation(desc):
        raise dnn.Unsupported("no tuned implementation")
    return dnn.Plan(desc, inputs, [(dnn.DST, result)])


def linear(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """input @ weight.T + bias."""
    return _layer(input, weight, bias, None)


def linear_activation(
    input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, kind: str = "relu"
) -> np.ndarray:
    """The activation `kind` of input @ weight.T + bias, in one pass; gelu to an error of 1e-6."""
    return _layer(input, weight, bias, kind) if kind in _ACTIVATIONS else NotImplemented


def _layer(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, activation: str | None) -> np.ndarray:
    if input.size * weight.shape[0] <= _ALONE_VECTOR or weight.ndim != 2 or not input.ndim:
        return NotImplemented
    flat = input if input.ndim == 2 else input.reshape(math.prod(input.shape[:-1]), input.shape[-1])
    if activation is None and flat.shape[0] <= _FEW_VECTORS and weight.size >= _LARGE_MATRIX:
        few = _few_vectors(input, weight, bias)
        if few is not NotImplemented:
            return few
    if bias is None and activation is None:
        out = product(flat, weight.T)
    else:
        out = _fused(flat, weight.T, bias, activation)
    return out if out is NotImplemented or input.ndim == 2 else out.reshape(*input.shape[:-1], weight.shape[0])


@functools.cache
def _numba_gemv() -> Any:
    from . import load_numba

    return importlib.import_module(f"{__package__}.numba_gemv") if load_numba() else None


def _few_vectors(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    module = _numba_gemv()
    return NotImplemented if module is None else module.linear(input, weight, bias)


def _fused(a: np.ndarray, b: np.ndarray, bias: np.ndarray | None, activation: str | None) -> np.ndarray:
    (m, k), n = a.shape, b.shape[1]
    if bias is not None and (bias.dtype != _FLOAT32 or bias.shape != (n,)):
        return NotImplemented
    if m == 1 or n == 1 or m * n * k < _WORTH_PLAN:
        if activation is not None:
            return NotImplemented
        out = product(a, b)
        if out is not NotImplemented:
            out += bias
        return out
    if a.dtype != _FLOAT32 or b.dtype != _FLOAT32 or b.shape[0] != k:
        return NotImplemented
    library = _library()
    if library is None:
        return NotImplemented
    a, a_turned, _ = _layout(a)
    b, b_turned, _ = _layout(b)
    plan = library.dnn.cached(_plan, a.shape, a.strides, b.shape, b.strides, (), bias is not None, activation)
    if plan is None:
        return NotImplemented
    out = np.empty((m, n), np.float32)
    operands = [library.start(a, a_turned), library.start(b, b_turned), library.start(out)]
    if bias is not None:
        operands.insert(2, library.from_buffer(library.floats, np.ascontiguousarray(bias)))
    plan.run(*operands)
    return out
