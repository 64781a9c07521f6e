"""Drawing objects on a picture: boxes with labels, instance masks, keypoints; names as in ``torchvision.utils``.

Lines are smooth and grow with the picture; each function returns a new uint8 array (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .draw import class_palette
from .transforms import as_rgb

Colors = Sequence[Sequence[int]] | np.ndarray | None
#: Bright colours that stay apart from each other on photos; objects take them in turn.
OBJECT_COLORS = np.array(
    [(255, 92, 87), (61, 174, 255), (255, 199, 64), (72, 207, 133), (190, 120, 255), (255, 140, 66), (64, 224, 208)]
    + [(255, 121, 198)],
    dtype=np.uint8,
)
_INK, _PAPER = (18, 20, 25), (255, 255, 255)


def draw_bounding_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[str] | None = None,
    colors: Colors = None,
    *,
    fill: bool = False,
    width: int | None = None,
    font_size: int | None = None,
) -> np.ndarray:
    """Boxes with rounded corners and, over each, its label on a plate of the same colour.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        boxes: (N, 4), x1 y1 x2 y2 in pixels.
        labels: a text for each box; boxes of one text (its part before the last number) share a colour.
        colors: a colour for each box.
        fill: tint the inside.
        width: of the lines in pixels; grows with the picture when left out.
        font_size: in pixels; likewise.

    Raises:
        ValueError: labels or colours do not fit the boxes.

    >>> draw_bounding_boxes(np.zeros((40, 60, 3), np.uint8), [[5, 20, 30, 35]], ["cat 0.9"]).shape
    (40, 60, 3)
    """
    image, boxes = as_rgb(image), np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if labels is not None and len(labels) != len(boxes):
        raise ValueError(f"{len(labels)} labels for {len(boxes)} boxes")
    shades = _colors(colors, len(boxes), [_kind(label) for label in labels] if labels is not None else None)
    line = width or max(2, round(min(image.shape[:2]) / 220))

    def paint(draw: ImageDraw.ImageDraw, scale: int) -> None:
        for box, shade in zip(boxes, shades, strict=True):
            x1, y1, x2, y2 = (float(value) * scale for value in box)
            if x2 <= x1 or y2 <= y1:
                continue
            radius = min(2 * line * scale, (x2 - x1) / 4, (y2 - y1) / 4)
            inside = (*shade, 56) if fill else None
            draw.rounded_rectangle((x1, y1, x2 - 1, y2 - 1), radius, inside, (*shade, 255), line * scale)

    out = _layer(image, paint)
    if labels is None:
        return np.asarray(out)
    font = ImageFont.load_default(font_size or max(11, round(min(image.shape[:2]) / 36)))
    draw = ImageDraw.Draw(out)
    # Large boxes first, so that the label of a small one inside stays on top.
    for index in sorted(range(len(boxes)), key=lambda i: -np.prod(boxes[i, 2:] - boxes[i, :2])):
        _plate(draw, out.size, boxes[index], labels[index], shades[index], font)
    return np.asarray(out)


def draw_segmentation_masks(
    image: np.ndarray, masks: np.ndarray, alpha: float = 0.5, colors: Colors = None
) -> np.ndarray:
    """Tint each instance's pixels and draw its outline in the full colour.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        masks: bool (N, H, W), or one (H, W).
        alpha: weight of the tint, 0..1.
        colors: a colour for each mask.

    Raises:
        ValueError: the sizes differ, or alpha is outside 0..1.
    """
    image, masks = as_rgb(image), np.asarray(masks, dtype=bool)
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.shape[1:] != image.shape[:2]:
        raise ValueError(f"the masks have shape {masks.shape[1:]}, the image {image.shape[:2]}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in 0..1, not {alpha}")
    out = image.copy()
    reach = max(1, round(min(image.shape[:2]) / 400))
    for mask, shade in zip(masks, _colors(colors, len(masks), None), strict=True):
        colour = np.array(shade, dtype=np.float32)
        out[mask] = np.rint(out[mask] * (1 - alpha) + colour * alpha).astype(np.uint8)
        inner = mask.copy()
        for axis in (0, 1):
            for step in range(1, reach + 1):
                for shifted in (np.roll(mask, step, axis), np.roll(mask, -step, axis)):
                    inner &= shifted
        out[mask & ~inner] = shade
    return out


def draw_keypoints(
    image: np.ndarray,
    keypoints: np.ndarray,
    connectivity: Sequence[tuple[int, int]] | None = None,
    colors: Colors = None,
    *,
    radius: int | None = None,
    width: int | None = None,
) -> np.ndarray:
    """Keypoints as ringed dots, joined by the skeleton's lines.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        keypoints: (N, K, 2), or (N, K, 3) with a visibility: 0 is not drawn.
        connectivity: pairs of keypoints that are joined, counted from 0.
        colors: a colour for each object.
        radius: of the dots in pixels; grows with the picture when left out.
        width: of the lines; likewise.
    """
    image, points = as_rgb(image), np.asarray(keypoints, dtype=np.float64)
    if points.ndim != 3 or points.shape[2] not in (2, 3):
        raise ValueError(f"keypoints have shape (N, K, 2) or (N, K, 3), not {points.shape}")
    seen = points[..., 2] > 0 if points.shape[2] == 3 else np.ones(points.shape[:2], dtype=bool)
    size = radius or max(3, round(min(image.shape[:2]) / 120))
    line = width or max(2, round(size * 0.7))
    shades = _colors(colors, len(points), None)

    def paint(draw: ImageDraw.ImageDraw, scale: int) -> None:
        for person, visible, shade in zip(points[..., :2] * scale, seen, shades, strict=True):
            for first, second in connectivity or ():
                if visible[first] and visible[second]:
                    ends = [tuple(person[first]), tuple(person[second])]
                    draw.line(ends, (*shade, 225), line * scale)
            for (x, y), shown in zip(person, visible, strict=True):
                if shown:
                    for reach, colour in ((size * scale, _PAPER), (size * scale * 0.68, shade)):
                        draw.ellipse((x - reach, y - reach, x + reach, y + reach), (*colour, 255))

    return np.asarray(_layer(image, paint))


def draw_sample(sample: dict[str, Any], classes: Sequence[str] | None = None) -> np.ndarray:
    """Everything a sample of `flambeau_vision.transforms` holds: masks, boxes with class names, keypoints.

    Raises:
        ValueError: the picture is not uint8 (draw before `Normalize`).
    """
    out = sample["image"]
    if out.dtype != np.uint8:
        raise ValueError(f"the picture is {out.dtype}, not uint8: draw before Normalize")
    labels = sample.get("labels")
    colors = None
    if labels is not None and classes is not None:
        colors = class_palette(classes)[labels]
    elif labels is not None:
        colors = OBJECT_COLORS[np.asarray(labels) % len(OBJECT_COLORS)]
    if sample.get("masks") is not None:
        out = draw_segmentation_masks(out, sample["masks"], colors=colors)
    if sample.get("boxes") is not None:
        names = None if labels is None else [classes[k] if classes is not None else str(k) for k in labels]
        out = draw_bounding_boxes(out, sample["boxes"], names, colors)
    if sample.get("keypoints") is not None:
        out = draw_keypoints(out, sample["keypoints"], colors=colors)
    return as_rgb(out)


def _kind(label: str) -> str:
    """A label without its score: ``cat 0.91`` and ``cat 91%`` are cats."""
    words = label.split()
    return " ".join(words[:-1]) if len(words) > 1 and words[-1].rstrip("%").replace(".", "", 1).isdigit() else label


def _colors(colors: Colors, count: int, kinds: Sequence[str] | None) -> list[tuple[int, int, int]]:
    if colors is not None:
        if len(colors) != count:
            raise ValueError(f"{len(colors)} colours for {count} objects")
        return [(int(r), int(g), int(b)) for r, g, b in colors]
    order = {kind: index for index, kind in enumerate(dict.fromkeys(kinds))} if kinds is not None else {}
    picks = [order[kind] for kind in kinds] if kinds is not None else range(count)
    return [(int(r), int(g), int(b)) for r, g, b in (OBJECT_COLORS[pick % len(OBJECT_COLORS)] for pick in picks)]


def _layer(image: np.ndarray, paint: Callable[[ImageDraw.ImageDraw, int], None]) -> Image.Image:
    """Paint on a larger transparent layer and shrink it onto the picture: smooth edges, which Pillow lacks."""
    height, width = image.shape[:2]
    scale = 3 if height * width <= 2_000_000 else 1
    layer = Image.new("RGBA", (width * scale, height * scale), (0, 0, 0, 0))
    paint(ImageDraw.Draw(layer), scale)
    if scale > 1:
        layer = layer.resize((width, height), Image.Resampling.BOX)
    base = Image.fromarray(np.ascontiguousarray(image)).convert("RGBA")
    return Image.alpha_composite(base, layer).convert("RGB")


def _plate(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], box: np.ndarray, text: str, shade: tuple[int, ...], font: Any
) -> None:
    """The label above its box; inside it where the picture ends."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    pad = max(2, round((bottom - top) * 0.3))
    plate = (right - left + 2 * pad, bottom - top + 2 * pad)
    x = float(np.clip(box[0], 0, max(size[0] - plate[0], 0)))
    y = float(box[1]) - plate[1] if box[1] >= plate[1] else max(float(box[1]), 0.0)
    draw.rounded_rectangle((x, y, x + plate[0], y + plate[1]), pad, shade)
    bright = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2]
    draw.text((x + pad - left, y + pad - top), text, _INK if bright > 130 else _PAPER, font)
