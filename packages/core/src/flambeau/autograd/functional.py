"""Derivatives of functions: `vjp`, `jvp`, `jacobian`, `hessian`, `vhp`, `hvp`, with PyTorch's signatures.

Each takes a function of one tensor or of several and a tensor or a tuple of these, and answers in the same form. With
`create_graph` the answers can be differentiated again; `strict` raises where a derivative would be zero because there
is no way from an input to an output, instead of giving zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import backends
from ..tensor import Tensor
from .engine import grad
from .modes import enable_grad


# -- inputs and outputs ------------------------------------------------------------------------------------------
def _as_tuple(value: Any, what: str, name: str) -> tuple[bool, tuple]:
    """(whether it was a tuple, the tuple)."""
    several = isinstance(value, tuple | list)
    values = tuple(value) if several else (value,)
    for i, v in enumerate(values):
        if not isinstance(v, Tensor):
            where = f"the value at index {i} of the {what}" if several else f"the {what}"
            raise TypeError(f"{name}: {where} must be a tensor, but it is of type {type(v).__name__}")
    return several, values


def _fresh(inputs: Sequence[Tensor], create_graph: bool) -> tuple:
    """Tensors to differentiate by: with create_graph connected to the inputs, so that these get gradients too."""
    return tuple(
        x.view_as(x) if create_graph and x.requires_grad else x.detach().requires_grad_(x.dtype.is_floating_point or
                                                                                       x.dtype.is_complex)
        for x in inputs
    )  # fmt: skip


def _finished(values: Any, create_graph: bool) -> Any:
    if isinstance(values, tuple):
        return tuple(_finished(v, create_graph) for v in values)
    return values if create_graph else values.detach()


def _plain(values: Sequence[Any], several: bool) -> Any:
    return tuple(values) if several else values[0]


def _directions(v: Any, like: Sequence[Tensor], several: bool, name: str, what: str) -> tuple:
    """The vector argument as a tuple with the shapes of `like`; ones when there is a single element and none given."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise RuntimeError(
                f"{name}: the vector v can only be left out when the {what} is one tensor with one element"
            )
        return (_ones(like[0]),)
    given, vectors = _as_tuple(v, "v", name)
    if len(vectors) != len(like) or (given != several and len(like) > 1):
        raise RuntimeError(f"{name}: v has {len(vectors)} tensors, but the {what} has {len(like)}")
    for i, (a, b) in enumerate(zip(vectors, like, strict=True)):
        if tuple(a.shape) != tuple(b.shape):
            raise RuntimeError(
                f"{name}: entry {i} of v has shape {list(a.shape)}, but it must have that of the {what}, "
                f"{list(b.shape)}"
            )
    return vectors


def _ones(t: Tensor) -> Tensor:
    return Tensor._wrap(backends.of(t.array).xp.ones(t.array.shape, t.array.dtype))


def _zeros(t: Tensor) -> Tensor:
    return Tensor._wrap(backends.of(t.array).xp.zeros(t.array.shape, t.array.dtype))


def _check_strict(outputs: Sequence[Tensor], name: str) -> None:
    for i, out in enumerate(outputs):
        if not out.requires_grad:
            raise RuntimeError(f"{name}: output {i} of the function does not depend on any input (strict=True)")


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor], create_graph: bool, strict: bool,
    name: str,
) -> tuple:  # fmt: skip
    """`grad` with zeros (or an error) where an input is not used."""
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    used = [x for x in inputs if x.requires_grad]
    found: list[Any] = []
    if pairs and used:
        found = list(
            grad([o for o, _ in pairs], used, [c for _, c in pairs], retain_graph=True, create_graph=create_graph,
                 allow_unused=True)
        )  # fmt: skip
    supply = iter(found or [None] * len(used))
    results = []
    for i, x in enumerate(inputs):
        g = next(supply) if x.requires_grad else None
        if g is None and strict:
            raise RuntimeError(f"{name}: the output of the function does not depend on input {i} (strict=True)")
        if strict and create_graph and g is not None and not g.requires_grad:
            raise RuntimeError(f"{name}: the derivative does not depend on input {i} (strict=True with create_graph)")
        results.append(_zeros(x) if g is None else g)
    return tuple(results)


