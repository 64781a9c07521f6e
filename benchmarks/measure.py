"""Measure one workload in both libraries: a process for each, equal values first, then samples in turns."""

import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stats import geometric_mean, paired_ratios, quartiles

HERE = Path(__file__).resolve().parent
OURS, PEER = "flambeau", "torch"
COMPILED = "+compile"
COMPILE_LIMIT = 180.0  # seconds: PyTorch's compiler takes minutes for some steps
THREAD_VARIABLES = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "FLAMBEAU_NUM_THREADS"]
LEAST_PAIRS = 3


class Disagreement(RuntimeError):
    """The two libraries do not compute the same: their times must not be compared."""


@dataclass(frozen=True)
class Case:
    """One of several parts of a workload."""

    name: str
    ours: float
    peer: float | None
    ratio: float | None


@dataclass(frozen=True)
class Result:
    """Times are seconds a step (or what `unit` says); `ratio` is ours / peer's: below 1, ours is less."""

    workload: str
    ours: float
    peer: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    unit: str = "s"
    difference: float | None = None  # the largest between the two libraries' values, relative
    memory_ours: float | None = None  # peak, MB
    memory_peer: float | None = None
    others: float | None = None  # part of the processors that other programs used meanwhile
    items: tuple[int, str] | None = None  # what a step gets through, such as (512, "images")
    group: str | None = None  # workloads of one group count as one in the mean
    cases: list[Case] = field(default_factory=list)
    # Time of `flambeau.compile`'s and of `torch.compile`'s steps / PyTorch's eager ones; or why there is none.
    compiled: float | str | None = None
    peer_compiled: float | str | None = None

    @property
    def best(self) -> float | None:
        """The lower one of our two ratios."""
        return min(self.ratio, self.compiled) if isinstance(self.compiled, float) and self.ratio else self.ratio


class Worker:
    """A process that holds one workload in one library and times it on request."""

    def __init__(self, library: str, workload: str, threads: int, device: str):
        self.library = library
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), library, workload, device, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
        )

    def ask(self, *command: str, limit: float | None = None) -> Any:
        """The answer; RuntimeError if the process ends instead, or is silent for `limit` seconds (and is killed)."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer, empty, says so
        if limit is not None and not select.select([self.process.stdout], [], [], limit)[0]:
            self.process.kill()
            raise RuntimeError(f"{self.library} did not answer within {limit:.0f} s")
        answer = self.process.stdout.readline()
        if not answer:
            code = self.process.wait()
            raise RuntimeError(f"the process with {self.library} ended with code {code} (its message is above)")
        return json.loads(answer)

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def compare(ours: Path, peer: Path, tolerance: float) -> float:
    """The largest difference, relative to the largest value of its array; Disagreement above `tolerance`."""
    largest = 0.0
    with np.load(ours) as a, np.load(peer) as b:
        if a.files != b.files:
            raise Disagreement(f"the libraries return different outputs: {a.files} and {b.files}")
        for name in a.files:
            if a[name].shape != b[name].shape:
                raise Disagreement(f"{name}: shape {a[name].shape} here, {b[name].shape} in PyTorch")
            x, y = a[name].astype(np.float64), b[name].astype(np.float64)
            difference = float(np.abs(x - y).max() / max(float(np.abs(y).max()), 1e-12))
            if not difference <= tolerance:  # NaN must fail
                raise Disagreement(f"{name}: values differ by {difference:.1e} of the largest, {tolerance:.0e} allowed")
            largest = max(largest, difference)
    return largest


def values_of(worker: Worker, folder: str, limit: float | None = None) -> Path:
    """Run the worker's first steps (they warm up, too); the file with what they returned."""
    file = Path(folder) / f"{worker.library}.npz"
    worker.ask("check", str(file), limit=limit)
    return file


def calibrate(worker: Worker, case: str, seconds: float) -> int:
    """Steps that fill a sample of `seconds`; warms up on the way."""
    steps = 1
    while True:
        took = worker.ask("time", case, str(steps)) * steps
        if took >= seconds / 4:
            return max(1, round(steps * seconds / took))
        steps *= 4


