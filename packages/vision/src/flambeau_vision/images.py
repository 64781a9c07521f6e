"""Reading and writing pictures: whatever a camera, a scanner or a browser saves becomes a uint8 RGB array.

`load_image` knows files, bytes and streams; it applies the EXIF rotation, puts transparent pixels on white, scales
16-bit pictures to 8 bits, converts CMYK, palettes, grey and 1-bit, and takes the first frame of an animation. What it
cannot read ends in a :class:`flambeau.errors.FlambeauError` with one line of cause and one of mend.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flambeau.errors import FlambeauError

#: Pictures with more pixels are refused (a small file can unpack to gigabytes). 178 megapixels as RGB are 0.5 GB.
MAX_PIXELS = 178_956_970
#: No more than this is read from a pipe or a stream.
MAX_BYTES = 1 << 29
#: Suffixes that are looked for when a folder is given.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")

Source = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO


def load_image(source: Source, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> np.ndarray:
    """Read a picture as a uint8 RGB array of shape (H, W, 3).

    Args:
        source: a path, the bytes of a file, or a binary stream that is read to its end.
        max_pixels: larger pictures are refused before they are unpacked.
        name: what error messages call the picture (default: the path).

    Raises:
        FlambeauError: no such file, a folder, an empty, truncated or broken file, not a picture, too many pixels.

    >>> import io
    >>> from PIL import Image
    >>> stream = io.BytesIO()
    >>> Image.new("LA", (4, 3), (0, 0)).save(stream, "PNG")  # black, fully transparent
    >>> load_image(stream.getvalue()).shape, int(load_image(stream.getvalue()).min())
    ((3, 4, 3), 255)
    """
    return np.asarray(to_rgb(_open(source, max_pixels, name)))


def read_picture(source: str) -> np.ndarray:
    """`load_image` for a command's argument: a path, or ``-`` for standard input."""
    if source == "-":
        return load_image(sys.stdin.buffer, name="stdin")
    return load_image(source)


