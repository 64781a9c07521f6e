"""`detect_anomaly`: stops at the first NaN or infinity, forward or backward, and says where it came from."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy

from ..tensor import Tensor
from .modes import mode

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


class detect_anomaly:
    """Inside, an op that makes a NaN or an infinity of finite inputs raises, as does a gradient formula.

    The message names the op, the module's path in its model and the line of the call. Each result is read once more:
    use it to find a fault, not for whole runs. `check_nan=False` switches the checks off.

    >>> import flambeau
    >>> x = flambeau.tensor([1.0, 0.0], requires_grad=True)
    >>> with flambeau.autograd.detect_anomaly():
    ...     x.sqrt().sum().backward()
    Traceback (most recent call last):
    RuntimeError: the gradient of sqrt has an infinity (input of shape [2], called at <doctest ...>:2)
    """

    def __init__(self, check_nan: bool = True):
        self.check_nan = check_nan
        self.modules: list[Any] = []  # the modules that are being called, outermost first

    def __enter__(self) -> None:
        self._previous = (mode.anomaly, mode.intercept, mode.observe)
        if self.check_nan:
            mode.anomaly, mode.intercept, mode.observe = self, self._checked, self._located

    def __exit__(self, *exc: object) -> None:
        mode.anomaly, mode.intercept, mode.observe = self._previous

    @contextlib.contextmanager
    def inside(self, module: Any) -> Iterator[None]:
        """Notes that `module` is being called (by `Module.__call__`)."""
        self.modules.append(module)
        try:
            yield
        finally:
            self.modules.pop()

    # -- forward -------------------------------------------------------------------------------------------------
    def _checked(self, op: Any, args: tuple, kwargs: dict) -> Any:
        # The ops that a composite consists of are checked one by one.
        mode.intercept = self._checked if op.composite else self._previous[1]
        try:
            out = op.function(*args, **kwargs) if not op.composite else op.forward(*op.bind(args, kwargs))
        finally:
            mode.intercept = self._checked
        given = [*args, *kwargs.values()]
        if any(isinstance(t, Tensor) for t in _flat(given)):
            fault = _fault(_flat([out]))
            if fault and not _fault(_flat(given)):
                shapes = ", ".join(str(list(t.shape)) for t in _flat(given) if hasattr(t, "shape"))
                raise RuntimeError(f"{op.name} made {fault} (inputs of shape {shapes}, called at {_caller()})")
        return out

    # -- backward ------------------------------------------------------------------------------------------------
    def _located(self, node: Any, out: Any) -> None:
        node.module = (self.modules[0], self.modules[-1]) if self.modules else None
        node.caller = _caller()
        if self._previous[2] is not None:
            self._previous[2](node, out)

    def check_gradients(self, node: Any, gradients: Iterable[Any]) -> None:
        """Raises when a gradient that the node's formulas made is not finite (called by the engine)."""
        for g, meta in zip(gradients, node.metas, strict=True):
            fault = _fault([g])
            if fault:
                where = _path(node.module)
                caller = getattr(node, "caller", "")
                raise RuntimeError(
                    f"the gradient of {node.op.name}{where} has {fault} (input of shape {list(meta[0])}"
                    + (f", called at {caller})" if caller else ")")
                )


class set_detect_anomaly(detect_anomaly):
    """Switches the checks on or off; takes effect at once, also without `with`."""

    def __init__(self, mode: bool, check_nan: bool = True):
        super().__init__(mode and check_nan)
        super().__enter__()

    def __enter__(self) -> None:
        pass


def is_anomaly_enabled() -> bool:
    """Whether `detect_anomaly` is active in this thread."""
    return mode.anomaly is not None


def _flat(values: Iterable[Any]) -> list[Any]:
    flat: list[Any] = []
    for v in values:
        flat.extend(_flat(v) if isinstance(v, list | tuple) else [v])
    return flat


def _fault(values: Iterable[Any]) -> str:
    """What is wrong with the tensors, arrays or numbers: "a NaN", "an infinity" or nothing."""
    for v in values:
        a = v.array if isinstance(v, Tensor) else v
        if isinstance(a, float | complex):
            a = numpy.asarray(a)
        if not hasattr(a, "dtype") or a.dtype.kind not in "fcV":
            continue
        if a.dtype.kind == "V":
            a = a.astype(numpy.float32)
        with numpy.errstate(invalid="ignore"):
            finite = bool((a - a == 0).all())  # x - x is NaN for infinities as well; works on any array library
        if not finite:
            return "a NaN" if bool((a != a).any()) else "an infinity"
    return ""


def _path(modules: tuple | None) -> str:
    if not modules:
        return ""
    root, inner = modules
    for name, module in root.named_modules():
        if module is inner:
            return f" in module {name or '(the model itself)'} ({type(inner).__name__})"
    return f" in a {type(inner).__name__}"


def _caller() -> str:
    """File and line of the innermost frame outside this package."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "?"
