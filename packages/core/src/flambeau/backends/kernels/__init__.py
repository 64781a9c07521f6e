"""Optional fast kernels for the NumPy backend: `load()` registers those whose library is installed.

A kernel is a plain function on arrays with the signature of the op that it speeds up. It returns `NotImplemented` for
what it does not take (dtypes other than float32, empty arrays, forked children ...): the op's NumPy form runs then.
"""

import importlib

__all__ = ["load"]

_MODULES = {
    "onednn_conv": ("convolution", "convolution_input_grad", "convolution_weight_grad"),
    "onednn_norm": ("batch_norm_grad", "batch_norm_train"),
    "onednn_pool": ("avg_pool", "avg_pool_grad", "max_pool", "max_pool_grad"),
}


def load() -> bool:
    """Register the fast kernels; False where oneDNN or cffi is missing, everything then runs on NumPy alone."""
    try:
        modules = {name: importlib.import_module(f".{name}", __name__) for name in _MODULES}
    except ImportError:
        return False
    from ...ops._op import kernel

    for name, functions in _MODULES.items():
        for function in functions:
            kernel(function)(getattr(modules[name], function))
    return True
