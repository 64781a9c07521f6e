"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..tensor import Tensor
from .optimizer import Optimizer, blocks, check_range, decayed


class SGD(Optimizer):
    """``p -= lr * v`` with ``v = momentum * v + (1 - dampening) * g`` (the gradient itself without momentum).

    ``nesterov`` steps along ``g + momentum * v`` (Sutskever et al. 2013).

    >>> import flambeau
    >>> w = flambeau.tensor([1.0], requires_grad=True)
    >>> optimizer = SGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach()
    tensor([0.8])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_range(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                dampening=dampening,
                weight_decay=weight_decay,
                nesterov=nesterov,
                maximize=maximize,
                foreach=foreach,
                differentiable=differentiable,
                fused=fused,
            ),
        )

    def _update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, momentum, weight_decay = float(group["lr"]), group["momentum"], group["weight_decay"]
        if not momentum:
            for p, g in blocks(param, grad):
                p -= lr * decayed(g, p, weight_decay)
            return
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = Tensor._wrap(decayed(grad, param, weight_decay).copy())
            fresh = True
        else:
            fresh = False
        for p, g, v in blocks(param, grad, state["momentum_buffer"].array):
            g = decayed(g, p, weight_decay)
            if not fresh:
                v *= momentum
                v += (1 - group["dampening"]) * g
            step = (g + momentum * v) if group["nesterov"] else v
            p -= lr * step
