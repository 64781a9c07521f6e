"""From what a task hands over to a picture file: the part of ``flambeau explain`` that classes and regions share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import flambeau
from flambeau import Tensor
from flambeau.errors import UsageError
from flambeau.explain import (
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    LayerGradCamPlusPlus,
    NoiseTunnel,
    Occlusion,
    Saliency,
    deepest_layer,
    overlay,
)
from flambeau.nn import Module

from .draw import panels
from .images import save_image

_SMALLEST = 256  # pictures are enlarged to at least this height and width, so that titles can be read


@dataclass(frozen=True)
class Subject:
    """One picture, and the number that is explained.

    Attributes:
        model: the network.
        inputs: its input (1, C, H, W).
        target: as for ``Saliency.attribute``; one class or region.
        label: what the target is called.
        picture: uint8 (h, w, 3): what the inputs show, of any size.
    """

    model: Module
    inputs: Tensor
    target: Any
    label: str
    picture: np.ndarray


@dataclass(frozen=True)
class ExplainOptions:
    """Options of ``flambeau explain`` for pictures.

    Attributes:
        method: one of `METHODS`.
        target: the class that is explained, by name or number; without it the one that the network finds.
        device: where the network runs.
        layer: of Grad-CAM; the deepest one with maps where not given.
        steps: of integrated gradients.
        samples: noisy copies of SmoothGrad.
        noise: of SmoothGrad: standard deviation as a share of the input's range.
        seed: of the noise.
        window: side of the occluding window as a share of the shorter side.
        stride: of the window as a share of its side.
        alpha: weight of the colours.
    """

    method: str = "grad-cam"
    target: str | None = None
    device: str = "cpu"
    layer: str | None = None
    steps: int = 32
    samples: int = 16
    noise: float = 0.15
    seed: int = 0
    window: float = 0.2
    stride: float = 0.5
    alpha: float = 0.75

    def __post_init__(self) -> None:
        if min(self.steps, self.samples) < 1:
            raise ValueError("steps and samples must be positive")
        if not (0 < self.window <= 1 and 0 < self.stride <= 1 and 0 <= self.alpha <= 1 and self.noise >= 0):
            raise ValueError("window and stride must lie in (0, 1], alpha in 0..1, and noise must not be negative")


def _grad_cam(kind: type[LayerGradCam] | type[LayerGradCamPlusPlus]) -> Callable[[Subject, ExplainOptions], Tensor]:
    def run(subject: Subject, options: ExplainOptions) -> Tensor:
        layer = options.layer or deepest_layer(subject.model, subject.inputs)
        size = tuple(subject.inputs.shape[2:])
        return kind(subject.model, layer).attribute(subject.inputs, subject.target, relu_attributions=True, size=size)

    return run


def _plain(kind: Any) -> Callable[[Subject, ExplainOptions], Tensor]:
    return lambda subject, options: kind(subject.model).attribute(subject.inputs, subject.target)


def _smoothgrad(subject: Subject, options: ExplainOptions) -> Tensor:
    x = subject.inputs
    spread = options.noise * float(x.max() - x.min())
    return NoiseTunnel(Saliency(subject.model)).attribute(
        x, nt_samples=options.samples, stdevs=spread, seed=options.seed, target=subject.target
    )


def _integrated(subject: Subject, options: ExplainOptions) -> Tensor:
    return IntegratedGradients(subject.model).attribute(subject.inputs, target=subject.target, n_steps=options.steps)


def _occlusion(subject: Subject, options: ExplainOptions) -> Tensor:
    channels, *extents = subject.inputs.shape[1:]
    side = max(1, round(options.window * min(extents)))
    stride = max(1, round(options.stride * side))
    return Occlusion(subject.model).attribute(
        subject.inputs, (channels, side, side), (channels, stride, stride), target=subject.target
    ).mean(1, True)  # fmt: skip


# How each method is run, and which sign of the result is drawn.
METHODS: dict[str, tuple[Callable[[Subject, ExplainOptions], Tensor], str]] = {
    "grad-cam": (_grad_cam(LayerGradCam), "positive"),
    "grad-cam++": (_grad_cam(LayerGradCamPlusPlus), "positive"),
    "saliency": (_plain(Saliency), "absolute_value"),
    "input-x-gradient": (_plain(InputXGradient), "absolute_value"),
    "guided-backprop": (_plain(GuidedBackprop), "absolute_value"),
    "integrated-gradients": (_integrated, "absolute_value"),
    "smoothgrad": (_smoothgrad, "absolute_value"),
    "occlusion": (_occlusion, "positive"),
}


def attribution_map(subject: Subject, options: ExplainOptions) -> Tensor:
    """The attribution (1, C or 1, H, W) of a picture's inputs.

    Raises:
        UsageError: there is no such method or layer.
    """
    method = options.method
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}", f"use one of {', '.join(METHODS)}")
    if options.layer and not method.startswith("grad-cam"):
        raise UsageError(f"{method} uses no layer", "leave the layer out, or take grad-cam")
    try:
        return METHODS[method][0](subject, options)
    except ValueError as error:  # no such layer, a layer without maps
        raise UsageError(str(error), "choose another layer or method") from error


def explain_to_file(subject: Subject, output: str, options: ExplainOptions) -> dict[str, Any]:
    """Writes the picture beside its heat map; returns what was explained: method, target, its score, the path.

    Raises:
        UsageError: no such method or layer. FlambeauError: the file cannot be written.
    """
    attribution = attribution_map(subject, options)
    times = -(-_SMALLEST // min(subject.picture.shape[:2]))
    picture = subject.picture.repeat(times, 0).repeat(times, 1)
    seen = overlay(picture, attribution, sign=METHODS[options.method][1], alpha=options.alpha)
    beside = picture.shape[1] <= 1.5 * picture.shape[0]
    sheet = panels([picture, seen], ["input", f"{options.method}: {subject.label}"], columns=2 if beside else 1)
    save_image(output, sheet)
    with flambeau.inference_mode():
        scores = subject.model(subject.inputs)
        score = float(subject.target(scores) if callable(subject.target) else scores[0, subject.target])
    return {"method": options.method, "target": subject.label, "score": round(score, 4), "path": output}
