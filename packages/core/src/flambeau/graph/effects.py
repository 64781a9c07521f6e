"""What a traced function does to tensors and optimizers outside of it: gradients left in `.grad`, optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd import engine
from ..autograd.modes import mode
from ..tensor import Tensor
from .ir import Node, Ref
from .symbol import Symbol

if TYPE_CHECKING:
    from .trace import Tracer


class _Unset:
    """The array of a gradient that was not there when the trace began: the first one to arrive takes its place."""

    def __init__(self, watch: Leaves, leaf: Tensor):
        self._watch, self._leaf = watch, leaf

    def __iadd__(self, g: Any) -> Any:
        self._watch.empty_before.append(self._leaf)
        return g.copy()

    def __setitem__(self, index: Any, value: Any) -> None:
        if index is not Ellipsis or value.__class__ is not int or value != 0:  # zero_grad(set_to_none=False)
            self._watch.tracer.broken("a gradient is set that may be there or not when the function begins")
        self._watch.empty_before.append(self._leaf)  # there is nothing to set to zero

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            self._watch.tracer.broken("a gradient is read that may be there or not when the function begins")
        raise AttributeError(f"a gradient that is not known has no attribute {name!r}")


class Gradient:
    """The gradient that a leaf has when the function begins, where a graph holds captured tensors."""

    requires_grad = False
    grad = _edge = _hooks = None

    def __init__(self, leaf: Tensor):
        self.leaf = leaf

    @property
    def array(self) -> np.ndarray:
        """Its memory, as it is now."""
        return self.leaf.grad.array  # type: ignore[union-attr]


class OptimizerStep:
    """One step of an optimizer for the gradients of these parameters; the others have none."""

    def __init__(self, optimizer: Any, params: Sequence[Tensor]):
        self.optimizer, self.params = optimizer, list(params)
        with_gradient = {id(p) for p in params}
        self.others = [p for p in optimizer._params() if id(p) not in with_gradient]
        self.faster: Callable[[Sequence[np.ndarray]], bool] | None = None  # does the step, or returns False

    def __call__(self, gradients: Sequence[np.ndarray]) -> None:
        for p, g in zip(self.params, gradients, strict=True):
            p.grad = Tensor._wrap(g)
        for p in self.others:
            p.grad = None
        if self.faster is None or not self.faster(gradients):
            self.optimizer.step()

    def __repr__(self) -> str:
        return type(self.optimizer).__name__


class Leaves:
    """The tensors whose `.grad` a trace follows. `before` holds what it was, to be put back."""

    def __init__(self, tracer: Tracer, tensors: Iterable[Tensor], optimizers: Iterable[Any]):
        self.tracer = tracer
        self.optimizers = list(optimizers)
        self.empty_before: list[Tensor] = []  # a gradient arrived where there must be none when the function begins
        self.stepped: set[int] = set()  # ids of the parameters' arrays that an optimizer changed
        self.stepped_with: dict[int, int] = {}  # id of a parameter -> value of the gradient of its last step
        every = [*tensors, *(p for o in self.optimizers for p in o._params())]
        self.before = {id(t): (t, t.grad) for t in every if t.requires_grad and t._edge is None}
        self._states = [
            (o, {p: dict(s) for p, s in o.state.items()}, [_settings(g) for g in o.param_groups])
            for o in self.optimizers
        ]
        self._copies: list[tuple[np.ndarray, np.ndarray]] = []
        self._saved: set[int] = set()
        self._own: dict[int, int] = {}  # id of a leaf -> value of the gradient that it has already
        for t, grad in self.before.values():
            if grad is None:
                t.grad = Tensor._wrap(_Unset(self, t))
            elif isinstance(grad.array, np.ndarray):
                symbol = tracer.capture(grad.array, Gradient(t))
                self._own[id(t)] = symbol.id
                t.grad = Tensor._wrap(symbol)

    def gradient(self, t: Tensor) -> Tensor | None:
        """`t.grad` where it is known."""
        g = t.grad
        return None if g is not None and isinstance(g.array, _Unset) else g

    def step(self, optimizer: Any, args: tuple, kwargs: dict) -> None:
        """In place of `optimizer.step()`: does it with the real gradients and adds the node."""
        tracer = self.tracer
        if any(a is not None for a in (*args, *kwargs.values())):
            raise tracer.broken("an optimizer's step gets a closure")
        if not any(o is optimizer for o in self.optimizers):
            raise tracer.broken("an optimizer takes a step that is not among what the function captures")
        params = list(optimizer._params())
        kept = [(p, p.grad) for p in params]
        used = [p for p in params if self.gradient(p) is not None]
        for p in used:
            if not isinstance(p.grad.array, Symbol):  # type: ignore[union-attr]
                raise tracer.broken("the function sets a gradient by itself")
        gradients = [p.grad.array for p in used]  # type: ignore[union-attr]
        for o, state, _ in self._states:
            if o is optimizer and id(o) not in self._saved:
                self._saved.add(id(o))
                self._copies += [(a, a.copy()) for s in state.values() for a in _arrays(s)]
        self._copies += [(p.array, p.array.copy()) for p in used if id(p.array) not in self.stepped]
        targets = [tracer.symbol(p) for p in used]
        call = OptimizerStep(optimizer, used)
        before, mode.intercept = mode.intercept, None
        try:
            call([g.value for g in gradients])
        finally:
            mode.intercept = before
            for p, grad in kept:
                p.grad = grad
        for p, symbol, g in zip(used, targets, gradients, strict=True):
            engine.mark_modified(symbol)  # what was saved of it must not be used any more
            self.stepped.add(id(p.array))
            self.stepped_with[id(p)] = g.id
        refs = tuple([Ref(s.id) for s in targets]), tuple([Ref(g.id) for g in gradients])
        tracer.graph.nodes.append(Node("optimizer.step", (call, *refs), ()))

    def finish(self, captured: Iterable[Tensor]) -> list[tuple[Tensor, Symbol | None]]:
        """What becomes of each `.grad`: (tensor, its gradient). All of them are put back as they were."""
        found: list[tuple[Tensor, Symbol | None]] = []
        for t, grad in self.before.values():
            now = t.grad
            if now is None:
                found.append((t, None))
            elif now is grad or isinstance(now.array, _Unset):
                continue
            elif isinstance(now.array, Symbol):
                if now.array.id != self._own.get(id(t)):
                    found.append((t, now.array))
            else:
                raise self.tracer.broken("the function sets a gradient by itself")
        for t in captured:
            if id(t) not in self.before and t.grad is not None and isinstance(t.grad.array, Symbol):
                raise self.tracer.broken("backward() reaches a tensor that is not among what the function captures")
        used = {v for n in self.tracer.graph.nodes for v in n.inputs()}
        for v in self._own.values():
            if v not in used:
                del self.tracer.graph.captured[v]
        for o, _, groups in self._states:
            if groups != [_settings(g) for g in o.param_groups]:
                raise self.tracer.broken("settings of an optimizer are changed (by a schedule?)")
        return found

    def restore(self, captured: Iterable[Tensor], failed: bool) -> None:
        """Puts back `.grad`; after a failure also the optimizers' states and the parameters."""
        for t in captured:
            if id(t) not in self.before and t.grad is not None and isinstance(t.grad.array, Symbol):
                t.grad = None
        for t, grad in self.before.values():
            t.grad = grad
        if failed:
            for a, copy in reversed(self._copies):
                a[...] = copy
            for o, state, _ in self._states:
                for p in list(o.state):
                    if p not in state:
                        del o.state[p]
                for p, entries in state.items():
                    o.state[p].clear()
                    o.state[p].update(entries)


def _settings(group: dict) -> dict[str, Any]:
    return {k: [id(p) for p in v] if k == "params" else repr(v) for k, v in group.items()}


def _arrays(state: dict) -> list[np.ndarray]:
    return [v.array for v in state.values() if isinstance(v, Tensor)]
