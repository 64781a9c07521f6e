"""A small run that is killed and resumed by the tests; as a program: ``python train_cases.py FOLDER [--resume]``."""

from __future__ import annotations

import sys
import time

import numpy as np

from flambeau import nn
from flambeau.data import Dataset, sample_rng
from flambeau.train import F1, Accuracy, Callback, supervised


class Images(Dataset):
    """Noisy pictures of three classes; the noise is drawn anew each epoch."""

    def __init__(self, n, seed=0, noise=1.0):
        self.noise = noise
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, 3, n)
        self.images = rng.normal(size=(n, 2, 6, 6)).astype(np.float32)
        self.images += self.labels[:, None, None, None]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        noise = sample_rng().normal(size=(2, 6, 6)).astype(np.float32)
        return self.images[index] + np.float32(self.noise) * noise, int(self.labels[index])


def network():
    """Convolution, batch norm (buffers) and dropout (random numbers)."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(64, 3)
    )  # fmt: skip


OPTIONS = supervised.Options(
    epochs=4, batch_size=8, lr=0.01, accumulate=2, ema=0.9, clip=1.0, workers=2, checkpoint_every=1, patience=100,
    seed=3,
)  # fmt: skip


class Quiet(Callback):
    """Shows nothing; slows the run down so that it can be killed in the middle."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def on_step(self, run):
        time.sleep(self.seconds)


def train(folder, resume=False, seconds=0.0, options=OPTIONS, callbacks=()):
    return supervised.run(
        network, Images(52), Images(20, seed=1, noise=0.0), loss=supervised.cross_entropy(label_smoothing=0.1),
        metrics={"accuracy": Accuracy(), "f1": F1(3)}, options=options, output=folder, model_id="tests/small",
        config={"a": 1}, plugin="tests", resume=resume, progress=Quiet(seconds), callbacks=callbacks,
    )  # fmt: skip


if __name__ == "__main__":
    train(sys.argv[1], resume="--resume" in sys.argv, seconds=0.02)
