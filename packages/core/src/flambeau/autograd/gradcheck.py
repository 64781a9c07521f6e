"""Gradients against finite differences: `gradcheck`, `gradgradcheck`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import backends
from ..tensor import Tensor
from .engine import grad


class GradcheckError(RuntimeError):
    """A gradient that differs from finite differences."""


def _differentiable(values: Sequence[Any]) -> list[Tensor]:
    return [t for t in values if isinstance(t, Tensor) and t.array.dtype.kind in "fc" and t.requires_grad]


def _outputs(func: Callable, inputs: Sequence[Any]) -> list[Tensor]:
    out = func(*inputs)
    return _differentiable(list(out) if isinstance(out, tuple | list) else [out])


def _refuse(options: dict[str, Any]) -> None:
    asked = [name for name, value in options.items() if value]
    if asked:
        raise NotImplementedError(f"gradcheck: {', '.join(asked)} is not supported")


def gradcheck(
    func: Callable,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Compares the gradients of `func(*inputs)` with central differences; True when they agree.

    inputs: double-precision tensors (real or complex); those that require a gradient are checked. Each output is
    weighted with random cotangents and every element of every input is moved by `eps`; fast_mode moves all elements
    together in random directions. nondet_tol: how far two runs of backward may differ. check_undefined_grad: also
    runs backward from each output alone. Errors: GradcheckError naming input, element and both numbers (or False is
    returned, without raise_exception); ValueError for inputs in single precision.

    >>> import flambeau
    >>> x = flambeau.tensor([1.0, 2.0], dtype=flambeau.float64, requires_grad=True)
    >>> flambeau.autograd.gradcheck(lambda x: (x * x).sum(), x)
    True
    """
    _refuse(
        {
            "check_forward_ad": check_forward_ad,
            "check_batched_forward_grad": check_batched_forward_grad,
            "masked": masked,
        }
    )
    if not check_backward_ad:
        raise ValueError("gradcheck: nothing to check, as check_backward_ad is False")
    values = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    try:
        _check(func, values, eps, atol, rtol, nondet_tol, fast_mode)
        if check_undefined_grad:
            _check_undefined(func, values)
        if check_batched_grad:
            _check_batched(func, values, atol, rtol)
        if check_grad_dtypes:
            _check_dtypes(func, values)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _check(
    func: Callable, inputs: list, eps: float, atol: float, rtol: float, nondet_tol: float, fast_mode: bool
) -> None:
    checked = _differentiable(inputs)
    if not checked:
        raise ValueError("gradcheck: at least one input must require a gradient")
    for t in checked:
        if t.array.dtype not in (np.float64, np.complex128):
            raise ValueError(f"gradcheck needs float64 or complex128 inputs, not {t.dtype}: differences are too coarse")
    outs = _outputs(func, inputs)
    if not outs:
        raise ValueError("gradcheck: no output requires a gradient")
    rng = np.random.default_rng(0)
    cotangents = [_random(rng, o.array) for o in outs]
    weights = [Tensor._wrap(c) for c in cotangents]
    analytic = grad(outs, checked, weights, retain_graph=True, allow_unused=True)
    again = grad(outs, checked, weights, allow_unused=True)
    for k, (a, b) in enumerate(zip(analytic, again, strict=True)):
        moved = float(abs(a.array - b.array).max()) if a is not None and a.array.size else 0.0
        if moved > nondet_tol:
            raise GradcheckError(
                f"backward is not deterministic: the gradient of input {k} differs by {moved:.3g} between two runs "
                f"(nondet_tol={nondet_tol})"
            )

    def value() -> float:
        return float(
            sum((o.array * c.conj()).real.sum() for o, c in zip(_outputs(func, inputs), cotangents, strict=True))
        )

    for k, (t, a) in enumerate(zip(checked, analytic, strict=True)):
        have = np.zeros_like(t.array) if a is None else a.array
        moves = _random_move(t.array, rng) if fast_mode else _single_moves(t.array)
        for where, direction in moves:
            numeric = _difference(value, t.array, direction, eps)
            formula = float((have * direction.conj()).real.sum())
            if not np.isclose(formula, numeric, rtol=rtol, atol=atol):
                raise GradcheckError(
                    f"the gradient of input {k} at {where}: backward gives {formula:.8g}, "
                    f"finite differences {numeric:.8g} (difference {abs(formula - numeric):.3g}, atol={atol:g}, "
                    f"rtol={rtol:g})"
                )


