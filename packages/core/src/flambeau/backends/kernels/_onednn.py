"""oneDNN from Python: finding the library, memory descriptors, and cached execution plans.

The C API of oneDNN 3 is called through cffi in ABI mode: no compiler and no header are needed, any ``libdnnl.so.3``
will do. A `Plan` is one primitive with the reorders (layout changes) that its operands need. Building one costs
hundreds of microseconds, running one a few, so plans are remembered by shape: `cached`.
"""

import contextlib
import ctypes
import ctypes.util
import importlib.metadata
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from cffi import FFI

from . import _threads

__all__ = ["Plan", "Unsupported", "cached", "create", "descriptor", "disabled", "execution_lock", "set_num_threads"]

ffi = FFI()
ffi.cdef("""
typedef struct { int arg; void *memory; } dnnl_exec_arg_t;
typedef struct { int major, minor, patch; const char *hash; unsigned cpu_runtime, gpu_runtime; } dnnl_version_t;
const dnnl_version_t *dnnl_version(void);
int dnnl_get_effective_cpu_isa(void);
int dnnl_engine_create(void **, int kind, size_t index);
int dnnl_stream_create(void **, void *engine, unsigned flags);
int dnnl_memory_desc_create_with_strides(void **, int, const int64_t *, int, const int64_t *);
int dnnl_memory_desc_create_with_tag(void **, int, const int64_t *, int, int tag);
int dnnl_memory_desc_destroy(void *);
int dnnl_memory_desc_equal(const void *, const void *);
size_t dnnl_memory_desc_get_size(const void *);
int dnnl_memory_create(void **, const void *desc, void *engine, void *handle);
int dnnl_memory_set_data_handle(void *, void *);
int dnnl_memory_destroy(void *);
int dnnl_primitive_attr_create(void **);
int dnnl_primitive_attr_set_scratchpad_mode(void *, int);
int dnnl_primitive_attr_set_post_ops(void *, const void *);
int dnnl_primitive_attr_destroy(void *);
int dnnl_post_ops_create(void **);
int dnnl_post_ops_destroy(void *);
int dnnl_post_ops_append_eltwise(void *, int algorithm, float alpha, float beta);
int dnnl_post_ops_append_sum(void *, float scale, int32_t zero_point, int dtype);
int dnnl_matmul_primitive_desc_create(void **, void *, const void *, const void *, const void *, const void *,
    const void *);
int dnnl_sgemm(char, char, int64_t m, int64_t n, int64_t k, float alpha, const float *, int64_t, const float *, int64_t,
    float beta, float *, int64_t);
int dnnl_primitive_desc_query(const void *, int what, int index, void *result);
const void *dnnl_primitive_desc_query_md(const void *, int what, int index);
int dnnl_primitive_desc_destroy(void *);
int dnnl_primitive_create(void **, const void *);
int dnnl_primitive_execute(const void *, void *stream, int, const dnnl_exec_arg_t *);
int dnnl_primitive_destroy(void *);
int dnnl_reorder_primitive_desc_create(void **, const void *, void *, const void *, void *, const void *);
int dnnl_convolution_forward_primitive_desc_create(void **, void *, int, int, const void *, const void *, const void *,
    const void *, const int64_t *, const int64_t *, const int64_t *, const int64_t *, const void *);
int dnnl_convolution_backward_data_primitive_desc_create(void **, void *, int, const void *, const void *, const void *,
    const int64_t *, const int64_t *, const int64_t *, const int64_t *, const void *, const void *);
int dnnl_convolution_backward_weights_primitive_desc_create(void **, void *, int, const void *, const void *,
    const void *, const void *, const int64_t *, const int64_t *, const int64_t *, const int64_t *, const void *,
    const void *);
int dnnl_batch_normalization_forward_primitive_desc_create(void **, void *, int, const void *, const void *, float,
    unsigned, const void *);
int dnnl_batch_normalization_backward_primitive_desc_create(void **, void *, int, const void *, const void *,
    const void *, float, unsigned, const void *, const void *);
int dnnl_pooling_forward_primitive_desc_create(void **, void *, int, int, const void *, const void *, const int64_t *,
    const int64_t *, const int64_t *, const int64_t *, const int64_t *, const void *);
int dnnl_pooling_backward_primitive_desc_create(void **, void *, int, const void *, const void *, const int64_t *,
    const int64_t *, const int64_t *, const int64_t *, const int64_t *, const void *, const void *);
int dnnl_eltwise_forward_primitive_desc_create(void **, void *, int, int, const void *, const void *, float, float,
    const void *);
int dnnl_eltwise_backward_primitive_desc_create(void **, void *, int, const void *, const void *, const void *, float,
    float, const void *, const void *);
""")

