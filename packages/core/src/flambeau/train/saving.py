"""When a run is saved, how it is stopped, and who may write to its folder; composed into `fit`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..options import to_plain
from .checkpoint import CheckpointFolder
from .signals import RunStopped, StopSignals
from .versions import versions_of, warn_of_other_versions

if TYPE_CHECKING:
    from .loop import Run

__all__ = ["Saving"]


class Saving:
    """Saves a run while it is open: locks the folder, clears away leftovers, turns signals into an orderly end.

    Args:
        run: what to save.
        together: the processes that train it (`OneProcess` or ``flambeau.distributed.DataParallel``).
        checkpoints: where; None saves nothing, and signals act as ever.
        every: optimizer steps between checkpoints within an epoch.
        minutes: minutes between checkpoints within an epoch; either may be None.
        settings: what decides the numbers of the run: a resumed run must have the same.

    Raises:
        FlambeauError: (when opened) another process trains in the folder.
        UsageError: checkpoints within an epoch are asked for, and the loader cannot go on in one.
    """

    def __init__(
        self,
        run: Run,
        together: Any,
        checkpoints: CheckpointFolder | None,
        every: int | None = None,
        minutes: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in (("every", every), ("minutes", minutes)):
            if value is not None and not value > 0:
                raise ValueError(f"checkpoint_{name} must be positive, not {value}")
        self._within = hasattr(run.loader, "state_dict")
        if (every or minutes) and checkpoints is not None and not self._within:
            cause = f"a {type(run.loader).__name__} cannot be resumed within an epoch: it has no state_dict"
            raise UsageError(cause, "load with flambeau.data.DataLoader, or leave checkpoint_every/_minutes out")
        self._run, self._together, self._checkpoints = run, together, checkpoints
        self._every, self._minutes = every, minutes
        self._settings = to_plain(dict(settings or {}))
        self._versions: dict[str, str] = {}
        self._stop = StopSignals()
        self._open = ExitStack()
        self._saved = time.monotonic()

    def __enter__(self) -> Saving:
        if self._checkpoints is not None:
            run = self._run
            dataset = getattr(run.loader, "dataset", None)
            self._versions = versions_of([run.model, run.optimizer, run.schedule, dataset, *run.callbacks])
            with ExitStack() as opening:
                if self._together.main:
                    opening.enter_context(self._checkpoints.lock())
                    self._checkpoints.clean()
                self._together.barrier()
                opening.enter_context(self._stop)
                self._open = opening.pop_all()
        self._saved = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def load(self) -> Any:
        """The newest checkpoint, or None if there is none.

        Raises:
            UsageError: the run has other settings than the saved one.
            FlambeauError: no checkpoint can be read, or it does not fit.
        """
        if self._checkpoints is None or not self._checkpoints.exists():
            return None
        state = self._together.load(self._checkpoints)
        saved = state.get("settings", {}) if isinstance(state, dict) else {}
        for name in [key for key in saved if key in self._settings]:
            if saved[name] != self._settings[name]:
                cause = f"{name} is {self._settings[name]!r}, the run in {self._checkpoints.path} has {saved[name]!r}"
                raise UsageError(cause, f"resume with {name}={saved[name]}, or start a new run in another folder")
        if self._together.main:
            warn_of_other_versions(state.get("versions", {}), self._versions, str(self._checkpoints.path))
        return state

    def after_step(self) -> None:
        """To be called after an optimizer step, with nothing half done: saves if it is time.

        Raises:
            RunStopped: a signal has asked for it.
        """
        steps = self._run.counters.optimizer_step
        due = bool(self._every) and steps % self._every == 0  # type: ignore[operator]
        due = due or (self._minutes is not None and time.monotonic() - self._saved >= 60 * self._minutes)
        due, stopping = self._together.agree((due, self._stop.received is not None))
        if due or (stopping and self._within):
            self._save()
        if stopping:
            self._end()

    def after_epoch(self, best: bool = False) -> None:
        """To be called when an epoch is closed and evaluated: saves.

        Raises:
            RunStopped: a signal has asked for it, and the run is not over.
        """
        self._save(best)
        run = self._run
        if self._together.agree(self._stop.received is not None) and run.counters.epoch < run.epochs and not run.stop:
            self._end()

    def _save(self, best: bool = False) -> None:
        if self._checkpoints is not None:
            extra = {"settings": self._settings, "versions": self._versions}
            self._together.save(self._checkpoints, self._run, extra, best)
            self._saved = time.monotonic()

    def _end(self) -> None:
        import signal

        number = self._together.agree(self._stop.received)
        counters, folder = self._run.counters, self._checkpoints.path if self._checkpoints else ""
        done = f"stopped by {signal.Signals(number).name} after optimizer step {counters.optimizer_step}"
        if self._checkpoints is not None and self._checkpoints.exists():
            how = "train with resume=True (flambeau train: --resume RUN)"
            line = f"{done}; saved in {folder}. To go on, {how} and the same options"
        else:
            line = f"{done}; nothing is saved yet, for the loader cannot go on within an epoch. Start the run again"
        if self._together.main:
            print(line, file=sys.stderr, flush=True)
        raise RunStopped(number, line)
