"""Optimizers that treat a matrix as a matrix: Adafactor and Muon."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np

from .. import dtypes
from ..tensor import Tensor
from .optimizer import Optimizer
from .updates import advance, check_range, namespace, new_step


class Adafactor(Optimizer):
    """Adam without momentum that keeps, of a matrix, only row and column means of v (Shazeer & Stern 2018).

    Memory is that of the rows plus the columns. ``d`` bounds the root mean square of an update; with ``eps[1]`` the
    step is relative to the size of the parameter; ``eps[0]`` None is the dtype's precision.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        check_range(lr=lr, weight_decay=weight_decay)
        if beta2_decay > 0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        for i, value in enumerate(eps):
            if value is not None and value < 0:
                raise ValueError(f"epsilon{i + 1} should be >= 0 but is: {value}")
        if d < 1:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        super().__init__(
            params,
            dict(
                lr=lr,
                beta2_decay=beta2_decay,
                eps=eps,
                d=d,
                weight_decay=weight_decay,
                foreach=foreach,
                maximize=maximize,
            ),
        )

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        xp = namespace(param)
        if param.ndim < 2:
            return {"step": new_step(), "variance": Tensor._wrap(xp.zeros_like(param))}
        *batch, rows, columns = param.shape
        return {
            "step": new_step(),
            "row_var": Tensor._wrap(xp.zeros((*batch, rows, 1), param.dtype)),
            "col_var": Tensor._wrap(xp.zeros((*batch, 1, columns), param.dtype)),
        }

    def _update_converted(self, update: Any, array: Any, grad: Any, state: Any, group: Any) -> None:
        if array.dtype.kind == "c":
            raise RuntimeError("Adafactor does not support complex parameters")
        if not state:  # the state of a 16-bit matrix has other shapes than it, but its dtype
            state.update(self._initial_state(array, group))
        update(array, grad, state)

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, decay, (eps1, eps2) = float(group["lr"]), group["beta2_decay"], group["eps"]
        d, weight_decay = group["d"], group["weight_decay"]

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            xp = namespace(param)
            step = advance(state)
            least = float(ml_dtypes.finfo(param.dtype).eps) if eps1 is None else eps1
            wide = np.float32 if param.dtype.itemsize == 2 else param.dtype
            p, g = param.astype(wide), grad.astype(wide)
            share = float(step) ** decay
            size = max(eps2, float(xp.sqrt(xp.sum(p * p))) / math.sqrt(p.size))
            rate = size * min(lr, 1 / math.sqrt(step))
            p *= 1 - lr * weight_decay
            square = g * g

            def average(name: str, value: Any) -> Any:
                kept = state[name].array.astype(wide)
                kept += share * (value - kept)
                state[name].array[...] = kept
                return kept

            if param.ndim < 2:
                variance = average("variance", square)
            else:
                rows = average("row_var", square.mean(axis=-1, keepdims=True))
                columns = average("col_var", square.mean(axis=-2, keepdims=True))
                variance = rows * columns / xp.maximum(rows.mean(axis=-2, keepdims=True), least)
            change = g / xp.sqrt(xp.maximum(variance, least * least))
            clip = max(1.0, float(xp.sqrt(xp.sum(change * change))) / (math.sqrt(change.size) * d))
            p -= (rate / clip) * change
            param[...] = p

        return update


class Muon(Optimizer):
    """Momentum whose matrix is brought close to an orthogonal one by Newton-Schulz iterations (Jordan et al. 2024).

    For the matrices of hidden layers only; biases, embeddings and output layers want :class:`AdamW`. ``adjust_lr_fn``
    is "original" (times sqrt(max(1, rows / columns))) or "match_rms_adamw" (times 0.2 * sqrt(max(rows, columns))).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        check_range(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(
                f"Adjust learning rate function {adjust_lr_fn} is not supported; use 'original' or 'match_rms_adamw'"
            )
        if len(ns_coefficients) != 3 or ns_steps >= 100:
            raise ValueError("ns_coefficients must be three numbers, and ns_steps less than 100")
        super().__init__(
            params,
            dict(
                lr=lr,
                weight_decay=weight_decay,
                momentum=momentum,
                nesterov=nesterov,
                ns_coefficients=ns_coefficients,
                eps=eps,
                ns_steps=ns_steps,
                adjust_lr_fn=adjust_lr_fn,
            ),
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            if param.ndim != 2:
                shape = tuple(param.shape)
                self.param_groups.pop()
                raise ValueError(f"Muon only supports 2D parameters whereas we found a parameter with size: {shape}")

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        return {"momentum_buffer": Tensor._wrap(namespace(param).zeros_like(param))}

    def _update_converted(self, update: Any, array: Any, grad: Any, state: Any, group: Any) -> None:
        if array.dtype.kind == "c":
            raise RuntimeError("Muon does not support complex parameters")
        super()._update_converted(update, array, grad, state, group)

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, momentum, nesterov = float(group["lr"]), group["momentum"], group["nesterov"]
        settings = group["ns_coefficients"], group["ns_steps"], group["eps"]

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            buffer = state["momentum_buffer"].array
            buffer += (1 - momentum) * (grad - buffer)
            direction = grad + momentum * (buffer - grad) if nesterov else buffer
            rows, columns = param.shape
            if group["adjust_lr_fn"] == "match_rms_adamw":
                rate = lr * 0.2 * math.sqrt(max(rows, columns))
            else:
                rate = lr * math.sqrt(max(1, rows / columns))
            param *= 1 - lr * group["weight_decay"]
            param -= (rate * _orthogonalized(direction, *settings)).astype(param.dtype)

        return update


def _orthogonalized(matrix: Any, coefficients: tuple[float, float, float], steps: int, eps: float) -> Any:
    """The polar factor of a matrix, roughly: its singular values come to lie between 0.5 and 1.5.

    As the reference computes in bfloat16, every result is rounded to it; products are summed in float32.
    """
    xp = namespace(matrix)
    a, b, c = coefficients
    narrow = dtypes.bfloat16.numpy

    def rounded(x: Any) -> Any:
        return x.astype(narrow).astype(np.float32)

    x = rounded(matrix.T if matrix.shape[0] > matrix.shape[1] else matrix)
    x = rounded(x / max(float(rounded(xp.sqrt(xp.sum(x * x)))), float(rounded(np.float32(eps)))))
    for _ in range(steps):
        gram = rounded(x @ x.T)
        x = rounded(a * x + rounded(b * gram + c * (gram @ gram)) @ x)
    return x.T if matrix.shape[0] > matrix.shape[1] else x
