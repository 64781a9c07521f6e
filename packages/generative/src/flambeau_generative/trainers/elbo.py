"""Training of variational autoencoders by the evidence lower bound.

The loss is reconstruction + beta * KL in nats a picture (beta = 1: Kingma & Welling 2014; larger: Higgins et al. 2017).
What is measured after each epoch is the plain negative ELBO, whatever beta is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flambeau import Tensor
from flambeau.options import from_options
from flambeau.plugins import create_model
from flambeau.train import supervised

from ..models.vae import elbo_terms
from ..tasks.autoencoding import ELBOTerm, autoencode, fixed_noise, score
from .common import SampleGrids, SampleOptions, checked, finish, read_splits


@dataclass
class ELBOOptions(SampleOptions):
    """Options of `train`, beside those of every generative trainer.

    Attributes:
        beta: weight of the KL term in the training loss.
    """

    epochs: int = 20
    lr: float = 2e-3
    weight_decay: float = 0.0
    clip: float | None = 100.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta >= 0:
            raise ValueError(f"option beta={self.beta} must not be negative")


def train(model_id: str, data: str, output: str, options: dict[str, Any], resume: bool) -> Mapping[str, Any]:
    """Train a VAE; the run's folder gets weights, history, learning curve, sample grids and checkpoints.

    Returns:
        Negative ELBO on the test split of the weights that were kept, and its two terms.
    """
    settings = from_options(ELBOOptions, options)
    pictures, validation, config = read_splits(data, settings)
    latent = checked(create_model, model_id, config).config.latent

    def loss(output: tuple[Tensor, Tensor, Tensor], images: Tensor) -> tuple[Tensor, int]:
        reconstruction, kl = elbo_terms(output, images)
        return (reconstruction + settings.beta * kl).sum(), len(images)

    supervised.run(
        lambda: create_model(model_id, **config),
        pictures,
        fixed_noise(validation, latent),
        loss=loss,
        metrics={name: ELBOTerm(name) for name in ELBOTerm.names},
        options=settings,
        output=output,
        model_id=model_id,
        config=config,
        plugin="flambeau-generative",
        resume=resume,
        predict=autoencode,
        callbacks=[SampleGrids(output, settings)],
    )
    return score(finish(output, settings), validation, settings.batch_size)
