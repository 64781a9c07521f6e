"""Activation functions of ``flambeau.nn.functional`` that PyTorch also has in place, softmax, and sampling."""

from __future__ import annotations

from typing import Any

from .. import backends, ops, random
from ..autograd.modes import is_grad_enabled
from ..ops.inplace import relu_ as inplace_relu
from ..ops.inplace import write
from ..tensor import Tensor


def _assign(input: Tensor, output: Tensor, inplace: bool) -> Tensor:
    """``output``, or with ``inplace`` the tensor ``input`` itself with its values.

    Within a graph ``input`` takes over the memory of ``output``, so that values saved for the gradient stay whole.
    """
    if not inplace:
        return output
    if input.is_leaf and input.requires_grad and is_grad_enabled():
        raise RuntimeError("a leaf Tensor that requires grad can not be used in an in-place operation")
    if output.requires_grad and input._view is None:
        input.array, input._edge, input.requires_grad = output.array, output._edge, True
        return input
    return write(input, output)


def _like(input: Tensor, values: Any) -> Tensor:
    """Host values as a tensor of the input's dtype on its device."""
    array = backends.of(input.array).from_host(values.astype(input.array.dtype, copy=False), input.device)
    return Tensor._wrap(array)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(0, input)"""
    if inplace and not is_grad_enabled():
        return inplace_relu(input)
    return _assign(input, ops.relu(input), inplace)


def relu_(input: Tensor) -> Tensor:
    """:func:`relu` in place"""
    return relu(input, True)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(0, input), 6)"""
    return _assign(input, ops.relu6(input), inplace)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """input * sigmoid(input)"""
    return _assign(input, ops.silu(input), inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * tanh(softplus(input))"""
    return _assign(input, ops.mish(input), inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Scaled ELU (Klambauer et al. 2017)"""
    return _assign(input, ops.selu(input), inplace)


def selu_(input: Tensor) -> Tensor:
    """:func:`selu` in place"""
    return selu(input, True)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where positive, alpha (exp(input) - 1) elsewhere"""
    return _assign(input, ops.elu(input, alpha), inplace)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """:func:`elu` in place"""
    return elu(input, alpha, True)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(0, input) + min(0, alpha (exp(input / alpha) - 1))"""
    return _assign(input, ops.celu(input, alpha), inplace)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """:func:`celu` in place"""
    return celu(input, alpha, True)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """input where positive, negative_slope * input elsewhere"""
    return _assign(input, ops.leaky_relu(input, negative_slope), inplace)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """:func:`leaky_relu` in place"""
    return leaky_relu(input, negative_slope, True)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """input clamped to [min_val, max_val]"""
    if min_val > max_val:
        raise ValueError(f"min_val {min_val} cannot be greater than max_val {max_val}")
    return _assign(input, ops.hardtanh(input, min_val, max_val), inplace)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """:func:`hardtanh` in place"""
    return hardtanh(input, min_val, max_val, True)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """relu6(input + 3) / 6"""
    return _assign(input, ops.hardsigmoid(input), inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * relu6(input + 3) / 6 (Howard et al. 2019)"""
    return _assign(input, ops.hardswish(input), inplace)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """input where it is above ``threshold``, ``value`` elsewhere"""
    return _assign(input, ops.threshold(input, threshold, value), inplace)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """:func:`threshold` in place"""
    return _assign(input, ops.threshold(input, threshold, value), True)


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """Leaky ReLU with a slope drawn from [lower, upper] in training, their mean otherwise (Xu et al. 2015)"""
    if not lower <= upper:
        raise ValueError(f"rrelu: lower {lower} must not be greater than upper {upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    slopes = _like(input, random.default_generator().uniform(lower, upper, tuple(input.shape)))
    return _assign(input, ops.where(input > 0, input, input * slopes), inplace)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """:func:`rrelu` in place"""
    return rrelu(input, lower, upper, training, True)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input times the normal distribution function of it (Hendrycks & Gimpel 2016); "tanh" approximates it"""
    return ops.gelu(input, approximate)


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """exp(input) / sum(exp(input)) along ``dim``"""
    return ops.softmax(input, _softmax_dim(input, dim), dtype)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """log(softmax(input)) along ``dim``"""
    return ops.log_softmax(input, _softmax_dim(input, dim), dtype)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """softmax(-input) along ``dim``"""
    return ops.softmax(-input, _softmax_dim(input, dim), dtype)


def _softmax_dim(input: Tensor, dim: int | None) -> int:
    """PyTorch's (deprecated) choice when no dim is given."""
    return (0 if input.ndim in (0, 1, 3) else 1) if dim is None else dim


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """A differentiable sample of a categorical distribution (Jang et al. 2017); ``hard`` gives one-hot values with the
    gradient of the soft ones. ``eps`` has no effect: PyTorch keeps it for old callers."""
    draws = random.default_generator().uniform(0.0, 1.0, tuple(logits.shape))
    noise = -(_like(logits, draws).clamp(min=1e-20, max=1 - 1e-7).log().neg().log())
    soft = softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    index = soft.detach().argmax(dim, keepdim=True)
    one = ops.zeros_like(soft.detach()).scatter(dim, index, ops.ones_like(index, dtype=soft.dtype))
    return one - soft.detach() + soft
