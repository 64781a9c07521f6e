"""Optimizers with a step size per element other than Adam: RMSprop, Adagrad, Adadelta, Rprop; and Lion."""

from __future__ import annotations

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


class RMSprop(Optimizer):
    """``p -= lr * g / (sqrt(v) + eps)`` with v the moving average of g squared (Hinton 2012).

    ``centered`` subtracts the square of the average gradient from v (Graves 2013).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
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

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, alpha, momentum, centered = float(group["lr"]), group["alpha"], group["momentum"], group["centered"]
        eps, weight_decay = group["eps"], group["weight_decay"]
        names = ["square_avg"] + ["momentum_buffer"] * (momentum > 0) + ["grad_avg"] * centered

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            xp = namespace(param)
            advance(state)
            arrays = [state[name].array for name in names]
            for p, g, v, *rest, work, other in blocks(param, grad, *arrays, work=2):
                g = decayed(g, p, weight_decay, other)
                average_square(v, g, alpha, work)
                if centered:
                    average = rest[-1]
                    average += (1 - alpha) * (g - average)
                    xp.multiply(average, average, out=work)
                    xp.subtract(v, work, out=work)
                    xp.sqrt(work, out=work)
                else:
                    xp.sqrt(v, out=work)
                work += eps
                xp.divide(g, work, out=work)
                if momentum > 0:
                    rest[0][...] = momentum * rest[0] + work
                    xp.multiply(rest[0], lr, out=work)
                else:
                    work *= lr
                p -= work

        return update


class Adagrad(Optimizer):
    """``p -= lr * g / (sqrt(sum of all g squared) + eps)`` (Duchi et al. 2011)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
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
        total = namespace(param).full_like(param, group["initial_accumulator_value"])
        return {"step": new_step(), "sum": Tensor._wrap(total)}

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, lr_decay, eps, weight_decay = float(group["lr"]), group["lr_decay"], group["eps"], group["weight_decay"]

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            xp = namespace(param)
            rate = lr / (1 + (advance(state) - 1) * lr_decay)
            for p, g, total, work, other in blocks(param, grad, state["sum"].array, work=2):
                g = decayed(g, p, weight_decay, other)
                xp.multiply(g, g, out=work)
                total += work
                xp.sqrt(total, out=work)
                work += eps
                xp.divide(g, work, out=work)
                work *= rate
                p -= work

        return update


class Adadelta(Optimizer):
    """Steps scaled by the ratio of the averages of past steps and gradients (Zeiler 2012)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1.0,
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

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, rho, eps, weight_decay = float(group["lr"]), group["rho"], group["eps"], group["weight_decay"]

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            xp = namespace(param)
            advance(state)
            for p, g, v, d, work, other in blocks(
                param, grad, state["square_avg"].array, state["acc_delta"].array, work=2
            ):
                g = decayed(g, p, weight_decay, other)
                average_square(v, g, rho, work)
                delta = xp.sqrt(d + eps)
                xp.add(v, eps, out=work)
                delta /= xp.sqrt(work, out=work)
                delta *= g
                average_square(d, delta, rho, work)
                delta *= lr
                p -= delta

        return update


class Rprop(Optimizer):
    """Steps along the sign of the gradient, whose size per element grows while the sign stays and shrinks when it
    turns (Riedmiller & Braun 1993). For whole batches.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_range(lr=lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"invalid eta values: {etas[0]}, {etas[1]}; they must lie in (0, 1) and above 1")
        super().__init__(
            params,
            dict(
                lr=lr,
                etas=etas,
                step_sizes=step_sizes,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
                capturable=capturable,
            ),
        )

    def _initial_state(self, param: Any, group: dict[str, Any]) -> dict[str, Any]:
        sizes = namespace(param).full_like(param, float(group["lr"]))
        return {"step": new_step(), "prev": zeros_like(param), "step_size": Tensor._wrap(sizes)}

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        (shrink, grow), (smallest, largest) = group["etas"], group["step_sizes"]

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            xp = namespace(param)
            advance(state)
            for p, g, before, size, work in blocks(param, grad, state["prev"].array, state["step_size"].array):
                xp.multiply(g, before, out=work)
                turned = work < 0
                size *= xp.where(turned, shrink, xp.where(work > 0, grow, 1.0)).astype(size.dtype)
                xp.clip(size, smallest, largest, out=size)
                before[...] = g
                before[turned] = 0
                xp.sign(before, out=work)
                work *= size
                p -= work

        return update


class Lion(Optimizer):
    """Steps of constant size along the sign of an average gradient (Chen et al. 2023), weight decay as in AdamW.

    Needs a learning rate 3 to 10 times smaller, and a weight decay as many times larger, than AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-4,
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

    def _rule(self, group: dict[str, Any]) -> Callable[[Any, Any, dict[str, Any]], None]:
        lr, (beta1, beta2), weight_decay = float(group["lr"]), group["betas"], group["weight_decay"]

        def update(param: Any, grad: Any, state: dict[str, Any]) -> None:
            xp = namespace(param)
            for p, g, m, work, other in blocks(param, grad, state["exp_avg"].array, work=2):
                p *= 1 - lr * weight_decay
                xp.multiply(m, beta1, out=work)
                xp.multiply(g, 1 - beta1, out=other)
                work += other
                xp.sign(work, out=work)
                work *= lr
                p -= work
                average(m, g, beta2, work)

        numbers = lr, float(beta1), float(beta2), float(1 - lr * weight_decay), -1 if group["maximize"] else 1
        update.together = Together("lion", ("exp_avg",), None, numbers)  # type: ignore[attr-defined]
        return update
