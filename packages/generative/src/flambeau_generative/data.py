"""Small pictures without labels: idx files (MNIST and its relatives), a csv of pixels, or a folder of pictures.

Two parts (``train…`` and ``t10k…`` or ``test…``) are taken as they are. Where there is only one, every fifth picture of
it is the test split. Nothing is downloaded.
"""

from __future__ import annotations

import gzip
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flambeau.data import Dataset
from flambeau.errors import FlambeauError, UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_LAYOUT = "give a folder of pictures, of idx files (train-images-idx3-ubyte.gz), or a .csv or .csv.gz of pixels"
_MAX_BYTES = 1 << 31


class Images(Dataset[np.ndarray]):
    """Pictures in memory; an item is float32 (C, H, W) in 0..1.

    Attributes:
        pixels: uint8 (N, C, H, W).

    >>> Images(np.full((5, 1, 4, 4), 255, np.uint8))[0].max()
    np.float32(1.0)
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.pixels[index].astype(np.float32) / np.float32(255)


class FixedNoise(Dataset[tuple[np.ndarray, ...]]):
    """Pictures, each with random numbers that are its own: measuring twice gives the same value.

    Args:
        images: what items begin with.
        draw: called as ``draw(rng, index, image)``; returns the arrays that follow the picture in the item.
        seed: another one draws other numbers.
    """

    def __init__(
        self, images: Images, draw: Callable[[np.random.Generator, int, np.ndarray], tuple[Any, ...]], seed: int = 0
    ) -> None:
        self.images, self.draw, self.seed = images, draw, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        image = self.images[index]
        return image, *self.draw(np.random.default_rng((self.seed, index)), index, image)


def read_images(root: str | Path, split: str = "train", size: int | None = None, channels: int | None = None) -> Images:
    """The pictures under `root`, square and of one size.

    Args:
        root: a folder with idx files, with one or two csv files, or with pictures (at any depth); or one such file.
        split: ``train`` or ``test``.
        size: side that they are scaled to (the middle square of those in a folder); None keeps the side of idx and csv
            data and of a folder whose pictures are all square and equal, and takes 32 for other folders.
        channels: 1 (grey) or 3; None decides by the data.

    Raises:
        FlambeauError: nothing there, or a file that is cut, broken or of another kind.
        UsageError: another split.
    """
    root = Path(root)
    if split not in ("train", "test"):
        raise UsageError(f"there is no split {split!r}", "use train or test")
    if channels not in (None, 1, 3):
        raise UsageError(f"pictures have 1 or 3 channels, not {channels}", "set channels to 1 or 3")
    if not root.exists():
        raise FlambeauError(f"{root}: no such file or folder", _LAYOUT)
    if tables := _tables(root):
        part = tables.get(split) or next(iter(tables.values()))
        pixels = _fit(read_idx(part) if "idx3" in part.name else read_csv(part), size, channels)
        parts = len(tables)
    else:
        folders = [folder for folder in (root / "train", root / "test") if folder.is_dir()]
        chosen = root / split if root / split in folders else (folders or [root])[0]
        pixels, parts = _read_folder(chosen, size, channels), len(folders)
    if parts < 2:
        fifth = np.arange(len(pixels)) % 5 == 4
        pixels = pixels[fifth if split == "test" else ~fifth]
    if not len(pixels):
        raise FlambeauError(
            f"{root}: the {split} split has no pictures", "add pictures: every fifth one is for testing"
        )
    return Images(pixels)


def read_idx(path: str | Path) -> np.ndarray:
    """The pictures of an idx file (LeCun's MNIST format), gzipped when its name ends in ``.gz``: uint8 (N, H, W).

    Raises:
        FlambeauError: cut or broken, or not an idx file of grey pictures.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic, count, height, width = struct.unpack(">IIII", file.read(16))
            wanted = count * height * width
            if magic != 0x803 or not 0 < wanted <= _MAX_BYTES:
                raise ValueError("no header of grey pictures")
            data = file.read(wanted + 1)  # a byte more shows what is too long, without unpacking all of it
        if len(data) != wanted:
            raise ValueError(f"{'more' if len(data) > wanted else len(data)} bytes where {wanted} belong")
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise FlambeauError(f"{path}: not a whole idx file of pictures ({error})", "copy it again") from error
    return np.frombuffer(data, np.uint8).reshape(count, height, width)


def read_csv(path: str | Path) -> np.ndarray:
    """The pictures of a csv file with a header, a column ``label`` (or none) and one column a pixel: uint8 (N, H, W).

    Raises:
        FlambeauError: broken, values outside 0..255, or not the pixels of squares.
    """
    path = Path(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            names = file.readline().strip().split(",")
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # NumPy only warns of a file without rows
                table = np.loadtxt(file, dtype=np.int16, delimiter=",", ndmin=2)
        if table.shape[1] != len(names):
            raise ValueError(f"{table.shape[1]} values a row, {len(names)} names in the header")
        pixels = table[:, [name.strip().strip('"') != "label" for name in names]]
        side = round(pixels.shape[1] ** 0.5)
        if side * side != pixels.shape[1] or not side:
            raise ValueError(f"{pixels.shape[1]} pixels are no square")
        if pixels.min() < 0 or pixels.max() > 255:
            raise ValueError("values outside 0..255")
    except (OSError, EOFError, ValueError, OverflowError, UserWarning, zlib.error) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FlambeauError(f"{path}: not a table of pixels ({cause})", "it needs the header label,pixel1,…") from error
    return pixels.astype(np.uint8).reshape(-1, side, side)


def _tables(root: Path) -> dict[str, Path]:
    """The idx or csv file of each split."""
    files = [root] if root.is_file() else sorted(path for path in root.iterdir() if path.is_file())
    for wanted in ("idx3", ".csv"):
        found: dict[str, Path] = {}
        for path in (path for path in files if wanted in path.name):
            split = "test" if "t10k" in path.name or "test" in path.name else "train"
            if split in found:
                cause = f"{root}: {found[split].name} and {path.name} are both the {split} split"
                raise FlambeauError(cause, "keep one of them, or give the file itself")
            found[split] = path
        if found:
            return found
    if root.is_file():
        raise FlambeauError(f"{root}: neither an idx nor a csv file", _LAYOUT)
    return {}


def _fit(pixels: np.ndarray, size: int | None, channels: int | None) -> np.ndarray:
    """Grey pictures (N, H, W) as (N, C, size, size)."""
    if pixels.shape[1] != pixels.shape[2] or size not in (None, pixels.shape[1]):
        side = size or min(pixels.shape[1:])
        pixels = np.stack([_square(Image.fromarray(image), side) for image in pixels])
    return np.repeat(pixels[:, None], channels or 1, axis=1)


def _read_folder(folder: Path, size: int | None, channels: int | None) -> np.ndarray:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise FlambeauError(f"{folder}: no pictures", _LAYOUT)
    if size is None or channels is None:
        heads = [_opened(path, lambda image: (image.size, image.mode)) for path in paths]
        sizes, modes = {head[0] for head in heads}, {head[1] for head in heads}
        width, height = next(iter(sizes))
        size = size or (width if len(sizes) == 1 and width == height else 32)
        channels = channels or (1 if all(mode in ("1", "L", "LA") or mode.startswith("I") for mode in modes) else 3)
    pixels = np.stack([_opened(path, lambda image: _square(_plain(image, channels), size)) for path in paths])
    return pixels[:, None] if channels == 1 else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def _opened(path: Path, use: Callable[[Image.Image], Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return use(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise FlambeauError(f"{path}: the picture has too many pixels", "scale it down or take it out") from error
    except UnidentifiedImageError as error:
        raise FlambeauError(f"{path}: not a picture", "take it out of the folder") from error
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        raise FlambeauError(f"{path}: broken picture ({error})", "copy it again, or take it out") from error


def _plain(image: Image.Image, channels: int | None) -> Image.Image:
    """Upright, on white where it is transparent, grey or RGB, 8 bits."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _square(image: Image.Image, side: int | None) -> np.ndarray:
    """The middle square, scaled."""
    assert side is not None
    if image.size == (side, side):
        return np.asarray(image)
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))
