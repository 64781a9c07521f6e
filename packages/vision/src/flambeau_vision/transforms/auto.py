"""Augmentation by drawn operations: RandAugment (Cubuk et al. 2019), TrivialAugment (Müller & Hutter 2021).

Turns, shears and moves take the boxes, masks and keypoints along.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import atan, degrees

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from .base import Projective, Sample, Transform, warp
from .geometry import affine_matrix

_SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")
OPERATIONS = ("Identity", *_SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize")


def operate(sample: Sample, name: str, amount: float, *, fill: int = 0, ignore_index: int = 255) -> Sample:
    """One operation by its name.

    Shears are tangents, moves pixels, turns degrees, the enhancers' factor is 1 + amount, Posterize takes bits and
    Solarize a threshold.

    >>> operate({"image": np.full((1, 1), 200, np.uint8)}, "Solarize", 128)["image"].tolist()
    [[55]]
    """
    image = sample["image"]
    size, slant = image.shape[:2], degrees(atan(amount))
    moves = {
        "ShearX": {"shear": (slant, 0.0)},
        "ShearY": {"shear": (0.0, slant)},
        "TranslateX": {"translate": (amount, 0.0)},
        "TranslateY": {"translate": (0.0, amount)},
        "Rotate": {"angle": amount},
    }
    if name in moves:
        by = Projective(affine_matrix(size, **moves[name]), size)  # type: ignore[arg-type]
        return warp(sample, by, fill=fill, ignore_index=ignore_index)
    picture = Image.fromarray(np.ascontiguousarray(image))
    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        picture = getattr(ImageEnhance, name)(picture).enhance(1 + amount)
    elif name == "Posterize":
        picture = ImageOps.posterize(picture, int(amount))
    elif name == "Solarize":
        picture = ImageOps.solarize(picture, int(amount))
    elif name == "AutoContrast":
        picture = ImageOps.autocontrast(picture)
    elif name == "Equalize":
        picture = ImageOps.equalize(picture)
    elif name != "Identity":
        raise ValueError(f"no operation {name!r}: use one of {', '.join(OPERATIONS)}")
    return {**sample, "image": np.asarray(picture)}


@dataclass(frozen=True)
class RandAugment(Transform):
    """``num_ops`` operations drawn at random, all with one ``magnitude`` of ``num_magnitude_bins``."""

    num_ops: int = 2
    magnitude: int = 9
    num_magnitude_bins: int = 31
    fill: int = 0
    ignore_index: int = 255

    def __post_init__(self) -> None:
        if not 0 <= self.magnitude < self.num_magnitude_bins:
            raise ValueError(f"magnitude {self.magnitude} is outside 0..{self.num_magnitude_bins - 1}")

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        level = self.magnitude / max(self.num_magnitude_bins - 1, 1)
        for _ in range(self.num_ops):
            name = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
            sign = 1 - 2 * int(rng.integers(2))
            height, width = sample["image"].shape[:2]
            top = {"Rotate": 30.0, "TranslateX": 150 / 331 * width, "TranslateY": 150 / 331 * height}
            shear = {"ShearX": 0.3, "ShearY": 0.3}
            amount = level * sign * {**top, **shear}.get(name, 0.9)
            if name == "Posterize":
                amount = 8 - round(level * 4)
            elif name == "Solarize":
                amount = 255 * (1 - level)
            sample = operate(sample, name, amount, fill=self.fill, ignore_index=self.ignore_index)
        return sample


@dataclass(frozen=True)
class TrivialAugmentWide(Transform):
    """One operation with a magnitude drawn anew for each picture, from wide ranges: nothing to tune."""

    num_magnitude_bins: int = 31
    fill: int = 0
    ignore_index: int = 255

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        name = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
        level = int(rng.integers(self.num_magnitude_bins)) / max(self.num_magnitude_bins - 1, 1)
        sign = 1 - 2 * int(rng.integers(2))
        amount = level * sign * {"Rotate": 135.0, "TranslateX": 32.0, "TranslateY": 32.0}.get(name, 0.99)
        if name == "Posterize":
            amount = 8 - round(level * 6)
        elif name == "Solarize":
            amount = 255 * (1 - level)
        return operate(sample, name, amount, fill=self.fill, ignore_index=self.ignore_index)
