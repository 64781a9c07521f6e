"""The training loop, in one sitting.

`fit` walks a loader for a number of epochs. What it is given says what a step is: ``step(model, batch)`` returns
``(loss_sum, count)`` or ``(loss_sum, count, samples)``: the loss summed over what it averages (samples, pixels,
tokens), how many of these there were, and the number of samples where that differs. Hence the mean over several
accumulated batches, a short last batch or padded sequences is exact, whatever the split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..errors import FlambeauError
from .callbacks import Callback, Mode, improves, monitored
from .checkpoint import CheckpointFolder, capture_rng, load_callbacks, load_parts, restore_rng, save_callbacks
from .saving import Saving
from .single import OneProcess

__all__ = ["Counters", "Run", "fit"]

Step = Callable[[Any, Any], tuple[Any, ...]]
Evaluate = Callable[[Any], dict[str, float]]
Context = Callable[[], AbstractContextManager[Any]]
_PARTS = ("model", "optimizer", "schedule", "ema", "scaler", "loader")  # what has a state of its own


@dataclass
class Counters:
    """How far a run is: epochs completed, batches seen, optimizer steps made, samples seen."""

    epoch: int = 0
    step: int = 0
    optimizer_step: int = 0
    samples: int = 0


@dataclass
class _Sums:
    """Loss and count of the running epoch; part of the checkpoint, so that a resumed epoch reports the same mean."""

    loss: float = 0.0
    count: float = 0.0
    seconds: float = 0.0


@dataclass
class Run:
    """A training run: its objects, counters and history. Callbacks receive it.

    Attributes:
        batches: batches an epoch, or None if the loader does not know.
        history: one dict an epoch (counters, loss, learning rate, seconds, what ``evaluate`` returned).
        best: the best monitored value and its epoch.
        recent_loss: mean loss of the latest optimizer step.
        stop: set it to end the run after this epoch.
        finished: whether all epochs are done (or it was stopped).
    """

    model: Any
    optimizer: Any
    loader: Any
    epochs: int
    schedule: Any = None
    ema: Any = None
    scaler: Any = None
    callbacks: Sequence[Callback] = ()
    batches: int | None = None
    counters: Counters = field(default_factory=Counters)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, float] | None = None
    recent_loss: float = math.nan
    stop: bool = False
    finished: bool = False
    sums: _Sums = field(default_factory=_Sums)

    @property
    def evaluated_model(self) -> Any:
        """The model to evaluate and keep: the averaged one if there is an EMA."""
        return self.model if self.ema is None else self.ema.module

    def state_dict(self, skip: Sequence[str] = ()) -> dict[str, Any]:
        """All that an exact resume needs, as plain data and Tensors, but for the parts to `skip`."""
        parts = {name: getattr(self, name) for name in _PARTS if name not in skip}
        return {
            **{name: part.state_dict() for name, part in parts.items() if hasattr(part, "state_dict")},
            "callbacks": save_callbacks(self.callbacks),
            "counters": asdict(self.counters),
            "sums": asdict(self.sums),
            "history": self.history,
            "best": self.best,
            "stop": self.stop,
            "rng": capture_rng(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes a saved state over; the objects must be built as they were for the saved run."""
        missing = {"model", "optimizer", "callbacks", "counters", "sums", "history"} - state.keys()
        if missing:
            cause = f"this is not the checkpoint of such a run: it has no {', '.join(sorted(missing))}"
            raise FlambeauError(cause, "resume with what wrote it")
        load_parts(self, _PARTS, state)
        load_callbacks(self.callbacks, state["callbacks"])
        self.counters = Counters(**state["counters"])
        self.sums = _Sums(**state["sums"])
        self.history, self.best, self.stop = state["history"], state["best"], state["stop"]
        if "rng" in state:  # not where a process joins a run that had fewer of them
            restore_rng(state["rng"])  # last: building and loading may draw random numbers


