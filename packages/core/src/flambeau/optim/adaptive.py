"""Optimizers with a step size per element other than Adam: RMSprop, Adagrad, Adadelta; and Lion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import backends
from ..tensor import Tensor
from .optimizer import Optimizer, advance, blocks, check_betas, check_range, decayed, new_step, zeros_like


class RMSprop(Optimizer):
    """``p -= lr * g / (sqrt(v) + eps)`` with v the moving average of g squared (Hinton 2012).

    ``centered`` subtracts the square of the average gradient from v (Graves 2013).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_range(lr=lr, eps=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        super().__init__(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                alpha=alpha,
                eps=eps,
                centered=centered,
                weight_decay=weight_decay,
                capturable=capturable,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
            ),
        )

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        state = {"step": new_step(), "square_avg": zeros_like(param)}
        if group["momentum"] > 0:
            state["momentum_buffer"] = zeros_like(param)
        if group["centered"]:
            state["grad_avg"] = zeros_like(param)
        return state

    def _update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = backends.of(param).xp
        advance(state)
        lr, alpha, momentum, centered = float(group["lr"]), group["alpha"], group["momentum"], group["centered"]
        names = ["square_avg"] + ["momentum_buffer"] * (momentum > 0) + ["grad_avg"] * centered
        for p, g, v, *rest in blocks(param, grad, *(state[name].array for name in names)):
            g = decayed(g, p, group["weight_decay"])
            v *= alpha
            v += (1 - alpha) * g * g
            if centered:
                average = rest[-1]
                average += (1 - alpha) * (g - average)
                scale = xp.sqrt(v - average * average)
            else:
                scale = xp.sqrt(v)
            scale += group["eps"]
            xp.divide(g, scale, out=scale)
            if momentum > 0:
                rest[0][...] = momentum * rest[0] + scale
                scale = rest[0]
            p -= lr * scale


class Adagrad(Optimizer):
    """``p -= lr * g / (sqrt(sum of all g squared) + eps)`` (Duchi et al. 2011)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_range(
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )
        super().__init__(
            params,
            dict(
                lr=lr,
                lr_decay=lr_decay,
                eps=eps,
                weight_decay=weight_decay,
                initial_accumulator_value=initial_accumulator_value,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
                fused=fused,
            ),
        )

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        total = backends.of(param).xp.full_like(param, group["initial_accumulator_value"])
        return {"step": new_step(), "sum": Tensor._wrap(total)}

    def _update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = backends.of(param).xp
        lr = float(group["lr"]) / (1 + (advance(state) - 1) * group["lr_decay"])
        for p, g, total in blocks(param, grad, state["sum"].array):
            g = decayed(g, p, group["weight_decay"])
            total += g * g
            p -= lr * g / (xp.sqrt(total) + group["eps"])


class Adadelta(Optimizer):
    """Steps scaled by the ratio of the averages of past steps and gradients (Zeiler 2012)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_range(lr=lr, eps=eps, weight_decay=weight_decay)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"invalid rho value: {rho}; it must lie in [0, 1]")
        super().__init__(
            params,
            dict(
                lr=lr,
                rho=rho,
                eps=eps,
                weight_decay=weight_decay,
                maximize=maximize,
                capturable=capturable,
                foreach=foreach,
                differentiable=differentiable,
            ),
        )

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": new_step(), "square_avg": zeros_like(param), "acc_delta": zeros_like(param)}

    def _update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = backends.of(param).xp
        advance(state)
        lr, rho, eps = float(group["lr"]), group["rho"], group["eps"]
        for p, g, v, d in blocks(param, grad, state["square_avg"].array, state["acc_delta"].array):
            g = decayed(g, p, group["weight_decay"])
            v *= rho
            v += (1 - rho) * g * g
            delta = xp.sqrt(d + eps) / xp.sqrt(v + eps) * g
            d *= rho
            d += (1 - rho) * delta * delta
            p -= lr * delta


class Lion(Optimizer):
    """Steps of constant size along the sign of an average gradient (Chen et al. 2023), weight decay as in AdamW.

    Needs a learning rate 3 to 10 times smaller, and a weight decay as many times larger, than AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        check_range(lr=lr, weight_decay=weight_decay)
        check_betas(betas)
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize))

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        return {"exp_avg": zeros_like(param)}

    def _update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = backends.of(param).xp
        lr, (beta1, beta2) = float(group["lr"]), group["betas"]
        for p, g, m in blocks(param, grad, state["exp_avg"].array):
            p *= 1 - lr * group["weight_decay"]
            p -= lr * xp.sign(beta1 * m + (1 - beta1) * g)
            m *= beta2
            m += (1 - beta2) * g
