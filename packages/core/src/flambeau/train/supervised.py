"""The supervised trainer: classification, regression, segmentation — whatever has inputs, targets, a loss and metrics.

`run` is a composition of the pieces of ``flambeau.train`` that one can copy and change: data loaders, an optimizer
with a schedule, the loop, an evaluation, checkpoints, the files of a run folder:

    config.json  history.jsonl  history.csv  curve.png  model.safetensors  checkpoints/
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import FlambeauError, UsageError
from ..io.atomic import atomic_write
from ..io.weights import save_model_state
from .callbacks import Callback, EarlyStopping, Mode
from .checkpoint import CheckpointFolder, seed_everything
from .config import to_plain
from .loop import Run, fit
from .metrics import Mean, Metric
from .reporter import COUNTERS, HistoryWriter, LearningCurve, reporter
from .single import processes

__all__ = ["Options", "cross_entropy", "evaluate", "make_optimizer", "mean_squared_error", "run", "warmup_schedule"]

Loss = Callable[[Any, Any], tuple[Any, Any]]
Predict = Callable[[Any, Any], tuple[Any, Any]]


@dataclass
class Options:
    """Options of a supervised run; a domain's trainer may extend them by a dataclass that inherits from this one.

    Attributes:
        epochs: passes over the training data.
        batch_size: samples a batch (of all processes together, where several train).
        lr: peak learning rate.
        weight_decay: applied to weight matrices and kernels, not to biases and norms.
        optimizer: adamw, adam or sgd.
        momentum: of sgd.
        betas: of adam and adamw.
        schedule: cosine or linear decay to 0, or constant, after the warm-up.
        warmup: share of the run in which the rate rises linearly.
        clip: largest norm of the gradient; none for no limit.
        accumulate: batches an optimizer step.
        ema: decay of averaged weights, e.g. 0.999; none for none.
        label_smoothing: for trainers whose loss is cross-entropy.
        patience: epochs without improvement after which the run stops; none for never.
        seed: of everything random.
        workers: processes that load data.
        checkpoint_every: optimizer steps between checkpoints within an epoch; none for epochs only.
        drop_last: leave a short last batch out of training.
        device: cpu, cuda, cuda:1, ...
    """

    epochs: int = 10
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 1e-2
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.05
    clip: float | None = None
    accumulate: int = 1
    ema: float | None = None
    label_smoothing: float = 0.0
    patience: int | None = None
    seed: int = 0
    workers: int = 0
    checkpoint_every: int | None = None
    drop_last: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"option {name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "weight_decay", "momentum", "label_smoothing", "workers"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"option {name}={getattr(self, name)} must not be negative")
        for name in ("warmup", "ema"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise ValueError(f"option {name}={getattr(self, name)} must lie between 0 and 1")


def cross_entropy(
    *, weight: Any = None, ignore_index: int = -100, label_smoothing: float = 0.0
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Cross-entropy as a loss of the loop: scores (N, C, ...) and class numbers (N, ...) -> (sum, count).

    The count is that of the targets that are not ignored (weighted by class if `weight` is given), so that sum/count is
    the mean of ``nn.functional.cross_entropy``.
    """

    def loss(output: Any, target: Any) -> tuple[Any, Any]:
        from ..nn.functional import cross_entropy as function

        total = function(
            output, target, weight=weight, ignore_index=ignore_index, reduction="sum", label_smoothing=label_smoothing
        )
        counted = target != ignore_index
        if weight is None:
            return total, float(counted.sum().item())
        return total, float(weight.detach()[target[counted]].sum().item())

    return loss


def mean_squared_error() -> Callable[[Any, Any], tuple[Any, Any]]:
    """Squared error as a loss of the loop -> (sum, number of elements). Shapes must be equal."""

    def loss(output: Any, target: Any) -> tuple[Any, Any]:
        if tuple(output.shape) != tuple(target.shape):
            cause = f"the model gives shape {tuple(output.shape)}, the targets have {tuple(target.shape)}"
            raise ValueError(f"{cause}; make them equal, e.g. target.unsqueeze(1)")
        difference = output - target
        return (difference * difference).sum(), float(target.numel())

    return loss


def predict_pair(model: Any, batch: Any) -> tuple[Any, Any]:
    """The default reading of a batch: ``(input, target)``."""
    inputs, target = batch
    return model(inputs), target


