"""What the tasks share: loading a model of the right kind, and a PNG grid of samples for each seed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import flambeau
from flambeau.errors import FlambeauError, UsageError
from flambeau.plugins import load_model
from flambeau.random import Generator

from ..data import Images, read_images
from ..grid import save_grid

M = TypeVar("M", bound=flambeau.nn.Module)


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `evaluate`: pictures a step and the device."""

    batch_size: int = 64
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {self.batch_size}", "pass --batch-size 64")


@dataclass(frozen=True)
class GridOptions:
    """Options of `predict`.

    Attributes:
        count: pictures in the grid.
        columns: pictures in a row; None for a nearly square grid.
        scale: each pixel becomes a square of this side.
        device: cpu, cuda, cuda:1, ...
    """

    count: int = 64
    columns: int | None = None
    scale: int = 2
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, most in (("count", 10_000), ("columns", 10_000), ("scale", 64)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise UsageError(f"{name} must lie between 1 and {most}, not {value}", f"set {name} to another number")


def load_generator(model: str, kind: type[M], device: str) -> M:
    """A trained model of the class `kind`: a checkpoint, a run's folder, or the name of a model with weights.

    Raises:
        FlambeauError: not there, damaged, or of another class.
    """
    module = load_model(model)
    if not isinstance(module, kind):
        raise FlambeauError(
            f"{model}: holds a {type(module).__name__}, this task is for a {kind.__name__}",
            "`flambeau models list` shows the task of each model",
        )
    return module.to(device).eval()


def open_split(module: Any, data: str, split: str) -> Images:
    """A split of the data, scaled to the model's pictures."""
    return read_images(data, split, module.config.size, module.config.channels)


def predict_grids(
    module: Any, seeds: Sequence[str], output: str | None, settings: GridOptions, sampling: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """A grid of samples for each seed, one record each; a seed that is no number is reported and the others go on.

    Args:
        module: its ``sample(count, generator, **sampling)`` draws.
        seeds: whole numbers as text; ``-`` reads one from standard input.
        output: a ``.png`` file for one seed, else a folder.
    """
    if output is None:
        raise UsageError("samples are pictures and need a place", "add -o samples.png, or a folder for several seeds")
    for source in seeds:
        text = sys.stdin.readline().strip() if source == "-" else source
        try:
            if not (text.isascii() and text.isdigit()) or int(text) >= 2**63:
                raise FlambeauError(f"a seed is a whole number, not {text!r}", "pass seeds, such as 0 1 2")
            path = _target(text, output, len(seeds) > 1)
            images = module.sample(settings.count, Generator().manual_seed(int(text)), **sampling).to("cpu").numpy()
            save_grid(path, images, settings.columns, settings.scale)
        except FlambeauError as error:
            yield {"input": source, "error": error.cause, "mend": error.mend}
            continue
        yield {"input": source, "output": {"images": len(images), "size": images.shape[-1]}, "path": str(path)}


def _target(seed: str, output: str, several: bool) -> Path:
    path = Path(output)
    if not several and path.suffix and not path.is_dir():
        if path.suffix.lower() != ".png":
            raise FlambeauError(f"{path}: grids are PNG files", "use a name that ends in .png")
        return path
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlambeauError(f"cannot create {path}: {error.strerror}", "choose another output folder") from error
    return path / f"seed_{seed}.png"
