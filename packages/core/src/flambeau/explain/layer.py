"""Methods that explain by a layer inside the model: Grad-CAM, Grad-CAM++, integrated gradients of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..autograd import enable_grad, no_grad
from ..nn import Module
from ..nn import functional as F
from ..tensor import Tensor
from .forward import (
    Tap,
    Target,
    as_baselines,
    as_extra,
    as_inputs,
    as_used,
    call,
    differentiate,
    find_layer,
    repeated,
    scores,
    select,
)
from .gradient import completeness_error, path_gradients, quadrature, steps_at_once

__all__ = ["LayerGradCam", "LayerGradCamPlusPlus", "LayerIntegratedGradients", "deepest_layer"]


class LayerGradCam:
    """Grad-CAM: a layer's feature maps, weighted by their mean gradients and summed (Selvaraju et al. 2017).

    Args:
        model: a module. It runs in evaluation mode.
        layer: a module of it or its dotted path, such as ``"layer4"``; it returns maps (N, C, …).

    >>> import flambeau
    >>> from flambeau import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> LayerGradCam(model, "1").attribute(flambeau.randn(2, 3, 8, 8), target=1, size=(8, 8)).shape
    flambeau.Size([2, 1, 8, 8])
    """

    def __init__(self, model: Module, layer: Module | str) -> None:
        self.model, self.layer = model, find_layer(model, layer)
        self._name = layer if isinstance(layer, str) else ""

    def attribute(
        self,
        inputs: Any,
        target: Target = None,
        additional_forward_args: Any = None,
        relu_attributions: bool = False,
        size: Sequence[int] | None = None,
    ) -> Tensor:
        """A map (N, 1, …) in the layer's resolution.

        Args:
            inputs, target, additional_forward_args: as for `Saliency.attribute`; of integers as well.
            relu_attributions: leave out what speaks against the target, as the paper does.
            size: scale the map to this height and width (bilinear), those of the picture.
        """
        maps, slopes = self._maps_and_gradients(inputs, target, additional_forward_args)
        dims = tuple(range(2, maps.ndim))
        weights = slopes.mean(dims, True) if dims else slopes
        return self._finish(weights * maps, relu_attributions, size)

    def _maps_and_gradients(self, inputs: Any, target: Target, extra: Any) -> tuple[Tensor, Tensor]:
        found, _ = as_inputs(inputs)
        with as_used(self.model), enable_grad(), Tap(self.layer, name=self._name) as tap:
            chosen = select(call(self.model, [x.detach() for x in found], extra), target)
            maps = tap.output
            if maps.ndim < 2:
                raise ValueError(
                    f"the layer {tap.name} returns the shape {tuple(maps.shape)}: choose one with channels"
                )
            (slopes,) = differentiate(chosen, (maps,))
        return maps.detach(), slopes

    def _finish(self, weighted: Tensor, relu: bool, size: Sequence[int] | None) -> Tensor:
        result = weighted.sum(1, True)
        if relu:
            result = ops.relu(result)
        if size is None:
            return result
        if result.ndim != 4:
            raise ValueError(f"size is for maps of pictures, not for the shape {tuple(result.shape)}")
        return F.interpolate(result, size=tuple(size), mode="bilinear", align_corners=False)


class LayerGradCamPlusPlus:
    """Grad-CAM++: the weights count places with a positive gradient alike (Chattopadhay et al. 2018, equation 19).

    The arguments are those of `LayerGradCam`. The target's value counts as the exponent of the class score.
    """

    def __init__(self, model: Module, layer: Module | str) -> None:
        self._cam = LayerGradCam(model, layer)

    def attribute(
        self,
        inputs: Any,
        target: Target = None,
        additional_forward_args: Any = None,
        relu_attributions: bool = False,
        size: Sequence[int] | None = None,
    ) -> Tensor:
        """A map (N, 1, …) in the layer's resolution; the arguments are those of `LayerGradCam.attribute`."""
        maps, slopes = self._cam._maps_and_gradients(inputs, target, additional_forward_args)
        dims = tuple(range(2, maps.ndim))
        if not dims:
            raise ValueError(f"Grad-CAM++ needs maps with places, the layer returns the shape {tuple(maps.shape)}")
        squares = slopes * slopes
        below = 2.0 * squares + maps.sum(dims, True) * squares * slopes
        share = ops.where(below != 0, squares / ops.where(below != 0, below, 1.0), 0.0)
        weights = (share * ops.relu(slopes)).sum(dims, True)
        return self._cam._finish(weights * maps, relu_attributions, size)


