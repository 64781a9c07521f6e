"""A trainer that counts steps, not epochs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import flambeau
from flambeau import nn, optim
from flambeau.options import from_options
from flambeau.plugins import create_model, load_model, save_model

from .points import Spirals


@dataclass
class Recipe:
    steps: int = 300
    batch_size: int = 64
    lr: float = 0.03
    seed: int = 0
    centres: int = 32


def train(model_id, data, output, options, resume):
    recipe = from_options(Recipe, options, "trainer 'spiral/steps'")
    spirals = Spirals(split="train")
    flambeau.manual_seed(recipe.seed)
    config = {"centres": recipe.centres}
    model = load_model(output).train() if resume else create_model(model_id, **config)
    optimizer = optim.Adam(model.parameters(), lr=recipe.lr)
    criterion = nn.CrossEntropyLoss()
    draw = np.random.default_rng(recipe.seed)
    losses = []
    for _ in range(recipe.steps):
        batch = draw.integers(0, len(spirals), recipe.batch_size)
        optimizer.zero_grad()
        loss = criterion(model(flambeau.from_numpy(spirals.points[batch])), flambeau.from_numpy(spirals.labels[batch]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    save_model(model, Path(output), model_id, config)
    return {"steps": recipe.steps, "first_loss": losses[0], "last_loss": losses[-1]}