def evaluate(
    model: Any,
    loader: Any,
    *,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
    predict: Predict = predict_pair,
    device: Any = "cpu",
    parallel: Any = None,
) -> dict[str, float]:
    """Means of loss and metrics over a loader, in eval mode and without gradients; the model's mode is restored.

    Args:
        loss: ``loss(output, target) -> (sum, count)``; given, the result has a "loss".
        metrics: name -> metric; they are reset first.
        predict: ``predict(model, batch) -> (output, target)``.
        parallel: several processes, each of which has a part of the samples; the result is that of all.
    """
    from ..autograd.modes import no_grad

    metrics = metrics or {}
    for metric in metrics.values():
        metric.reset()
    mean, training = Mean(), model.training
    model.eval()
    try:
        with no_grad():
            for batch in loader:
                if batch is None:  # others have the samples of this one
                    continue
                output, target = predict(model, to_device(batch, device))
                if loss is not None:
                    total, count = loss(output, target)
                    if count:
                        mean.update(float(total.item()) / float(count), float(count))
                for metric in metrics.values():
                    metric.update(output, target)
    finally:
        model.train(training)
    if parallel is not None:
        parallel.merge({"": mean, **metrics} if loss is not None else metrics)
    result = {} if loss is None else {"loss": mean.compute()}
    return result | {name: float(metric.compute()) for name, metric in metrics.items()}


def make_optimizer(model: Any, options: Options) -> Any:
    """The optimizer of the options; weight decay acts on parameters of two or more dimensions only."""
    from .. import optim

    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "sgd":
        return optim.SGD(groups, lr=options.lr, momentum=options.momentum)
    return (optim.AdamW if options.optimizer == "adamw" else optim.Adam)(groups, lr=options.lr, betas=options.betas)


def warmup_schedule(optimizer: Any, kind: str, warmup: int, total: int) -> Any:
    """A schedule by optimizer steps: linear rise over `warmup` steps, then cosine, linear or constant to `total`."""
    from .. import optim

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        if kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0 - done if kind == "linear" else 1.0

    return optim.lr_scheduler.LambdaLR(optimizer, factor)


