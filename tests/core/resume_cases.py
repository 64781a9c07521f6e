"""Runs that the tests kill and resume; as a program: ``python resume_cases.py KIND FOLDER [--resume] [--slow]``.

KIND is ``images`` (convolutions) or ``text`` (a language model). Everything that has a state is on: workers that draw
from `sample_rng` and from the global generators, accumulation, EMA, dropout, a schedule, clipping, early stopping.
"""

from __future__ import annotations

import math
import random
import sys
import time
from pathlib import Path

import numpy as np

import flambeau
from flambeau import nn, optim
from flambeau.data import DataLoader, Dataset, sample_rng
from flambeau.io import save_file
from flambeau.train import Callback, CheckpointFolder, EarlyStopping, HistoryWriter, fit, supervised
from flambeau.train.checkpoint import seed_everything

SECONDS = {"--slow": 0.05, "--stuck": 60.0}


class Images(Dataset):
    """Pictures of three classes under noise from all generators that a dataset may draw from."""

    def __init__(self, n, seed=0):
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, 3, n)
        self.images = rng.normal(size=(n, 3, 12, 12)).astype(np.float32) + self.labels[:, None, None, None]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        noise = sample_rng().normal(size=(3, 12, 12)) + np.random.normal() + random.gauss(0, 0.1)
        return (self.images[index] + noise * flambeau.rand(()).item()).astype(np.float32), int(self.labels[index])


class Text(Dataset):
    """Windows of a periodic text at random places."""

    def __init__(self, n, seed=0):
        self.n = n
        self.text = np.random.default_rng(seed).integers(0, 40, 37).repeat(2)

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        start = int(sample_rng().integers(37)) + np.random.randint(20)
        window = np.take(self.text, range(start, start + 25), mode="wrap")
        return window[:-1].astype(np.int64), window[1:].astype(np.int64)


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.position = nn.Parameter(flambeau.randn(24, 32) * 0.1)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 40)

    def forward(self, tokens):
        size = tokens.shape[1]
        mask = flambeau.triu(flambeau.full((size, size), -math.inf), 1)
        return self.head(self.body(self.embed(tokens) + self.position, mask=mask)).transpose(1, 2)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, 3),
    )  # fmt: skip


class Ready(Callback):
    """Says on stdout that training begins; slows it down on request, or hangs in its fourth step."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def on_start(self, run):
        print("ready", flush=True)

    def on_step(self, run):
        time.sleep(self.seconds if self.seconds < 1 or run.counters.optimizer_step > 3 else 0)


def train(kind, folder, resume=False, seconds=0.0, epochs=6, extra=(), **options):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    seed_everything(7)
    images = kind == "images"
    model = network() if images else LanguageModel()
    data = Images(150) if images else Text(150)
    if images:
        optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    else:
        optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    loss = supervised.cross_entropy()

    def step(model, batch):
        total, count = loss(model(batch[0]), batch[1])
        return total, count, len(batch[0])

    def evaluate(model):
        loader = DataLoader(Images(40, 1) if images else Text(40), 8, num_workers=1)
        return {"val_loss": supervised.evaluate(model, loader, loss=loss)["loss"]}

    settings = {"accumulate": 2, "clip": 1.0, "checkpoint_every": 3, **options}
    run = fit(
        model, optimizer, step,
        DataLoader(data, 4, shuffle=True, num_workers=2, persistent_workers=images),
        epochs=epochs, schedule=optim.lr_scheduler.CosineAnnealingLR(optimizer, 120),
        ema=optim.EMA(model, 0.9, warmup=True), evaluate=evaluate, monitor="val_loss",
        callbacks=[EarlyStopping(patience=50), HistoryWriter(folder), Ready(seconds), *extra],
        checkpoints=CheckpointFolder(folder / "checkpoints"), resume=resume, **settings,
    )  # fmt: skip
    final = {f"model.{key}": value for key, value in model.state_dict().items()}
    final |= {f"ema.{key}": value for key, value in run.ema.state_dict().items()}
    save_file(final, folder / "final.safetensors")
    return run


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], resume="--resume" in sys.argv, seconds=SECONDS.get(sys.argv[-1], 0.0))
