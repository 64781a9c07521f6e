"""Which operations autocast runs in which dtype, by device: PyTorch's lists.

An op of the registry is listed under its name there; any other public function (a loss, a convolution that calls
one op) under its public name, which is then wrapped by :func:`install`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

LOWER, FLOAT32, PROMOTE, APART = "lower", "float32", "promote", "apart"
PADDED, POOLED = "padded", "pooled"  # depends on the arguments

_CONVOLUTIONS = (
    "convolution", "convolution_input_grad", "convolution_weight_grad", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "conv_tbc",
)  # fmt: skip
_PRODUCTS = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm")
_LOSSES = (
    "binary_cross_entropy_with_logits", "cosine_embedding_loss", "cross_entropy", "hinge_embedding_loss", "kl_div",
    "l1_loss", "margin_ranking_loss", "mse_loss", "multi_margin_loss", "multilabel_margin_loss", "nll_loss",
    "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss",
)  # fmt: skip
_FFT = tuple(
    f"fft_{kind}" for kind in (
        "fft", "ifft", "fft2", "ifft2", "fftn", "ifftn", "rfft", "irfft", "rfft2", "irfft2", "rfftn", "irfftn", "hfft",
        "ihfft",
    )
)  # fmt: skip
_LINEAR_ALGEBRA = (
    "cholesky", "cholesky_inverse", "cholesky_solve", "inverse", "lu_solve", "orgqr", "ormqr", "pinverse", "geqrf",
    "qr", "svd", "triangular_solve", "linalg_cholesky", "linalg_cholesky_ex", "linalg_cond", "linalg_eig",
    "linalg_eigh", "linalg_eigvals", "linalg_eigvalsh", "linalg_householder_product", "linalg_inv", "linalg_inv_ex",
    "linalg_lstsq", "linalg_matrix_rank", "linalg_qr", "linalg_solve", "linalg_svd", "linalg_svdvals",
    "linalg_tensorinv", "linalg_tensorsolve",
)  # fmt: skip

CPU: dict[str, str] = {
    **dict.fromkeys((*_CONVOLUTIONS, *_PRODUCTS, "linalg_vecdot", "scaled_dot_product_attention", "prelu",
                   "rnn_sequence", "lstm_sequence"), LOWER),
    **dict.fromkeys((*_LOSSES, *_FFT, *_LINEAR_ALGEBRA), FLOAT32),
    **dict.fromkeys(
        (
            "avg_pool3d", "binary_cross_entropy", "grid_sample", "polar", "prod", "quantile", "nanquantile", "stft",
            "cdist", "trace", "view_as_complex", "max_unpool1d", "max_unpool2d", "max_unpool3d",
            "adaptive_avg_pool3d", "grid_sampler_2d", "grid_sampler_3d", "lu",
            "adaptive_max_pool3d", "fractional_max_pool2d", "fractional_max_pool3d", "huber_loss", "ctc_loss",
        ),
        FLOAT32,
    ),
    **dict.fromkeys(("stack", "cat", "index_copy"), PROMOTE),
    "pad": PADDED,
    "max_pool3d": POOLED,
    # Built on matmul here, but no matrix products that PyTorch lists: nothing inside is cast.
    **dict.fromkeys((
            "mv", "addmv", "dot", "vdot", "inner", "outer", "addr", "linalg_lu_solve", "adaptive_avg_pool1d",
            "adaptive_avg_pool2d", "interpolate", "bilinear",
        ), APART),
}  # fmt: skip

CUDA: dict[str, str] = {
    **dict.fromkeys(
        (*_CONVOLUTIONS, *_PRODUCTS, "addmv", "addr", "chain_matmul", "linalg_multi_dot", "linalg_vecdot", "mv",
         "prelu", "scaled_dot_product_attention"),
        LOWER,
    ),
    **dict.fromkeys(
        (
            *_LOSSES, "acos", "asin", "cosh", "cdist", "cosine_similarity", "cumprod", "cumsum", "dist", "erfinv",
            "exp", "expm1", "group_norm", "layer_norm", "native_layer_norm", "log", "log10", "log_softmax", "log1p",
            "log2",
            "norm", "linalg_vector_norm", "pdist", "pow", "prod", "reciprocal", "rsqrt", "sinh", "softmax", "softmin",
            "softplus", "sum", "renorm", "tan",
        ),
        FLOAT32,
    ),
    **dict.fromkeys(
        ("addcdiv", "addcmul", "atan2", "bilinear", "cat", "cross", "dot", "grid_sample", "index_put", "scatter_add",
         "stack", "tensordot"),
        PROMOTE,
    ),
}  # fmt: skip


LISTED = CPU.keys() | CUDA.keys()


def rule_of(device: str, name: str, args: tuple, kwargs: dict) -> str | None:
    """What to do with the arguments of an operation: one of the constants above, or None for nothing."""
    rule = (CPU if device == "cpu" else CUDA).get(name)
    if rule == PADDED:  # reflection and replication are operations of their own in PyTorch
        padding = kwargs.get("mode", args[2] if len(args) > 2 else "constant")
        return FLOAT32 if padding in ("reflect", "replicate") else None
    if rule == POOLED:  # with indices it is another operation, which PyTorch does not list
        return None if kwargs.get("return_indices", len(args) > 6 and args[6]) else FLOAT32
    return rule


def install(run: Callable[[Callable, str, tuple, dict], Any], active: Callable[[], Any]) -> None:
    """Makes the listed functions that are no ops go through ``run(function, name, args, kwargs)`` while ``active()``.

    They are replaced wherever this package refers to them, and in `Tensor`.
    """
    from .. import ops
    from ..nn import functional  # its functions count as well
    from ..tensor import Tensor

    wrapped: dict[int, Callable] = {}  # by the id of the function in its place
    for name in LISTED:
        function = vars(ops).get(name) or vars(functional).get(name)
        if callable(function) and not hasattr(function, "op") and not hasattr(function, "_autocast"):
            wrapped[id(function)] = _wrapped(function, name, run, active)
    owners = [
        module for name, module in list(sys.modules.items()) if name.startswith("flambeau") and module is not None
    ]
    for owner in [*owners, Tensor]:
        for key, value in list(vars(owner).items()):
            if id(value) in wrapped:
                setattr(owner, key, wrapped[id(value)])


def _wrapped(function: Callable, name: str, run: Callable, active: Callable[[], Any]) -> Callable:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return run(function, name, args, kwargs) if active() else function(*args, **kwargs)

    call._autocast = name  # type: ignore[attr-defined]
    return call
