"""Time the workloads, beside PyTorch where it is installed: `python benchmarks/run.py [NAME ...]`.

Each library works in a process of its own on the same inputs and weights. Samples are taken in turns, ours and the
peer's, so that a slow moment of the machine falls on both; the ratio is the median over these pairs, the spread its
quartiles.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS, PEER = "flambeau", "torch"


@dataclass(frozen=True)
class Result:
    """Times are seconds a step; `ratio` is ours / peer's (below 1: ours is faster)."""

    workload: str
    ours: float
    peer: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    difference: float | None = None  # of the two libraries' values, relative


class Worker:
    """A process that holds one workload in one library and times it on request."""

    def __init__(self, library: str, workload: str, threads: int, device: str):
        count = str(threads)
        limits = dict.fromkeys(
            ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"], count
        )
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), library, workload, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **limits},
        )
        self.value = self.ask("start")

    def ask(self, line: str) -> float:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the worker ended with exit code {self.process.wait()} (its message is above)")
        return float(answer)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def calibrate(worker: Worker, seconds: float) -> int:
    """Steps that fill a sample of `seconds`; warms up on the way."""
    worker.ask("time 2")
    steps = 1
    while True:
        took = worker.ask(f"time {steps}") * steps
        if took >= seconds / 4:
            return max(1, round(steps * seconds / took))
        steps *= 4


def measure(workload: str, pairs: int, seconds: float, threads: int, device: str, peer: bool) -> Result:
    workers = []
    try:
        for library in [OURS, PEER] if peer else [OURS]:
            workers.append(Worker(library, workload, threads, device))
        counts = [calibrate(w, seconds) for w in workers]
        samples: list[list[float]] = [[] for _ in workers]
        for pair in range(pairs):
            turns = list(range(len(workers)))
            for i in turns if pair % 2 == 0 else reversed(turns):
                time.sleep(0.02)  # the other's threads may still be spinning
                samples[i].append(workers[i].ask(f"time {counts[i]}"))
    finally:
        for worker in workers:
            worker.close()
    ours = statistics.median(samples[0])
    if not peer:
        return Result(workload, ours, pairs=pairs)
    ratios = sorted(a / b for a, b in zip(*samples))
    low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive") if pairs > 1 else ratios * 3
    a, b = (w.value for w in workers)
    difference = abs(a - b) / max(abs(b), 1e-12)
    return Result(workload, ours, statistics.median(samples[1]), ratio, low, high, pairs, difference)


def show(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def row(r: Result) -> str:
    if r.ratio is None:
        return f"{r.workload:16} {show(r.ours):>12}"
    line = f"{r.workload:16} {show(r.ours):>12} {show(r.peer):>12} {r.ratio:8.2f}   {r.low:.2f} .. {r.high:.2f}"
    return line + ("" if r.difference <= 1e-3 else f"   values differ by {r.difference:.1e}")


def main() -> int:
    names = sorted(p.stem for p in (HERE / "workloads").glob("*.py") if not p.stem.startswith("_"))
    parser = argparse.ArgumentParser(description="Times of the workloads, ours beside PyTorch's where it is installed.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of " + ", ".join(names))
    parser.add_argument("--pairs", type=int, default=7, help="samples of each library (default 7)")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a sample (default 0.2)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads (default: all cores)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--alone", action="store_true", help="leave the peer out")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"no workload {unknown[0]!r}; there are {', '.join(names)}")
    peer = not options.alone and importlib.util.find_spec(PEER) is not None
    if not options.json:
        machine = (
            f"{platform.machine()}, {options.threads} threads, {options.device}, Python {platform.python_version()}"
        )
        print(
            machine + ("" if peer or options.alone else "; PyTorch is not installed, so ours alone (make venv-peers)")
        )
        head = f"{'workload':16} {'ours':>12}"
        print(head + (f" {'PyTorch':>12} {'ratio':>8}   quartiles (ratio below 1: ours is faster)" if peer else ""))
    failed = 0
    for name in options.names or names:
        try:
            result = measure(name, options.pairs, options.seconds, options.threads, options.device, peer)
        except RuntimeError as error:
            failed += 1
            print(f"{name:16} FAILED: {error}", file=sys.stderr)
            continue
        print(json.dumps(asdict(result)) if options.json else row(result), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
