"""Methods that follow the gradient of the target back to the inputs.

Saliency (Simonyan et al. 2014), input times gradient (Shrikumar et al. 2016), guided backpropagation (Springenberg et
al. 2015), integrated gradients (Sundararajan et al. 2017), SmoothGrad (Smilkov et al. 2017) and VarGrad (Adebayo et al.
2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..autograd import Function
from ..autograd.modes import mode
from ..random import Generator
from ..tensor import Tensor
from ..utils.flop_counter import OpObserver
from .forward import (
    Target,
    as_baselines,
    as_extra,
    as_inputs,
    as_used,
    gradients,
    plain,
    repeated,
    scores,
)

__all__ = ["GuidedBackprop", "InputXGradient", "IntegratedGradients", "NoiseTunnel", "Saliency"]

Model = Callable[..., Any]


class Saliency:
    """The gradient of the target by the inputs.

    Args:
        model: a module or a function of the inputs. A module runs in evaluation mode.

    >>> import flambeau
    >>> model = flambeau.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(flambeau.tensor([[2.0, -3.0]]))
    >>> Saliency(model).attribute(flambeau.ones(1, 2), target=0)
    tensor([[2., 3.]])
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def attribute(
        self, inputs: Any, target: Target = None, abs: bool = True, additional_forward_args: Any = None
    ) -> Any:
        """Gradients in the inputs' shapes.

        Args:
            inputs: a Tensor (N, …), or a tuple of Tensors for a model with several arguments.
            target: what is explained: a class; a tuple that indexes the dimensions after the batch; a list with one of
                these for each sample; a function of the model's output that returns one number for each sample; None
                where the output is one number for each sample.
            abs: their absolute values.
            additional_forward_args: further arguments of the model, which are not explained.
        """
        found, several = as_inputs(inputs)
        with as_used(self.model):
            result, _ = gradients(self.model, found, target, additional_forward_args)
        return plain([ops.abs(g) for g in result] if abs else result, several)


class InputXGradient:
    """The inputs times the gradient of the target: exact for a linear model without bias."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def attribute(self, inputs: Any, target: Target = None, additional_forward_args: Any = None) -> Any:
        """Attributions in the inputs' shapes; the arguments are those of `Saliency.attribute`."""
        found, several = as_inputs(inputs)
        with as_used(self.model):
            result, _ = gradients(self.model, found, target, additional_forward_args)
        return plain([x.detach() * g for x, g in zip(found, result, strict=True)], several)


class GuidedBackprop:
    """The gradient where each ReLU passes back only what is positive, forwards and backwards.

    All ReLUs count, modules and functions alike.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def attribute(self, inputs: Any, target: Target = None, additional_forward_args: Any = None) -> Any:
        """Attributions in the inputs' shapes; the arguments are those of `Saliency.attribute`."""
        found, several = as_inputs(inputs)
        with as_used(self.model), _GuidedRelus():
            result, _ = gradients(self.model, found, target, additional_forward_args)
        return plain(result, several)