# Values of dnnl_types.h (oneDNN 3). Execution arguments (DNNL_ARG_*) first.
SRC, DST, WEIGHTS, BIAS, MEAN, VARIANCE, SCALE, SHIFT = 1, 17, 33, 41, 49, 50, 51, 52
WORKSPACE, SCRATCHPAD = 64, 80
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_SCALE, DIFF_SHIFT = 129, 145, 161, 255, 256
FORWARD_TRAINING, BACKWARD = 64, 128
F32, U8 = 3, 6
_CPU, _ANY = 1, 1
_TAGS_BLOCKED_8 = {3: 69, 4: 102, 5: 142}  # aBc8b, aBcd8b, aBcde8b
_TAGS_BLOCKED_16 = {3: 56, 4: 78, 5: 121}
_ISA_AVX512_BIT = 0x20
_QUERY_IMPLEMENTATION, _QUERY_SCRATCHPAD, _QUERY_ARGUMENT = 8, 136, 255
_UNIMPLEMENTED = 3
_ALIGNMENT = 64
_CACHE_SIZE = 1024

# The library is never unloaded: at the end of the interpreter OpenMP's threads may still be waiting inside its code.
_STAYS = ffi.RTLD_NOW | getattr(ffi, "RTLD_NODELETE", 0)

NULL = ffi.NULL


class Unsupported(Exception):
    """oneDNN has no implementation for what was asked: the caller falls back to NumPy."""


def _candidates() -> list[str]:
    """Paths of oneDNN's library, the most explicit wish first."""
    explicit = os.environ.get("FLAMBEAU_ONEDNN_LIBRARY")
    if explicit:
        return [explicit]
    paths = []
    try:
        for file in importlib.metadata.files("onednn-cpu-gomp") or ():
            if file.name == "libdnnl.so.3":
                paths.append(str(file.locate()))
    except importlib.metadata.PackageNotFoundError:
        pass
    installed = ctypes.util.find_library("dnnl")
    if installed:
        paths.append(installed)
    return paths


@contextlib.contextmanager
def _openmp_settings() -> Iterator[None]:
    """What libgomp reads from the environment once, while it is loaded; the user's own settings go first.

    Threads that wait spin for some 10 microseconds, then sleep. libgomp's default is milliseconds: as soon as anything
    else wants the processors (data loading workers, a second training run) that makes every parallel region as long as
    a scheduler slice, measured 3 to 6 times slower convolutions.
    """
    settings = {}
    if "FLAMBEAU_NUM_THREADS" in os.environ:
        settings["OMP_NUM_THREADS"] = os.environ["FLAMBEAU_NUM_THREADS"]
    if "GOMP_SPINCOUNT" not in os.environ and "OMP_WAIT_POLICY" not in os.environ:
        settings["GOMP_SPINCOUNT"] = "1000"
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _open() -> Any:
    reasons = []
    for path in _candidates():
        try:
            with _openmp_settings():
                library = ffi.dlopen(path, _STAYS)
        except OSError as error:
            reasons.append(f"{path}: {error}")
            continue
        version = library.dnnl_version()
        if version.major == 3:
            return library
        reasons.append(f"{path}: oneDNN {version.major}.{version.minor}, 3.x is needed")
    raise ImportError(
        "oneDNN was not found: install flambeau-core[fast] or point FLAMBEAU_ONEDNN_LIBRARY to a libdnnl.so.3"
        + "".join(f"\n  {reason}" for reason in reasons)
    )


lib = _open()


def _check(status: int) -> None:
    if status:
        error = Unsupported if status == _UNIMPLEMENTED else RuntimeError
        raise error(f"oneDNN call failed with status {status}")


def create(function: Callable, *args: Any, destroy: Callable | None = None) -> Any:
    """Call a oneDNN constructor; the result is destroyed with the Python object that holds it."""
    out = ffi.new("void **")
    _check(function(out, *args))
    return ffi.gc(out[0], destroy) if destroy is not None else out[0]


_engine = create(lib.dnnl_engine_create, _CPU, 0)
_stream = create(lib.dnnl_stream_create, _engine, 1)
# Scratch memory is ours (mode "user"): oneDNN's own belongs to the thread that created the primitive.
_attributes = create(lib.dnnl_primitive_attr_create)
_check(lib.dnnl_primitive_attr_set_scratchpad_mode(_attributes, 1))

execution_lock = threading.RLock()
disabled = False


