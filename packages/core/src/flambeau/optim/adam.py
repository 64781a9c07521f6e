"""Adam, with weight decay in the gradient or apart from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ..tensor import Tensor
from .optimizer import Optimizer
from .together import Together
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
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
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

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, eps, weight_decay = float(group["lr"]), group["eps"], group["weight_decay"]
        beta1, beta2 = (float(beta) for beta in group["betas"])
        decoupled, amsgrad = group["decoupled_weight_decay"], group["amsgrad"]
        coupled_decay = 0 if decoupled else weight_decay
        shrink = 1 - lr * weight_decay if decoupled else 1

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            xp = namespace(param)
            step = advance(state)
            scale = lr / (1 - beta1**step)
            correction = math.sqrt(1 - beta2**step)
            largest = [state["max_exp_avg_sq"].array] if amsgrad else []
            averages = state["exp_avg"].array, state["exp_avg_sq"].array
            for p, g, m, v, *top, work, other in blocks(param, grad, *averages, *largest, work=2):
                if shrink != 1:
                    p *= shrink
                g = decayed(g, p, coupled_decay, other)
                average(m, g, beta1, work)
                average_square(v, g, beta2, work)
                if amsgrad:
                    xp.maximum(top[0], v, out=top[0])
                    v = top[0]
                xp.sqrt(v, out=work)
                work += eps * correction  # sqrt(v) / c + eps is (sqrt(v) + eps * c) / c: one division less
                xp.divide(m, work, out=work)
                work *= scale * correction
                p -= work

        if not amsgrad:
            sign = -1 if group["maximize"] else 1
            numbers = lr, beta1, beta2, float(eps), shrink, float(coupled_decay), sign
            update.together = Together("adam", ("exp_avg", "exp_avg_sq"), "step", numbers)  # type: ignore[attr-defined]
        return update


class AdamW(Adam):
    """:class:`Adam` with weight decay apart from the gradient: ``p *= 1 - lr * weight_decay``.

    Loshchilov & Hutter 2019.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
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
