"""Checks this machine's GPU against its CPU: op tests, two small trainings, a report.

usage: python tools/gpu_check.py [--report FILE] [--device cuda:0] [--quick]

1. every name that the ops use of the array namespace exists in CuPy (needs no GPU);
2. the tests generated from the op declarations run with their arrays on the GPU;
3. a small CNN and a small transformer are trained on both devices from the same weights, and their losses compared.
Exit codes: 0 all agree, 1 something differs, 3 CuPy is missing, 4 no GPU. Takes a few minutes.
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
OPS = ROOT / "packages" / "core" / "src" / "flambeau" / "ops"
# Relative difference of float32 losses after 20 steps: sums run in another order on another device.
LOSS_TOLERANCE = 2e-3


def names_of_xp() -> dict[str, str]:
    """Dotted names that the ops take from `xp`, each with a file that uses it."""
    found: dict[str, str] = {}
    for path in sorted(OPS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            parts: list[str] = []
            while isinstance(node, ast.Attribute):
                parts.append(node.attr)
                node = node.value
            if parts and isinstance(node, ast.Name) and node.id == "xp":
                found.setdefault(".".join(reversed(parts)), path.name)
    return found


def missing_names(namespace: Any) -> list[str]:
    """What the ops use that the array library does not have."""
    missing = []
    for dotted, where in names_of_xp().items():
        value: Any = namespace
        for part in dotted.split("."):
            value = getattr(value, part, None)
            if value is None:
                missing.append(f"xp.{dotted} ({where})")
                break
    return missing


def run_op_tests(device: str, quick: bool) -> tuple[str, bool]:
    """The generated op tests in a process of their own. Returns (summary, passed)."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x" if quick else "--maxfail=400",
        "--tb=line",
        "-p",
        "no:cacheprovider",
    ]
    command += [str(ROOT / "tests" / "core" / "test_ops.py"), "-k", "not every_op and not count_of"]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ, FLAMBEAU_DEVICE=device), capture_output=True, text=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAILED") or re.search(r"\d+ passed", line)]
    return "\n".join(lines or done.stdout.splitlines()[-20:] + done.stderr.splitlines()[-20:]), done.returncode == 0


def small_cnn(flambeau: Any, device: str, steps: int) -> Iterator[float]:
    """Losses of a residual CNN with batch norm on made-up images."""
    from flambeau import nn

    rng = np.random.default_rng(0)
    images = flambeau.tensor(rng.standard_normal((32, 3, 16, 16)).astype("float32"), device=device)
    labels = flambeau.tensor(rng.integers(0, 10, 32), device=device)
    flambeau.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1),
        nn.GroupNorm(4, 32), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).to(device)  # fmt: skip
    optimizer = flambeau.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def small_transformer(flambeau: Any, device: str, steps: int) -> Iterator[float]:
    """Losses of a two-layer causal transformer on made-up tokens."""
    from flambeau import nn

    rng = np.random.default_rng(0)
    tokens = flambeau.tensor(rng.integers(0, 50, (16, 33)), device=device)
    flambeau.manual_seed(0)
    embedding = nn.Embedding(50, 64).to(device)
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, norm_first=True, activation="gelu")
    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).to(device)
    head = nn.Linear(64, 50).to(device)
    mask = nn.Transformer.generate_square_subsequent_mask(32).to(device)
    parameters = [*embedding.parameters(), *body.parameters(), *head.parameters()]
    optimizer = flambeau.optim.AdamW(parameters, lr=1e-3)
    for _ in range(steps):
        logits = head(body(embedding(tokens[:, :-1]), mask=mask, is_causal=True))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def compare_training(flambeau: Any, train: Callable, device: str, steps: int) -> tuple[str, bool]:
    """Trains on both devices. Returns (a line for the report, whether the losses agree)."""
    results, seconds = {}, {}
    for where in ("cpu", device):
        start = time.perf_counter()
        results[where] = np.array(list(train(flambeau, where, steps)))
        seconds[where] = time.perf_counter() - start
    difference = float(np.max(np.abs(results[device] - results["cpu"]) / np.abs(results["cpu"])))
    good = bool(np.isfinite(difference) and difference < LOSS_TOLERANCE and results["cpu"][-1] < results["cpu"][0])
    line = (
        f"| {train.__name__} | {results['cpu'][0]:.4f} | {results['cpu'][-1]:.4f} | {results[device][-1]:.4f} | "
        f"{difference:.1e} | {seconds['cpu']:.1f} s | {seconds[device]:.1f} s | {'agrees' if good else 'DIFFERS'} |"
    )
    return line, good


def main() -> int:
    """Runs the checks and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="write a Markdown report here")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="stop at the first op that fails, train for 5 steps")
    args = parser.parse_args()
    try:
        import cupy
    except ImportError as e:
        print(f"error: CuPy cannot be imported ({e})\n  pip install 'flambeau-core[cuda12]'", file=sys.stderr)
        return 3
    missing = missing_names(cupy)
    print(
        f"{len(names_of_xp())} names of the array namespace are used by the ops; "
        f"CuPy {cupy.__version__} lacks {missing or 'none'}"
    )
    import flambeau
    from flambeau import backends

    try:
        backends.get(flambeau.device(args.device))
    except flambeau.FlambeauError as e:
        print(f"error: {e}", file=sys.stderr)
        return 4
    start = time.perf_counter()
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    summary, passed = run_op_tests(args.device, args.quick)
    print(summary)
    steps = 5 if args.quick else 20
    lines, good = [], passed and not missing
    for train in (small_cnn, small_transformer):
        line, agrees = compare_training(flambeau, train, args.device, steps)
        print(line)
        lines.append(line)
        good = good and agrees
    minutes = (time.perf_counter() - start) / 60
    report = "\n".join(
        [
            f"# GPU check: {properties['name'].decode()}", "",
            f"`python tools/gpu_check.py`, {minutes:.1f} minutes, seed 0. Python {platform.python_version()}, "
            f"NumPy {np.__version__}, CuPy {cupy.__version__}, CUDA runtime {cupy.cuda.runtime.runtimeGetVersion()}, "
            f"driver {cupy.cuda.runtime.driverGetVersion()}.", "",
            f"Names of the array namespace that CuPy lacks: {', '.join(missing) or 'none'}.", "",
            "## Generated op tests on the GPU", "", "```", summary, "```", "",
            f"## Training on both devices ({steps} steps, float32; differences up to {LOSS_TOLERANCE:g} agree)", "",
            "| model | first loss | last loss, CPU | last loss, GPU | largest relative difference | CPU | GPU | |",
            "|---|---|---|---|---|---|---|---|", *lines, "",
        ]
    )  # fmt: skip
    if args.report:
        args.report.write_text(report)
        print(f"wrote {args.report}")
    print("all agree" if good else "something differs")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
