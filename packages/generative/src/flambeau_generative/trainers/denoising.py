"""Training of diffusion models by denoising (Ho et al. 2020, algorithm 1): predict the noise, mean squared error.

Steps and noise are drawn anew for each picture and batch. An exponential moving average of the weights is what is
sampled from, measured and kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flambeau.options import from_options
from flambeau.plugins import create_model
from flambeau.train import supervised

from ..tasks.diffusion import denoise, fixed_noise, score
from .common import SampleGrids, SampleOptions, checked, finish, read_splits


@dataclass
class DenoisingOptions(SampleOptions):
    """Options of `train`: those of every generative trainer, with defaults that suit diffusion."""

    epochs: int = 40
    lr: float = 1e-3
    weight_decay: float = 0.0
    clip: float | None = 1.0
    ema: float | None = 0.995
    samples: int = 36
    sample_every: int = 2


def train(model_id: str, data: str, output: str, options: dict[str, Any], resume: bool) -> Mapping[str, Any]:
    """Train a diffusion model; the run's folder gets weights, history, learning curve, sample grids and checkpoints.

    Returns:
        Denoising loss on the test split of the weights that were kept.
    """
    settings = from_options(DenoisingOptions, options)
    pictures, validation, config = read_splits(data, settings)
    steps = checked(create_model, model_id, config).config.steps
    supervised.run(
        lambda: create_model(model_id, **config),
        pictures,
        fixed_noise(validation, steps),
        loss=supervised.mean_squared_error(),
        options=settings,
        output=output,
        model_id=model_id,
        config=config,
        plugin="flambeau-generative",
        resume=resume,
        predict=denoise,
        callbacks=[SampleGrids(output, settings)],
    )
    return score(finish(output, settings), validation, settings.batch_size)
