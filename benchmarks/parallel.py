"""Data parallel training on this machine: one process with one thread and with two, beside processes of one thread.

``python benchmarks/parallel.py`` (needs the extra ``[mpi]``) prints milliseconds a step of `fit` for three networks,
and the time of a sum over the processes. What it calls under ``mpiexec`` is this file again, with ``--worker``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time


def networks() -> dict:
    """Name -> (network, one batch, loss as (sum, count))."""
    import flambeau as torch
    from flambeau import nn
    from flambeau.nn import functional

    class LanguageModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(256, 128)
            layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True, dropout=0.0)
            self.layers = nn.TransformerEncoder(layer, 2)
            self.head = nn.Linear(128, 256)

        def forward(self, tokens):
            return self.head(self.layers(self.embedding(tokens))).reshape(-1, 256)

    def classes(output, target):
        target = target.reshape(-1)
        return functional.cross_entropy(output, target, reduction="sum"), len(target)

    def convolutions():
        parts = []
        for channels_in, channels in ((3, 32), (32, 64), (64, 128)):
            parts += [nn.Conv2d(channels_in, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*parts, nn.Flatten(), nn.Linear(2048, 10))

    def mlp():
        return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

    torch.manual_seed(0)
    digits, tokens = torch.randint(0, 10, (256,)), torch.randint(0, 256, (32, 64))
    return {
        "mlp": (mlp(), (torch.randn(256, 784), digits), classes),
        "convolutions": (convolutions(), (torch.randn(64, 3, 32, 32), digits[:64]), classes),
        "language model": (LanguageModel(), (tokens, tokens), classes),
    }


def worker() -> None:
    """Trains each network for a few epochs of 10 steps; the main process prints milliseconds a step as JSON."""
    import numpy as np

    import flambeau
    from flambeau.train import Callback, fit
    from flambeau.train.single import processes

    together = processes()
    size = together.backend.size if hasattr(together, "backend") else 1
    rank = together.backend.rank if size > 1 else 0

    class Clock(Callback):
        def __init__(self):
            self.seconds = []

        def on_epoch_start(self, run):
            self.began = time.perf_counter()

        def on_epoch(self, run, row):
            self.seconds.append(time.perf_counter() - self.began)

    found = {}
    for name, (net, (inputs, targets), loss) in networks().items():
        mine = slice(rank * len(inputs) // size, (rank + 1) * len(inputs) // size)
        batches = [(inputs[mine], targets[mine])] * 10
        clock = Clock()
        optimizer = flambeau.optim.AdamW(net.parameters(), lr=1e-4)

        def step(net, batch, loss=loss):
            return loss(net(batch[0]), batch[1])

        fit(net, optimizer, step, batches, epochs=5, callbacks=[clock], parallel=together if size > 1 else None)
        found[name] = 1e3 * min(clock.seconds[1:]) / len(batches)
    if size > 1:
        from flambeau import distributed

        for count in (1_024, 16_384, 262_144, 4_194_304):
            tensor, times = flambeau.from_numpy(np.ones(count, np.float32)), []
            for _ in range(20):
                distributed.barrier()
                began = time.perf_counter()
                distributed.all_reduce(tensor)
                times.append(time.perf_counter() - began)
            found[f"sum of {4 * count} bytes"] = 1e3 * statistics.median(times)
    if rank == 0:
        print(json.dumps(found), flush=True)


def timed(processes: int, threads: int) -> dict:
    """The figures of a run with so many processes and threads each."""
    names = ("FLAMBEAU_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    command = [sys.executable, __file__, "--worker"]
    if processes > 1:
        command = [shutil.which("mpiexec") or "mpiexec", "-n", str(processes), *command]
    environment = os.environ | dict.fromkeys(names, str(threads))
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each (default 2)")
    options = parser.parse_args()
    if options.worker:
        worker()
        return 0
    if shutil.which("mpiexec") is None:
        print("error: there is no mpiexec\n  mend: pip install 'flambeau-core[mpi]'", file=sys.stderr)
        return 3
    alone, threads, several = timed(1, 1), timed(1, options.processes), timed(options.processes, 1)
    n = options.processes
    print(f"{'ms a step':24} {'1 thread':>10} {f'{n} threads':>10} {f'{n} processes':>12}")
    for name in alone:
        print(f"{name:24} {alone[name]:10.1f} {threads[name]:10.1f} {several[name]:12.1f}")
    for name in [name for name in several if name not in alone]:
        print(f"{name:24} {'':10} {'':10} {several[name]:12.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