def fit(
    model: Any,
    optimizer: Any,
    step: Step,
    loader: Iterable[Any],
    *,
    epochs: int,
    schedule: Any = None,
    schedule_unit: Literal["step", "epoch"] = "step",
    clip: float | None = None,
    accumulate: int = 1,
    autocast: Context = nullcontext,
    scaler: Any = None,
    ema: Any = None,
    evaluate: Evaluate | None = None,
    monitor: str | None = None,
    mode: Mode = "min",
    callbacks: Sequence[Callback] = (),
    checkpoints: CheckpointFolder | None = None,
    checkpoint_every: int | None = None,
    checkpoint_minutes: float | None = None,
    config: Mapping[str, Any] | None = None,
    resume: bool = False,
    parallel: Any = None,
) -> Run:
    """Trains `model` and returns the `Run`.

    Args:
        step: ``step(model, batch) -> (loss_sum, count)`` or ``(loss_sum, count, samples)``.
        loader: batches; one with ``state_dict`` (`DataLoader`) can be resumed in the middle of an epoch.
        schedule: a learning-rate schedule; its ``step()`` comes after each optimizer step or epoch (`schedule_unit`).
        clip: largest allowed norm of the gradient.
        accumulate: batches an optimizer step; the gradient is that of the mean over all of them.
        autocast: makes the context of a step's forward pass, e.g. ``lambda: flambeau.autocast("cpu")`` for bfloat16.
        scaler: a `flambeau.amp.GradScaler`, for float16; a step that it leaves out moves neither schedule nor EMA.
        ema: averaged weights (``update_parameters(model)``, ``module``); evaluated in place of the model.
        evaluate: ``evaluate(model) -> {name: value}`` after each epoch, without gradients and in eval mode.
        monitor, mode: column of the history that decides which checkpoint is the best, and in which direction.
        checkpoints: where to save after each epoch, and within one every `checkpoint_every` optimizer steps or every
            `checkpoint_minutes`. SIGTERM and Ctrl-C then let the running step end, save, and raise `RunStopped`.
        config: resolved options; saved, and a resumed run must have the same.
        resume: go on from the newest checkpoint, if there is one. The result is bit for bit that of an unbroken run.
        parallel: ``flambeau.distributed.DataParallel()`` when several processes train together; all call `fit`.

    Raises:
        FlambeauError: the loss is not finite; a checkpoint cannot be written or none can be read; another process
            trains in the folder of the checkpoints.
        RunStopped: SIGTERM or Ctrl-C came, and the run is saved.
    """
    if accumulate < 1:
        raise ValueError(f"fit: accumulate must be at least 1, not {accumulate}")
    batches = len(loader) if isinstance(loader, Sized) else None
    run = Run(model, optimizer, loader, epochs, schedule, ema, scaler, callbacks, batches)
    per_step = schedule if schedule_unit == "step" else None
    settings = {"accumulate": accumulate, "clip": clip, "batches": batches, **(config or {})}
    together = OneProcess() if parallel is None else parallel

    def forward(model: Any, batch: Any) -> tuple[Any, ...]:
        with autocast():
            return step(model, batch)

    with Saving(run, together, checkpoints, checkpoint_every, checkpoint_minutes, settings) as saving:
        together.start(run, saving.load() if resume else None)
        try:
            for callback in callbacks:
                callback.on_start(run)
            while run.counters.epoch < epochs and not run.stop:
                for _ in _train_epoch(run, forward, clip, accumulate, per_step, together):
                    saving.after_step()
                if schedule is not None and schedule_unit == "epoch":
                    schedule.step()
                row = _close_epoch(run, evaluate, together)
                for callback in callbacks:
                    callback.on_epoch(run, row)
                run.stop = together.agree(run.stop)
                value = monitored(row, monitor) if monitor else None
                better = value is not None and improves(value, run.best["value"] if run.best else None, mode)
                if better:
                    run.best = {"value": value, "epoch": run.counters.epoch}  # type: ignore[dict-item]
                saving.after_epoch(better)
            run.finished = True
        finally:
            together.end()
            for callback in callbacks:
                callback.on_end(run)
    return run


