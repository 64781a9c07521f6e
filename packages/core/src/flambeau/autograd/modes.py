"""Whether operations are recorded: `no_grad`, `enable_grad`, `inference_mode`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any


class _Mode(threading.local):
    grad = True
    inference = False
    # `intercept(op, args, kwargs)` is called in place of every op, on Tensors and raw arrays alike (autocast, vmap).
    # It calls `op.function` with the previous interceptor set again; see `intercepting`. Two optional attributes:
    # `takes_formulas` (it is called for the formulas of backward() too, which start from `symbol(array)`), and
    # `optimizer_step(optimizer, args, kwargs)`.
    intercept: Callable | None = None
    # `observe(node, out)` is told of every recorded call (checkpoints, anomaly mode).
    observe: Callable | None = None
    anomaly: Any = None  # the active `detect_anomaly`


mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require a gradient are being recorded in this thread."""
    return mode.grad


def is_inference_mode_enabled() -> bool:
    """Whether this thread is inside `inference_mode`."""
    return mode.inference


class _Setting:
    """A context manager that is a decorator as well; usable again and nested."""

    value = True
    inference: bool | None = None

    def __init__(self) -> None:
        self._previous: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._previous.append((mode.grad, mode.inference))
        mode.grad = self.value
        if self.inference is not None:
            mode.inference = self.inference

    def __exit__(self, *exc: object) -> None:
        mode.grad, mode.inference = self._previous.pop()

    def __call__(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return wrapped


class no_grad(_Setting):  # these names are PyTorch's
    """Nothing is recorded inside: `with no_grad():` or `@no_grad()`."""

    value = False


class enable_grad(_Setting):
    """Recording is on inside, also within `no_grad`."""


class set_grad_enabled(_Setting):
    """Recording on or off; takes effect at once, also without `with`."""

    def __init__(self, mode_on: bool):
        super().__init__()
        self._previous.append((mode.grad, mode.inference))
        self.value = mode.grad = bool(mode_on)

    def __enter__(self) -> None:
        mode.grad = self.value


class inference_mode(_Setting):
    """`no_grad` under the name that PyTorch recommends for inference."""

    def __init__(self, mode: bool = True):
        super().__init__()
        self.value = not mode
        self.inference = mode


class intercepting:
    """Sets the function that is called in place of every op, as a context manager; None calls the ops themselves."""

    def __init__(self, function: Callable | None):
        self.function = function

    def __enter__(self) -> Callable | None:
        self.previous, mode.intercept = mode.intercept, self.function
        return self.previous

    def __exit__(self, *exc: object) -> None:
        mode.intercept = self.previous
