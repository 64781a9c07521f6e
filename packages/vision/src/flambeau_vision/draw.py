"""Drawing a segmentation: class colours blended over the photo, thin outlines, and a legend with each class's share."""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

#: Colours of CamVid's classes in their order. Any two stay more than 24 CIELAB units apart for normal sight and under
#: simulated protanopia, deuteranopia and tritanopia (matrices of Machado et al. 2009).
STREET_PALETTE = np.array(
    [
        (167, 235, 255),  # sky
        (190, 70, 102),  # building
        (242, 255, 193),  # pole
        (110, 63, 166),  # road
        (246, 161, 170),  # pavement
        (4, 116, 22),  # tree
        (231, 212, 32),  # sign_symbol
        (69, 26, 18),  # fence
        (0, 60, 210),  # car
        (255, 0, 55),  # pedestrian
        (17, 163, 200),  # bicyclist
    ],
    dtype=np.uint8,
)
STREET_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign_symbol"),
    *("fence", "car", "pedestrian", "bicyclist"),
)
_PANEL, _TEXT, _FAINT, _TRACK = (22, 25, 31), (236, 239, 244), (148, 156, 170), (48, 54, 65)


def class_palette(classes: Sequence[str]) -> np.ndarray:
    """A colour for each class, uint8 (K, 3): the street colours by name, for other names hues a golden angle apart.

    >>> class_palette(("road", "cell")).tolist()
    [[110, 63, 166], [199, 128, 99]]
    """
    known = dict(zip(STREET_CLASSES, STREET_PALETTE.tolist(), strict=True))
    colours = []
    for index, name in enumerate(classes):
        saturation, value = ((0.69, 0.9), (0.5, 0.78), (0.85, 0.6))[index % 3]
        other = hsv_to_rgb((0.43 + index * 0.6180339887) % 1, saturation, value)
        colours.append(known.get(name) or [round(255 * part) for part in other])
    return np.array(colours, dtype=np.uint8).reshape(-1, 3)


@dataclass(frozen=True)
class ClassShare:
    """How much of a picture a class covers: ``share`` is in 0..1."""

    index: int
    name: str
    pixels: int
    share: float


def class_shares(mask: np.ndarray, classes: Sequence[str]) -> list[ClassShare]:
    """The classes that occur in a mask, largest first.

    >>> [(s.name, s.share) for s in class_shares(np.array([[0, 1], [1, 1]]), ("sky", "road"))]
    [('road', 0.75), ('sky', 0.25)]
    """
    counts = np.bincount(mask.reshape(-1), minlength=len(classes))[: len(classes)]
    shares = [ClassShare(i, name, int(counts[i]), float(counts[i] / mask.size)) for i, name in enumerate(classes)]
    return sorted((entry for entry in shares if entry.pixels), key=lambda entry: (-entry.pixels, entry.index))


