"""What ``flambeau-segment`` does: each photo is read, segmented, drawn and reported; one that fails stops no other."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from flambeau.cli.output import print_error
from flambeau.errors import FlambeauError
from flambeau_vision.draw import class_palette, class_shares, percent_text
from flambeau_vision.images import find_images, make_folder, read_picture, save_image, save_png
from flambeau_vision.tasks.segmentation import (
    class_names,
    draw_segmentation,
    load_segmenter,
    segment,
)

DATA = Path(__file__).parent / "data"
#: The photos that ship with the app; `--sample` segments them.
SAMPLES = ("sample.jpg", "street.jpg")
#: Endings of the names that this command gives: a folder's earlier results are not segmented again.
OVERLAY, MASK = "_segmented", "_mask"


@dataclass(frozen=True)
class Settings:
    """The options of the command."""

    output: str | None = None
    mask: str | None = None
    overlay: bool = True
    legend: bool = True
    alpha: float = 0.5
    flip: bool = True
    model: str | None = None
    device: str = "cpu"
    as_json: bool = False


@dataclass
class _Names:
    """Chooses output names: never an input's, never one twice."""

    inputs: Sequence[str]
    several: bool
    taken: set[Path] = field(default_factory=set)

    def choose(self, source: str, given: str | None, ending: str) -> Path:
        stem = "stdin" if source == "-" else Path(source).stem
        if given is None:
            path = self._fresh(Path(f"{stem}{ending}.png"))
        elif self.several or os.path.isdir(given) or given.endswith((os.sep, "/")):
            path = self._fresh(make_folder(given) / f"{stem}{ending}.png")
        else:
            path = Path(given)
        if any(_same(path, other) for other in self.inputs if other != "-"):
            raise FlambeauError(f"{path}: this would overwrite a photo", "give another output with -o or --mask")
        self.taken.add(path.absolute())
        return path

    def _fresh(self, path: Path) -> Path:
        number, candidate = 2, path
        while candidate.absolute() in self.taken:
            candidate = path.with_name(f"{path.stem}_{number}{path.suffix}")
            number += 1
        return candidate


def run(photos: Sequence[str], settings: Settings, *, sample: bool = False) -> int:
    """Segment all photos.

    Returns:
        The exit code: 0, or 1 when at least one photo failed (or the code of an error that stops everything).
    """
    try:
        module = load_segmenter(settings.model or shipped_weights(), settings.device)
        sources, failed = _expand([*photos, *([str(DATA / name) for name in SAMPLES] if sample else [])], settings)
    except FlambeauError as error:
        print_error(error.cause, error.mend)
        return error.exit_code
    several = len(sources) > 1 or any(os.path.isdir(photo) for photo in photos)
    names = _Names(sources, several)
    for source in sources:
        try:
            record = _segment_one(module, source, settings, names)
        except Exception as error:  # one bad photo must not take the others with it
            _report_failure(source, error, settings)
            failed += 1
            continue
        click.echo(json.dumps(record) if settings.as_json else _table(record))
    return 1 if failed else 0


def shipped_weights() -> str:
    """The path of the weights in this package, checked against their digest.

    Raises:
        FlambeauError: missing or damaged.
    """
    path, digest = DATA / "model.safetensors", DATA / "model.safetensors.sha256"
    mend = "install it again: pip install --force-reinstall flambeau-segment (or give other weights with --model)"
    try:
        content, wanted = path.read_bytes(), digest.read_text(encoding="ascii").split()[0]
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise FlambeauError(f"{path}: the weights that ship with flambeau-segment are missing", mend) from error
    if hashlib.sha256(content).hexdigest() != wanted:
        raise FlambeauError(f"{path}: the weights that ship with flambeau-segment are damaged", mend)
    return str(path)


def _expand(photos: Sequence[str], settings: Settings) -> tuple[list[str], int]:
    """The photos with folders replaced by what lies in them, and how many folders gave nothing."""
    sources, failed = [], 0
    for photo in photos:
        if not os.path.isdir(photo):
            sources.append(photo)
            continue
        try:
            found = [path for path in find_images(photo) if not path.stem.endswith((OVERLAY, MASK))]
            if not found:
                raise FlambeauError(f"{photo}: only results of this command lie in this folder", "give your photos")
            sources += map(str, found)
        except FlambeauError as error:
            _report_failure(photo, error, settings)
            failed += 1
    return sources, failed


def _segment_one(module: Any, source: str, settings: Settings, names: _Names) -> dict[str, Any]:
    """Read, segment, write; the record that is printed."""
    image = read_picture(source)
    overlay = names.choose(source, settings.output, OVERLAY) if settings.overlay else None
    mask_path = names.choose(source, settings.mask, MASK) if settings.mask else None
    if mask_path and mask_path.suffix.lower() != ".png":
        raise FlambeauError(f"{mask_path}: class indices need a lossless file", "let the name of --mask end in .png")
    start = time.perf_counter()
    mask = segment(module, image, flip=settings.flip)
    seconds = time.perf_counter() - start
    classes = class_names(module)
    if mask_path:
        save_png(mask_path, mask, class_palette(classes))
    if overlay:
        title = "photo" if source == "-" else Path(source).name
        picture = draw_segmentation(image, mask, classes, alpha=settings.alpha, legend=settings.legend, title=title)
        save_image(overlay, picture)
    return {
        "input": source,
        "width": int(mask.shape[1]),
        "height": int(mask.shape[0]),
        "classes": [
            {"index": entry.index, "name": entry.name, "pixels": entry.pixels, "share": round(entry.share, 6)}
            for entry in class_shares(mask, classes)
        ],
        "overlay": str(overlay) if overlay else None,
        "mask": str(mask_path) if mask_path else None,
        "seconds": round(seconds, 3),
    }


def _table(record: dict[str, Any]) -> str:
    """The record for people: a row a class with its share as percent and as a bar."""
    name = "stdin" if record["input"] == "-" else click.format_filename(record["input"])
    lines = [f"{name}  {record['width']} x {record['height']}"]
    width = max(len(entry["name"]) for entry in record["classes"])
    block = "█" if _can_print("█") else "#"
    for entry in record["classes"]:
        bar = block * round(entry["share"] * 40)
        lines.append(f"  {entry['name'].replace('_', ' '):<{width}}  {percent_text(entry['share']):>7}  {bar}".rstrip())
    lines += [f"  {what}: {click.format_filename(record[what])}" for what in ("overlay", "mask") if record[what]]
    return "\n".join(lines)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _report_failure(source: str, error: Exception, settings: Settings) -> None:
    """Two lines on stderr and, for programs, a record on stdout."""
    if not isinstance(error, FlambeauError):
        cause = (str(error).splitlines() or [""])[0]
        if isinstance(error, MemoryError):
            known = FlambeauError(f"{source}: not enough memory for this photo", "make it smaller first")
        elif isinstance(error, OSError):
            known = FlambeauError(f"{source}: {error.strerror or cause}", "check the paths and their permissions")
        else:
            known = FlambeauError(
                f"{source}: unexpected {type(error).__name__}: {cause}", "set FLAMBEAU_DEBUG=1 to see where"
            )
            if os.environ.get("FLAMBEAU_DEBUG", "") not in ("", "0"):
                traceback.print_exception(error)
        error = known
    print_error(error.cause, error.mend)
    if settings.as_json:
        click.echo(json.dumps({"input": source, "error": error.cause, "mend": error.mend}))


def _same(path: Path, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
