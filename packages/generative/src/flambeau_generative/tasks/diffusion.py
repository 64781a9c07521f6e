"""Diffusion models: the denoising loss on a data set, grids of samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import flambeau
from flambeau import Tensor
from flambeau.data import DataLoader
from flambeau.errors import UsageError
from flambeau.options import from_options
from flambeau.train import supervised

from ..data import FixedNoise, Images
from ..models.ddpm import DDPM
from .common import EvaluateOptions, GridOptions, load_generator, open_split, predict_grids

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class DiffusionGridOptions(GridOptions):
    """Options of `predict`, beside those of every grid.

    Attributes:
        steps: evaluations of the network; None for 50, or all where there are fewer.
        eta: 0 for the deterministic sampler, up to 1 for DDPM's noise.
    """

    steps: int | None = None
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise UsageError(f"eta must lie between 0 and 1, not {self.eta}", "set eta=0")


def denoise(model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """Predicted and true noise for a batch of pictures in 0..1, alone or with steps and noise."""
    images, *fixed = batch if isinstance(batch, list | tuple) else (batch,)
    if fixed:
        t, noise = fixed
    else:
        t = flambeau.randint(0, model.config.steps, (len(images),), device=images.device)
        noise = flambeau.randn_like(images)
    return model(model.diffuse(images * 2 - 1, t, noise), t), noise


def fixed_noise(images: Images, steps: int) -> FixedNoise:
    """Pictures with a step and a noise each; the steps cover the schedule evenly."""
    return FixedNoise(images, partial(_draw, steps))


def _draw(steps: int, rng: np.random.Generator, index: int, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    t = np.int64((index + 0.5) * _GOLDEN % 1 * steps)
    return np.asarray(t), rng.standard_normal(image.shape, np.float32)


def score(module: DDPM, images: Images, batch_size: int) -> dict[str, Any]:
    """Mean squared error of the predicted noise (1 for a model that knows nothing), and the number of pictures."""
    loader = DataLoader(fixed_noise(images, module.config.steps), batch_size)
    loss = supervised.mean_squared_error()
    found = supervised.evaluate(module, loader, loss=loss, predict=denoise, device=module.signal.device)
    return {"denoising_loss": found["loss"], "images": len(images)}


def evaluate(model: str, data: str, split: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Denoising loss on a split of idx files, a csv of pixels or a folder of pictures."""
    settings = from_options(EvaluateOptions, options, "the diffusion task")
    module = load_generator(model, DDPM, settings.device)
    return score(module, open_split(module, data, split), settings.batch_size)


def predict(
    model: str, inputs: Sequence[str], output: str | None, options: dict[str, Any]
) -> Iterable[Mapping[str, Any]]:
    """A PNG grid of samples for each seed in `inputs`; the same seed gives the same bytes."""
    settings = from_options(DiffusionGridOptions, options, "the diffusion task")
    module = load_generator(model, DDPM, settings.device)
    if settings.steps is not None and not 1 <= settings.steps <= module.config.steps:
        most = module.config.steps
        raise UsageError(f"steps must lie between 1 and {most}, not {settings.steps}", "set steps=50")
    return predict_grids(module, inputs, output, settings, {"steps": settings.steps, "eta": settings.eta})
