"""What the generative trainers share: options about samples, the sample grids, and the model's picture size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flambeau.errors import UsageError
from flambeau.plugins import load_model
from flambeau.random import Generator
from flambeau.train import Callback, Run, supervised

from ..data import Images, read_images
from ..grid import save_grid


@dataclass
class SampleOptions(supervised.Options):
    """Options of every generative trainer, beside those of a supervised one.

    Attributes:
        samples: pictures in a grid of samples; 0 for no grids.
        sample_every: epochs between two grids.
        model: options of the model as JSON, such as ``{"latent": 8}``; ``size`` and ``channels`` also set what the
            pictures are scaled to.
    """

    batch_size: int = 64
    drop_last: bool = True
    samples: int = 64
    sample_every: int = 1
    model: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 0 or self.sample_every < 1:
            raise ValueError("option samples must not be negative, sample_every must be at least 1")


def read_splits(data: str, settings: SampleOptions) -> tuple[Images, Images, dict[str, Any]]:
    """Training and test pictures, and the model's options with their size."""
    config = dict(settings.model or {})
    wanted = {name: config.get(name) for name in ("size", "channels")}
    for name, value in wanted.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UsageError(f"option {name} of the model must be a whole number above 0, not {value!r}", "change it")
    train = read_images(data, "train", **wanted)
    _, channels, size, _ = train.pixels.shape
    config.update(size=size, channels=channels)
    if settings.drop_last and len(train) < settings.batch_size:
        cause = f"{data}: {len(train)} training pictures do not fill a batch of {settings.batch_size}"
        raise UsageError(cause, "lower batch_size, or set drop_last=false")
    return train, read_images(data, "test", size, channels), config


class SampleGrids(Callback):
    """Writes ``samples/epoch_0001.png`` …: samples of the weights that are evaluated, from the same noise each time."""

    def __init__(self, output: str | Path, settings: SampleOptions) -> None:
        self.folder, self.settings = Path(output) / "samples", settings

    def on_epoch(self, run: Run, row: dict[str, Any]) -> None:
        epoch = run.counters.epoch
        if self.settings.samples and epoch % self.settings.sample_every == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            draw_samples(run.evaluated_model.eval(), self.folder / f"epoch_{epoch:04d}.png", self.settings)


def draw_samples(model: Any, path: Path, settings: SampleOptions) -> None:
    """A grid of samples; the random numbers are its own, so that it changes nothing in a run."""
    images = model.sample(settings.samples, Generator().manual_seed(settings.seed))
    save_grid(path, images.to("cpu").numpy(), scale=2)


def finish(output: str | Path, settings: SampleOptions) -> Any:
    """The model that the run kept, with its samples in ``samples.png``."""
    model = load_model(Path(output) / "model.safetensors").to(settings.device).eval()
    if settings.samples:
        draw_samples(model, Path(output) / "samples.png", settings)
    return model


def checked(create: Any, model_id: str, config: Mapping[str, Any]) -> Any:
    """The model, built once so that a wrong option of it is found before the run's folder is made.

    Raises:
        UsageError: an option that the model refuses.
    """
    try:
        return create(model_id, **config)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{model_id}: {error}", "change the option model") from error