def to_device(batch: Any, device: Any) -> Any:
    """The Tensors of a batch (dict, list, tuple) moved to a device."""
    if str(device) == "cpu":
        return batch
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        moved = [to_device(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch.to(device) if hasattr(batch, "to") else batch


def run(
    model: Callable[[], Any],
    train_data: Any,
    valid_data: Any = None,
    *,
    loss: Loss,
    metrics: Mapping[str, Metric] | None = None,
    options: Options,
    output: str | Path,
    model_id: str,
    config: Mapping[str, Any] | None = None,
    plugin: str = "",
    notes: Mapping[str, Any] | None = None,
    monitor: str | None = None,
    mode: Mode | None = None,
    resume: bool = False,
    predict: Predict = predict_pair,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: Callback | None = None,
) -> dict[str, float]:
    """Trains a model and leaves a run folder; returns the metrics of the weights it kept, and their epoch.

    Args:
        model: makes the model; called after seeding, so that equal seeds give equal weights.
        train_data, valid_data: datasets of ``(input, target)``, or of what `predict` and `collate_fn` understand.
        loss: ``loss(output, target) -> (sum, count)``, e.g. `cross_entropy()`.
        metrics: name -> metric, computed on `valid_data`.
        options: `Options`.
        output: the run folder.
        model_id, config, plugin, notes: go into the card of ``model.safetensors``.
        monitor, mode: which history column picks the best weights; the first metric, or else the loss.
        resume: go on from the folder's newest checkpoint.
        predict: ``predict(model, batch) -> (output, target)``.
        callbacks: told before the reporters.
        progress: shows the progress on stderr; chosen by the terminal when left out.

    Raises:
        UsageError: the folder already holds a run and `resume` is not set, or there is none to resume.
        FlambeauError: the run cannot go on (loss not finite, disk full, data unreadable).
    """
    from .. import optim

    metrics = dict(metrics or {})
    together = processes()
    folder = Path(output)
    if together.main:
        _prepare(folder, model_id, options, config, plugin, resume)
    together.barrier()
    seed_everything(options.seed)
    net = model().to(options.device)

    train_loader = together.loader(
        train_data, options.batch_size, shuffle=True, num_workers=options.workers, collate_fn=collate_fn,
        drop_last=options.drop_last, persistent_workers=options.workers > 0,
    )  # fmt: skip
    optimizer = make_optimizer(net, options)
    steps = options.epochs * math.ceil(len(train_loader) / options.accumulate)
    schedule = warmup_schedule(optimizer, options.schedule, round(options.warmup * steps), steps)
    ema = optim.EMA(net, options.ema, warmup=True) if options.ema else None

    def step(net: Any, batch: Any) -> tuple[Any, Any, int]:
        output, target = predict(net, to_device(batch, options.device))
        total, count = loss(output, target)
        return total, count, len(target)

    def validate(net: Any) -> dict[str, float]:
        loader = together.loader(valid_data, options.batch_size, num_workers=options.workers, collate_fn=collate_fn)
        found = evaluate(net, loader, loss=loss, metrics=metrics, predict=predict, device=options.device,
                         parallel=together)  # fmt: skip
        return {f"val_{name}": value for name, value in found.items()}

    monitor, mode = _monitor(monitor, mode, metrics, valid_data)
    watchers: list[Callback] = list(callbacks)
    if options.patience is not None:
        watchers.append(EarlyStopping(monitor, options.patience, mode))
    if together.main:
        watchers += [HistoryWriter(folder), LearningCurve(folder / "curve.png"), progress or reporter()]
    checkpoints = CheckpointFolder(folder / "checkpoints")
    done = fit(
        net, optimizer, step, train_loader, epochs=options.epochs, schedule=schedule, clip=options.clip,
        accumulate=options.accumulate, ema=ema, evaluate=None if valid_data is None else validate, monitor=monitor,
        mode=mode, callbacks=watchers, checkpoints=checkpoints, checkpoint_every=options.checkpoint_every,
        resume=resume, parallel=together,
    )  # fmt: skip
    if not together.main:
        return dict(together.agree(None))
    state, row = _best(done, checkpoints, keep_last=valid_data is None)
    found = {name: value for name, value in row.items() if name == "epoch" or name not in COUNTERS}
    card = {**dict(notes or {}), "metrics": {name: value for name, value in found.items() if math.isfinite(value)}}
    save_model_state(state, folder / "model.safetensors", model=model_id, config=config, plugin=plugin, notes=card)
    return dict(together.agree(found))


def _prepare(
    folder: Path, model_id: str, options: Options, config: Mapping[str, Any] | None, plugin: str, resume: bool
) -> Path:
    """The run folder with its config.json; a run is neither overwritten nor resumed with other options."""
    exists = CheckpointFolder(folder / "checkpoints").exists()
    if exists and not resume:
        raise UsageError(f"{folder} already holds a run", "resume it, or choose another output folder")
    if resume and not exists and not (folder / "config.json").exists():
        raise UsageError(f"{folder} holds no run to resume", "start it without resume, or check the path")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlambeauError(f"cannot create {folder}: {error.strerror}", "choose another output folder") from error
    plain = {"model": model_id, "config": to_plain(dict(config or {})), "plugin": plugin, "options": to_plain(options)}
    if resume:
        _check_same(folder / "config.json", plain["options"])
    with atomic_write(folder / "config.json", "w") as file:
        json.dump(plain, file, indent=2)
        file.write("\n")
    return folder


def _check_same(path: Path, options: dict[str, Any]) -> None:
    try:
        saved = json.loads(path.read_text("utf-8"))["options"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FlambeauError(f"{path} cannot be read: {error}", "start the run again in another folder") from error
    free = {"workers", "device", "checkpoint_every"}  # these do not change what a run computes
    for name in options.keys() - free:
        if to_plain(options[name]) != saved.get(name, options[name]):
            cause = f"option {name} is {options[name]!r}, the run in {path.parent} was started with {saved[name]!r}"
            raise UsageError(cause, f"resume with {name}={saved[name]}, or start a new run in another folder")


def _monitor(monitor: str | None, mode: Mode | None, metrics: dict[str, Metric], valid_data: Any) -> tuple[str, Mode]:
    first = next(iter(metrics), None)
    if monitor is None:
        prefix = "" if valid_data is None else "val_"
        monitor = "val_" + first if first is not None and valid_data is not None else prefix + "loss"
    if mode is None:
        metric = metrics.get(monitor.removeprefix("val_"))
        mode = "max" if metric is not None and metric.higher_is_better else "min"
    return monitor, mode


def _best(done: Run, checkpoints: CheckpointFolder, keep_last: bool) -> tuple[dict[str, Any], dict[str, float]]:
    """The weights to keep (those of the best epoch, averaged if there is an EMA) and their row of the history."""
    state = None if keep_last else checkpoints.load_best()
    if state is None:
        return done.evaluated_model.state_dict(), dict(done.history[-1])
    row = state["history"][-1]
    if "ema" not in state:
        return state["model"], dict(row)
    prefix = "module."
    return {key.removeprefix(prefix): value for key, value in state["ema"].items() if key.startswith(prefix)}, dict(row)