def overlay(
    image: np.ndarray, mask: np.ndarray, palette: np.ndarray, *, alpha: float = 0.5, outline: bool = True
) -> np.ndarray:
    """Blend class colours over a photo and draw thin light outlines between the classes.

    Args:
        image: uint8 (H, W, 3).
        mask: class indices (H, W); an index without a colour leaves the photo as it is.
        palette: uint8 (K, 3).
        alpha: weight of the colours, 0..1.
        outline: draw the lines.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: sizes differ, or alpha is outside 0..1.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"the mask has shape {mask.shape}, the image {image.shape[:2]}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in 0..1, not {alpha}")
    # Integer tables in place of float pictures: a 12-megapixel photo blends in a few hundredths of a second a channel.
    weight = np.zeros(256, dtype=np.uint16)
    weight[: len(palette)] = round(alpha * 256)
    labels = np.where(mask < 256, mask, 255).astype(np.uint8)
    out = np.empty_like(image)
    share = (256 - weight)[labels]
    for channel in range(3):
        colour = np.zeros(256, dtype=np.uint16)
        colour[: len(palette)] = palette[:, channel] * weight[: len(palette)]
        out[..., channel] = (image[..., channel] * share + colour[labels] + 128) >> 8
    return _outlined(out, labels) if outline else out


def _outlined(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Lighten the border pixels between classes; the line grows with the picture so that it stays visible."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:, :] |= labels[1:, :] != labels[:-1, :]
    lines = Image.fromarray(edge.astype(np.uint8) * 255)
    width = round(min(labels.shape) / 420)
    if width >= 2:
        lines = lines.filter(ImageFilter.BoxBlur((width - 1) / 2)).point(lambda value: min(value * width, 255))
        lines = lines.filter(ImageFilter.BoxBlur(0.5))
    strength = lines.point(lambda value: value * 200 // 255)
    white = Image.new("RGB", lines.size, "white")
    return np.asarray(Image.composite(white, Image.fromarray(image), strength))


def with_legend(
    image: np.ndarray, shares: Sequence[ClassShare], palette: np.ndarray, *, title: str = "", note: str = ""
) -> Image.Image:
    """Put a legend panel beside a picture (below a very wide one): colour, name, bar and percent of each class.

    The picture keeps its size and its place in the top left corner.

    Args:
        image: uint8 (H, W, 3).
        shares: rows of the legend, in their order.
        palette: uint8 (K, 3).
        title: head line of the panel, shortened to fit.
        note: small line under it.
    """
    height, width = image.shape[:2]
    beside = width <= 2.4 * height
    scale = max((min(height, 1.3 * width) if beside else width / 2.4) / 540, 0.62)
    panel = _Panel(scale, shares, palette, title, note)
    if beside:
        size = (width + panel.width, max(height, panel.height(1)))
        place, area = (width, 0), (panel.width, size[1], 1)
    else:
        columns = max(1, min(width // panel.width, len(shares)))
        panel_width = max(width, panel.width)
        size = (panel_width, height + panel.height(columns))
        place, area = (0, height), (panel_width, panel.height(columns), columns)
    canvas = Image.new("RGB", size, _PANEL)
    canvas.paste(Image.fromarray(image), (0, 0))
    canvas.paste(panel.draw(*area), place)
    return canvas


class _Panel:
    """Lays out and paints the legend; all lengths scale with the photo."""

    def __init__(self, scale: float, shares: Sequence[ClassShare], palette: np.ndarray, title: str, note: str) -> None:
        self.shares, self.palette, self.title, self.note = shares, palette, title, note
        self.px = lambda value: max(1, round(value * scale))
        self.width = self.px(250)
        self.head = self.px(64) if title or note else self.px(18)
        self.row = self.px(38)
        self.large, self.body, self.small = (ImageFont.load_default(self.px(size)) for size in (19, 16, 12))

    def height(self, columns: int) -> int:
        return self.head + ceil(len(self.shares) / columns) * self.row + self.px(14)

    def draw(self, width: int, height: int, columns: int) -> Image.Image:
        picture = Image.new("RGB", (width, height), _PANEL)
        draw, margin = ImageDraw.Draw(picture), self.px(20)
        draw.text((margin, self.px(14)), self._fit(self.title, width - 2 * margin), _TEXT, self.large)
        draw.text((margin, self.px(38)), self.note, _FAINT, self.small)
        per_column = ceil(len(self.shares) / columns)
        column_width = width // columns
        top_share = max((entry.share for entry in self.shares), default=1.0)
        for number, entry in enumerate(self.shares):
            x = (number // per_column) * column_width
            self._entry(draw, picture, x, self.head + (number % per_column) * self.row, column_width, entry, top_share)
        return picture

    def _entry(
        self, draw: ImageDraw.ImageDraw, picture: Image.Image, x: int, y: int, width: int, entry: ClassShare, top: float
    ) -> None:
        px, colour = self.px, tuple(int(value) for value in self.palette[entry.index])
        left, right = x + px(20), x + width - px(20)
        self._rounded(picture, (left, y + px(4), left + px(22), y + px(26)), px(6), colour)
        text_left, percent = left + px(34), percent_text(entry.share)
        draw.text((text_left, y + px(11)), entry.name.replace("_", " "), _TEXT, self.body, anchor="lm")
        draw.text((right, y + px(11)), percent, _FAINT, self.body, anchor="rm")
        bar = (text_left, y + px(23), right, y + px(23) + px(3))
        draw.rectangle(bar, _TRACK)
        draw.rectangle((bar[0], bar[1], bar[0] + round((bar[2] - bar[0]) * entry.share / top), bar[3]), colour)

    def _rounded(self, picture: Image.Image, box: tuple[int, int, int, int], radius: int, colour: tuple) -> None:
        """A rounded square with smooth corners (Pillow's own are jagged): drawn four times as large, then shrunk."""
        size = (box[2] - box[0], box[3] - box[1])
        large = Image.new("L", (size[0] * 4, size[1] * 4), 0)
        ImageDraw.Draw(large).rounded_rectangle((0, 0, large.width - 1, large.height - 1), radius * 4, 255)
        picture.paste(colour, box, large.resize(size, Image.Resampling.BOX))

    def _fit(self, text: str, width: int) -> str:
        if self.large.getlength(text) <= width:
            return text
        while text and self.large.getlength(text + "…") > width:
            text = text[:-1]
        return text + "…"


def panels(pictures: Sequence[np.ndarray], titles: Sequence[str] = (), columns: int | None = None) -> Image.Image:
    """Pictures of one size in rows, each with its title above.

    Args:
        pictures: uint8 (H, W, 3).
        titles: one for each picture, or none.
        columns: pictures in a row; all where not given.

    Raises:
        ValueError: none, several sizes, or too few titles.
    """
    found = list(pictures)
    if not found or len({picture.shape for picture in found}) != 1:
        raise ValueError(f"panels needs pictures of one size, not {[picture.shape for picture in found]}")
    if titles and len(titles) != len(found):
        raise ValueError(f"there are {len(titles)} titles for {len(found)} pictures")
    height, width = found[0].shape[:2]
    columns = min(columns or len(found), len(found))
    text = max(12, round(width / 20))
    gap, head = max(4, text // 2), (2 * text if titles else 0)
    rows = -(-len(found) // columns)
    canvas = Image.new(
        "RGB", (gap + columns * (width + gap), rows * (head + height + gap) + (0 if titles else gap)), _PANEL
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(text)
    for number, picture in enumerate(found):
        x = gap + number % columns * (width + gap)
        y = number // columns * (head + height + gap) + (head or gap)
        canvas.paste(Image.fromarray(picture), (x, y))
        if titles:
            title = titles[number]
            while title and font.getlength(title) > width:
                title = title[:-2] + "…" if len(title) > 2 else ""
            draw.text((x, y - head // 2), title, _TEXT, font, anchor="lm")
    return canvas


def percent_text(share: float) -> str:
    """A share as percent with one decimal; what is there but rounds to nothing is ``<0.1 %``.

    >>> percent_text(0.3821), percent_text(0.0001)
    ('38.2 %', '<0.1 %')
    """
    return "<0.1 %" if 0 < share < 0.0005 else f"{share * 100:.1f} %"