def _random(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    values = rng.uniform(0.5, 1.5, like.shape)
    if like.dtype.kind == "c":
        values = values + 1j * rng.uniform(0.5, 1.5, like.shape)
    host = np.asarray(values, like.dtype)
    backend = backends.of(like)
    return host if backend is backends.cpu else backend.from_host(host, backend.device_of(like))


def _single_moves(a: np.ndarray) -> Iterator[tuple[Any, np.ndarray]]:
    """Each element alone; a complex one along both axes."""
    for i in np.ndindex(*a.shape):
        for step, label in ((1.0, ""), (1j, " (imaginary part)"))[: 1 + (a.dtype.kind == "c")]:
            direction = np.zeros_like(a)
            direction[i] = step
            yield f"{i}{label}", direction


def _random_move(a: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[Any, np.ndarray]]:
    for _ in range(2):
        direction = _random(rng, a) - (1 + 1j if a.dtype.kind == "c" else 1)
        yield "a random direction", direction


def _difference(value: Callable[[], float], a: np.ndarray, direction: np.ndarray, eps: float) -> float:
    """The central difference of `value` when the memory of `a` moves along `direction`."""
    old = a.copy()
    try:
        a[...] = old + eps * direction
        up = value()
        a[...] = old - eps * direction
        return (up - value()) / (2 * eps)
    finally:
        a[...] = old


def _check_undefined(func: Callable, inputs: list) -> None:
    """Backward from each output alone: the formulas must bear it that the others have no cotangent."""
    checked = _differentiable(inputs)
    count = len(_outputs(func, inputs))
    for k in range(count if count > 1 else 0):
        out = _outputs(func, inputs)[k]
        try:
            grad(out, checked, Tensor._wrap(np.ones_like(out.array)), allow_unused=True)
        except (TypeError, AttributeError) as e:
            raise GradcheckError(f"backward fails when only output {k} has a gradient: {e}") from e


def _check_dtypes(func: Callable, inputs: list) -> None:
    checked = _differentiable(inputs)
    outs = _outputs(func, inputs)
    got = grad(outs, checked, [Tensor._wrap(np.ones_like(o.array)) for o in outs], allow_unused=True)
    for k, (g, t) in enumerate(zip(got, checked, strict=True)):
        if g is not None and g.array.dtype != t.array.dtype:
            raise GradcheckError(f"the gradient of input {k} has dtype {g.dtype}, the input {t.dtype}")


def _check_batched(func: Callable, inputs: list, atol: float, rtol: float) -> None:
    """vmap over backward against backward one by one."""
    from ..func import vjp, vmap  # not at the top: func needs autograd

    places = [i for i, t in enumerate(inputs) if any(t is c for c in _differentiable(inputs))]

    def of_checked(*values: Tensor) -> tuple:
        full = list(inputs)
        for i, v in zip(places, values, strict=True):
            full[i] = v
        return tuple(_outputs(func, full))

    outs, pull = vjp(of_checked, *[inputs[i].detach() for i in places])
    rng = np.random.default_rng(2)
    cotangents = tuple(
        Tensor._wrap(backends.of(o.array).xp.stack([_random(rng, o.array) for _ in range(2)])) for o in outs
    )
    batched = vmap(lambda *c: pull(c))(*cotangents)
    for k in range(2):
        single = pull(tuple(c[k] for c in cotangents))
        for i, (b, s) in enumerate(zip(batched, single, strict=True)):
            if not np.allclose(b[k].array, s.array, rtol=rtol, atol=atol):
                raise GradcheckError(f"the batched gradient of input {i} differs from that of a single backward")


def gradgradcheck(
    func: Callable,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """Compares second derivatives of `func(*inputs)` with central differences of the first; as `gradcheck`.

    grad_outputs: cotangents of the outputs, random ones when not given.
    """
    _refuse({"check_fwd_over_rev": check_fwd_over_rev, "masked": masked})
    if not check_rev_over_rev:
        raise ValueError("gradgradcheck: nothing to check, as check_rev_over_rev is False")
    values = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [i for i, t in enumerate(values) if any(t is c for c in _differentiable(values))]
    outs = _outputs(func, values)
    if grad_outputs is None:
        rng = np.random.default_rng(1)
        cotangents = [_random(rng, o.array) for o in outs]
        if gen_non_contig_grad_outputs:
            cotangents = [np.repeat(c, 2, -1)[..., ::2] if c.ndim else c for c in cotangents]
        weights = [Tensor._wrap(c).requires_grad_() for c in cotangents]
    else:
        weights = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)

    def first(*args: Tensor) -> tuple:
        ins, cots = args[: len(values)], args[len(values) :]
        got = grad(_outputs(func, ins), [ins[i] for i in checked], list(cots), create_graph=True, allow_unused=True)
        return tuple(g for g in got if g is not None)

    if not any(o.requires_grad for o in first(*values, *weights)):
        return True
    return gradcheck(
        first, [*values, *weights], eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception,
        nondet_tol=nondet_tol, check_undefined_grad=check_undefined_grad, check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad, fast_mode=fast_mode,
    )  # fmt: skip
