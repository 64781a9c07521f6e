"""The learning curve of an agent: returns of the episodes over the steps played."""

from __future__ import annotations

import math
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flambeau.io import atomic_write
from flambeau.train import Callback, Run


class ReturnCurve(Callback):
    """Draws ``curve.png``: mean return over steps, with the span of the episodes that ended. Needs matplotlib.

    Without matplotlib one line on stderr says how to get it, and the run goes on.
    """

    def __init__(self, path: str | os.PathLike[str], every: float = 30.0) -> None:
        self._path, self._every, self._drawn = Path(path), every, -math.inf
        self._able = find_spec("matplotlib") is not None

    def on_start(self, run: Run) -> None:
        if not self._able:
            print('no learning curve will be drawn: pip install "flambeau-core[plot]"', file=sys.stderr, flush=True)

    def on_epoch(self, run: Run, row: dict[str, Any]) -> None:
        if time.monotonic() - self._drawn > self._every:
            self._draw(run.history)

    def on_end(self, run: Run) -> None:
        self._draw(run.history)

    def _draw(self, history: list[dict[str, Any]]) -> None:
        rows = [row for row in history if "mean_return" in row]
        if not self._able or not rows:
            return
        from matplotlib.figure import Figure  # without pyplot: no window, no global state

        self._drawn = time.monotonic()
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        spans = [(row["samples"], row["min_return"], row["max_return"]) for row in rows if "min_return" in row]
        steps, low, high = zip(*spans, strict=True)
        axes.fill_between(steps, low, high, alpha=0.2, linewidth=0, label="least to greatest of the iteration")
        means = [(row["samples"], row["mean_return"]) for row in rows]
        axes.plot(*zip(*means, strict=True), label="mean of the latest episodes")
        axes.set_xlabel("steps")
        axes.set_ylabel("return")
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize="small")
        with atomic_write(self._path) as file:
            figure.savefig(file, format="png", dpi=120)
