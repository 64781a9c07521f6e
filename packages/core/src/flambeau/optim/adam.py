"""Adam and its relatives."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .. import backends
from .optimizer import Optimizer, advance, blocks, check_betas, check_range, decayed, new_step, zeros_like


class Adam(Optimizer):
    """Moving averages m of the gradient and v of its square, corrected for their start at zero:
    ``p -= lr * m / (sqrt(v) + eps)`` (Kingma & Ba 2015). ``amsgrad`` uses the largest v so far (Reddi et al. 2018).

    >>> import flambeau
    >>> w = flambeau.tensor([1.0], requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach()
    tensor([0.9])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
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
                amsgrad=amsgrad,
                maximize=maximize,
                foreach=foreach,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
                decoupled_weight_decay=decoupled_weight_decay,
            ),
        )

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        state = {"step": new_step(), "exp_avg": zeros_like(param), "exp_avg_sq": zeros_like(param)}
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros_like(param)
        return state

    def _update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = backends.of(param).xp
        step = advance(state)
        lr, (beta1, beta2), eps = float(group["lr"]), group["betas"], group["eps"]
        weight_decay, decoupled = group["weight_decay"], group["decoupled_weight_decay"]
        correction1, correction2 = 1 - beta1**step, math.sqrt(1 - beta2**step)
        largest = [state["max_exp_avg_sq"].array] if group["amsgrad"] else []
        for p, g, m, v, *top in blocks(param, grad, state["exp_avg"].array, state["exp_avg_sq"].array, *largest):
            if decoupled:
                p *= 1 - lr * weight_decay
            else:
                g = decayed(g, p, weight_decay)
            work = g * (1 - beta1)
            m *= beta1
            m += work
            xp.multiply(g, g, out=work)
            work *= 1 - beta2
            v *= beta2
            v += work
            if top:
                xp.maximum(top[0], v, out=top[0])
                v = top[0]
            xp.sqrt(v, out=work)
            work /= correction2
            work += eps
            xp.divide(m, work, out=work)
            work *= lr / correction1
            p -= work


class AdamW(Adam):
    """:class:`Adam` with weight decay apart from the gradient: ``p *= 1 - lr * weight_decay``.

    Loshchilov & Hutter 2019.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )


class Adamax(Optimizer):
    """Adam with the largest (decayed) gradient in place of the root of v (Kingma & Ba 2015)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
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

    def _update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = backends.of(param).xp
        step = advance(state)
        lr, (beta1, beta2) = float(group["lr"]), group["betas"]
        for p, g, m, u in blocks(param, grad, state["exp_avg"].array, state["exp_inf"].array):
            g = decayed(g, p, group["weight_decay"])
            m *= beta1
            m += (1 - beta1) * g
            u *= beta2
            xp.maximum(u, abs(g) + group["eps"], out=u)
            p -= (lr / (1 - beta1**step)) * m / u


class NAdam(Optimizer):
    """Adam with Nesterov momentum (Dozat 2016)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
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
        mu_product = new_step()
        mu_product.array += 1
        return {
            "step": new_step(),
            "mu_product": mu_product,
            "exp_avg": zeros_like(param),
            "exp_avg_sq": zeros_like(param),
        }

    def _update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = backends.of(param).xp
        step = advance(state)
        lr, (beta1, beta2), eps = float(group["lr"]), group["betas"], group["eps"]
        mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (step, step + 1))
        state["mu_product"].array *= mu
        product = float(state["mu_product"].array)
        for p, g, m, v in blocks(param, grad, state["exp_avg"].array, state["exp_avg_sq"].array):
            if group["decoupled_weight_decay"]:
                p *= 1 - lr * group["weight_decay"]
            else:
                g = decayed(g, p, group["weight_decay"])
            m *= beta1
            m += (1 - beta1) * g
            v *= beta2
            v += (1 - beta2) * g * g
            scale = xp.sqrt(v / (1 - beta2**step)) + eps
            p -= (lr * (1 - mu) / (1 - product)) * g / scale
            p -= (lr * mu_next / (1 - product * mu_next)) * m / scale


class RAdam(Optimizer):
    """Adam whose adaptive scale is used once its variance is known well enough (Liu et al. 2020)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
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

    def _update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = backends.of(param).xp
        step = advance(state)
        lr, (beta1, beta2), eps = float(group["lr"]), group["betas"], group["eps"]
        correction1, correction2 = 1 - beta1**step, 1 - beta2**step
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / correction2
        for p, g, m, v in blocks(param, grad, state["exp_avg"].array, state["exp_avg_sq"].array):
            if group["decoupled_weight_decay"]:
                p *= 1 - lr * group["weight_decay"]
            else:
                g = decayed(g, p, group["weight_decay"])
            m *= beta1
            m += (1 - beta1) * g
            v *= beta2
            v += (1 - beta2) * g * g
            if length > 5:
                ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                p -= (lr / correction1 * math.sqrt(ratio * correction2)) * m / (xp.sqrt(v) + eps)
            else:
                p -= (lr / correction1) * m