def _disable_in_child() -> None:
    """A forked child has none of OpenMP's threads: the first parallel region would wait for them for ever."""
    global disabled, execution_lock
    disabled = True
    execution_lock = threading.RLock()


os.register_at_fork(after_in_child=_disable_in_child)


def set_num_threads(count: int) -> None:
    """Use `count` threads in kernels called from this thread. Plans divide their work when built: they are dropped."""
    try:
        openmp = _threads.openmp()
    except OSError as error:
        raise RuntimeError(f"libgomp.so.1 cannot be loaded ({error}): set OMP_NUM_THREADS before the start") from error
    with execution_lock:
        openmp.omp_set_num_threads(int(count))
        _plans.clear()


def dims(values: Sequence[int]) -> Any:
    """A dnnl_dims_t of `values`."""
    return ffi.new("int64_t[12]", list(values))


def descriptor(shape: Sequence[int], strides: Sequence[int] | None = None, dtype: int = F32, tag: int = _ANY) -> Any:
    """A memory descriptor; strides in elements, or a format tag (by default the layout is left to the primitive)."""
    layout, make = tag, lib.dnnl_memory_desc_create_with_tag
    if strides is not None:
        layout, make = dims(strides), lib.dnnl_memory_desc_create_with_strides
    return create(make, len(shape), dims(shape), dtype, layout, destroy=lib.dnnl_memory_desc_destroy)


def blocked(shape: Sequence[int]) -> Any:
    """Descriptor of (N, C, *spatial) in blocks of as many channels as fit a vector register, the fastest layout."""
    tags = _TAGS_BLOCKED_16 if lib.dnnl_get_effective_cpu_isa() & _ISA_AVX512_BIT else _TAGS_BLOCKED_8
    return descriptor(shape, tag=tags[len(shape)])


def dense_strides(shape: Sequence[int], channels_last: bool = False) -> tuple[int, ...]:
    """Strides in elements of a dense array (N, C, *spatial), C-ordered or with the channels innermost in memory."""
    order = [0, *range(2, len(shape)), 1] if channels_last else range(len(shape))
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def primitive_desc(function: Callable, *args: Any) -> Any:
    """A primitive descriptor of the engine; `args` follow the engine, the attributes are appended by the caller."""
    return create(function, _engine, *args, destroy=lib.dnnl_primitive_desc_destroy)


def attributes() -> Any:
    """The attributes with which every primitive is created."""
    return _attributes


def eltwise_attributes(algorithm: int, alpha: float = 0.0, beta: float = 0.0) -> Any:
    """Attributes of a primitive whose output goes through an elementwise function."""
    post_ops = create(lib.dnnl_post_ops_create, destroy=lib.dnnl_post_ops_destroy)
    _check(lib.dnnl_post_ops_append_eltwise(post_ops, algorithm, alpha, beta))
    result = create(lib.dnnl_primitive_attr_create, destroy=lib.dnnl_primitive_attr_destroy)
    _check(lib.dnnl_primitive_attr_set_scratchpad_mode(result, 1))
    _check(lib.dnnl_primitive_attr_set_post_ops(result, post_ops))
    return result


def implementation(desc: Any) -> str:
    """Name of the implementation that oneDNN chose, such as ``jit:avx2``."""
    text = ffi.new("const char **")
    _check(lib.dnnl_primitive_desc_query(desc, _QUERY_IMPLEMENTATION, 0, text))
    return ffi.string(text[0]).decode()


def size(desc: Any) -> int:
    """Bytes that a memory descriptor needs."""
    return lib.dnnl_memory_desc_get_size(desc)


class _Scratch:
    """One growing buffer for scratchpads and reordered operands, shared by all plans (they run one at a time)."""

    def __init__(self) -> None:
        self.address = NULL
        self.generation = 0
        self._size = 0
        self._buffer: Any = None

    def reserve(self, size: int) -> None:
        if size > self._size:
            self._buffer = None  # the old memory may serve the new request
            self._buffer = ffi.from_buffer(np.empty(size + _ALIGNMENT, np.uint8))
            address = int(ffi.cast("intptr_t", self._buffer))
            self.address = ffi.cast("char *", address + -address % _ALIGNMENT)
            self._size = size
            self.generation += 1


_scratch = _Scratch()


