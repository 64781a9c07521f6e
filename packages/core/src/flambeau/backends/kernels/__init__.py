"""Optional fast kernels for the NumPy backend: oneDNN and Numba, where ``flambeau-core[fast]`` is installed.

A kernel is a plain function on arrays with the signature of the op that it speeds up. It returns `NotImplemented` for
what it does not take (dtypes other than float32, empty arrays, forked children ...): the op's NumPy form runs then.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["load", "load_numba", "register"]

_MODULES = {
    "onednn_conv": ("convolution", "convolution_input_grad", "convolution_weight_grad"),
    "onednn_eltwise": ("relu_grad",),
    "onednn_norm": ("batch_norm_grad", "batch_norm_train"),
    "onednn_pool": ("avg_pool", "avg_pool_grad", "max_pool", "max_pool_grad"),
}
_LIGHT = {"onednn_matmul": ("linear", "linear_activation", "matmul")}  # load their library themselves
_NUMBA = {
    "numba_attention": ("attention", "attention_grad"),
    "numba_decode": ("cached_attention",),
    "numba_eltwise": (
        "_dropout", "gelu", "gelu_grad", "relu", "sigmoid", "silu", "silu_grad", "softplus", "softplus_curvature",
        "softplus_grad",
    ),
    "numba_index": ("_add_at",),
    "numba_loss": ("class_cross_entropy", "class_cross_entropy_grad"),
    "numba_norm": (
        "batch_norm_eval", "fused_rms_norm", "group_norm_grad", "layer_norm_grad", "native_group_norm",
        "native_layer_norm", "rms_norm_grad",
    ),
    "numba_optim": ("_root_of_squares",),
    "numba_quant": ("linear_int4", "linear_int8"),
    "numba_recurrent": (
        "gru_sequence", "gru_sequence_grad", "lstm_sequence", "lstm_sequence_grad", "rnn_sequence", "rnn_sequence_grad",
    ),
    "numba_rows": ("log_softmax", "log_softmax_grad", "softmax", "softmax_grad"),
}  # fmt: skip
_WORTH_NUMBA = 1 << 13  # elements: smaller arrays do not even import Numba
# The same where it is another number: NumPy needs a score of calls for each time step of a recurrent layer, but is
# good enough at a maximum, a scale and a shift for small images. A first prediction should not have to wait for Numba.
_WORTH = {**dict.fromkeys(_NUMBA["numba_recurrent"], 1 << 10), "batch_norm_eval": 1 << 17, "relu": 1 << 16}
# Rows as long as these belong to models whose products load Numba anyway: a single one, as when a language model writes
# a token, gets a kernel that runs on the calling thread.
WIDE = {"cached_attention": 512, "gelu": 2048, "native_layer_norm": 512}


def load() -> bool:
    """Load the fast kernels now; False where oneDNN or cffi is missing, everything then runs on NumPy alone."""
    return _install(_MODULES)


def load_numba() -> bool:
    """Load the kernels that Numba compiles; False where it, or a thread pool that it can use safely, is missing."""
    try:
        folder = importlib.import_module(".numba_setup", __name__).cache_folder()
        if not folder.exists() and sys.stderr.isatty():
            print(f"flambeau: compiling kernels at their first use; they are kept in {folder}", file=sys.stderr)
    except ImportError:
        pass  # the modules say so as well
    return _install(_NUMBA)


def _install(table: dict[str, tuple[str, ...]]) -> bool:
    """Hang the functions of these modules on their ops; none, and False, where a module cannot be imported."""
    from ...ops._op import REGISTRY, kernel

    try:
        modules = {name: importlib.import_module(f".{name}", __name__) for name in table}
    except ImportError:
        for functions in table.values():
            for function in functions:
                REGISTRY[function].kernel = None
        return False
    for name, functions in table.items():
        for function in functions:
            kernel(function)(getattr(modules[name], function))
    return True


def _is_worth(args: tuple, elements: int) -> bool:
    """Whether one of the arguments, or the arrays of a list among them together, has as many elements."""
    for arg in args:
        if getattr(arg, "size", 0) >= elements:
            return True
        if isinstance(arg, list) and sum([array.size for array in arg]) >= elements:
            return True
    return False


def register() -> None:
    """Hang a stand-in on each op that has a fast kernel: the first call loads the library, so importing stays light."""
    from ...ops._op import REGISTRY, kernel

    def stand_in(name: str, load_kernels: Callable[[], bool], worth: int) -> Any:
        def first_call(*args: Any) -> Any:
            wide = name in WIDE and getattr(args[0], "shape", ())[-1:] >= (WIDE[name],)
            if not wide and not _is_worth(args, worth):
                return NotImplemented
            load_kernels()
            fast = REGISTRY[name].kernel
            return NotImplemented if fast is None else fast(*args)

        return first_call

    for functions in _MODULES.values():
        for name in functions:
            kernel(name)(stand_in(name, load, 0))
    for functions in _NUMBA.values():
        for name in functions:
            kernel(name)(stand_in(name, load_numba, _WORTH.get(name, _WORTH_NUMBA)))
    for module, functions in _LIGHT.items():
        for name in functions:
            kernel(name)(getattr(importlib.import_module(f".{module}", __name__), name))
