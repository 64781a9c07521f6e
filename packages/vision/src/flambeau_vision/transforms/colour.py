"""Colour, blur and erasing: pixels change, annotations stay."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np

from . import functional as F
from .base import Sample, Transform

Range = float | tuple[float, float]


@dataclass(frozen=True)
class AsRGB(Transform):
    """Give grey pictures three channels."""

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return {**sample, "image": F.as_rgb(sample["image"])}


@dataclass(frozen=True)
class ColorJitter(Transform):
    """Random brightness, contrast, saturation (factors in 1 ± value) and hue (a turn in ± value), in random order.

    A pair is the range itself.
    """

    brightness: Range = 0.0
    contrast: Range = 0.0
    saturation: Range = 0.0
    hue: Range = 0.0

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        order, draws, image = rng.permutation(4), rng.random(4), sample["image"]
        for step in order:
            value = (self.brightness, self.contrast, self.saturation, self.hue)[step]
            if value == 0:
                continue
            if isinstance(value, tuple):
                low, high = value
            else:
                low, high = (-value, value) if step == 3 else (max(0.0, 1 - value), 1 + value)
            amount = low + draws[step] * (high - low)
            if step == 3 and image.ndim == 2:
                continue
            adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)[step]
            image = adjust(image, amount)
        return {**sample, "image": image}


@dataclass(frozen=True)
class LightJitter(Transform):
    """Random brightness, contrast, saturation and colour of the light, rounded once at the end.

    Brightness, contrast and gains are factors exp(u) with u uniform in ±value; saturation is uniform in 1 ± value.
    """

    brightness: float = 0.4
    contrast: float = 0.3
    saturation: float = 0.5
    gains: float = 0.1

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        draws, image = rng.uniform(-1, 1, 6), sample["image"]
        array = image.astype(np.float32)
        array = F.adjust_brightness(array, exp(self.brightness * draws[0]))
        array = F.adjust_contrast(array, exp(self.contrast * draws[1]))
        array = F.adjust_saturation(array, 1 + self.saturation * draws[2])
        if image.ndim == 3:
            array = F.adjust_gains(array, np.exp(self.gains * draws[3:]))
        return {**sample, "image": F.like(array, image)}


@dataclass(frozen=True)
class Grayscale(Transform):
    """Take the colour away; the number of channels stays."""

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return {**sample, "image": F.to_grayscale(sample["image"])}


@dataclass(frozen=True)
class RandomGrayscale(Transform):
    """Take the colour away with probability ``p``."""

    p: float = 0.1

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return {**sample, "image": F.to_grayscale(sample["image"])} if rng.random() < self.p else sample


@dataclass(frozen=True)
class GaussianBlur(Transform):
    """Blur with ``kernel_size`` (odd) taps and a sigma from the range (one number: that one)."""

    kernel_size: int
    sigma: Range = (0.1, 2.0)

    def __post_init__(self) -> None:
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, not {self.kernel_size}")

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        low, high = self.sigma if isinstance(self.sigma, tuple) else (self.sigma, self.sigma)
        return {**sample, "image": F.gaussian_blur(sample["image"], self.kernel_size, rng.uniform(low, high))}


@dataclass(frozen=True)
class RandomErasing(Transform):
    """With probability ``p``, fill a rectangle of the picture with ``value`` or noise (Zhong et al. 2017)."""

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: int | str = 0

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return sample
        height, width = sample["image"].shape[:2]
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = exp(rng.uniform(log(self.ratio[0]), log(self.ratio[1])))
            h, w = round(sqrt(area * ratio)), round(sqrt(area / ratio))
            if 0 < h < height and 0 < w < width:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                image = sample["image"].copy()
                part = image[top : top + h, left : left + w]
                part[...] = rng.integers(0, 256, part.shape) if self.value == "random" else self.value
                return {**sample, "image": image}
        return sample


@dataclass(frozen=True)
class Cutout(Transform):
    """With probability ``p``, replace a square of side ``size`` by ``fill`` (DeVries & Taylor 2017).

    The mask keeps its labels: the network has to guess what is hidden from what surrounds it.
    """

    size: int
    p: float = 0.5
    fill: int = 105

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        chance, y, x = rng.random(3)
        if chance >= self.p:
            return sample
        image = sample["image"].copy()
        top, left = (int(u * full) - self.size // 2 for u, full in zip((y, x), image.shape[:2], strict=True))
        image[max(top, 0) : max(top + self.size, 0), max(left, 0) : max(left + self.size, 0)] = self.fill
        return {**sample, "image": image}


@dataclass(frozen=True)
class Normalize(Transform):
    """uint8 (H, W, 3) to float32 (3, H, W), the mask to int64: the last step before a network."""

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image = sample["image"]
        out = {**sample, "image": F.normalize(image if image.ndim == 3 else image[..., None], self.mean, self.std)}
        if sample.get("mask") is not None:
            out["mask"] = sample["mask"].astype(np.int64)
        return out
