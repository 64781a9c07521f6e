"""Function transforms: `grad`, `vjp`, `jvp`, `jacrev`, `jacfwd`, `hessian`, `linearize`.

Each one runs the function on fresh tensors that record, and asks the engine for gradients with respect to these. Under
`vmap` the tensors are batched: everything happens on the physical tensors below, where an argument that is the same
for all samples is first expanded, so that every sample gets a gradient of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import ops
from ..autograd import engine
from ..autograd.engine import Node
from ..autograd.modes import enable_grad, intercepting, mode
from ..tensor import Tensor
from . import _tree
from ._batched import BatchedTensor, levels, lift, lower
from .vmap import vmap


class _Recording:
    """One run of a function on fresh inputs, from which cotangents are pulled back."""

    def __init__(self, values: Sequence[Tensor], name: str):
        self.levels = levels.active
        self.recording = mode.grad  # whether the caller may ask for gradients of what comes out
        self.outer = False
        self.fresh: list[Tensor] = []  # what the engine differentiates by, physical
        for v in values:
            if not isinstance(v, Tensor):
                raise ValueError(f"{name}: expected a tensor to differentiate by, but got {type(v).__name__}")
            low = lower(v, self.levels)
            if low.requires_grad and self.recording:
                self.outer = True
                with enable_grad(), intercepting(None):
                    self.fresh.append(ops.expand(low, tuple(low.array.shape)))
            else:
                self.fresh.append(low.detach().requires_grad_())
        self.inputs = [lift(t, self.levels) for t in self.fresh]

    def run(self, function: Callable, *args: Any) -> Any:
        """`function` with recording on, whatever the caller's mode."""
        with enable_grad():
            return function(*args)

    def seal(self, outputs: Iterable[Tensor]) -> None:
        """Looks whether the outputs depend on anything else that records: then gradients are recorded as well."""
        if self.recording and not self.outer:
            self.outer = _reaches_others([lower(t, self.levels) for t in outputs], self.fresh)

    def release(self, t: Any) -> Any:
        """A result for the caller: without this recording's history, unless that leads on to the caller's own."""
        return t if not isinstance(t, Tensor) or self.outer else t.detach()

    def pull(self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor], retain: bool, record: bool = False) -> list:
        """The gradients of the outputs for the fresh inputs (zeros where there is no way), with the caller's levels."""
        record = record or self.outer
        pairs = [
            (o, lower(c, self.levels))
            for o, c in zip([lower(o, self.levels) for o in outputs], cotangents, strict=True)
            if o.requires_grad
        ]
        if not pairs:
            return [lift(ops.zeros_like(t), self.levels) for t in self.fresh]
        grads = pulled([o for o, _ in pairs], self.fresh, [c for _, c in pairs], retain, record)
        return [lift(g, self.levels) for g in grads]


def pulled(outputs: list, inputs: list, cotangents: list, retain: bool, record: bool) -> list[Tensor]:
    """`engine.grad` with zeros for unused inputs; cotangents may be batched by levels that the outputs do not have."""
    batched = any(isinstance(c, BatchedTensor) for c in cotangents)
    # The formulas see batched cotangents only when they run on Tensors, as they do with create_graph.
    intercept = mode.intercept if batched else None
    if batched and not record:
        intercept = _unrecorded(intercept)
    with intercepting(intercept):
        grads = engine.grad(
            outputs, inputs, cotangents, retain_graph=retain or record or batched, create_graph=record or batched,
            allow_unused=True,
        )  # fmt: skip
    results = [ops.zeros_like(t) if g is None else g for g, t in zip(grads, inputs, strict=True)]
    return results if record else [g.detach() for g in results]


def _unrecorded(intercept: Any) -> Callable:
    def call(op: Any, args: tuple, kwargs: dict) -> Any:
        previous, mode.grad = mode.grad, False
        outer, mode.intercept = mode.intercept, intercept
        try:
            return intercept(op, args, kwargs)
        finally:
            mode.grad, mode.intercept = previous, outer

    return call


def _reaches_others(roots: Sequence[Tensor], own: Sequence[Tensor]) -> bool:
    """Whether the graph below the roots ends in leaves other than `own`."""
    mine = {id(t) for t in own}
    waiting: list = [r._edge[0] if r._edge else r for r in roots if r.requires_grad]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if not isinstance(node, Node):
            if id(node) not in mine:
                return True
            continue
        waiting += [edge[0] for edge in node.edges if edge is not None]
    return False


