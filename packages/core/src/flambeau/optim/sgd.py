"""Stochastic gradient descent, plain and averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..tensor import Tensor
from .optimizer import Optimizer
from .together import Together
from .updates import advance, blocks, check_range, decayed, namespace, new_step, zeros_like


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
        lr: float | Tensor = 1e-3,
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

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, momentum, weight_decay = float(group["lr"]), float(group["momentum"]), group["weight_decay"]
        share, nesterov = 1 - group["dampening"], group["nesterov"]

        def plain(param: Any, grad: Any, state: dict[str, Any]) -> None:
            if param.size < 1024 and not weight_decay:  # the bookkeeping of blocks would cost more than the work
                param -= grad * lr
                return
            multiply = namespace(param).multiply
            for p, g, work in blocks(param, grad):
                multiply(decayed(g, p, weight_decay, work), lr, out=work)
                p -= work

        def with_momentum(param: Any, grad: Any, state: dict[str, Any]) -> None:
            multiply = namespace(param).multiply
            buffer = state.get("momentum_buffer")
            if buffer is None:
                first = grad.copy(order="K")
                if weight_decay:
                    first += weight_decay * param
                buffer = state["momentum_buffer"] = Tensor._wrap(first)
                fresh = True
            else:
                fresh = False
            for p, g, v, work in blocks(param, grad, buffer.array):
                g = decayed(g, p, weight_decay, work)
                if not fresh:
                    v *= momentum
                    if share == 1:
                        v += g
                    else:
                        v += share * g
                if nesterov:
                    g = g + momentum * v
                    g *= lr
                    p -= g
                else:
                    multiply(v, lr, out=work)
                    p -= work

        update = with_momentum if momentum else plain
        kept = ("momentum_buffer",) if momentum else ()  # the first step makes it
        numbers = lr, float(weight_decay), -1 if group["maximize"] else 1, momentum, float(share), nesterov
        update.together = Together("sgd", kept, None, numbers)  # type: ignore[attr-defined]
        return update


class ASGD(Optimizer):
    """SGD with a decaying rate, which also keeps the average ``ax`` of the parameters (Polyak & Juditsky 1992).

    The rate at step t is ``lr / (1 + lambd * lr * t) ** alpha``; averaging starts after ``t0`` steps.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_range(lr=lr, weight_decay=weight_decay)
        super().__init__(
            params,
            dict(
                lr=lr,
                lambd=lambd,
                alpha=alpha,
                t0=t0,
                weight_decay=weight_decay,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
                capturable=capturable,
            ),
        )

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": new_step(), "eta": new_step(float(group["lr"])), "mu": new_step(1), "ax": zeros_like(param)}

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, lambd, weight_decay = float(group["lr"]), group["lambd"], group["weight_decay"]
        alpha, t0 = group["alpha"], group["t0"]

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            multiply = namespace(param).multiply
            step = advance(state)
            eta, mu = float(state["eta"].array), float(state["mu"].array)
            for p, g, average, work in blocks(param, grad, state["ax"].array):
                multiply(decayed(g, p, weight_decay, work), eta, out=work)
                p *= 1 - lambd * eta
                p -= work
                if mu == 1:
                    average[...] = p
                else:
                    average += mu * (p - average)
            state["eta"].array[...] = lr / (1 + lambd * lr * step) ** alpha
            state["mu"].array[...] = 1 / max(1, step - t0)

        return update
