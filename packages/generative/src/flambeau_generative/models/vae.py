"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114) with strided convolutions, for small pictures."""

from __future__ import annotations

from dataclasses import dataclass

import flambeau
import flambeau.nn.functional as F
from flambeau import Tensor, nn
from flambeau.random import Generator


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of a `VAE`.

    Attributes:
        size: side of the square pictures; a multiple of 4.
        channels: 1 for grey, 3 for colour.
        latent: dimensions of the latent code.
        widths: channels after the first and the second halving.
        hidden: width of the layer between the convolutions and the code.
    """

    size: int = 28
    channels: int = 1
    latent: int = 16
    widths: tuple[int, int] = (32, 64)
    hidden: int = 256

    def __post_init__(self) -> None:
        if self.size < 4 or self.size % 4:
            raise ValueError(f"size={self.size} must be a multiple of 4")
        if min(self.channels, self.latent, *self.widths, self.hidden) < 1:
            raise ValueError("channels, latent, widths and hidden must be at least 1")
        if len(self.widths) != 2:
            raise ValueError(f"widths={self.widths} must be two numbers")


class VAE(nn.Module):
    """Encoder to a Gaussian over codes, decoder to a Bernoulli for each pixel.

    >>> model = VAE(VAEConfig(size=8, widths=(4, 4), hidden=8, latent=2))
    >>> logits, mean, log_variance = model(flambeau.zeros(5, 1, 8, 8))
    >>> tuple(logits.shape), tuple(mean.shape)
    ((5, 1, 8, 8), (5, 2))
    """

    def __init__(self, config: VAEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VAEConfig()
        first, second = config.widths
        side = config.size // 4
        flat = second * side * side
        self.encoder = nn.Sequential(
            nn.Conv2d(config.channels, first, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(first, second, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(flat, config.hidden),
            nn.ReLU(),
        )
        self.mean = nn.Linear(config.hidden, config.latent)
        self.log_variance = nn.Linear(config.hidden, config.latent)
        self.decoder = nn.Sequential(
            nn.Linear(config.latent, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, flat),
            nn.ReLU(),
            nn.Unflatten(1, (second, side, side)),
            nn.ConvTranspose2d(second, first, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(first, config.channels, 4, 2, 1),
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (N, latent) of the code of pictures (N, C, H, W) in 0..1."""
        features = self.encoder(images)
        return self.mean(features), self.log_variance(features)

    def decode(self, codes: Tensor) -> Tensor:
        """Logits (N, C, H, W) of the pixels, before the sigmoid."""
        return self.decoder(codes)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the pixels from a drawn code, and the code's mean and log-variance.

        Args:
            images: (N, C, H, W) in 0..1.
            noise: standard normal (N, latent) that the draw is made of; None draws it.
        """
        mean, log_variance = self.encode(images)
        if noise is None:
            noise = flambeau.randn_like(mean)
        return self.decode(mean + flambeau.exp(0.5 * log_variance) * noise), mean, log_variance

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Pictures (count, C, H, W) in 0..1: the pixels' means for codes drawn from the prior."""
        device = next(self.parameters()).device
        with flambeau.inference_mode():
            return flambeau.sigmoid(
                self.decode(flambeau.randn(count, self.config.latent, generator=generator, device=device))
            )


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) in nats, summed over the last dimension (appendix B of the paper).

    >>> kl_divergence(flambeau.tensor([[1.0, 2.0]]), flambeau.zeros(1, 2)).tolist()
    [2.5]
    """
    return 0.5 * (mean * mean + flambeau.exp(log_variance) - 1 - log_variance).sum(-1)


def elbo_terms(output: tuple[Tensor, Tensor, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of the negative ELBO in nats for each picture: reconstruction (N,) and KL (N,).

    The reconstruction is the cross-entropy of the pixels, -log p(images | code) where pixels are 0 or 1. The negative
    ELBO is the sum of both, a bound above -log p(images).
    """
    logits, mean, log_variance = output
    errors = F.binary_cross_entropy_with_logits(logits, images, reduction="none")
    return errors.flatten(1).sum(1), kl_divergence(mean, log_variance)