def _scalar(outputs: Sequence[Tensor], several: bool, name: str) -> Tensor:
    if several:
        raise RuntimeError(f"{name}: the function should return a single tensor, not a tuple")
    if outputs[0].numel() != 1:
        raise RuntimeError(f"{name}: the function should return one element, but got shape {list(outputs[0].shape)}")
    return outputs[0].reshape(()) if outputs[0].ndim else outputs[0]


# -- products ----------------------------------------------------------------------------------------------------
def vjp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple:
    """(func(inputs), v^T J): the vector v has the form of the output; it may be left out for a single element.

    >>> import flambeau
    >>> x = flambeau.tensor([1.0, 2.0])
    >>> flambeau.autograd.functional.vjp(lambda x: x * x, x, flambeau.ones(2))[1]
    tensor([2., 4.])
    """
    with enable_grad():
        several, values = _as_tuple(inputs, "inputs", "vjp")
        values = _fresh(values, create_graph)
        out_several, outputs = _as_tuple(func(*values), "outputs", "vjp")
        if strict:
            _check_strict(outputs, "vjp")
        vectors = _directions(v, outputs, out_several, "vjp", "output")
        results = _gradients(outputs, values, vectors, create_graph, strict, "vjp")
    return _plain(_finished(outputs, create_graph), out_several), _plain(_finished(results, create_graph), several)


def _double_back(outputs: tuple, values: tuple, vectors: tuple, create_graph: bool, strict: bool, name: str) -> tuple:
    """J v by reverse mode twice: u^T J is linear in u, and the gradient of (u^T J) v by u is J v."""
    dummies = tuple(_zeros(o).requires_grad_() for o in outputs)
    back = _gradients(outputs, values, dummies, True, strict, name)
    return _gradients(back, dummies, vectors, create_graph, strict, name)


def jvp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple:
    """(func(inputs), J v): the vector v has the form of the inputs; it may be left out for a single element.

    Computed by reverse mode twice. `func.jvp` does the same for nested containers and under `vmap`.
    """
    with enable_grad():
        several, values = _as_tuple(inputs, "inputs", "jvp")
        values = _fresh(values, create_graph)
        vectors = _directions(v, values, several, "jvp", "input")
        out_several, outputs = _as_tuple(func(*values), "outputs", "jvp")
        if strict:
            _check_strict(outputs, "jvp")
        results = _double_back(outputs, values, vectors, create_graph, strict, "jvp")
    return _plain(_finished(outputs, create_graph), out_several), _plain(_finished(results, create_graph), out_several)


def _slope(func: Callable, inputs: Any, v: Any, create_graph: bool, strict: bool, name: str) -> tuple:
    """What `vhp` and `hvp` start from: (several inputs?, inputs, directions, output, its gradient, recorded)."""
    several, values = _as_tuple(inputs, "inputs", name)
    values = _fresh(values, create_graph)
    vectors = _directions(v, values, several, name, "input")
    out_several, outputs = _as_tuple(func(*values), "outputs", name)
    out = _scalar(outputs, out_several, name)
    return several, values, vectors, outputs[0], _gradients((out,), values, (_ones(out),), True, strict, name)


def vhp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple:
    """(func(inputs), v^T H) of a function with one output element."""
    with enable_grad():
        several, values, vectors, out, first = _slope(func, inputs, v, create_graph, strict, "vhp")
        results = _gradients(first, values, vectors, create_graph, strict, "vhp")
    return _finished(out, create_graph), _plain(_finished(results, create_graph), several)


def hvp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple:
    """(func(inputs), H v) of a function with one output element; `vhp` gives the same by one pass less."""
    with enable_grad():
        several, values, vectors, out, first = _slope(func, inputs, v, create_graph, strict, "hvp")
        results = _double_back(first, values, vectors, create_graph, strict, "hvp")
    return _finished(out, create_graph), _plain(_finished(results, create_graph), several)


