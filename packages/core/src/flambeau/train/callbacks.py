"""Callbacks: objects that are told what a run does.

Order, for each of the five moments the callbacks in the order of their list:

- ``on_start(run)`` once, after a resumed state is restored;
- ``on_epoch_start(run)`` when an epoch begins, or goes on after a resume, and the model is in training mode;
- ``on_step(run)`` after each optimizer step, when schedule and EMA have moved;
- ``on_epoch(run, row)`` after each epoch and its evaluation, before the checkpoint; `row` is the history's new line;
- ``on_end(run)`` once, also when an error or Ctrl-C ends the run (then ``run.finished`` is False).

A callback may set ``run.stop = True``. One with ``state_dict``/``load_state_dict`` is saved in the checkpoints.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from ..errors import FlambeauError

if TYPE_CHECKING:
    from .loop import Run

__all__ = ["Callback", "EarlyStopping", "Mode", "best_row", "improves"]

Mode = Literal["min", "max"]


class Callback:
    """Base class with five methods that do nothing."""

    def on_start(self, run: Run) -> None:
        """The run begins or goes on."""

    def on_epoch_start(self, run: Run) -> None:
        """An epoch begins or goes on."""

    def on_step(self, run: Run) -> None:
        """The optimizer has made a step."""

    def on_epoch(self, run: Run, row: dict[str, Any]) -> None:
        """An epoch is over."""

    def on_end(self, run: Run) -> None:
        """The run is over."""


class EarlyStopping(Callback):
    """Stops when `monitor` has not improved by more than `min_delta` for `patience` epochs.

    Args:
        monitor: a column of the history, such as ``"val_loss"``.
        mode: "min" if lower is better, "max" if higher.
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int = 5, mode: Mode = "min", min_delta: float = 0.0
    ) -> None:
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience must be at least 1, not {patience}")
        self.monitor, self.patience, self.mode, self.min_delta = monitor, patience, mode, min_delta
        self.best: float | None = None
        self.waited = 0

    def on_epoch(self, run: Run, row: dict[str, Any]) -> None:
        value = monitored(row, self.monitor)
        if improves(value, self.best, self.mode, self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
            run.stop = run.stop or self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


def monitored(row: dict[str, Any], name: str) -> float:
    """The monitored value of a history row."""
    if name not in row:
        raise FlambeauError(f"there is no {name!r} to monitor", f"monitor one of {', '.join(map(str, row))}")
    return float(row[name])


def improves(value: float, best: float | None, mode: Mode, min_delta: float = 0.0) -> bool:
    """Whether `value` is better than `best` by more than `min_delta`; NaN never is."""
    if math.isnan(value):
        return False
    if best is None:
        return True
    return value < best - min_delta if mode == "min" else value > best + min_delta


def best_row(history: list[dict[str, Any]], monitor: str | None, mode: Mode) -> dict[str, Any] | None:
    """The row of the best epoch by a column of the history; None if there is no such column."""
    best: dict[str, Any] | None = None
    for row in history if monitor else ():
        value = row.get(monitor)  # type: ignore[arg-type]
        if isinstance(value, (int, float)) and improves(value, best[monitor] if best else None, mode):  # type: ignore[index]
            best = row
    return best
