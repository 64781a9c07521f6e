"""Methods that change parts of the input and watch the target: they need no gradient, only the model's answers.

Feature ablation, and occlusion by a window that slides (Zeiler & Fergus 2014). Each part's attribution is the target's
value less that without the part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..tensor import Tensor
from .forward import Target, as_baselines, as_extra, as_inputs, as_used, plain, repeated, scores

__all__ = ["FeatureAblation", "Occlusion"]


class FeatureAblation:
    """The target's loss when a feature is replaced by its baseline: for tables, channels, tokens.

    Args:
        model: a module or a function of the inputs. A module runs in evaluation mode.

    >>> import flambeau
    >>> FeatureAblation(lambda x: x[:, 0] * x[:, 1]).attribute(flambeau.tensor([[2.0, 3.0, 4.0]]))
    tensor([[6., 6., 0.]])
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model

    def attribute(
        self,
        inputs: Any,
        baselines: Any = None,
        target: Target = None,
        additional_forward_args: Any = None,
        feature_mask: Any = None,
        perturbations_per_eval: int = 1,
    ) -> Any:
        """Attributions in the inputs' shapes (floating-point, also for inputs of integers).

        Args:
            inputs, target, additional_forward_args: as for `Saliency.attribute`; of integers as well.
            baselines: what replaces a feature: numbers or Tensors that spread to the inputs' shapes; 0 where not given.
            feature_mask: integers that spread to the inputs' shapes: places with the same number are one feature, over
                several inputs as well, and are replaced together. Without it every element is a feature.
            perturbations_per_eval: features that are tried in one call of the model; a function as target then sees
                that many times the batch.
        """
        found, several = as_inputs(inputs)
        starts = as_baselines(baselines, found, several)
        masks = _feature_masks(feature_mask, found, several)
        features = sorted({int(number) for mask in masks for number in np.unique(mask)})
        parts = ([mask == feature for mask in masks] for feature in features)
        run = _Ablation(self.model, found, starts, target, additional_forward_args)
        return plain(run.attribute(parts, perturbations_per_eval, average=False), several)


