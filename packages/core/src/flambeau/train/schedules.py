"""Learning-rate schedules of the trainers: a linear rise, then one of a few well-known curves, by optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

__all__ = ["Decay", "warmup_schedule"]

Decay = Literal["cosine", "linear", "constant", "inverse_sqrt"]

_CURVES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1.0 - done,
    "constant": lambda done: 1.0,
}


def warmup_schedule(optimizer: Any, kind: Decay, warmup: int, total: int, floor: float = 0.0) -> Any:
    """A schedule by optimizer steps: linear rise over `warmup` steps, then a decay that ends at step `total`.

    Args:
        kind: ``cosine`` (Loshchilov & Hutter 2017), ``linear``, ``constant``, or ``inverse_sqrt`` (Vaswani et al. 2017:
            1/sqrt of the step, 1 at the end of the rise, no end of its own).
        warmup: steps of the rise.
        total: steps of the whole run.
        floor: share of the peak rate below which the decay does not go.

    >>> import flambeau
    >>> optimizer = flambeau.optim.SGD([flambeau.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = warmup_schedule(optimizer, "linear", warmup=1, total=5, floor=0.1)
    >>> rates = []
    >>> for _ in range(6):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
    ...     optimizer.step()
    ...     schedule.step()
    >>> rates
    [0.5, 1.0, 0.775, 0.55, 0.325, 0.1]
    """
    from .. import optim

    if kind != "inverse_sqrt" and kind not in _CURVES:
        raise ValueError(f"schedule {kind!r} is not one of {', '.join([*_CURVES, 'inverse_sqrt'])}")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if kind == "inverse_sqrt":
            return max(floor, math.sqrt(max(1, warmup) / max(1, step)))
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return floor + (1 - floor) * _CURVES[kind](done)

    return optim.lr_scheduler.LambdaLR(optimizer, factor)