def busy_seconds() -> float | None:
    """Processor seconds that all programs used since the start of the machine; None where it is not told."""
    try:
        fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Load:
    """The part of the processors that programs other than the workers use, from its making to `others()`.

    Library threads that spin at a barrier suffer most from it, so the two libraries do not suffer alike.
    """

    def __init__(self, workers: list[Worker]):
        self.workers = workers
        self.wall, self.busy, self.own = time.monotonic(), busy_seconds(), self.used()

    def used(self) -> float:
        return sum(w.ask("cpu") for w in self.workers)

    def others(self) -> float | None:
        if self.busy is None:
            return None
        busy, own, wall = busy_seconds() - self.busy, self.used() - self.own, time.monotonic() - self.wall
        return max(0.0, busy - own) / (wall * (os.cpu_count() or 1))


def measure(
    workload: str,
    *,
    repeats: int,
    seconds: float,
    threads: int,
    device: str,
    peer: bool,
    limit: float = float("inf"),
    compiled: Sequence[str] = (),
) -> Result:
    """Time `workload`: at most `repeats` pairs, fewer (but at least three) where `limit` seconds are spent before.

    compiled: the libraries whose compiled steps are timed as well. They need not work for every step.
    """
    begin = time.monotonic()
    failures: dict[str, str] = {}
    folder = tempfile.TemporaryDirectory(prefix="flambeau-bench-")
    workers: list[Worker] = []
    try:
        for library in [OURS, PEER] if peer else [OURS]:
            workers.append(Worker(library, workload, threads, device))
        for worker in workers:
            about = worker.ask("start")
        if about["unit"] != "s":
            values = [w.ask("value") for w in workers] + [None]
            ratio = values[0] / values[1] if peer else None
            return Result(workload, values[0], values[1], ratio, ratio, ratio, pairs=1, unit=about["unit"])
        files = [values_of(w, folder.name) for w in workers]
        difference = compare(files[0], files[1], about["tolerance"]) if peer else None
        for library in compiled if about["compiles"] else ():
            worker = Worker(library + COMPILED, workload, threads, device)
            workers.append(worker)
            try:
                worker.ask("start", limit=COMPILE_LIMIT)
                compare(values_of(worker, folder.name, COMPILE_LIMIT), files[0], about["tolerance"])
            except RuntimeError as error:
                failures[library] = "differs" if isinstance(error, Disagreement) else "failed"
                workers.remove(worker)
                worker.close()
        names = about["cases"]
        counts = {(w, c): calibrate(w, c, seconds / len(names)) for w in workers for c in names}
        samples: dict[Worker, list[list[float]]] = {w: [[] for _ in names] for w in workers}
        load, pairs = Load(workers), 0
        while pairs < repeats and (pairs < LEAST_PAIRS or time.monotonic() - begin < limit):
            for i, case in enumerate(names):
                for worker in workers if pairs % 2 == 0 else reversed(workers):
                    time.sleep(0.02)  # the other's threads may still be spinning
                    samples[worker][i].append(worker.ask("time", case, str(counts[worker, case])))
            pairs += 1
        others = load.others()
        memory = [w.ask("memory") for w in workers[: 1 + peer]] + [None]
    finally:
        for worker in workers:
            worker.close()
        folder.cleanup()
    result = summary(workload, names, [samples[w] for w in workers[: 1 + peer]])
    reference = samples[workers[1 if peer else 0]]
    further = {
        w.library.removesuffix(COMPILED): quartiles(paired_ratios(samples[w], reference))[1]
        for w in workers[1 + peer :]
    }
    return replace(
        result,
        compiled=further.get(OURS, failures.get(OURS)),
        peer_compiled=further.get(PEER, failures.get(PEER)),
        difference=difference,
        memory_ours=memory[0],
        memory_peer=memory[1],
        others=others,
        items=about["items"],
        group=about["group"],
    )


def summary(workload: str, names: list[str], samples: list[list[list[float]]]) -> Result:
    """The result of samples[library][case][pair]."""
    medians = [[statistics.median(case) for case in library] for library in samples]
    peer = len(samples) > 1
    ratios = [quartiles(paired_ratios([a], [b]))[1] for a, b in zip(*samples)] if peer else [None] * len(names)
    times = medians[1] if peer else [None] * len(names)
    cases = [Case(*row) for row in zip(names, medians[0], times, ratios)] if len(names) > 1 else []
    low, ratio, high = quartiles(paired_ratios(*samples)) if peer else (None, None, None)
    both = [geometric_mean(m) for m in medians] + [None]
    return Result(workload, both[0], both[1], ratio, low, high, len(samples[0][0]), cases=cases)
