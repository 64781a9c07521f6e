"""The supervised trainer: classification, regression, segmentation — whatever has inputs, targets, a loss and metrics.

`run` is a composition of the pieces of ``flambeau.train`` that one can copy and change: data loaders, an optimizer
with a schedule, the loop, an evaluation, checkpoints, the files of a run folder:

    config.json  history.jsonl  history.csv  curve.png  report.html  model.safetensors  checkpoints/
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..data import default_collate
from ..errors import FlambeauError
from ..io.weights import save_model_state
from ..options import to_plain
from .callbacks import Callback, EarlyStopping, Mode
from .checkpoint import CheckpointFolder, seed_everything
from .loop import Run, fit
from .metrics import ConfusionMatrix, Mean, Metric
from .parameters import Freeze, parameter_groups
from .report import HtmlReport
from .reporter import COUNTERS, HistoryWriter, LearningCurve, reporter
from .run_folder import binding, prepare
from .schedules import Decay, warmup_schedule
from .single import processes
from .tensorboard import TensorBoard

__all__ = ["Options", "cross_entropy", "evaluate", "make_optimizer", "mean_squared_error", "run"]

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
        rates: factors of the rate of parts of the model by pattern, e.g. ``{"backbone.*": 0.1}``.
        layer_decay: factor of the rate from each block to the one before it.
        freeze: patterns of parameters that are not trained, e.g. ``backbone.*``.
        unfreeze: epochs after which they are trained all the same; none for never.
        schedule: cosine, linear, inverse_sqrt or constant, after the warm-up.
        warmup: share of the run in which the rate rises linearly.
        min_lr: share of the peak rate below which the schedule does not go.
        clip: largest norm of the gradient; none for no limit.
        accumulate: batches an optimizer step.
        autocast: bfloat16 or float16 (with loss scaling) for products; none for float32 throughout.
        ema: decay of averaged weights, e.g. 0.999; none for none.
        label_smoothing: for trainers whose loss is cross-entropy.
        patience: epochs without improvement after which the run stops; none for never.
        seed: of everything random.
        workers: processes that load data.
        checkpoint_every: optimizer steps between checkpoints within an epoch; none for epochs only.
        checkpoint_minutes: minutes between checkpoints within an epoch; none for no such limit.
        keep_checkpoints: how many of the newest to keep, beside the best.
        drop_last: leave a short last batch out of training.
        device: cpu, cuda, cuda:1, ...
        tensorboard: also write event files for TensorBoard.
    """

    epochs: int = 10
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 1e-2
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    rates: dict[str, float] | None = None
    layer_decay: float = 1.0
    freeze: tuple[str, ...] = ()
    unfreeze: int | None = None
    schedule: Decay = "cosine"
    warmup: float = 0.05
    min_lr: float = 0.0
    clip: float | None = None
    accumulate: int = 1
    autocast: Literal["bfloat16", "float16"] | None = None
    ema: float | None = None
    label_smoothing: float = 0.0
    patience: int | None = None
    seed: int = 0
    workers: int = 0
    checkpoint_every: int | None = None
    checkpoint_minutes: float | None = None
    keep_checkpoints: int = 2
    drop_last: bool = False
    device: str = "cpu"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"option {name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "weight_decay", "momentum", "label_smoothing", "workers"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"option {name}={getattr(self, name)} must not be negative")
        for name in ("warmup", "ema", "min_lr", "layer_decay"):
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
        metrics: name -> metric; they are reset first. One that computes several values gives "name_value" for each.
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
    for name, metric in metrics.items():
        value = metric.compute()
        parts = {f"{name}_{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {name: value}
        result |= {key: float(part) for key, part in parts.items()}
    return result


def make_optimizer(model: Any, options: Options) -> Any:
    """The optimizer of the options, over groups of parameters with their own rates and weight decay."""
    from .. import optim

    groups = parameter_groups(
        model, options.lr, weight_decay=options.weight_decay, rates=options.rates, layer_decay=options.layer_decay
    )
    if options.optimizer == "sgd":
        return optim.SGD(groups, lr=options.lr, momentum=options.momentum)
    return (optim.AdamW if options.optimizer == "adamw" else optim.Adam)(groups, lr=options.lr, betas=options.betas)


def mixed_precision(options: Options) -> tuple[Callable[[], Any], Any]:
    """The context of a step's forward pass and the gradient scaler (None where none is needed)."""
    if options.autocast is None:
        return nullcontext, None
    import flambeau

    kind = options.device.partition(":")[0]
    dtype = getattr(flambeau, options.autocast)
    scaler = flambeau.amp.GradScaler(kind) if options.autocast == "float16" else None
    return lambda: flambeau.autocast(kind, dtype=dtype), scaler


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
        prepare(folder, model_id, options, config, plugin, resume)
    together.barrier()
    seed_everything(options.seed)
    net = model().to(options.device)

    train_loader = together.loader(
        train_data, options.batch_size, shuffle=True, num_workers=options.workers, collate_fn=collate_fn,
        drop_last=options.drop_last, persistent_workers=options.workers > 0,
    )  # fmt: skip
    optimizer = make_optimizer(net, options)
    steps = options.epochs * math.ceil(len(train_loader) / options.accumulate)
    schedule = warmup_schedule(optimizer, options.schedule, round(options.warmup * steps), steps, options.min_lr)
    autocast, scaler = mixed_precision(options)
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

    def example(net: Any) -> Any:
        data = valid_data if valid_data is not None else train_data
        return predict(net, to_device((collate_fn or default_collate)([data[0]]), options.device))

    monitor, mode = _monitor(monitor, mode, metrics, valid_data)
    watchers: list[Callback] = list(callbacks)
    if options.freeze:
        watchers.append(Freeze(options.freeze, options.unfreeze))
    if options.patience is not None:
        watchers.append(EarlyStopping(monitor, options.patience, mode))
    if together.main:
        if options.tensorboard:
            watchers.append(TensorBoard(folder / "tensorboard", hparams=to_plain(options)))
        watchers += [
            HistoryWriter(folder),
            LearningCurve(folder / "curve.png", monitor=monitor, mode=mode),
            HtmlReport(folder, monitor=monitor, mode=mode, confusion=_confusion(metrics), forward=example),
            progress or reporter(),
        ]
    checkpoints = CheckpointFolder(folder / "checkpoints", options.keep_checkpoints)
    done = fit(
        net, optimizer, step, train_loader, epochs=options.epochs, schedule=schedule, clip=options.clip,
        accumulate=options.accumulate, autocast=autocast, scaler=scaler, ema=ema,
        evaluate=None if valid_data is None else validate, monitor=monitor, mode=mode, callbacks=watchers,
        checkpoints=checkpoints, checkpoint_every=options.checkpoint_every,
        checkpoint_minutes=options.checkpoint_minutes, config=binding(options), resume=resume,
        parallel=together,
    )  # fmt: skip
    if not together.main:
        return dict(together.agree(None))
    state, row = _best(done, checkpoints, keep_last=valid_data is None)
    found = {name: value for name, value in row.items() if name == "epoch" or name not in COUNTERS}
    card = {**dict(notes or {}), "metrics": {name: value for name, value in found.items() if math.isfinite(value)}}
    save_model_state(state, folder / "model.safetensors", model=model_id, config=config, plugin=plugin, notes=card)
    return dict(together.agree(found))


def _monitor(monitor: str | None, mode: Mode | None, metrics: dict[str, Metric], valid_data: Any) -> tuple[str, Mode]:
    first = next(iter(metrics), None)
    if monitor is None:
        prefix = "" if valid_data is None else "val_"
        monitor = "val_" + first if first is not None and valid_data is not None else prefix + "loss"
    if mode is None:
        metric = metrics.get(monitor.removeprefix("val_"))
        mode = "max" if metric is not None and metric.higher_is_better else "min"
    return monitor, mode


def _confusion(metrics: dict[str, Metric]) -> ConfusionMatrix | None:
    """The first metric that counts a confusion matrix small enough to read."""
    found = (m for m in metrics.values() if isinstance(m, ConfusionMatrix) and m.num_classes <= 40)
    return next(found, None)


def _best(done: Run, checkpoints: CheckpointFolder, keep_last: bool) -> tuple[dict[str, Any], dict[str, float]]:
    """The weights to keep (those of the best epoch, averaged if there is an EMA) and their row of the history."""
    try:
        state = None if keep_last else checkpoints.load_best()
    except FlambeauError as error:
        warnings.warn(f"{error.cause}; keeping the weights of the last epoch", stacklevel=3)
        state = None
    if state is None:
        return done.evaluated_model.state_dict(), dict(done.history[-1])
    row = state["history"][-1]
    if "ema" not in state:
        return state["model"], dict(row)
    prefix = "module."
    return {key.removeprefix(prefix): value for key, value in state["ema"].items() if key.startswith(prefix)}, dict(row)
