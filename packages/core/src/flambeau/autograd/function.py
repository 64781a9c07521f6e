"""`Function`: an operation with a backward of its own, for what no composition of ops gives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from .. import backends
from ..tensor import Tensor, as_array
from .engine import Node, mark_modified, next_sequence
from .modes import mode


class FunctionNode(Node):
    """One call of a `Function`: the node in the graph and the `ctx` of forward and backward at once, as in PyTorch."""

    __slots__ = ("_dirty", "_function", "_materialize", "_outputs", "_plain", "_tensors", "needs_input_grad")

    _function: type[Function]
    needs_input_grad: tuple[bool, ...]
    _shapes: list[Any]  # of the outputs: (shape, dtype, array namespace), None for what is no tensor

    def __init__(self, function: type[Function], needs: tuple[bool, ...]):
        self._function = function
        self.needs_input_grad = needs
        self.op = _Named(function.__name__)
        self.plan = self.out = None
        self.edges = self.metas = self.saved = ()
        self._tensors: tuple = ()  # what forward saves, until the call is recorded; then it is in `saved`
        self._dirty: tuple = ()
        self._plain: tuple = ()
        self._outputs: dict[int, int] = {}
        self._materialize = True

    # -- what forward calls --------------------------------------------------------------------------------------
    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors (inputs, outputs or others) for backward; read them there from `saved_tensors`."""
        if not all(t is None or isinstance(t, Tensor) for t in tensors):
            raise TypeError("save_for_backward takes tensors; keep other values as attributes of ctx")
        self._tensors = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says which inputs forward changed in place; they must be returned as well."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Says which outputs have no gradient."""
        self._plain = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros (the default) or None for outputs that nobody used."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple:
        """What `save_for_backward` kept. Errors: RuntimeError once the graph has been freed."""
        if self.saved is None:
            raise RuntimeError(
                "the saved tensors were freed by the first backward; call that with retain_graph=True to use them again"
            )
        return tuple(
            # An output is kept as an array: kept as a tensor, it and this node would hold each other for ever.
            Tensor._from_edge(t, (self, self._outputs[i])) if i in self._outputs else t
            for i, t in enumerate(self.saved)
        )

    # -- what the engine calls -----------------------------------------------------------------------------------
    def gradients(self, g: Any, recording: bool) -> list[Any]:
        """The gradients for `edges`, from the function's backward."""
        given = list(g) if self.out_metas is not None else [g]
        for i, value in enumerate(given):
            if value is None and self._materialize:
                shape, dtype, xp = self._shapes[i]
                given[i] = xp.zeros(shape, dtype)
        tensors = [v if v is None or isinstance(v, Tensor) else Tensor._wrap(as_array(v)) for v in given]
        got = self._function.backward(self, *tensors)
        results = list(got) if isinstance(got, tuple | list) else [got]
        needs = self.needs_input_grad
        if len(results) > len(needs) and all(r is None for r in results[len(needs) :]):
            results = results[: len(needs)]
        if len(results) != len(needs):
            raise RuntimeError(
                f"{self._function.__name__}.backward returned {len(results)} gradients for {len(needs)} inputs of "
                "forward; return one for each, None where there is none"
            )
        wanted = [r for r, need in zip(results, needs, strict=True) if need]
        return [r if recording or r is None else r.array for r in wanted]


class _Named:
    """Stands where a node's op stands."""

    has_list = view = False

    def __init__(self, name: str):
        self.name = name


class Function:
    """A custom operation: static methods `forward` and `backward`, called through `apply`.

    `forward(ctx, *args)` (or `forward(*args)` with `setup_context(ctx, inputs, output)`) computes without recording;
    `backward(ctx, *gradients)` returns one gradient, or None, for each argument of forward. Written with Tensor
    operations, backward can be differentiated again.

    >>> import flambeau
    >>> class Cube(flambeau.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x**3
    ...
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return g * 3 * x**2
    >>> x = flambeau.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    setup_context: Callable | None = None

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """What the operation computes."""
        raise NotImplementedError("a Function needs a static method forward")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients of the inputs, given those of the outputs."""
        raise NotImplementedError("a Function needs a static method backward to be differentiated")

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__} is not instantiated; call {type(self).__name__}.apply(...)")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs forward and, if an input requires a gradient, records the call."""
        needs = tuple([isinstance(a, Tensor) and a.requires_grad for a in args])
        recording = mode.grad and any(needs)
        node = FunctionNode(cls, needs)
        mode.grad, previous = False, mode.grad
        try:
            if cls.setup_context is None:
                outputs = cls.forward(node, *args, **kwargs)
            else:
                outputs = cls.forward(*args, **kwargs)
                cls.setup_context(node, args, outputs)
        finally:
            mode.grad = previous
        for t in node._dirty:
            mark_modified(t.array)
        if not recording:
            return outputs
        return _record(node, args, outputs)


def _record(node: FunctionNode, args: Sequence[Any], outputs: Any) -> Any:
    """Hangs the outputs of forward on the node."""
    several = isinstance(outputs, tuple | list)
    results = list(outputs) if several else [outputs]
    sources = [a for a, need in zip(args, node.needs_input_grad, strict=True) if need]
    node.edges = tuple([s._edge or (s, 0) for s in sources])
    node.metas = tuple([(s.array.shape, s.array.dtype) for s in sources])
    node.sequence = next_sequence()
    for i, out in enumerate(results):
        if not isinstance(out, Tensor) or any(out is t for t in node._plain) or out.array.dtype.kind not in "fcV":
            continue
        dirty = any(out is t for t in node._dirty)
        if dirty and out._edge is None and out.requires_grad:
            raise RuntimeError("a leaf tensor that requires a gradient was changed in place by a Function")
        for k, saved in enumerate(node._tensors):
            if saved is out and not any(out is a for a in args):
                node._outputs[k] = i
        if not dirty and any(out is a for a in args):
            results[i] = out = Tensor._wrap(out.array)  # an input handed on: a tensor of its own, the same memory
        out._edge = (node, i)
        out.requires_grad = True
    node.saved = tuple([t.array if k in node._outputs else t for k, t in enumerate(node._tensors)])
    node._tensors = ()
    node._shapes = [
        (r.array.shape, r.array.dtype, backends.of(r.array).xp) if isinstance(r, Tensor) else None for r in results
    ]
    node.out_metas = tuple(s and s[:2] for s in node._shapes) if several else None
    if mode.observe is not None:
        mode.observe(node, outputs)
    return type(outputs)(results) if several and type(outputs) in (tuple, list) else results if several else results[0]


def once_differentiable(backward: Callable) -> Callable:
    """Marks a backward that cannot itself be differentiated; doing so raises."""

    @functools.wraps(backward)
    def wrapped(ctx: Any, *gradients: Any) -> Any:
        if not mode.grad:
            return backward(ctx, *gradients)
        mode.grad = False
        try:
            got = backward(ctx, *gradients)
        finally:
            mode.grad = True
        if any(isinstance(g, Tensor) and g.requires_grad for g in gradients):
            results = got if isinstance(got, tuple) else (got,)
            return tuple([_Once.apply(r.detach().requires_grad_()) if isinstance(r, Tensor) else r for r in results])
        return got

    return wrapped


class _Once(Function):
    """Carries a gradient that must not be differentiated again."""

    @staticmethod
    def forward(ctx: Any, g: Tensor) -> Tensor:
        return g

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")