# -- matrices ----------------------------------------------------------------------------------------------------
def jacobian(
    func: Callable, inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The Jacobian: a tensor of shape output + input, in tuples (outputs, inputs) where there are several.

    vectorize: all rows at once through `vmap` instead of one by one. strategy "forward-mode" (with vectorize) goes by
    columns. Errors: ValueError for another strategy, RuntimeError for strict together with vectorize.

    >>> import flambeau
    >>> flambeau.autograd.functional.jacobian(lambda x: x * x, flambeau.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError(f"jacobian: strategy must be 'reverse-mode' or 'forward-mode', not {strategy!r}")
    if strict and vectorize:
        raise RuntimeError("jacobian: strict=True and vectorize=True are not supported together")
    if strategy == "forward-mode":
        if create_graph:
            raise NotImplementedError("jacobian: create_graph=True is not supported with strategy='forward-mode'")
        if not vectorize:
            raise NotImplementedError("jacobian: strategy='forward-mode' needs vectorize=True")
    with enable_grad():
        several, given = _as_tuple(inputs, "inputs", "jacobian")
        if vectorize:
            return _vectorized(func, given, several, create_graph, strategy)
        values = _fresh(given, create_graph)
        out_several, outputs = _as_tuple(func(*values), "outputs", "jacobian")
        if strict:
            _check_strict(outputs, "jacobian")
        table = tuple(_rows(out, values, create_graph, strict) for out in outputs)
    table = _finished(table, create_graph)
    return _plain([_plain(row, several) for row in table], out_several)


def _rows(out: Tensor, values: tuple, create_graph: bool, strict: bool) -> tuple:
    """The Jacobian of one output by every input."""
    from .. import ops  # not at the top: the package ops needs autograd

    flat = out.reshape(-1)
    rows = [_gradients((flat[i],), values, (_ones(flat[i]),), create_graph, strict, "jacobian")
            for i in range(flat.shape[0])]  # fmt: skip
    shape = tuple(out.shape)
    if not rows:
        return tuple(ops.zeros((*shape, *x.shape), dtype=x.dtype, device=x.device) for x in values)
    return tuple(
        ops.stack(list(column)).reshape((*shape, *x.shape)) for column, x in zip(zip(*rows, strict=True), values,
                                                                                 strict=True)
    )  # fmt: skip


def _vectorized(func: Callable, given: tuple, several: bool, create_graph: bool, strategy: str) -> Any:
    from ..func import jacfwd, jacrev  # not at the top: func needs autograd

    inputs = given if create_graph else tuple(x.detach() for x in given)
    transform = jacrev if strategy == "reverse-mode" else jacfwd
    numbers = tuple(range(len(inputs)))
    found = transform(func, numbers if several else 0)(*inputs)
    if isinstance(found, list):
        found = tuple(found)
    return found if create_graph else _finished(found, False)


def hessian(
    func: Callable, inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The matrix of second derivatives of a function with one output element: the Jacobian of its gradient.

    For one input of shape S a tensor of shape S + S, for several a tuple of tuples.
    """
    several, given = _as_tuple(inputs, "inputs", "hessian")
    if outer_jacobian_strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError(
            f"hessian: outer_jacobian_strategy must be 'reverse-mode' or 'forward-mode', "
            f"not {outer_jacobian_strategy!r}"
        )

    def gradient(*values: Tensor) -> Any:
        out_several, outputs = _as_tuple(func(*values), "outputs", "hessian")
        out = _scalar(outputs, out_several, "hessian")
        if strict:
            _check_strict(outputs, "hessian")
        found = _gradients((out,), values, (_ones(out),), True, strict, "hessian")
        return found if several else found[0]

    return jacobian(gradient, given if several else given[0], create_graph, strict, vectorize, outer_jacobian_strategy)