class _GuidedRelu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = ops.relu(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return ops.where(out > 0, ops.relu(g), 0.0)


class _GuidedRelus(OpObserver):
    takes_formulas = False

    def __call__(self, op: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if op.name != "relu":
            return super().__call__(op, args, kwargs)
        mode.intercept = self._previous
        try:
            return _GuidedRelu.apply(*args, **kwargs)
        finally:
            mode.intercept = self

    def on_op(self, op: Any, values: list[Any], out: Any) -> None:
        """Nothing is noted."""


def quadrature(method: str, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(places in 0..1, weights that sum to 1) of an integral over 0..1.

    Raises:
        ValueError: an unknown method, or too few steps.
    """
    least = 2 if method == "riemann_trapezoid" else 1
    if n_steps < least:
        raise ValueError(f"n_steps must be at least {least} for {method!r}, not {n_steps}")
    if method == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(n_steps)
        return (nodes + 1) / 2, weights / 2
    if method == "riemann_trapezoid":
        weights = np.full(n_steps, 1 / (n_steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, n_steps), weights
    offsets = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}
    if method not in offsets:
        known = ", ".join(["gausslegendre", "riemann_trapezoid", *offsets])
        raise ValueError(f"there is no method {method!r}; there are {known}")
    return (np.arange(n_steps) + offsets[method]) / n_steps, np.full(n_steps, 1 / n_steps)


class IntegratedGradients:
    """The mean gradient on the straight way from a baseline to the input, times that way (Sundararajan et al. 2017).

    Its sum is the target's value at the input less that at the baseline (completeness), up to the error of the
    integral: `attribute(..., return_convergence_delta=True)` tells it.

    Args:
        model: a module or a function of the inputs. A module runs in evaluation mode.
        multiply_by_inputs: without it, the mean gradient alone.

    >>> import flambeau
    >>> explain = IntegratedGradients(lambda x: (x**2).sum(1))
    >>> explain.attribute(flambeau.tensor([[1.0, 2.0]]))
    tensor([[1., 4.]])
    """

    def __init__(self, model: Model, multiply_by_inputs: bool = True) -> None:
        self.model, self.multiply_by_inputs = model, multiply_by_inputs

    def attribute(
        self,
        inputs: Any,
        baselines: Any = None,
        target: Target = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Attributions in the inputs' shapes.

        Args:
            inputs, target, additional_forward_args: as for `Saliency.attribute`.
            baselines: where the ways start: numbers or Tensors that spread to the inputs' shapes, a tuple of them for a
                tuple of inputs; 0 where not given.
            n_steps: gradients on the way.
            method: of the integral: gausslegendre, riemann_trapezoid, riemann_left, riemann_middle, riemann_right.
            internal_batch_size: samples that the model sees at once; as many steps run together as it allows. Without
                it, or with a function as target, one step at a time.
            return_convergence_delta: return (attributions, error): the sum of the attributions less what it should be,
                for each sample.
        """
        found, several = as_inputs(inputs)
        starts = as_baselines(baselines, found, several)
        with as_used(self.model):
            means = path_gradients(
                lambda points, times: gradients(
                    self.model,
                    points,
                    repeated(target, times, found[0].shape[0]),
                    tuple(repeated(a, times, found[0].shape[0]) for a in as_extra(additional_forward_args)),
                )[0],
                found,
                starts,
                quadrature(method, n_steps),
                1 if callable(target) else steps_at_once(internal_batch_size, found[0].shape[0]),
            )
            full = [(x.detach() - start) * g for x, start, g in zip(found, starts, means, strict=True)]
            result = plain(full if self.multiply_by_inputs else means, several)
            if not return_convergence_delta:
                return result
            gain = scores(self.model, found, target, additional_forward_args) - scores(
                self.model, starts, target, additional_forward_args
            )
        return result, completeness_error(full, gain)


def steps_at_once(internal_batch_size: int | None, batch: int) -> int:
    if internal_batch_size is not None and internal_batch_size < 1:
        raise ValueError(f"internal_batch_size must be positive, not {internal_batch_size}")
    return max(1, (internal_batch_size or 0) // batch)


def path_gradients(
    gradient: Callable[[Sequence[Tensor], int], Sequence[Tensor]],
    ends: Sequence[Tensor],
    starts: Sequence[Tensor],
    rule: tuple[np.ndarray, np.ndarray],
    together: int,
) -> list[Tensor]:
    """The weighted mean of ``gradient(points, how many steps)`` on the ways from `starts` to `ends`."""
    places, weights = rule
    means: list[Any] = [0.0] * len(ends)
    for first in range(0, len(places), together):
        some = slice(first, first + together)
        points = [
            ops.cat([start + (end.detach() - start) * float(place) for place in places[some]])
            for end, start in zip(ends, starts, strict=True)
        ]
        found = gradient(points, len(places[some]))
        for k, (g, end) in enumerate(zip(found, ends, strict=True)):
            for part, weight in zip(g.reshape(-1, *end.shape), weights[some], strict=True):
                means[k] = means[k] + part * float(weight)
    return means


def completeness_error(attributions: Sequence[Tensor], gain: Tensor) -> Tensor:
    """The sum of the attributions less the target's gain: for each sample, or for all if the target is one number."""
    if gain.ndim == 0:
        return sum((a.sum() for a in attributions), start=-gain)
    return sum((a.reshape(a.shape[0], -1).sum(1) for a in attributions), start=-gain)


class NoiseTunnel:
    """SmoothGrad: another method's attributions, averaged over inputs with Gaussian noise (Smilkov et al. 2017).

    Args:
        attribution_method: any method of this package that takes floating-point inputs.

    >>> import flambeau
    >>> method = NoiseTunnel(Saliency(lambda x: (x**3).sum(1)))
    >>> method.attribute(flambeau.ones(1, 2), nt_samples=8, stdevs=0.0)
    tensor([[3., 3.]])
    """

    def __init__(self, attribution_method: Any) -> None:
        self.attribution_method = attribution_method

    def attribute(
        self,
        inputs: Any,
        nt_type: str = "smoothgrad",
        nt_samples: int = 5,
        stdevs: float | tuple[float, ...] = 1.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> Any:
        """Attributions in the inputs' shapes.

        Args:
            inputs: as for the wrapped method.
            nt_type: smoothgrad (mean), smoothgrad_sq (mean of the squares) or vargrad (variance).
            nt_samples: noisy copies.
            stdevs: the noise's standard deviation, or one for each input. Smilkov et al. advise a tenth or fifth of
                the inputs' range.
            seed: of the noise. The default generator is left alone.
            kwargs: what the wrapped method takes.
        """
        found, several = as_inputs(inputs)
        if nt_type not in ("smoothgrad", "smoothgrad_sq", "vargrad"):
            raise ValueError(f"there is no nt_type {nt_type!r}; there are smoothgrad, smoothgrad_sq and vargrad")
        if nt_samples < 1:
            raise ValueError(f"nt_samples must be positive, not {nt_samples}")
        spreads = stdevs if isinstance(stdevs, tuple) else (stdevs,) * len(found)
        if len(spreads) != len(found):
            raise ValueError(f"there are {len(spreads)} stdevs for {len(found)} inputs")
        if kwargs.get("return_convergence_delta"):
            raise ValueError("return_convergence_delta says nothing under noise: leave it out")
        generator = Generator().manual_seed(seed)
        first: list[Any] = []
        second: list[Any] = []
        for _ in range(nt_samples):
            noisy = [_with_noise(x, spread, generator) for x, spread in zip(found, spreads, strict=True)]
            result = self.attribution_method.attribute(plain(noisy, several), **kwargs)
            parts = result if isinstance(result, tuple) else (result,)
            first = [a + b for a, b in zip(first, parts, strict=True)] if first else list(parts)
            squares = [part * part for part in parts]
            second = [a + b for a, b in zip(second, squares, strict=True)] if second else squares
        means, squares = [a / nt_samples for a in first], [a / nt_samples for a in second]
        if nt_type == "smoothgrad":
            return plain(means, several)
        if nt_type == "smoothgrad_sq":
            return plain(squares, several)
        return plain([b - a * a for a, b in zip(means, squares, strict=True)], several)


def _with_noise(x: Tensor, spread: float, generator: Generator) -> Tensor:
    if not x.is_floating_point():
        raise TypeError(f"noise cannot be added to inputs of type {x.dtype}")
    if spread < 0:
        raise ValueError(f"stdevs must not be negative, not {spread}")
    noise = generator.normal(0.0, spread, tuple(x.shape), np.float64)
    return x.detach() + ops.tensor(noise, dtype=x.dtype, device=x.device)