class LayerIntegratedGradients:
    """Integrated gradients by what a layer returns, such as the vectors of an embedding (Sundararajan et al. 2017).

    The way leads from the layer's output for the baselines to that for the inputs. With the embedding as layer this
    explains tokens: sum the result over its last dimension.

    Args:
        model: a module. It runs in evaluation mode.
        layer: a module of it or its dotted path.
        multiply_by_inputs: without it, the mean gradient alone.

    >>> import flambeau
    >>> from flambeau import nn
    >>> model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))
    >>> method = LayerIntegratedGradients(model, "0")
    >>> method.attribute(flambeau.tensor([[1, 5, 2]]), baselines=0, target=1).sum(-1).shape
    flambeau.Size([1, 3])
    """

    def __init__(self, model: Module, layer: Module | str, multiply_by_inputs: bool = True) -> None:
        self.model, self.layer, self.multiply_by_inputs = model, find_layer(model, layer), multiply_by_inputs
        self._name = layer if isinstance(layer, str) else ""

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
        """Attributions in the shape of the layer's output.

        The arguments are those of `IntegratedGradients.attribute`; inputs and baselines may be integers.
        """
        found, several = as_inputs(inputs)
        found = tuple(x.detach() for x in found)
        starts = as_baselines(baselines, found, several)
        extra, batch = as_extra(additional_forward_args), found[0].shape[0]
        with as_used(self.model):
            end, start = (self._output(values, extra) for values in (found, starts))
            if tuple(end.shape) != tuple(start.shape):
                raise ValueError(f"the layer returns {tuple(end.shape)}, for the baselines {tuple(start.shape)}")

            def gradient(points: Sequence[Tensor], times: int) -> tuple[Tensor, ...]:
                values = [ops.cat([x] * times) for x in found]
                more = tuple(repeated(a, times, batch) for a in extra)
                with enable_grad(), Tap(self.layer, points[0], self._name) as tap:
                    chosen = select(call(self.model, values, more), repeated(target, times, batch))
                    return differentiate(chosen, (tap.output,))

            together = 1 if callable(target) or end.shape[0] != batch else steps_at_once(internal_batch_size, batch)
            (mean,) = path_gradients(gradient, (end,), (start,), quadrature(method, n_steps), together)
            full = (end - start) * mean
            result = full if self.multiply_by_inputs else mean
            if not return_convergence_delta:
                return result
            gain = scores(self.model, found, target, extra) - scores(self.model, starts, target, extra)
        return result, completeness_error([full], gain)

    def _output(self, inputs: Sequence[Tensor], extra: tuple[Any, ...]) -> Tensor:
        with no_grad(), Tap(self.layer, name=self._name) as tap:
            call(self.model, inputs, extra)
            return tap.output.detach()


def deepest_layer(model: Module, *args: Any) -> str:
    """The name of the layer whose maps (N, C, H, W) are the coarsest that are still maps: Grad-CAM's usual choice.

    Among several it is one without negative values (after a ReLU, as the paper has it) if there is one, then the one
    that ends last, and the outermost of these.

    Args:
        args: the model's arguments: it runs once.

    Raises:
        ValueError: no layer returns maps.
    """
    found: list[tuple[int, bool, str]] = []
    handles = []

    def hook(name: str) -> Any:
        def note(module: Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                found.append((int(np.prod(output.shape[2:])), float(output.min()) < 0, name))

        return note

    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_hook(hook(name)))
    try:
        with as_used(model), no_grad():
            model(*args)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError(f"no layer of {type(model).__name__} returns maps (N, C, H, W)")
    best = min(entry[:2] for entry in found)
    return [name for *entry, name in found if tuple(entry) == best][-1]
