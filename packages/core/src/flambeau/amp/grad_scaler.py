"""GradScaler: keeps small float16 gradients from vanishing by scaling the loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..tensor import Tensor

_READY, _UNSCALED, _STEPPED = "ready", "unscaled", "stepped"


class GradScaler:
    """Scales losses up and gradients down again; a step with infinite or NaN gradients is left out.

    After such a step :meth:`update` multiplies the scale by ``backoff_factor``, and after ``growth_interval`` good
    steps in a row by ``growth_factor``.

    Args:
        device: "cuda" or "cpu". Without a GPU a scaler for "cuda" warns and does nothing, as PyTorch's.
        enabled: False makes every method hand on what it gets.

    >>> import flambeau
    >>> w = flambeau.tensor([1.0], requires_grad=True)
    >>> optimizer = flambeau.optim.SGD([w], lr=0.1)
    >>> scaler = GradScaler("cpu", init_scale=1024.0)
    >>> scaler.scale((w * w).sum()).backward()
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> w.detach()
    tensor([0.8])
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        from .autocast_mode import is_cuda_here

        self._device = device
        if device == "cuda" and enabled and not is_cuda_here():
            warnings.warn("GradScaler is enabled for CUDA, but CUDA is not available.  Disabling.", stacklevel=2)
            enabled = False
        self._enabled = enabled
        if enabled and growth_factor <= 1.0:
            raise AssertionError("The growth factor must be > 1.0.")
        if enabled and backoff_factor >= 1.0:
            raise AssertionError("The backoff factor must be < 1.0.")
        self._scale = init_scale
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._growth_tracker = 0
        self._scaled = False  # scale() has been called: methods used out of order are errors
        self._optimizers: dict[int, dict[str, Any]] = {}

    def scale(self, outputs: Any) -> Any:
        """The outputs (a tensor, or tensors in lists and tuples) times the scale."""
        if not self._enabled:
            return outputs
        self._scaled = True
        if isinstance(outputs, Tensor):
            # The scale is a float32 tensor, as in PyTorch: a float16 loss that is 0-d becomes float32 by promotion.
            return outputs * _scalar(outputs, self._scale)
        if isinstance(outputs, list | tuple):
            return type(outputs)(self.scale(item) for item in outputs)
        if isinstance(outputs, Iterable):
            return map(self.scale, outputs)
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of the optimizer's parameters by the scale, for example to clip them before step().

        Errors: RuntimeError when called twice, or after step(), without an update(); ValueError for float16 gradients.
        """
        if not self._enabled:
            return
        self._check_scaled("unscale_")
        state = self._state(optimizer)
        if state["stage"] == _UNSCALED:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        if state["stage"] == _STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        inverse = np.float32(1 / self._scale)
        for group in optimizer.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                grad = param.grad.array
                if grad.dtype == np.float16:
                    raise ValueError("Attempting to unscale FP16 gradients.")
                if not _finite(grad):
                    state["found_inf"] = True
                grad *= grad.dtype.type(inverse)
        state["checked"] = True
        state["stage"] = _UNSCALED

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """``optimizer.step()`` on unscaled gradients, unless one of them is infinite or NaN."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._check_scaled("step")
        state = self._state(optimizer)
        if state["stage"] == _STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if state["stage"] == _READY:
            self.unscale_(optimizer)
        result = None if state["found_inf"] else optimizer.step(*args, **kwargs)
        state["stage"] = _STEPPED
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Adapt the scale to what the steps since the last update have found, or set it."""
        if not self._enabled:
            return
        self._check_scaled("update")
        if new_scale is not None:
            self._scale = float(new_scale)
        else:
            checked = [state for state in self._optimizers.values() if state["checked"]]
            if not checked:
                raise AssertionError("No inf checks were recorded prior to update.")
            if any(state["found_inf"] for state in checked):
                self._scale *= self._backoff_factor
                self._growth_tracker = 0
            else:
                self._growth_tracker += 1
                if self._growth_tracker == self._growth_interval:
                    grown = self._scale * self._growth_factor
                    self._scale = grown if grown <= float(np.finfo(np.float32).max) else self._scale
                    self._growth_tracker = 0
        self._optimizers = {}

    def _state(self, optimizer: Any) -> dict[str, Any]:
        fresh = {"stage": _READY, "found_inf": False, "checked": False}
        return self._optimizers.setdefault(id(optimizer), fresh)

    def _check_scaled(self, name: str) -> None:
        if not self._scaled:
            fix = "this may indicate that your script did not use scaler.scale(loss or outputs) earlier"
            raise AssertionError(f"Attempted {name} but _scale is None; {fix}")

    # -- settings ------------------------------------------------------------------------------------------------

    def get_scale(self) -> float:
        """The present scale; 1.0 when not enabled."""
        return self._scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """What the scale is multiplied by after `get_growth_interval()` good steps."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Sets the growth factor."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by after a step that was left out."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Sets the backoff factor."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """How many good steps in a row make the scale grow."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Sets the growth interval."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Scale and settings, with PyTorch's keys; empty when not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` of an enabled scaler gave."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("the source state dict is empty, possibly saved from a disabled GradScaler")
        self._scale = float(state_dict["scale"])
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._growth_tracker = int(state_dict["_growth_tracker"])


def _scalar(like: Tensor, value: float) -> Tensor:
    xp = np
    if not isinstance(like.array, np.ndarray):
        from .. import backends

        xp = backends.of(like.array).xp
    return Tensor._wrap(xp.asarray(value, np.float32))


def _finite(array: Any) -> bool:
    if array.dtype.kind == "V":
        array = array.astype(np.float32)
    # A finite sum proves that all are finite, at half the cost of testing each.
    return math.isfinite(abs(complex(array.sum()))) or bool(np.isfinite(array).all())
