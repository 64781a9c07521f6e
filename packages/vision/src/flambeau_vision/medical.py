"""Medical pictures: DICOM and NIfTI as arrays that keep their values and their spacing (extra ``[medical]``)."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from flambeau.errors import FlambeauError, MissingExtraError


@dataclass(frozen=True)
class Scan:
    """A slice or a volume.

    Attributes:
        array: float32; DICOM (H, W) or (frames, H, W) in the file's units (Hounsfield units for CT), NIfTI in the
            file's own order of axes.
        spacing: millimetres from one element to the next along each axis of ``array``; None where the file is silent.
        window: centre and width to look at it with, when the file names one.
        inverted: whether low values are meant to look bright (MONOCHROME1).
        affine: NIfTI's (4, 4) map from indices to millimetres.
    """

    array: np.ndarray
    spacing: tuple[float | None, ...]
    window: tuple[float, float] | None = None
    inverted: bool = False
    affine: np.ndarray | None = field(default=None, compare=False)

    def picture(self, window: tuple[float, float] | None = None) -> np.ndarray:
        """The array as uint8 through a window (centre, width): the given one, else the file's, else its own range."""
        out = apply_window(self.array, window or self.window or _own_window(self.array))
        return 255 - out if self.inverted else out


def apply_window(array: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Values to uint8 through a window (centre, width), as DICOM's linear function (PS3.3 C.11.2.1.2.1).

    Raises:
        ValueError: the width is below 1.

    >>> apply_window(np.array([-200.0, 40.0, 400.0]), (40, 400)).tolist()
    [0, 128, 255]
    """
    centre, width = window
    if width < 1:
        raise ValueError(f"a window's width is at least 1, not {width}")
    if width == 1:
        return np.where(array > centre - 0.5, 255, 0).astype(np.uint8)
    scaled = ((np.nan_to_num(array) - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def load_dicom(path: str | os.PathLike) -> Scan:
    """Read a DICOM file: slope and intercept are applied, spacing and window are kept.

    Raises:
        MissingExtraError: pydicom is not installed.
        FlambeauError: no such file, not DICOM, no pixels, colours, or a compression that cannot be read.
    """
    pydicom = _need("pydicom", "DICOM")
    _exists(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(path)
            if "PixelData" not in data:
                raise FlambeauError(f"{path}: a DICOM file without pixels", "give a file of an image series")
            raw = data.pixel_array
    except FlambeauError:
        raise
    except pydicom.errors.InvalidDicomError as error:
        raise FlambeauError(f"{path}: not a DICOM file", "give a .dcm file") from error
    except Exception as error:  # decoders raise whatever a broken or compressed file trips over
        raise FlambeauError(
            f"{path}: the pixels cannot be read ({_line(error)})", "copy it again, or decompress it (gdcmconv --raw)"
        ) from error
    if int(data.get("SamplesPerPixel", 1)) != 1:
        raise FlambeauError(f"{path}: a colour DICOM picture", "give a grey one (CT, MR, X-ray)")
    array = raw.astype(np.float32) * float(data.get("RescaleSlope", 1) or 1) + float(data.get("RescaleIntercept", 0))
    rows = data.get("PixelSpacing") or data.get("ImagerPixelSpacing") or (None, None)
    plane = tuple(None if value is None else float(value) for value in rows)
    between = data.get("SpacingBetweenSlices") or data.get("SliceThickness")
    depth: tuple[float | None, ...] = (float(between) if between else None,) if array.ndim == 3 else ()
    centre, width = _first(data.get("WindowCenter")), _first(data.get("WindowWidth"))
    window = (centre, width) if centre is not None and width is not None and width >= 1 else None
    inverted = data.get("PhotometricInterpretation") == "MONOCHROME1"
    return Scan(array.astype(np.float32), (*depth, *plane), window, inverted)


def load_nifti(path: str | os.PathLike) -> Scan:
    """Read a NIfTI file (``.nii``, ``.nii.gz``): scaled values, spacing in millimetres, affine.

    Raises:
        MissingExtraError: nibabel is not installed.
        FlambeauError: no such file, not NIfTI, or cut.
    """
    nibabel = _need("nibabel", "NIfTI")
    _exists(path)
    try:
        image = nibabel.load(path)
        array = np.asarray(image.get_fdata(dtype=np.float32))
    except Exception as error:  # nibabel raises whatever a broken file trips over
        raise FlambeauError(f"{path}: not a whole NIfTI file ({_line(error)})", "copy the file again") from error
    unit = {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)
    zooms = image.header.get_zooms()
    spacing = tuple(float(zoom) * (unit if axis < 3 else 1.0) for axis, zoom in enumerate(zooms))
    return Scan(array, spacing, affine=np.asarray(image.affine))


def _need(module: str, what: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{what} files need {module}", 'pip install "flambeau-vision[medical]"') from error


def _exists(path: str | os.PathLike) -> None:
    if os.path.isdir(path):
        raise FlambeauError(f"{path}: this is a folder, not a file", "give one of the files in it")
    if not os.path.exists(path):
        raise FlambeauError(f"{path}: no such file", "check the path")


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _first(value: Any) -> float | None:
    """DICOM's windows may be lists: the first one counts."""
    if value is None or value == "":
        return None
    return float(value if isinstance(value, (int, float, str)) else np.atleast_1d(value)[0])


def _own_window(array: np.ndarray) -> tuple[float, float]:
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (low + high + 1) / 2, max(high - low, 1.0) + 1
