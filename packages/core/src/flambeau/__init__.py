"""Flambeau: PyTorch's API and checkpoints, without PyTorch.

Names are loaded on first use: `import flambeau` itself imports nothing heavy.

>>> import flambeau as torch
>>> x = torch.ones(2, 2, requires_grad=True)
>>> (x * 3).sum().backward()
>>> x.grad
tensor([[3., 3.],
        [3., 3.]])
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # names that are also those of sub-modules
    from .device import device as device
    from .ops.create import tensor as tensor

__version__ = "0.1.0"

_SUBMODULES = (
    "amp", "autograd", "backends", "cli", "compiler", "data", "distributed", "dtypes", "errors", "explain", "fft",
    "func", "graph", "io", "linalg", "nn", "ops", "optim", "plugins", "quantize", "signal", "special", "testing",
    "train", "utils",
)  # fmt: skip
# Where a public name lives; what is not listed is looked up in ops.
_FROM = {
    "Tensor": "tensor", "Size": "tensor", "device": "device", "Generator": "random", "manual_seed": "random",
    "seed": "random", "initial_seed": "random", "get_rng_state": "random", "set_rng_state": "random",
    "default_generator": "random", "save": "io", "load": "io", "FlambeauError": "errors",
    "is_tensor": "_public", "is_floating_point": "_public", "is_complex": "_public", "numel": "_public",
    "get_num_threads": "_public", "set_num_threads": "_public",
    "memory_stats": "_public", "empty_cache": "_public",
    "set_printoptions": "_public", "cuda": "_public", "typename": "_public",
    "use_deterministic_algorithms": "_public", "are_deterministic_algorithms_enabled": "_public",
    "set_float32_matmul_precision": "_public", "get_float32_matmul_precision": "_public",
    "get_default_device": "_public", "vmap": "func", "compile": "compiler",
    "summary": "utils.summary",
}  # fmt: skip
_AUTOGRAD = (
    "no_grad", "enable_grad", "inference_mode", "is_grad_enabled", "set_grad_enabled", "is_inference_mode_enabled",
    "is_anomaly_enabled",
)  # fmt: skip
_AMP = (
    "autocast", "clear_autocast_cache", "get_autocast_dtype", "is_autocast_cache_enabled", "is_autocast_enabled",
    "set_autocast_cache_enabled", "set_autocast_dtype", "set_autocast_enabled",
)  # fmt: skip
_FUNCTIONAL = (
    "alpha_dropout", "bilinear", "celu_", "embedding_bag", "feature_alpha_dropout", "rrelu", "rrelu_", "selu_",
    "threshold_",
)  # fmt: skip
_LAYOUTS = ("strided", "contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
_DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "float8_e4m3fn",
    "float8_e5m2", "complex64", "complex128", "half", "float", "double", "short", "int", "long", "cfloat", "cdouble",
    "float8_e4m3fnuz", "float8_e5m2fnuz", "finfo", "iinfo", "dtype", "get_default_dtype", "set_default_dtype",
    "promote_types",
)  # fmt: skip
_FROM |= (
    dict.fromkeys(_AMP, "amp") | dict.fromkeys(_FUNCTIONAL, "nn.functional") | dict.fromkeys(_LAYOUTS, "ops.queries")
)
_FROM |= dict.fromkeys(_AUTOGRAD, "autograd") | dict.fromkeys(_DTYPES, "dtypes")


class _Package(ModuleType):
    """Importing the sub-modules tensor.py and device.py must not hide the function and the class of these names."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in ("tensor", "device") and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name.startswith("_"):
        raise AttributeError(f"module 'flambeau' has no attribute {name!r}")
    if name in ("pi", "inf", "nan", "e"):
        import math

        value: Any = getattr(math, name)
    elif name in _FROM:
        importlib.import_module(f"{__name__}.ops")  # so that Tensor has its methods
        value = getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)
    else:
        ops = importlib.import_module(f"{__name__}.ops")
        value = ops.__dict__.get(name) if name in ops.__all__ else None
        if value is None:
            raise AttributeError(f"flambeau has no {name!r} (yet); flambeau.ops.__all__ lists the operations")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    ops = importlib.import_module(f"{__name__}.ops")
    return sorted({*_SUBMODULES, *_FROM, *ops.__all__, "__version__", "pi", "inf", "nan", "e"})
