"""Dropout functions of ``flambeau.nn.functional``."""

from __future__ import annotations

from collections.abc import Callable

from .. import ops, random
from ..tensor import Tensor
from .functional_activation import _assign, _like


def _check_rate(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element zero with probability ``p``, the others times 1 / (1 - p)"""
    _check_rate(p)
    return _assign(input, ops.dropout(input, p, training), inplace) if training and p else input


def _channel_dropout(name: str, ndims: tuple[int, int]) -> Callable[..., Tensor]:
    def function(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        _check_rate(p)
        if input.ndim not in ndims:
            raise RuntimeError(f"{name}: expected {ndims[0]}D or {ndims[1]}D input, but received a {input.ndim}D input")
        if not training or not p:
            return input
        # PyTorch's dropout2d takes 3-d input as a batch of one-dimensional channels, which it drops whole.
        batched = input.ndim == ndims[1] or name == "dropout2d"
        output = ops.feature_dropout(input if batched else input.unsqueeze(0), p)
        return _assign(input, output if batched else output.squeeze(0), inplace)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Whole channels of {ndims[1]}D (or without batch {ndims[0]}D) input zero with probability p."
    return function


dropout1d = _channel_dropout("dropout1d", (2, 3))
dropout2d = _channel_dropout("dropout2d", (3, 4))
dropout3d = _channel_dropout("dropout3d", (4, 5))


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout to SELU's negative saturation value, rescaled to keep mean and variance (Klambauer et al. 2017)"""
    return _alpha_dropout(input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """:func:`alpha_dropout` on whole channels"""
    return _alpha_dropout(input, p, training, inplace, tuple(input.shape[:2]) + (1,) * (input.ndim - 2))


def _alpha_dropout(input: Tensor, p: float, training: bool, inplace: bool, shape: tuple[int, ...]) -> Tensor:
    _check_rate(p)
    if not training or not p:
        return input
    if p == 1:
        return _assign(input, input * 0.0, inplace)
    saturation = -1.7580993408473766  # -scale * alpha of SELU
    keep = _like(input, random.default_generator().uniform(0.0, 1.0, shape) >= p)
    a = ((1 - p) * (1 + p * saturation**2)) ** -0.5
    shift = (1 - keep) * (a * saturation) - a * p * saturation
    return _assign(input, input * (keep * a) + shift, inplace)
