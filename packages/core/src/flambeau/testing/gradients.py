"""Gradients against finite differences, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import grad
from ..tensor import Tensor


def _outputs(function: Callable, inputs: Sequence[Tensor]) -> list[Tensor]:
    out = function(*inputs)
    outs = list(out) if isinstance(out, tuple | list) else [out]
    return [o for o in outs if isinstance(o, Tensor) and o.array.dtype.kind in "fc" and o.requires_grad]


def gradcheck(
    function: Callable,
    inputs: Any,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compares the gradients of `function(*inputs)` with central differences.

    inputs: float64 tensors; those that require a gradient are checked. Directional: random cotangents are used for
    the outputs and every input element is moved. Errors: AssertionError naming input and element (or returns False).
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [t for t in inputs if isinstance(t, Tensor) and t.requires_grad]
    for t in checked:
        if t.array.dtype != np.float64:
            raise ValueError(f"gradcheck needs float64 inputs, not {t.dtype}: float32 is too coarse for differences")
    outs = _outputs(function, inputs)
    rng = np.random.default_rng(0)
    cotangents = [rng.uniform(0.5, 1.5, o.array.shape) for o in outs]
    analytic = grad(outs, checked, [Tensor._wrap(c) for c in cotangents], allow_unused=True)

    def value() -> float:
        return float(sum((o.array * c).sum() for o, c in zip(_outputs(function, inputs), cotangents, strict=True)))

    for k, (t, a) in enumerate(zip(checked, analytic, strict=True)):
        numeric = np.zeros(t.array.shape)
        for i in np.ndindex(*t.array.shape):
            old = t.array[i]
            t.array[i] = old + eps
            up = value()
            t.array[i] = old - eps
            down = value()
            t.array[i] = old
            numeric[i] = (up - down) / (2 * eps)
        have = np.zeros(t.array.shape) if a is None else a.array
        if not np.allclose(have, numeric, rtol=rtol, atol=atol):
            if not raise_exception:
                return False
            worst = np.unravel_index(np.abs(have - numeric).argmax(), numeric.shape) if numeric.ndim else ()
            raise AssertionError(
                f"gradient of input {k} at {tuple(int(w) for w in worst)}: "
                f"formula {have[worst]:.8g}, finite differences {numeric[worst]:.8g}"
            )
    return True


def gradgradcheck(function: Callable, inputs: Any, **tolerances: Any) -> bool:
    """Compares second derivatives with central differences of the first."""
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [i for i, t in enumerate(inputs) if isinstance(t, Tensor) and t.requires_grad]
    outs = _outputs(function, inputs)
    rng = np.random.default_rng(1)
    cotangents = [Tensor._wrap(rng.uniform(0.5, 1.5, o.array.shape)).requires_grad_() for o in outs]

    def first(*args: Tensor) -> tuple:
        ins, cots = args[: len(inputs)], args[len(inputs) :]
        got = grad(_outputs(function, ins), [ins[i] for i in checked], list(cots), create_graph=True, allow_unused=True)
        return tuple(g for g in got if g is not None)

    if not any(o.requires_grad for o in first(*inputs, *cotangents)):
        return True
    return gradcheck(first, [*inputs, *cotangents], **tolerances)