class Occlusion:
    """The target's loss when a window of the input is replaced by its baseline, at each place of a window that slides.

    An element's attribution is the mean over the windows that cover it. At the far border the last window is cut.

    >>> import flambeau
    >>> model = lambda picture: picture[:, 0, :2, :2].sum((1, 2))
    >>> Occlusion(model).attribute(flambeau.ones(1, 1, 4, 4), (1, 2, 2), strides=(1, 2, 2))[0, 0]
    tensor([[4., 4., 0., 0.],
            [4., 4., 0., 0.],
            [0., 0., 0., 0.],
            [0., 0., 0., 0.]])
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model

    def attribute(
        self,
        inputs: Any,
        sliding_window_shapes: Any,
        strides: Any = None,
        baselines: Any = None,
        target: Target = None,
        additional_forward_args: Any = None,
        perturbations_per_eval: int = 1,
    ) -> Any:
        """Attributions in the inputs' shapes.

        Args:
            inputs, target, additional_forward_args, baselines, perturbations_per_eval: as for
                `FeatureAblation.attribute`.
            sliding_window_shapes: extents of the window in all dimensions after the batch, (3, 16, 16) for a picture; a
                tuple of them for a tuple of inputs.
            strides: how far it moves: an integer, or one for each dimension; at most its extent. 1 where not given.
        """
        found, several = as_inputs(inputs)
        starts = as_baselines(baselines, found, several)
        windows = tuple(sliding_window_shapes) if several else (sliding_window_shapes,)
        steps = tuple(strides) if several and isinstance(strides, tuple | list) else (strides,) * len(found)
        if len(windows) != len(found) or len(steps) != len(found):
            raise ValueError(f"there are {len(windows)} windows and {len(steps)} strides for {len(found)} inputs")
        places = [_places(x, window, step) for x, window, step in zip(found, windows, steps, strict=True)]

        def parts() -> Iterable[list[np.ndarray]]:
            for number, corners in enumerate(places):
                for corner in corners:
                    masks = [np.zeros((1, *x.shape[1:]), bool) for x in found]
                    masks[number][:, *corner] = True
                    yield masks

        run = _Ablation(self.model, found, starts, target, additional_forward_args)
        return plain(run.attribute(parts(), perturbations_per_eval, average=True), several)


class _Ablation:
    """Calls the model without one part of the inputs after the other and notes what that changes."""

    def __init__(
        self, model: Callable[..., Any], inputs: tuple[Tensor, ...], starts: tuple[Tensor, ...], target: Any, extra: Any
    ) -> None:
        self.model, self.inputs, self.starts = model, inputs, starts
        self.target, self.extra = target, as_extra(extra)
        self.batch = inputs[0].shape[0]

    def attribute(self, parts: Iterable[Sequence[np.ndarray]], together: int, average: bool) -> list[Tensor]:
        """The summed or averaged losses; each part has a bool mask (1 or N, …) for each input."""
        if together < 1:
            raise ValueError(f"perturbations_per_eval must be positive, not {together}")
        parts = iter(parts)
        with as_used(self.model):
            before = self._scores(self.inputs, 1).reshape(1, self.batch)
            totals = [ops.zeros(*x.shape, dtype=before.dtype, device=x.device) for x in self.inputs]
            counts = [np.zeros((1, *x.shape[1:])) for x in self.inputs]
            while some := list(itertools.islice(parts, together)):
                masks = [[ops.tensor(m, device=x.device) for m in ms] for x, ms in
                         zip(self.inputs, zip(*some, strict=True), strict=True)]  # fmt: skip
                changed = [
                    ops.cat([ops.where(mask, start, x.detach()) for mask in ms])
                    for ms, x, start in zip(masks, self.inputs, self.starts, strict=True)
                ]
                losses = before - self._scores(changed, len(some)).reshape(len(some), self.batch)
                for k, x in enumerate(self.inputs):
                    for mask, part, loss in zip(masks[k], (p[k] for p in some), losses, strict=True):
                        if part.any():
                            totals[k] = totals[k] + ops.where(mask, loss.reshape(-1, *[1] * (x.ndim - 1)), 0.0)
                            counts[k] = counts[k] + part
        if not average:
            return totals
        return [
            total / ops.tensor(np.maximum(count, 1), dtype=total.dtype, device=total.device)
            for total, count in zip(totals, counts, strict=True)
        ]

    def _scores(self, inputs: Sequence[Tensor], times: int) -> Tensor:
        extra = tuple(repeated(value, times, self.batch) for value in self.extra)
        found = scores(self.model, inputs, repeated(self.target, times, self.batch), extra)
        if found.numel() != times * self.batch:
            raise ValueError(
                f"the target leaves {found.numel()} numbers for a batch of {times * self.batch}: one for each is needed"
            )
        return found


def _feature_masks(feature_mask: Any, inputs: tuple[Tensor, ...], several: bool) -> list[np.ndarray]:
    if feature_mask is None:
        ends = list(itertools.accumulate(int(np.prod(x.shape[1:])) for x in inputs))
        return [
            np.arange(first, end).reshape(1, *x.shape[1:])
            for x, first, end in zip(inputs, [0, *ends], ends, strict=False)
        ]
    given = tuple(feature_mask) if several else (feature_mask,)
    if len(given) != len(inputs):
        raise ValueError(f"there are {len(given)} feature masks for {len(inputs)} inputs")
    masks = []
    for value, x in zip(given, inputs, strict=True):
        mask = np.asarray(value.cpu().numpy() if isinstance(value, Tensor) else value)
        shapes = ((1, *x.shape[1:]), tuple(x.shape))
        if mask.dtype.kind not in "iu":
            raise TypeError(f"a feature mask holds integers, not {mask.dtype}")
        try:
            masks.append(np.broadcast_to(mask, shapes[mask.ndim == x.ndim and mask.shape[0] > 1]))
        except ValueError as error:
            raise ValueError(f"a feature mask of shape {mask.shape} does not fit an input of {shapes[1]}") from error
    return masks


def _places(x: Tensor, window: Sequence[int], strides: int | Sequence[int] | None) -> list[tuple[slice, ...]]:
    """All places of the window, as slices of the dimensions after the batch."""
    shape = tuple(x.shape[1:])
    window = (window,) if isinstance(window, int) else tuple(window)
    steps = (1 if strides is None else strides,) * len(shape) if not isinstance(strides, tuple | list) else strides
    if len(window) != len(shape) or len(steps) != len(shape):
        raise ValueError(
            f"an input of shape {tuple(x.shape)} needs windows and strides of {len(shape)} extents, "
            f"not {tuple(window)} and {tuple(steps)}"
        )
    lines = []
    for extent, side, step in zip(shape, window, steps, strict=True):
        if not 0 < side <= extent:
            raise ValueError(f"the window {tuple(window)} does not fit into {shape}")
        if step < 1 or (side < extent and step > side):
            raise ValueError(
                f"the strides {tuple(steps)} must be positive and no wider than the window {tuple(window)}"
            )
        count = -(-(extent - side) // step) + 1
        lines.append([slice(i * step, min(i * step + side, extent)) for i in range(count)])
    return list(itertools.product(*lines))