# -- gradients ---------------------------------------------------------------------------------------------------
def _selected(args: tuple, argnums: Any, name: str) -> list[int]:
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    if not numbers:
        raise RuntimeError(f"{name}: argnums must not be empty")
    found = []
    for n in numbers:
        if not isinstance(n, int):
            raise RuntimeError(f"{name}: argnums must be an int or a tuple of ints, not {argnums!r}")
        if not -len(args) <= n < len(args):
            raise RuntimeError(f"{name}: got argnum {n}, but only {len(args)} positional arguments")
        found.append(n % len(args))
    if len(set(found)) != len(found):
        raise RuntimeError(f"{name}: argnums must be distinct, but they are {argnums!r}")
    return found


def _record_arguments(args: tuple, argnums: Any, name: str) -> tuple[_Recording, tuple, Any]:
    """The recording, all arguments with fresh tensors in the chosen ones, and the structure of these."""
    chosen = _selected(args, argnums, name)
    leaves, structure = _tree.flatten(tuple(args[i] for i in chosen))
    recording = _Recording(leaves, name)
    fresh = _tree.unflatten(recording.inputs, structure)
    full = list(args)
    for i, v in zip(chosen, fresh, strict=True):
        full[i] = v
    return recording, tuple(full), structure


def _with_aux(out: Any, has_aux: bool, name: str) -> tuple[Any, Any]:
    if not has_aux:
        return out, None
    if not (isinstance(out, tuple) and len(out) == 2):
        raise RuntimeError(f"{name}: with has_aux=True the function must return a tuple (output, aux)")
    return out


