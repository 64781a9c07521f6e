"""What a person sees of a run: a progress bar or periodic lines, the history as files, the learning curve as a picture.

All are callbacks, and none changes the run. Progress goes to stderr: stdout belongs to results.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..io.atomic import atomic_write
from .callbacks import Callback, Mode, best_row
from .report_svg import log_scale_helps

if TYPE_CHECKING:
    from .loop import Run

__all__ = ["HistoryWriter", "LearningCurve", "PlainReporter", "ProgressBar", "reporter"]

COUNTERS = ("epoch", "step", "optimizer_step", "samples", "seconds", "lr")


def reporter(stream: TextIO | None = None) -> Callback:
    """A progress bar if `stream` (stderr) is a terminal, else a plain line now and then."""
    stream = stream or sys.stderr
    return ProgressBar(stream) if stream.isatty() else PlainReporter(stream)


class ProgressBar(Callback):
    """One bar for the whole run: batches and samples a second, time left, loss, metrics of the latest evaluation."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: Any = None

    def on_start(self, run: Run) -> None:
        from tqdm import tqdm

        total = run.epochs * run.batches if run.batches else None
        self._pace = _Pace(run)
        shape = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}" if total else None
        self._bar = tqdm(
            total=total,
            initial=run.counters.step,
            unit="batch",
            file=self._stream,
            dynamic_ncols=True,
            bar_format=shape,
        )

    def on_step(self, run: Run) -> None:
        bar = self._bar
        bar.set_description_str(f"epoch {run.counters.epoch + 1}/{run.epochs}", refresh=False)
        latest = run.history[-1] if run.history else {}
        scores = [f"{name}={text}" for name, text in _shown(latest).items() if name != "loss"]
        # The most wanted first: a narrow terminal cuts the end.
        parts = [f"loss={run.recent_loss:.4g}", self._pace.left(run), *self._pace.rates(run), *scores]
        bar.postfix = ", ".join(part for part in parts if part)
        bar.update(run.counters.step - bar.n)

    def on_epoch(self, run: Run, row: dict[str, Any]) -> None:
        self._bar.write(_line(run, row), file=self._stream)

    def on_end(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.close()


class _Pace:
    """How fast a run goes since it was started or resumed, evaluations included."""

    def __init__(self, run: Run) -> None:
        self._began = time.monotonic()
        self._step, self._samples = run.counters.step, run.counters.samples

    def rates(self, run: Run) -> list[str]:
        seconds = max(time.monotonic() - self._began, 1e-9)
        batches, samples = run.counters.step - self._step, run.counters.samples - self._samples
        return [f"{batches / seconds:.3g} batches/s", f"{samples / seconds:.4g} samples/s"]

    def left(self, run: Run) -> str:
        done = run.counters.step - self._step
        if not run.batches or not done:
            return ""
        seconds = (run.epochs * run.batches - run.counters.step) * (time.monotonic() - self._began) / done
        return f"{_clock(seconds)} left"


class PlainReporter(Callback):
    """A line every `seconds` and after every epoch, for logs."""

    def __init__(self, stream: TextIO | None = None, seconds: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._seconds = seconds

    def on_start(self, run: Run) -> None:
        self._spoke = time.monotonic()
        self._pace = _Pace(run)

    def on_step(self, run: Run) -> None:
        now = time.monotonic()
        if now - self._spoke < self._seconds:
            return
        self._spoke = now
        total = run.epochs * run.batches if run.batches else None
        place = f"epoch {run.counters.epoch + 1}/{run.epochs}, batch {run.counters.step}" + (
            f"/{total}" if total else ""
        )
        parts = [f"loss {run.recent_loss:.4g}", *self._pace.rates(run), self._pace.left(run)]
        self._say(f"{place}: {', '.join(part for part in parts if part)}")

    def on_epoch(self, run: Run, row: dict[str, Any]) -> None:
        self._spoke = time.monotonic()
        self._say(_line(run, row))

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class HistoryWriter(Callback):
    """Keeps ``history.jsonl`` and ``history.csv`` in the run's folder, whole at any moment and after a resume."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def on_epoch(self, run: Run, row: dict[str, Any]) -> None:
        with atomic_write(self._folder / "history.jsonl", "w") as file:
            for line in run.history:
                file.write(json.dumps({key: _jsonable(value) for key, value in line.items()}) + "\n")
        columns = list(dict.fromkeys(key for line in run.history for key in line))
        with atomic_write(self._folder / "history.csv", "w") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(run.history)


class LearningCurve(Callback):
    """Draws ``curve.png``: training and validation of each quantity together, the best epoch, the learning rate.

    A quantity that spans a factor of 30 gets a logarithmic axis. Needs matplotlib (extra ``[plot]``); without it one
    line on stderr says how to get it, and the run goes on.

    Args:
        path: the picture's file.
        every: least seconds between two drawings; the last one is always made.
        monitor, mode: the column of the history that says which epoch is the best.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: float = 30.0,
        stream: TextIO | None = None,
        monitor: str | None = None,
        mode: Mode = "min",
    ) -> None:
        self._path = Path(path)
        self._every = every
        self._stream = stream or sys.stderr
        self._monitor, self._mode = monitor, mode
        self._drawn = -math.inf
        self._able = True

    def on_start(self, run: Run) -> None:
        from importlib.util import find_spec

        self._able = find_spec("matplotlib") is not None
        if not self._able:
            line = 'no learning curve will be drawn: pip install "flambeau-core[plot]"'
            print(line, file=self._stream, flush=True)

    def on_epoch(self, run: Run, row: dict[str, Any]) -> None:
        if self._able and time.monotonic() - self._drawn > self._every:
            self._draw(run.history)

    def on_end(self, run: Run) -> None:
        if self._able and run.history:
            self._draw(run.history)

    def _draw(self, history: list[dict[str, Any]]) -> None:
        from matplotlib.figure import Figure  # without pyplot: no window, no global state
        from matplotlib.ticker import MaxNLocator

        self._drawn = time.monotonic()
        names = [name for name in dict.fromkeys(key for row in history for key in row) if name not in COUNTERS]
        titles = list(dict.fromkeys(name.removeprefix("val_") for name in names))[:8]
        panels = {title: [name for name in names if name.removeprefix("val_") == title] for title in titles}
        if any(isinstance(row.get("lr"), (int, float)) for row in history):
            panels["learning rate"] = ["lr"]
        best = best_row(history, self._monitor, self._mode)
        columns = 2 if len(panels) == 4 else min(3, len(panels))
        rows = math.ceil(len(panels) / columns)
        figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
        for number, (title, members) in enumerate(panels.items()):
            axes = figure.add_subplot(rows, columns, number + 1)
            drawn: list[float] = []
            for name in members:
                points = [(row["epoch"], row[name]) for row in history if isinstance(row.get(name), (int, float))]
                drawn += [y for _, y in points if math.isfinite(y)]
                held_out = name.startswith("val_")
                label = {"lr": "", title: "training"}.get(name, "validation") if len(members) > 1 else name
                axes.plot(*zip(*points, strict=True), color="C1" if held_out else "C0", marker=".", label=label)
            if log_scale_helps(drawn):
                axes.set_yscale("log")
            if best is not None:
                axes.axvline(best["epoch"], color="0.5", linestyle=":", linewidth=1)
                if self._monitor in members:
                    value = best[self._monitor]
                    axes.plot([best["epoch"]], [value], "*", color="C2", markersize=11, label=f"best {value:.4g}")
            axes.set_title(title, fontsize="medium")
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
            if title != "learning rate" and drawn:
                axes.legend(loc="best", fontsize="small")
        with atomic_write(self._path) as file:
            figure.savefig(file, format="png", dpi=110)


def _line(run: Run, row: dict[str, Any]) -> str:
    values = ", ".join(f"{name} {text}" for name, text in _shown(row).items())
    return f"epoch {row['epoch']}/{run.epochs}: {values} ({_clock(row['seconds'])})"


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {
        name: f"{value:.4g}" for name, value in row.items() if name not in COUNTERS and isinstance(value, (int, float))
    }


def _jsonable(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
