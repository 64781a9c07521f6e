"""Variational autoencoders: the negative ELBO on a data set, grids of samples from the prior."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from flambeau import Tensor
from flambeau.data import DataLoader
from flambeau.options import from_options
from flambeau.train import Mean, Metric, supervised

from ..data import FixedNoise, Images
from ..models.vae import VAE, elbo_terms
from .common import EvaluateOptions, GridOptions, load_generator, open_split, predict_grids


class ELBOTerm(Metric):
    """Mean over pictures of the negative ELBO, or of one of its terms, in nats: ``update(output, images)``."""

    names = ("negative_elbo", "reconstruction", "kl")
    higher_is_better = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.mean = Mean()

    def reset(self) -> None:
        self.mean.reset()

    def update(self, *args: Any) -> None:
        output, images = args
        reconstruction, kl = elbo_terms(output, images)
        term = {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}[self.name]
        self.mean.update(float(term.mean().item()), len(images))

    def compute(self) -> float:
        return self.mean.compute()


def autoencode(model: Any, batch: Any) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Output and target for a batch of pictures, alone or with the noise that the codes are drawn with."""
    images, *noise = batch if isinstance(batch, list | tuple) else (batch,)
    return model(images, *noise), images


def fixed_noise(images: Images, latent: int) -> FixedNoise:
    """Pictures with one draw of a code each."""
    return FixedNoise(images, partial(_draw, latent))


def _draw(latent: int, rng: np.random.Generator, index: int, image: np.ndarray) -> tuple[np.ndarray]:
    return (rng.standard_normal(latent, np.float32),)


def score(module: VAE, images: Images, batch_size: int) -> dict[str, Any]:
    """Negative ELBO in nats a picture (one draw of the code), its terms, and the number of pictures."""
    device = next(module.parameters()).device
    loader = DataLoader(fixed_noise(images, module.config.latent), batch_size)
    metrics = {name: ELBOTerm(name) for name in ELBOTerm.names}
    found = supervised.evaluate(module, loader, metrics=metrics, predict=autoencode, device=device)
    return {**found, "images": len(images)}


def evaluate(model: str, data: str, split: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Negative ELBO on a split of idx files, a csv of pixels or a folder of pictures."""
    settings = from_options(EvaluateOptions, options, "the autoencoding task")
    module = load_generator(model, VAE, settings.device)
    return score(module, open_split(module, data, split), settings.batch_size)


def predict(
    model: str, inputs: Sequence[str], output: str | None, options: dict[str, Any]
) -> Iterable[Mapping[str, Any]]:
    """A PNG grid of samples for each seed in `inputs`; the same seed gives the same bytes."""
    settings = from_options(GridOptions, options, "the autoencoding task")
    return predict_grids(load_generator(model, VAE, settings.device), inputs, output, settings, {})