class Plan:
    """A primitive and the reorders around it.

    `inputs` and `outputs` list (execution argument, descriptor of the caller's array). Where the primitive wants
    another layout, a reorder through scratch memory is planned. ``plan(*arrays)`` takes the inputs, then the outputs.

    Plans run one at a time: they share scratch memory, and each already uses all threads.
    """

    __slots__ = ("_generation", "_keep", "_memories", "_scratch_size", "_steps", "_temporaries", "desc", "name")

    def __init__(self, desc: Any, inputs: Sequence[tuple[int, Any]], outputs: Sequence[tuple[int, Any]]) -> None:
        self.desc = desc
        self.name = implementation(desc)
        self._steps: list[tuple[Any, int, Any]] = []
        self._memories: list[Any] = []
        self._temporaries: list[tuple[Any, int]] = []
        self._keep: list[Any] = [inputs, outputs]
        self._scratch_size = 0
        self._generation = 0
        arguments: dict[int, Any] = {}
        after: list[tuple[Any, int, Any]] = []
        for role, operands in ((0, inputs), (1, outputs)):
            for argument, desc_user in operands:
                memory = self._memory(desc_user)
                self._memories.append(memory)
                wanted = lib.dnnl_primitive_desc_query_md(desc, _QUERY_ARGUMENT, argument)
                if lib.dnnl_memory_desc_equal(wanted, desc_user):
                    arguments[argument] = memory
                    continue
                temporary = arguments[argument] = self._temporary(wanted)
                if role == 0:
                    self._reorder(self._steps, desc_user, memory, wanted, temporary)
                else:
                    self._reorder(after, wanted, temporary, desc_user, memory)
        self._step(self._steps, desc, arguments)
        self._steps += after

    def _memory(self, desc: Any) -> Any:
        return create(lib.dnnl_memory_create, desc, _engine, NULL, destroy=lib.dnnl_memory_destroy)

    def _temporary(self, desc: Any) -> Any:
        memory = self._memory(desc)
        self._temporaries.append((memory, self._scratch_size))
        self._scratch_size += -(-size(desc) // _ALIGNMENT) * _ALIGNMENT
        return memory

    def _step(self, steps: list, desc: Any, arguments: dict[int, Any]) -> None:
        scratchpad = lib.dnnl_primitive_desc_query_md(desc, _QUERY_SCRATCHPAD, 0)
        if scratchpad != NULL and size(scratchpad):
            arguments[SCRATCHPAD] = self._temporary(scratchpad)
        packed = ffi.new("dnnl_exec_arg_t[]", len(arguments))
        for slot, (argument, memory) in zip(packed, arguments.items(), strict=True):
            slot.arg, slot.memory = argument, memory
        primitive = create(lib.dnnl_primitive_create, desc, destroy=lib.dnnl_primitive_destroy)
        steps.append((primitive, len(arguments), packed))
        self._keep.append(arguments)

    def _reorder(self, steps: list, desc_from: Any, memory_from: Any, desc_to: Any, memory_to: Any) -> None:
        make = lib.dnnl_reorder_primitive_desc_create
        destroy = lib.dnnl_primitive_desc_destroy
        desc = create(make, desc_from, _engine, desc_to, _engine, _attributes, destroy=destroy)
        self._step(steps, desc, {SRC: memory_from, DST: memory_to})

    def __call__(self, *arrays: np.ndarray) -> None:
        from_buffer, cast = ffi.from_buffer, ffi.cast
        self.run(
            *[from_buffer(array) if array.flags.c_contiguous else cast("void *", array.ctypes.data) for array in arrays]
        )

    def run(self, *pointers: Any) -> None:
        """Runs on the arrays at these addresses."""
        set_handle, execute = lib.dnnl_memory_set_data_handle, lib.dnnl_primitive_execute
        with execution_lock:
            _scratch.reserve(self._scratch_size)
            if self._generation != _scratch.generation:
                for memory, offset in self._temporaries:
                    _check(set_handle(memory, _scratch.address + offset))
                self._generation = _scratch.generation
            for memory, pointer in zip(self._memories, pointers, strict=True):
                set_handle(memory, pointer)
            for primitive, count, packed in self._steps:
                _check(execute(primitive, _stream, count, packed))


_plans: OrderedDict[Hashable, Any] = OrderedDict()


def cached(build: Callable[..., Any], *key: Hashable) -> Any:
    """``build(*key)``, remembered; None when oneDNN does not support it. The least recently used entries go first."""
    full = (build, *key)
    with execution_lock:
        try:
            plan = _plans[full]
            _plans.move_to_end(full)
            return plan
        except KeyError:
            pass
        try:
            plan = build(*key)
        except Unsupported:
            plan = None
        _plans[full] = plan
        if len(_plans) > _CACHE_SIZE:
            _plans.popitem(last=False)
        return plan
