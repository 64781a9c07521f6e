"""A variational autoencoder on digits: transposed convolutions, KL term, RMSprop, weight averaging."""

import argparse
import json

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.parameter import Parameter


class VAE(nn.Module):
    def __init__(self, latent: int = 6):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.SiLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(),
        )  # fmt: skip
        self.mu = nn.Linear(64, latent)
        self.logvar = nn.Linear(64, latent)
        self.expand = nn.Linear(latent, 64)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (16, 2, 2)), nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.Conv2d(8, 1, 3, padding=1),
        )  # fmt: skip
        self.temperature = Parameter(torch.ones(1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.mu(h), self.logvar(h)

    def forward(self, x, noise):
        mu, logvar = self.encode(x)
        std = torch.exp(0.5 * logvar)
        z = mu + noise * std
        return self.decoder(self.expand(z)) * self.temperature, mu, logvar


def loss_function(logits, x, mu, logvar):
    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return (bce + kld) / x.shape[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--create", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    rng = np.random.default_rng(0)
    images = torch.as_tensor(load_digits().images / 16, dtype=dtype)[:, None]
    model = VAE().type(dtype)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.5, centered=True)
    if args.create:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 0}, args.weights)
    else:
        state = torch.load(args.weights)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        assert state["epoch"] == 0
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))

    losses = []
    for step in range(20):
        x = images[torch.arange(step * 32, (step + 1) * 32)]
        noise = torch.from_numpy(rng.standard_normal((32, 6))).to(x)
        logits, mu, logvar = model(x, noise)
        loss = loss_function(logits, x, mu, logvar)
        for p in model.parameters():
            p.grad = None
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        losses.append(loss.item())
    with torch.inference_mode():
        losses.append(loss_function(*[average(x, noise)[0], x, mu, logvar]).item())
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