def load_mask(source: Source, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> np.ndarray:
    """Read a label picture as an array (H, W) of class indices: uint8, or int32 where an index exceeds 255.

    Palette pictures give the palette index, grey ones the grey value; colour pictures are refused.

    Raises:
        FlambeauError: as :func:`load_image`, and for a picture with colours.
    """
    image = _open(source, max_pixels, name)
    if image.mode not in ("P", "L", "1", "I", "I;16", "I;16B", "I;16L"):
        raise FlambeauError(
            f"{_name(source, name)}: a mask needs one class index per pixel, this picture has mode {image.mode}",
            "save it as an 8-bit grey or palette PNG whose values are class indices",
        )
    array = np.asarray(image)
    return array.astype(np.uint8 if array.size == 0 or 0 <= array.min() <= array.max() < 256 else np.int32)


def save_png(path: str | os.PathLike, array: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Write an array as PNG, whole or not at all.

    Args:
        path: the file; replaced if it is there.
        array: uint8, (H, W, 3) RGB or (H, W) grey or class indices.
        palette: uint8 (K, 3) colours; with it an (H, W) array is written as a palette picture, so that it holds the
            class indices and yet shows colours in any viewer.

    Raises:
        FlambeauError: the file cannot be written.
    """
    image = Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8))
    if palette is not None:
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(np.asarray(palette, dtype=np.uint8).tobytes())
    save_image(path, image)


def save_image(path: str | os.PathLike, image: Image.Image) -> None:
    """Write a Pillow image in the format that the path's suffix names (PNG, JPEG, WebP …), whole or not at all.

    Raises:
        FlambeauError: an unknown suffix, or the file cannot be written.
    """
    from flambeau.io import atomic_write

    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        raise FlambeauError(f"{path}: cannot write pictures with the suffix '{path.suffix}'", "use .png, .jpg or .webp")
    stream = io.BytesIO()
    options = {"JPEG": {"quality": 92}, "WEBP": {"quality": 90}, "PNG": {"compress_level": 4}}.get(kind, {})
    image.save(stream, kind, **options)
    with atomic_write(path) as file:
        file.write(stream.getbuffer())


def find_images(folder: str | os.PathLike) -> list[Path]:
    """The pictures that lie directly in a folder, sorted by name.

    Raises:
        FlambeauError: the folder has none, or cannot be listed.
    """
    try:
        entries = sorted(Path(folder).iterdir())
    except OSError as error:
        raise FlambeauError(f"{folder}: cannot list the folder ({error.strerror})", "check its permissions") from error
    found = [path for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        raise FlambeauError(
            f"{folder}: no pictures in this folder",
            "give a folder that holds .jpg or .png files itself (sub-folders are not searched)",
        )
    return found


def make_folder(folder: str | os.PathLike) -> Path:
    """A folder for results, made if need be.

    Raises:
        FlambeauError: it cannot be made, or is a file.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise FlambeauError(f"{folder}: a file, where a folder for results belongs", "give a folder") from error
    except OSError as error:
        raise FlambeauError(f"{folder}: cannot make the folder ({error.strerror})", "give another one") from error
    return Path(folder)


def to_rgb(image: Image.Image) -> Image.Image:
    """A Pillow image of any mode as 8-bit RGB, transparent pixels on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):  # premultiplied: Pillow converts these to their plain form only
            image = image.convert("LA" if image.mode == "La" else "RGBA")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(array: np.ndarray) -> np.ndarray:
    """High-bit-depth grey to uint8.

    Integers are divided by the smallest 2^k - 1 that holds the brightest pixel (k >= 8), so that a 12-bit sensor's
    picture in a 16-bit file is not almost black; floats are taken as 0..1, or stretched from their own range.
    """
    if array.dtype.kind == "f":
        array = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 1.0)
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        return np.rint((array - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
    array = array.astype(np.int64)
    array = array - min(int(array.min(initial=0)), 0)
    bits = max(int(array.max(initial=0)).bit_length(), 8)
    return np.rint(array * (255.0 / (2**bits - 1))).astype(np.uint8)


def _name(source: Source, name: str | None) -> str:
    if name:
        return name
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "name", "") or "picture")


def _open(source: Source, max_pixels: int, name: str | None) -> Image.Image:
    """Open, check and decode the first frame, rotated as its EXIF tag says."""
    label = _name(source, name)
    stream = _stream(source, label)
    try:
        with warnings.catch_warnings():
            # Pillow warns of big pictures (and of broken EXIF data); the limit below is ours, and an error.
            warnings.simplefilter("ignore")
            image = Image.open(stream)
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            image.load()
            try:
                return ImageOps.exif_transpose(image)
            except Exception:  # a broken EXIF block says nothing about the pixels
                return image
    except Image.DecompressionBombError as error:
        raise FlambeauError(
            f"{label}: the picture has more than {max_pixels / 1e6:.0f} million pixels, as decompression bombs have",
            "make it smaller first",
        ) from error
    except UnidentifiedImageError as error:
        raise FlambeauError(f"{label}: not a picture", "give a JPEG, PNG, WebP, TIFF, GIF or BMP file") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file trips over
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FlambeauError(
            f"{label}: the picture is truncated or broken ({cause})", "copy or download the file again"
        ) from error
    finally:
        if isinstance(source, (str, os.PathLike)):
            stream.close()


def _stream(source: Source, label: str) -> BinaryIO:
    """A seekable stream of the file's bytes, after the checks that give a clearer cause than a decoder would."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        if os.path.isdir(source):
            raise FlambeauError(f"{label}: this is a folder, not a picture", "give one of the files in it")
        try:
            if os.path.isfile(source) and os.path.getsize(source) > 0:
                return open(source, "rb")  # _open closes it
            with open(source, "rb") as file:  # an empty file, a pipe, a device
                data = file.read(MAX_BYTES)
        except FileNotFoundError as error:
            raise FlambeauError(f"{label}: no such file", "check the path") from error
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or error
            raise FlambeauError(f"{label}: cannot read the file ({cause})", "check its name and permissions") from error
    else:
        data = source.read(MAX_BYTES)
    if not data:
        raise FlambeauError(f"{label}: the file is empty (0 bytes)", "copy or download the file again")
    return io.BytesIO(data)
