"""Relatives of Adam: Adamax, NAdam, RAdam."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ..tensor import Tensor
from .optimizer import Optimizer
from .updates import (
    advance,
    average,
    average_square,
    blocks,
    check_betas,
    check_range,
    decayed,
    namespace,
    new_step,
    zeros_like,
)


class Adamax(Optimizer):
    """Adam with the largest (decayed) gradient in place of the root of v (Kingma & Ba 2015)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_range(lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas(betas)
        super().__init__(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
                capturable=capturable,
            ),
        )

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": new_step(), "exp_avg": zeros_like(param), "exp_inf": zeros_like(param)}

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, (beta1, beta2), eps = float(group["lr"]), group["betas"], group["eps"]
        weight_decay = group["weight_decay"]

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            xp = namespace(param)
            scale = lr / (1 - beta1 ** advance(state))
            for p, g, m, u, work, other in blocks(param, grad, state["exp_avg"].array, state["exp_inf"].array, work=2):
                g = decayed(g, p, weight_decay, other)
                average(m, g, beta1, work)
                u *= beta2
                xp.abs(g, out=work)
                work += eps
                xp.maximum(u, work, out=u)
                xp.divide(m, u, out=work)
                work *= scale
                p -= work

        return update


class NAdam(Optimizer):
    """Adam with Nesterov momentum (Dozat 2016)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_range(lr=lr, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
        check_betas(betas)
        super().__init__(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                momentum_decay=momentum_decay,
                decoupled_weight_decay=decoupled_weight_decay,
                maximize=maximize,
                foreach=foreach,
                capturable=capturable,
                differentiable=differentiable,
            ),
        )

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": new_step(),
            "mu_product": new_step(1),
            "exp_avg": zeros_like(param),
            "exp_avg_sq": zeros_like(param),
        }

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, (beta1, beta2), eps = float(group["lr"]), group["betas"], group["eps"]
        weight_decay, decoupled = group["weight_decay"], group["decoupled_weight_decay"]

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            xp = namespace(param)
            step = advance(state)
            mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (step, step + 1))
            counter = state["mu_product"].array
            counter *= mu
            product = float(counter)
            averages = state["exp_avg"].array, state["exp_avg_sq"].array
            for p, g, m, v, work, other in blocks(param, grad, *averages, work=2):
                if decoupled:
                    p *= 1 - lr * weight_decay
                else:
                    g = decayed(g, p, weight_decay, other)
                average(m, g, beta1, work)
                average_square(v, g, beta2, work)
                step_size = g * (lr * (1 - mu) / (1 - product))
                step_size += m * (lr * mu_next / (1 - product * mu_next))
                xp.divide(v, 1 - beta2**step, out=work)
                xp.sqrt(work, out=work)
                work += eps
                step_size /= work
                p -= step_size

        return update


class RAdam(Optimizer):
    """Adam whose adaptive scale is used once its variance is known well enough (Liu et al. 2020)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_range(lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas(betas)
        super().__init__(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                maximize=maximize,
                foreach=foreach,
                capturable=capturable,
                decoupled_weight_decay=decoupled_weight_decay,
                differentiable=differentiable,
            ),
        )

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": new_step(), "exp_avg": zeros_like(param), "exp_avg_sq": zeros_like(param)}

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, (beta1, beta2), eps = float(group["lr"]), group["betas"], group["eps"]
        weight_decay, decoupled = group["weight_decay"], group["decoupled_weight_decay"]
        longest = 2 / (1 - beta2) - 1

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            xp = namespace(param)
            step = advance(state)
            correction1, correction2 = 1 - beta1**step, 1 - beta2**step
            length = longest - 2 * step * beta2**step / correction2
            averages = state["exp_avg"].array, state["exp_avg_sq"].array
            for p, g, m, v, work, other in blocks(param, grad, *averages, work=2):
                if decoupled:
                    p *= 1 - lr * weight_decay
                else:
                    g = decayed(g, p, weight_decay, other)
                average(m, g, beta1, work)
                average_square(v, g, beta2, work)
                if length > 5:
                    ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                    xp.sqrt(v, out=work)
                    work += eps
                    xp.divide(m, work, out=work)
                    work *= lr / correction1 * math.sqrt(ratio * correction2)
                else:
                    xp.multiply(m, lr / correction1, out=work)
                p -= work

        return update
