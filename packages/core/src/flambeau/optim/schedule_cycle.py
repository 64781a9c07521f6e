"""Schedules that move momentum together with the learning rate: OneCycleLR and CyclicLR."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .optimizer import Optimizer
from .schedule import LRScheduler, set_rate


def _per_group(optimizer: Optimizer, name: str, value: Any) -> list[float]:
    groups = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * groups
    if len(value) != groups:
        raise ValueError(f"expected {groups} values for {name}, got {len(value)}")
    return list(value)


def _uses_betas(optimizer: Optimizer) -> bool:
    """Whether momentum is the first of ``betas``; ValueError when the optimizer has no momentum at all."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError("optimizer must support momentum or beta1 with cycle_momentum=True")
    return "betas" in optimizer.defaults


def _set_momentum(group: dict[str, Any], momentum: float, use_beta1: bool) -> None:
    if use_beta1:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum


class OneCycleLR(LRScheduler):
    """Up from ``max_lr / div_factor`` to ``max_lr``, then down to the start divided by ``final_div_factor``, with
    momentum going the other way (Smith & Topin 2017). ``three_phase`` comes down to the start first. Step it after
    every batch.

    The length is ``total_steps``, or ``epochs * steps_per_epoch``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("you must define either total_steps or both epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if total_steps <= 0 or total_steps != int(total_steps):
            raise ValueError(f"the number of steps must be a positive whole number, got {total_steps}")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"pct_start must lie in [0, 1], got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        self.total_steps = int(total_steps)
        names = [("initial_lr", "max_lr", "max_momentum", "base_momentum")]
        ends = [float(pct_start * self.total_steps) - 1]
        if three_phase:
            names.append(("max_lr", "initial_lr", "base_momentum", "max_momentum"))
            names.append(("initial_lr", "min_lr", "max_momentum", "max_momentum"))
            ends.append(float(2 * pct_start * self.total_steps) - 2)
        else:
            names.append(("max_lr", "min_lr", "base_momentum", "max_momentum"))
        ends.append(self.total_steps - 1)
        keys = ("end_step", "start_lr", "end_lr", "start_momentum", "end_momentum")
        self._schedule_phases: list[dict[str, Any]] = [
            dict(zip(keys, (end, *phase), strict=True)) for end, phase in zip(ends, names, strict=True)
        ]
        self._anneal_func_type = anneal_strategy
        self.cycle_momentum = cycle_momentum
        self.use_beta1 = cycle_momentum and _uses_betas(optimizer)
        if last_epoch == -1:
            peaks = _per_group(optimizer, "max_lr", max_lr)
            lows, highs = (
                _per_group(optimizer, "base_momentum", base_momentum),
                _per_group(optimizer, "max_momentum", max_momentum),
            )
            for group, peak, low, high in zip(optimizer.param_groups, peaks, lows, highs, strict=True):
                group["initial_lr"] = peak / div_factor
                group["max_lr"] = peak
                group["min_lr"] = group["initial_lr"] / final_div_factor
                if cycle_momentum:
                    _set_momentum(group, high, self.use_beta1)
                    group["max_momentum"] = high
                    group["base_momentum"] = low
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, share: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ValueError(f"tried to step {self.last_epoch} times; the number of total steps is {self.total_steps}")
        start = 0.0
        for phase in self._schedule_phases:
            if self.last_epoch <= phase["end_step"] or phase is self._schedule_phases[-1]:
                break
            start = phase["end_step"]
        share = (self.last_epoch - start) / (phase["end_step"] - start)
        values = []
        for group in self.optimizer.param_groups:
            values.append(self._between(group[phase["start_lr"]], group[phase["end_lr"]], share))
            if self.cycle_momentum:
                ends = group[phase["start_momentum"]], group[phase["end_momentum"]]
                _set_momentum(group, self._between(*ends, share), self.use_beta1)
        return values


class CyclicLR(LRScheduler):
    """Back and forth between ``base_lr`` and ``max_lr`` (Smith 2017). Step it after every batch.

    ``triangular2`` halves the height each cycle, ``exp_range`` multiplies it by gamma ** iteration, and a
    ``scale_fn`` by its value.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError("mode must be 'triangular', 'triangular2' or 'exp_range' when scale_fn is None")
        self.max_lrs = _per_group(optimizer, "max_lr", max_lr)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode if scale_fn is not None else "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        self.use_beta1 = cycle_momentum and _uses_betas(optimizer)
        self.base_momentums = _per_group(optimizer, "base_momentum", base_momentum)
        self.max_momentums = _per_group(optimizer, "max_momentum", max_momentum)
        lows = _per_group(optimizer, "base_lr", base_lr)
        if last_epoch == -1:
            for group, low, momentum in zip(optimizer.param_groups, lows, self.max_momentums, strict=True):
                group["initial_lr"] = low
                set_rate(group, low)
                if cycle_momentum:
                    _set_momentum(group, momentum, self.use_beta1)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lows

    def _scale(self, x: float) -> float:
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        return {"triangular": 1.0, "triangular2": 1 / 2.0 ** (x - 1), "exp_range": self.gamma**x}[self.mode]

    def get_lr(self) -> list[float]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        position = 1.0 + self.last_epoch / self.total_size - cycle
        height = position / self.step_ratio if position <= self.step_ratio else (position - 1) / (self.step_ratio - 1)
        height *= self._scale(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, low, high in zip(
                self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True
            ):
                _set_momentum(group, high - (high - low) * height, self.use_beta1)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["_scale_fn_custom"] = None  # functions are not saved
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "_scale_fn_custom"})
