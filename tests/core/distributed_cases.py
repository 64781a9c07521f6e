"""Small parallel runs, started by the tests: ``mpiexec -n N python distributed_cases.py CASE FOLDER``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

import flambeau
from flambeau import distributed, nn, optim
from flambeau.data import DataLoader, Dataset, DistributedSampler
from flambeau.train import Accuracy, Callback, CheckpointFolder, fit, supervised
from flambeau.train.checkpoint import seed_everything
from flambeau.train.single import processes


class Images(Dataset):
    """67 pictures: 8 batches of 8 and one of 3, which leaves one of four ranks without a sample."""

    def __init__(self, n=67):
        rng = np.random.default_rng(1)
        self.x, self.y = rng.normal(size=(n, 2, 6, 6)), rng.integers(0, 3, n)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index], int(self.y[index])


class Tokens(Dataset):
    """Sentences of different lengths, padded by -100 targets: ranks have different numbers of tokens."""

    def __len__(self):
        return 43

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        tokens = rng.integers(0, 11, 9)
        target = np.roll(tokens, -1)
        target[rng.integers(2, 9) :] = -100
        return tokens, target


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.head = nn.Linear(8, 11)

    def forward(self, x):
        return self.head(self.block(self.embed(x))).transpose(1, 2)


def cnn():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.SyncBatchNorm(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ).double()  # fmt: skip


class Sabotage(Callback):
    """At one step of one rank something happens."""

    def __init__(self, deed, rank=1, step=4):
        self.deed, self.rank, self.step = deed, rank, step

    def on_step(self, run):
        if not distributed.is_initialized() or distributed.get_rank() != self.rank:
            return
        if run.counters.optimizer_step == self.step:
            self.deed()


def training(case, folder, *, zero=False, bf16=False, epochs=2, callbacks=(), resume=False):
    seed_everything(4)
    together = processes()
    if bf16:
        together = distributed.DataParallel(reduce_dtype="bfloat16", bucket_cap_mb=1e-3)
    elif not hasattr(together, "backend"):
        assert not zero
    else:
        together = distributed.DataParallel(bucket_cap_mb=1e-3)  # several buckets
    lm = case == "lm"
    model = LanguageModel().double() if lm else cnn()
    if bf16:
        model = model.float()
    settings = dict(lr=0.02, weight_decay=0.01)
    if zero:
        optimizer = distributed.optim.ZeroRedundancyOptimizer(model.parameters(), optim.AdamW, **settings)
    else:
        optimizer = optim.AdamW(model.parameters(), **settings)
    loss = supervised.cross_entropy()

    def step(net, batch):
        x, y = batch
        out = net(x if lm else x.to(next(net.parameters()).dtype))
        return (*loss(out, y), len(y))

    data = Tokens() if lm else Images()
    loader = together.loader(data, 8, shuffle=True)

    def evaluate(net):
        metrics = {"accuracy": Accuracy(ignore_index=-100)}
        return supervised.evaluate(
            net, together.loader(data, 8), loss=loss, metrics=metrics, parallel=together,
            predict=lambda net, batch: (net(batch[0] if lm else batch[0].to(next(net.parameters()).dtype)), batch[1]),
        )  # fmt: skip

    run = fit(
        model, optimizer, step, loader, epochs=epochs, schedule=optim.lr_scheduler.StepLR(optimizer, 3, 0.7),
        clip=0.5, accumulate=2 if lm else 1, ema=optim.EMA(model, 0.8), evaluate=evaluate, parallel=together,
        callbacks=callbacks, checkpoints=CheckpointFolder(folder), checkpoint_every=1, resume=resume, monitor="loss",
    )  # fmt: skip
    if together.main:
        state = {k: v.numpy() for k, v in {**model.state_dict(), **run.ema.state_dict()}.items()}
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
        np.savez(Path(folder) / "out.npz", **state, history=np.array([list(row.values()) for row in rows]))


def supervised_run(folder):
    options = supervised.Options(epochs=2, batch_size=8, lr=0.01, seed=3)
    supervised.run(
        cnn, Images(), Images(21), loss=supervised.cross_entropy(), metrics={"accuracy": Accuracy()}, options=options,
        output=folder, model_id="tests/small",
    )  # fmt: skip


def uneven_loaders(folder):
    """Each rank has a loader of its own; the last has fewer batches."""
    seed_everything(0)
    together = processes()
    model = nn.Linear(2, 1).double()
    data = np.random.default_rng(0).normal(size=(13, 2))
    size = distributed.get_world_size() if distributed.is_initialized() else 1
    sampler = DistributedSampler(data, shuffle=False) if size > 1 else None
    loader = DataLoader(flambeau.data.TensorDataset(flambeau.tensor(data)), 4 // size, sampler=sampler)
    step = lambda net, batch: ((net(batch[0]) ** 2).sum(), len(batch[0]))
    optimizer = optim.SGD(model.parameters(), 0.1)
    run = fit(model, optimizer, step, loader, epochs=2, parallel=together)
    if together.main:
        np.savez(
            Path(folder) / "out.npz",
            w=model.weight.detach().numpy(),
            n=run.counters.samples,
            loss=run.history[-1]["loss"],
        )


def boom():
    raise ValueError("the disk is on fire")


def main():
    case, folder, *rest = sys.argv[1:]
    deeds = {
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
        "hang": lambda: time.sleep(1000),
        "raise": boom,
    }
    deed = case.removesuffix("-zero")
    if deed in deeds:
        sabotage = Sabotage(deeds[deed], int(rest[0]) if rest else 1)
        training("cnn", folder, zero=deed != case, callbacks=[sabotage])
    elif case == "supervised":
        supervised_run(folder)
    elif case == "uneven":
        uneven_loaders(folder)
    else:
        name, *flags = case.split("-")
        training(
            name, folder, zero="zero" in flags, bf16="bf16" in flags, epochs=4 if "four" in flags else 2,
            resume="resume" in flags,
        )  # fmt: skip


if __name__ == "__main__":
    main()
