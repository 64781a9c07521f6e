"""Drawing: heat maps over pictures as arrays, tokens as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tensor import Tensor

__all__ = ["colors", "heat_map", "overlay", "tokens_html"]

# Corners of the scales, evenly spaced: dark to bright with rising lightness; blue to red over near white.
_HEAT = ((12, 7, 58), (84, 18, 122), (158, 42, 99), (218, 84, 58), (249, 149, 34), (250, 240, 110))
_SIGNED = (
    (12, 60, 150),
    (70, 140, 205),
    (172, 208, 230),
    (246, 246, 246),
    (244, 182, 146),
    (214, 84, 72),
    (140, 6, 32),
)
SIGNS = ("positive", "negative", "absolute_value", "all")


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def heat_map(attribution: Any, sign: str = "positive", outliers: float = 1.0) -> np.ndarray:
    """An attribution as numbers for drawing, float64 (H, W): 0..1, or -1..1 for the sign ``"all"``.

    Args:
        attribution: (H, W), (C, H, W) or (1, C, H, W); channels are summed.
        sign: what is kept: positive, negative, absolute_value (of each channel), or all.
        outliers: percent of the pixels that may exceed the scale and are cut, so that single ones do not darken the
            rest.

    Raises:
        ValueError: a shape of no picture, or values that are not finite.

    >>> heat_map([[0.0, 1.0], [-2.0, 2.0]], outliers=0).tolist()
    [[0.0, 0.5], [0.0, 1.0]]
    """
    values = _array(attribution).astype(np.float64)
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ValueError(f"an attribution of shape {values.shape} is no map: give (H, W) or (C, H, W), one sample")
    if not np.isfinite(values).all():
        raise ValueError("the attribution has values that are not finite")
    if sign not in SIGNS:
        raise ValueError(f"there is no sign {sign!r}; there are {', '.join(SIGNS)}")
    if sign == "absolute_value":
        values = np.abs(values)
    if values.ndim == 3:
        values = values.sum(0)
    if sign in ("positive", "negative"):
        values = np.maximum(values if sign == "positive" else -values, 0)
    size = np.abs(values)
    top = np.percentile(size, 100 - outliers)
    top = top if top > 0 else size.max()  # so sparse a map that all of it would be cut
    return np.clip(values / top, -1, 1) if top > 0 else values


def colors(values: Any) -> np.ndarray:
    """Colours uint8 (H, W, 3) for a `heat_map`: dark to bright, or blue to red where values are negative."""
    values = _array(values)
    signed = values.size > 0 and values.min() < 0
    scale = np.array(_SIGNED if signed else _HEAT, np.float64)
    place = ((values + 1) / 2 if signed else values).clip(0, 1) * (len(scale) - 1)
    below = np.minimum(place.astype(np.int64), len(scale) - 2)
    part = (place - below)[..., None]
    return np.asarray(np.rint(scale[below] * (1 - part) + scale[below + 1] * part), np.uint8)


def overlay(
    image: Any, attribution: Any, *, sign: str = "positive", alpha: float = 0.75, outliers: float = 1.0
) -> np.ndarray:
    """The picture in grey with the attribution in colour over it, uint8 (H, W, 3): the more it counts, the less shows.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        attribution: as for `heat_map`; of another size it is scaled to the picture (bilinear).
        sign, outliers: as for `heat_map`.
        alpha: weight of the colour where the attribution is largest, 0..1.

    >>> overlay(np.zeros((4, 6, 3), np.uint8), np.eye(2)).shape
    (4, 6, 3)
    """
    picture = _array(image)
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise ValueError(f"a picture is uint8 (H, W, 3) or (H, W), not {picture.dtype} {picture.shape}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in 0..1, not {alpha}")
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, 2)
    values = heat_map(attribution, sign, outliers)
    if values.shape != picture.shape[:2]:
        values = _resized(values, picture.shape[:2])
    grey = (picture @ np.array([0.299, 0.587, 0.114]))[..., None]
    weight = (alpha * np.minimum(1, 1.6 * np.abs(values)))[..., None]
    return np.asarray(np.rint(grey * 0.85 * (1 - weight) + colors(values) * weight), np.uint8)


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from .. import ops
    from ..nn import functional as F

    scaled = F.interpolate(ops.tensor(values)[None, None], size=size, mode="bilinear", align_corners=False)
    return np.asarray(scaled[0, 0].numpy())


def tokens_html(tokens: Sequence[str], scores: Any, title: str = "") -> str:
    """Tokens as a piece of HTML: red speaks for the target, blue against it, stronger where more; the numbers as tips.

    Args:
        tokens: texts, shown in their order; a text's own spaces are kept.
        scores: one for each token.

    >>> "rgba(214, 84, 72, 0.85)" in tokens_html(["good", " film"], [2.0, -1.0])
    True
    """
    values = _array(scores).astype(np.float64).reshape(-1)
    if len(values) != len(tokens):
        raise ValueError(f"there are {len(values)} scores for {len(tokens)} tokens")
    if not np.isfinite(values).all():
        raise ValueError("the scores have values that are not finite")
    top = np.abs(values).max(initial=0) or 1.0
    spans = []
    for token, value in zip(tokens, values, strict=True):
        colour = "214, 84, 72" if value > 0 else "70, 140, 205"
        style = f"background: rgba({colour}, {0.85 * abs(value) / top:.2f}); border-radius: 0.2em; padding: 0.1em 0"
        spans.append(f'<span style="{style}" title="{value:+.4g}">{html.escape(token)}</span>')
    head = f"<b>{html.escape(title)}</b> " if title else ""
    return f'<p style="font-family: sans-serif; line-height: 1.8; white-space: pre-wrap">{head}{"".join(spans)}</p>'
