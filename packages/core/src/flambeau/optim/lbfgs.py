"""L-BFGS: a quasi-Newton method for whole batches, with a line search on request."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..autograd.modes import enable_grad
from ..tensor import Tensor
from .optimizer import Optimizer
from .updates import as_real, check_range, namespace


class LBFGS(Optimizer):
    """Limited-memory BFGS (Nocedal & Wright 2006, algorithm 7.4); one step runs up to ``max_iter`` iterations.

    ``step`` needs a closure that clears the gradients, computes the loss, calls ``backward()`` and returns the loss.
    All parameters are in one group. ``line_search_fn="strong_wolfe"`` looks for a step length that satisfies the
    strong Wolfe conditions (the same book, algorithms 3.5 and 3.6); None moves by ``lr``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        check_range(lr=lr)
        super().__init__(
            params,
            dict(
                lr=lr,
                max_iter=max_iter,
                max_eval=max_iter * 5 // 4 if max_eval is None else max_eval,
                tolerance_grad=tolerance_grad,
                tolerance_change=tolerance_change,
                history_size=history_size,
                line_search_fn=line_search_fn,
            ),
        )
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """One step; returns the loss before it."""
        group = self.param_groups[0]
        search = group["line_search_fn"]
        if search not in (None, "strong_wolfe"):
            raise RuntimeError(f"line_search_fn is {search!r}; only 'strong_wolfe' is supported")
        state = self.state[group["params"][0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        lr = float(group["lr"])
        with enable_grad():
            first_loss = closure()
        loss = float(first_loss)
        evaluations = 1
        state["func_evals"] += 1
        gradient = self._gradient()
        if abs(gradient).max() <= group["tolerance_grad"]:
            return first_loss
        length: Any = state.get("t")
        direction = _raw(state.get("d"))

        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                direction = -gradient
                state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
                length = min(1.0, 1.0 / float(abs(gradient).sum())) * lr
            else:
                change = gradient - _raw(state["prev_flat_grad"])
                _remember(state, change, direction * float(length), group["history_size"])
                state.setdefault("al", [None] * group["history_size"])
                direction = _two_loops(state, gradient)
                length = lr
            state["prev_flat_grad"] = Tensor._wrap(gradient.copy())
            loss_before = state["prev_loss"] = loss
            slope = float(gradient @ direction)
            if slope > -group["tolerance_change"]:
                break
            if search is not None:
                line = _Line(self, closure, direction)
                most = group["max_eval"] - evaluations
                point = line.search(_Point(0.0, loss, gradient, slope), length, group["tolerance_change"], most)
                length, loss, gradient = point.t, point.loss, point.gradient
                line.move(length)
                used = line.evaluations
            else:
                self._move(direction, length)
                used = 0
                if iteration != group["max_iter"]:  # nothing would use the value after the last iteration
                    with enable_grad():
                        loss = float(closure())
                    gradient = self._gradient()
                    used = 1
            evaluations += used
            state["func_evals"] += used
            if (
                evaluations >= group["max_eval"]
                or abs(gradient).max() <= group["tolerance_grad"]
                or abs(direction * length).max() <= group["tolerance_change"]
                or abs(loss - loss_before) < group["tolerance_change"]
            ):
                break
        state["d"] = Tensor._wrap(direction)
        state["t"] = length
        return first_loss

    def _gradient(self) -> Any:
        """All gradients in one vector; zeros for a parameter that has none."""
        params = self.param_groups[0]["params"]
        xp = namespace(params[0].array)
        parts = [xp.zeros_like(p.array) if p.grad is None else p.grad.array for p in params]
        return xp.concatenate([as_real(part).reshape(-1) for part in parts])

    def _move(self, direction: Any, length: float) -> None:
        start = 0
        for p in self.param_groups[0]["params"]:
            values = as_real(p.array)
            values += (length * direction[start : start + values.size]).reshape(values.shape)
            start += values.size
            p._bump_version()


def _raw(value: Any) -> Any:
    return value.array if isinstance(value, Tensor) else value


def _remember(state: dict[str, Any], change: Any, step: Any, size: int) -> None:
    """Adds a pair (change of the gradient, step) to the history if their product is positive enough."""
    product = float(change @ step)
    if product <= 1e-10:
        return
    history = state["old_dirs"], state["old_stps"], state["ro"]
    if len(state["old_dirs"]) == size:
        for values in history:
            values.pop(0)
    xp = namespace(change)
    for values, new in zip(history, (change, step, xp.asarray(1.0 / product, change.dtype)), strict=True):
        values.append(Tensor._wrap(new))
    state["H_diag"] = Tensor._wrap(xp.asarray(product / float(change @ change), change.dtype))


def _two_loops(state: dict[str, Any], gradient: Any) -> Any:
    """The direction -H g, with the inverse Hessian H as the history approximates it."""
    changes, steps, ro = ([_raw(v) for v in state[name]] for name in ("old_dirs", "old_stps", "ro"))
    xp = namespace(gradient)
    shares = state["al"]
    q = -gradient
    for i in range(len(changes) - 1, -1, -1):
        share = (steps[i] @ q) * ro[i]
        shares[i] = Tensor._wrap(xp.asarray(share))
        q -= share * changes[i]
    q *= _raw(state["H_diag"])
    for i in range(len(changes)):
        q += (_raw(shares[i]) - (changes[i] @ q) * ro[i]) * steps[i]
    return q


@dataclass
class _Point:
    """A place on the line: distance, loss, gradient, and slope along the line."""

    t: float
    loss: float
    gradient: Any
    slope: float


class _Line:
    """The line from the present parameters along a direction."""

    decrease, curvature = 1e-4, 0.9  # the constants of the Wolfe conditions

    def __init__(self, optimizer: LBFGS, closure: Callable[[], Any], direction: Any):
        self.optimizer, self.closure, self.direction = optimizer, closure, direction
        self.params = optimizer.param_groups[0]["params"]
        self.start = [p.array.copy() for p in self.params]
        self.evaluations = 0

    def move(self, t: float) -> None:
        """Goes from the start to distance t."""
        self.optimizer._move(self.direction, t)

    def at(self, t: float) -> _Point:
        """The point at distance t; the parameters are back at the start afterwards."""
        self.move(t)
        with enable_grad():
            loss = float(self.closure())
        gradient = self.optimizer._gradient()
        for p, values in zip(self.params, self.start, strict=True):
            p.array[...] = values
            p._bump_version()
        self.evaluations += 1
        return _Point(t, loss, gradient, float(gradient @ self.direction))

    def search(self, start: _Point, t: float, tolerance: float, most: int) -> _Point:
        """A point that satisfies the strong Wolfe conditions, or the best one after ``most`` evaluations."""
        before, point, turns = start, self.at(t), 0
        while turns < most:
            if self._too_high(point, start) or (turns > 1 and point.loss >= before.loss):
                break
            if abs(point.slope) <= -self.curvature * start.slope:
                return point
            if point.slope >= 0:
                break
            farther = point.t + 0.01 * (point.t - before.t), point.t * 10
            new = _lowest_of_cubic(before, point, farther)
            before, point = point, self.at(new)
            turns += 1
        ends = [before, point]
        if turns == most:
            ends[0] = start
        return self._zoom(start, ends, tolerance, most, turns)

    def _zoom(self, start: _Point, ends: list[_Point], tolerance: float, most: int, turns: int) -> _Point:
        """Narrows a bracket that holds a satisfying point; the lower end is the answer."""
        scale = float(abs(self.direction).max())
        low, high = (0, 1) if ends[0].loss <= ends[1].loss else (1, 0)
        close_before = False
        while turns < most:
            if abs(ends[1].t - ends[0].t) * scale < tolerance:
                break
            t = _lowest_of_cubic(ends[0], ends[1])
            left, right = sorted((ends[0].t, ends[1].t))
            margin = 0.1 * (right - left)
            close = min(right - t, t - left) < margin
            if close and (close_before or t >= right or t <= left):
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                close = False
            close_before = close
            point = self.at(t)
            turns += 1
            if self._too_high(point, start) or point.loss >= ends[low].loss:
                ends[high] = point
                low, high = (0, 1) if ends[0].loss <= ends[1].loss else (1, 0)
                continue
            done = abs(point.slope) <= -self.curvature * start.slope
            if not done and point.slope * (ends[high].t - ends[low].t) >= 0:
                ends[high] = ends[low]
            ends[low] = point
            if done:
                break
        return ends[low]

    def _too_high(self, point: _Point, start: _Point) -> bool:
        return point.loss > start.loss + self.decrease * point.t * start.slope


def _lowest_of_cubic(a: _Point, b: _Point, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through two points with their slopes is lowest, within bounds (Nocedal & Wright, eq. 3.59)."""
    left, right = bounds or (min(a.t, b.t), max(a.t, b.t))
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (left + right) / 2
    d2 = math.sqrt(square)
    if a.t > b.t:
        a, b = b, a
    divisor = b.slope - a.slope + 2 * d2
    if divisor == 0:
        return (left + right) / 2
    return min(max(b.t - (b.t - a.t) * ((b.slope + d2 - d1) / divisor), left), right)
