"""The learning-rate range test (Smith 2017): a short run with a growing rate shows where the loss falls fastest."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import FlambeauError
from .checkpoint import capture_rng, restore_rng
from .loop import Step

__all__ = ["RateTest", "find_lr"]


@dataclass(frozen=True)
class RateTest:
    """What `find_lr` measured.

    Attributes:
        rates: the rates tried, rising.
        losses: the loss at each, smoothed.
        suggestion: the rate where the loss fell fastest (per factor of the rate).
    """

    rates: list[float]
    losses: list[float]
    suggestion: float

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws loss against rate into a PNG. Needs matplotlib (extra ``[plot]``)."""
        from matplotlib.figure import Figure

        from ..io.atomic import atomic_write

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.semilogx(self.rates, self.losses)
        axes.axvline(self.suggestion, color="C1", linestyle="--", label=f"suggestion {self.suggestion:.2g}")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss (smoothed)")
        axes.grid(alpha=0.3)
        axes.legend()
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=120)


def find_lr(
    model: Any,
    optimizer: Any,
    step: Step,
    loader: Iterable[Any],
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    diverged: float = 4.0,
) -> RateTest:
    """Tries rates from `lowest` to `highest`, one a batch, and suggests one. Nothing is left changed.

    Model, optimizer and the global random generators are as before afterwards. The loader is walked from its start as
    often as needed.

    Args:
        step: ``step(model, batch) -> (loss_sum, count)``, as for `fit`.
        steps: batches, if the loss does not diverge before.
        smoothing: of the losses (exponential mean).
        diverged: the test ends where the loss is so many times the lowest one.

    Raises:
        FlambeauError: the loss was not finite from the start, or the loader is empty.

    >>> import flambeau
    >>> x, net = flambeau.tensor([[1.0], [2.0]]), flambeau.nn.Linear(1, 1)
    >>> square = lambda net, x: (((net(x) - 3 * x) ** 2).sum(), len(x))
    >>> test = find_lr(net, flambeau.optim.SGD(net.parameters(), lr=1.0), square, [x], steps=50)
    >>> 1e-7 < test.suggestion < 1
    True
    """
    if not 0 < lowest < highest:
        raise ValueError(f"find_lr: lowest={lowest} and highest={highest} must be positive and rise")
    if steps < 2:
        raise ValueError(f"find_lr: steps must be at least 2, not {steps}")
    saved = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict()), capture_rng(), model.training
    position = loader.state_dict() if hasattr(loader, "state_dict") else None
    try:
        rates, losses = _walk(model, optimizer, step, loader, lowest, highest, steps, smoothing, diverged)
    finally:
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        optimizer.zero_grad()
        model.train(saved[3])
        if position is not None:
            loader.load_state_dict(position)  # type: ignore[attr-defined]
        restore_rng(saved[2])
    if len(losses) < 2:
        raise FlambeauError("the loss is not finite at the lowest rate", "check the data for NaN, or the model")
    return RateTest(rates, losses, _steepest(rates, losses))


def _steepest(rates: list[float], losses: list[float]) -> float:
    """The rate in the middle of the window where the loss falls most: single differences are noise of the batches."""
    width = max(1, len(losses) // 6)
    falls = [losses[start] - losses[start + width] for start in range(len(losses) - width)]
    return rates[falls.index(max(falls)) + width // 2]


def _walk(
    model: Any, optimizer: Any, step: Step, loader: Iterable[Any], lowest: float, highest: float, steps: int,
    smoothing: float, diverged: float,
) -> tuple[list[float], list[float]]:  # fmt: skip
    ratios = [group["lr"] / (optimizer.param_groups[0]["lr"] or 1.0) for group in optimizer.param_groups]
    rates: list[float] = []
    losses: list[float] = []
    mean, best = 0.0, math.inf
    model.train()
    for number, batch in enumerate(_repeat(loader, steps)):
        rate = lowest * (highest / lowest) ** (number / (steps - 1))
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = rate * ratio
        optimizer.zero_grad()
        loss_sum, count, *_ = step(model, batch)
        loss = float(loss_sum.item()) / max(float(count), 1e-12)
        mean = smoothing * mean + (1 - smoothing) * loss
        smooth = mean / (1 - smoothing ** (number + 1))
        if not math.isfinite(loss) or smooth > diverged * best:
            break
        best = min(best, smooth)
        rates.append(rate)
        losses.append(smooth)
        (loss_sum / float(count)).backward()
        optimizer.step()
    return rates, losses


def _repeat(loader: Iterable[Any], steps: int) -> Iterable[Any]:
    done = 0
    while done < steps:
        before = done
        for batch in loader:
            yield batch
            done += 1
            if done == steps:
                return
        if done == before:
            raise FlambeauError("the loader has no batches", "check the dataset, the batch size and drop_last")