def grad_and_value(func: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """As `grad`, but (gradients, value) is returned: with has_aux (gradients, (value, aux))."""

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        recording, full, structure = _record_arguments(args, argnums, "grad")
        out, aux = _with_aux(recording.run(lambda: func(*full, **kwargs)), has_aux, "grad")
        if not isinstance(out, Tensor):
            raise RuntimeError(f"grad: expected the function to return a tensor, but it returned {type(out).__name__}")
        if out.ndim:
            raise RuntimeError(
                f"grad: expected the function to return a scalar, but it returned a tensor with {out.ndim} dimensions; "
                "reduce it with .sum() or .mean(), or use vjp or jacrev"
            )
        recording.seal([out])
        if not out.requires_grad:
            grads = [ops.zeros_like(t) for t in recording.inputs]
        else:
            grads = recording.pull([out], [ops.ones_like(out)], recording.outer)
        result = _tree.unflatten(grads, structure)
        result = result if isinstance(argnums, tuple) else result[0]
        value = recording.release(out)
        return result, (value, _tree.map_leaves(recording.release, aux)) if has_aux else value

    return wrapped


def grad(func: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """The function that gives the gradient of `func`, whose output is a scalar, by argument `argnums`.

    The argument may be a dict, list or tuple of tensors: the gradient has the same form. With a tuple of argnums a
    tuple of gradients is returned, with has_aux (gradients, aux). Transforms nest: `grad(grad(f))`, `vmap(grad(f))`.

    Errors: RuntimeError when the output is not a 0-d tensor, or argnums do not fit.

    >>> import flambeau
    >>> flambeau.func.grad(flambeau.func.grad(flambeau.sin))(flambeau.tensor(0.0))
    tensor(-0.)
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        gradients, value = both(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return wrapped


def vjp(func: Callable, *primals: Any, has_aux: bool = False) -> Any:
    """(func(*primals), vjp_fn): vjp_fn takes cotangents in the form of the output, gives those of the primals.

    With has_aux (output, vjp_fn, aux). One primal: its cotangent alone; several: a tuple.

    >>> import flambeau
    >>> out, pull = flambeau.func.vjp(lambda x: x * x, flambeau.tensor([1.0, 2.0]))
    >>> pull(flambeau.tensor([1.0, 1.0]))[0]
    tensor([2., 4.])
    """
    leaves, structure = _tree.flatten(primals)
    recording = _Recording(leaves, "vjp")
    out, aux = _with_aux(recording.run(func, *_tree.unflatten(recording.inputs, structure)), has_aux, "vjp")
    outputs, form = _tree.flatten(out)
    for t in outputs:
        if not isinstance(t, Tensor):
            raise RuntimeError(f"vjp: expected the function to return tensors, but it returned {type(t).__name__}")
    recording.seal(outputs)

    def vjp_fn(*cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> tuple:
        given = cotangents[0] if len(cotangents) == 1 else cotangents
        flat, have = _tree.flatten(given)
        if have.kind is not form.kind or len(flat) != len(outputs):
            raise RuntimeError(
                f"vjp_fn: expected cotangents in the form of the output ({len(outputs)} tensors), but got {len(flat)}"
            )
        for c, t in zip(flat, outputs, strict=True):
            if tuple(c.shape) != tuple(t.shape):
                raise RuntimeError(f"vjp_fn: the cotangent has shape {list(c.shape)}, the output {list(t.shape)}")
        return _tree.unflatten(recording.pull(outputs, flat, retain_graph, bool(create_graph)), structure)

    result = _tree.map_leaves(recording.release, out)
    if has_aux:
        return result, vjp_fn, _tree.map_leaves(recording.release, aux)
    return result, vjp_fn


# -- forward mode ------------------------------------------------------------------------------------------------
def _pushforward(func: Callable, primals: Sequence[Any], has_aux: bool, name: str) -> tuple:
    """(outputs, their form, push, aux): `push` maps tangents of the primals' leaves to those of the outputs.

    By reverse mode twice: the cotangents of the primals are linear in those of the outputs, and the derivative of
    this map is the transpose, which applied to tangents gives J v.
    """
    leaves, structure = _tree.flatten(tuple(primals))
    recording = _Recording(leaves, name)
    out, aux = _with_aux(recording.run(func, *_tree.unflatten(recording.inputs, structure)), has_aux, name)
    outputs, form = _tree.flatten(out)
    for t in outputs:
        if not isinstance(t, Tensor):
            raise RuntimeError(f"{name}: expected the function to return tensors, but it returned {type(t).__name__}")
    recording.seal(outputs)
    low = [lower(t, recording.levels) for t in outputs]
    dummies = [ops.zeros_like(t).requires_grad_() for t in low if t.requires_grad]
    roots = [t for t in low if t.requires_grad]
    back = pulled(roots, recording.fresh, dummies, True, True) if roots else []
    linear = [(k, g) for k, g in enumerate(back) if g.requires_grad]

    def push(tangents: Sequence[Tensor]) -> list[Tensor]:
        for v, t in zip(tangents, leaves, strict=True):
            if not isinstance(v, Tensor) or tuple(v.shape) != tuple(t.shape):
                raise RuntimeError(
                    f"{name}: expected a tangent of shape {list(t.shape)}, but got "
                    f"{list(v.shape) if isinstance(v, Tensor) else type(v).__name__}"
                )
        below = [lower(v, recording.levels) for v in tangents]
        record = recording.outer or (recording.recording and any(v.requires_grad for v in below))
        if linear:
            found = pulled([g for _, g in linear], dummies, [below[k] for k, _ in linear], True, record)
        else:
            found = [ops.zeros_like(d) for d in dummies]
        supply = iter(found)
        results = [next(supply) if t.requires_grad else ops.zeros_like(t) for t in low]
        return [lift(t, recording.levels) for t in results]

    return [recording.release(t) for t in outputs], form, push, _tree.map_leaves(recording.release, aux)


def jvp(func: Callable, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """(func(*primals), its derivative in the direction of the tangents); with has_aux (…, …, aux).

    >>> import flambeau
    >>> flambeau.func.jvp(flambeau.exp, (flambeau.tensor(0.0),), (flambeau.tensor(2.0),))
    (tensor(1.), tensor(2.))
    """
    for what, value in (("primals", primals), ("tangents", tangents)):
        if not isinstance(value, tuple | list) or not value:
            raise RuntimeError(f"jvp: {what} must be a non-empty tuple, not {type(value).__name__}")
    given, have = _tree.flatten(tuple(tangents))
    if have != _tree.flatten(tuple(primals))[1]:
        raise RuntimeError("jvp: tangents must have the form of the primals")
    outputs, form, push, aux = _pushforward(func, primals, has_aux, "jvp")
    pushed = push(given)
    pair = _tree.unflatten(outputs, form), _tree.unflatten(pushed, form)
    return (*pair, aux) if has_aux else pair


def linearize(func: Callable, *primals: Any) -> tuple[Any, Callable]:
    """(func(*primals), jvp_fn): jvp_fn maps tangents in the form of the primals to those of the output."""
    outputs, form, push, _ = _pushforward(func, primals, False, "linearize")

    def jvp_fn(*tangents: Any) -> Any:
        return _tree.unflatten(push(_tree.flatten(tuple(tangents))[0]), form)

    return _tree.unflatten(outputs, form), jvp_fn


# -- Jacobians ---------------------------------------------------------------------------------------------------
def _basis(tensors: Sequence[Tensor]) -> list[Tensor]:
    """For each tensor a (total, *shape) stack: together the unit vectors of all elements."""
    total = sum(t.numel() for t in tensors)
    stacks, start = [], 0
    for t in tensors:
        n = t.numel()
        eye = ops.eye(n, dtype=t.dtype, device=t.device)
        rows = ops.pad_constant(eye, [(start, total - start - n), (0, 0)])
        stacks.append(ops.reshape(rows, (total, *t.shape)))
        start += n
    return stacks


def _pieces(t: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Rows of a Jacobian, (total, …), as one (*shape, …) for each tensor."""
    parts = ops.split(t, [p.numel() for p in tensors]) if len(tensors) > 1 else (t,)
    return [ops.reshape(part, (*p.shape, *part.shape[1:])) for part, p in zip(parts, tensors, strict=True)]


def jacrev(
    func: Callable,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable:
    """The function that gives the Jacobian of `func` by argument `argnums`, row by row in reverse mode.

    For an output of shape S and an argument of shape T it has shape S + T; containers of outputs hold containers of
    arguments. chunk_size rows are computed at a time (None: all). Best when outputs are fewer than inputs.

    >>> import flambeau
    >>> flambeau.func.jacrev(lambda x: x * x)(flambeau.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        recording, full, structure = _record_arguments(args, argnums, "jacrev")
        out, aux = _with_aux(recording.run(lambda: func(*full, **kwargs)), has_aux, "jacrev")
        outputs, form = _tree.flatten(out)
        for t in outputs:
            if not isinstance(t, Tensor):
                raise RuntimeError(
                    f"jacrev: expected the function to return tensors, but it returned {type(t).__name__}"
                )
        recording.seal(outputs)

        def row(*cotangents: Tensor) -> tuple:
            return tuple(recording.pull(outputs, cotangents, True))

        columns = vmap(row, chunk_size=chunk_size)(*_basis(outputs))
        table = [_pieces(c, outputs) for c in columns]  # by input, then by output
        rows = [_tree.unflatten([column[k] for column in table], structure) for k in range(len(outputs))]
        rows = rows if isinstance(argnums, tuple) else [r[0] for r in rows]
        result = _tree.unflatten(rows, form)
        return (result, _tree.map_leaves(recording.release, aux)) if has_aux else result

    return wrapped


def jacfwd(
    func: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable:
    """As `jacrev`, column by column in forward mode. Best when inputs are fewer than outputs."""

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        chosen = _selected(args, argnums, "jacfwd")
        primals = tuple(args[i] for i in chosen)

        def of_chosen(*values: Any) -> Any:
            full = list(args)
            for i, v in zip(chosen, values, strict=True):
                full[i] = v
            return func(*full, **kwargs)

        leaves, structure = _tree.flatten(primals)
        outputs, form, push, aux = _pushforward(of_chosen, primals, has_aux, "jacfwd")
        pushed = vmap(lambda *tangents: tuple(push(tangents)), randomness=randomness)(*_basis(leaves))
        rows = []
        for t, stacked in zip(outputs, pushed, strict=True):
            pieces = [
                ops.permute(p, (*range(v.ndim, p.ndim), *range(v.ndim))) if t.ndim and v.ndim else p
                for p, v in zip(_pieces(stacked, leaves), leaves, strict=True)
            ]
            row = _tree.unflatten(pieces, structure)
            rows.append(row if isinstance(argnums, tuple) else row[0])
        result = _tree.unflatten(rows, form)
        return (result, aux) if has_aux else result

    return wrapped


def hessian(func: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """The function that gives the matrix of second derivatives of `func` by argument `argnums`.

    >>> import flambeau
    >>> flambeau.func.hessian(lambda x: (x**3).sum())(flambeau.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)