def _train_epoch(
    run: Run, step: Step, clip: float | None, accumulate: int, schedule: Any, together: Any
) -> Iterable[None]:
    """One epoch; yields after each optimizer step, where nothing is half done."""
    run.model.train()
    for callback in run.callbacks:
        callback.on_epoch_start(run)
    run.optimizer.zero_grad()
    began = time.monotonic()
    loss, count, samples, waiting = 0.0, 0.0, 0, 0
    for batch in together.batches(run.loader):
        value, number, seen = together.backward(run, step, batch, accumulate, waiting + 1 == accumulate)
        if not math.isfinite(value):
            raise _not_finite(run, value)
        loss, count, samples, waiting = loss + value, count + number, samples + seen, waiting + 1
        run.counters.step += 1
        if waiting == accumulate:
            _update(run, clip, schedule, *together.reduce(run, loss, count, samples, accumulate))
            loss, count, samples, waiting = 0.0, 0.0, 0, 0
            run.sums.seconds += time.monotonic() - began
            began = time.monotonic()
            yield
    if waiting:
        # No yield: the loader is past its end, and the checkpoint of the whole epoch comes next.
        _update(run, clip, schedule, *together.reduce(run, loss, count, samples, accumulate))
    run.sums.seconds += time.monotonic() - began


def _update(run: Run, clip: float | None, schedule: Any, loss: float, count: float, samples: int) -> None:
    """The optimizer's step on the gradients gathered; nothing to learn from (count 0) makes none."""
    run.counters.samples += samples
    if count:
        if clip is not None:
            from ..nn.utils import clip_grad_norm_

            if run.scaler is not None:
                run.scaler.unscale_(run.optimizer)
            parameters = [p for group in run.optimizer.param_groups for p in group["params"] if p.grad is not None]
            clip_grad_norm_(parameters, clip)
        if _step_optimizer(run):
            run.counters.optimizer_step += 1
            if schedule is not None:
                schedule.step()
            if run.ema is not None:
                run.ema.update_parameters(run.model)
        run.optimizer.zero_grad()
        run.recent_loss = loss / count
    run.sums.loss += loss
    run.sums.count += count
    for callback in run.callbacks:
        callback.on_step(run)


def _step_optimizer(run: Run) -> bool:
    """The optimizer's step; False if the scaler left it out because a scaled gradient had overflowed."""
    if run.scaler is None:
        run.optimizer.step()
        return True
    before = run.scaler.get_scale()
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return bool(run.scaler.get_scale() >= before)


def _close_epoch(run: Run, evaluate: Evaluate | None, together: Any) -> dict[str, Any]:
    from ..autograd.modes import no_grad

    if not run.sums.count:
        raise FlambeauError("an epoch had no samples", "check the dataset, the batch size and drop_last")
    run.counters.epoch += 1
    row: dict[str, Any] = {**asdict(run.counters), "lr": float(run.optimizer.param_groups[0]["lr"])}
    row["loss"] = run.sums.loss / run.sums.count
    began = time.monotonic()
    if evaluate is not None:
        model = run.evaluated_model
        model.eval()
        with no_grad():
            row.update(together.agree({name: float(value) for name, value in evaluate(model).items()}))
    row["seconds"] = round(run.sums.seconds + time.monotonic() - began, 3)
    run.sums = _Sums()
    run.history.append(row)
    return row


def _not_finite(run: Run, value: float) -> FlambeauError:
    where = f"epoch {run.counters.epoch + 1}, batch {run.counters.step + 1} of the run"
    return FlambeauError(
        f"the loss is {value} at {where}", "lower the learning rate, set clip, or check the data for NaN"
    )
