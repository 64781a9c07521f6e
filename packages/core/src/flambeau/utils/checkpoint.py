"""Activation checkpointing: memory for time. What a function saved for backward is dropped and computed again there.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import random
from ..autograd import engine
from ..autograd.function import Function
from ..autograd.modes import enable_grad, intercepting, mode
from ..tensor import Tensor


class CheckpointError(RuntimeError):
    """The function did something else when it was run again."""


class _Enough(BaseException):  # not an Exception: the function's own handlers must not catch it
    """Everything that was dropped has been computed again."""


class _Run:
    """One call under `checkpoint`: how to run it again, and what that gave."""

    def __init__(self, call: Callable[[], Any], args: Sequence[Any], keep_rng: bool, check: bool, early_stop: bool):
        self.call = call
        self.check = check
        self.early_stop = early_stop
        self.rng = random.get_rng_state() if keep_rng else None
        self.intercept = mode.intercept  # autocast, vmap
        self.args = [a for a in args if isinstance(a, Tensor)]
        self.versions = [engine.version(a.array) for a in self.args]
        self.descriptions: list[Any] = []  # of every recorded node, in order
        self.restored: list[Any] | None = None

    def forward(self) -> Any:
        """The first run: its nodes are emptied as they are recorded."""
        outer = mode.observe

        def empty(node: Any, out: Any) -> None:
            k = len(self.descriptions)
            self.descriptions.append(_describe(node))
            node.saved, node.out = _Dropped(self, k), None
            if outer is not None:
                outer(node, out)  # an outer checkpoint takes the node over: it will run this one again

        mode.observe = empty
        try:
            return self.call()
        finally:
            mode.observe = outer

    def restore(self, k: int, node: Any) -> None:
        """Gives the node number k back what it had saved."""
        if self.restored is None:
            self.restored = self._again()
        node.saved, node.out = self.restored[k]
        self.restored[k] = None
        if isinstance(node.saved, _Dropped):  # of a checkpoint inside this one
            node.saved(node)

    def _again(self) -> list[Any]:
        for a, version in zip(self.args, self.versions, strict=True):
            if engine.version(a.array) != version:
                raise CheckpointError(
                    f"an argument of shape {list(a.shape)} of a checkpointed function was changed in place after the "
                    "call; pass a clone"
                )
        nodes: list[Any] = []

        def collect(node: Any, out: Any) -> None:
            nodes.append(node)
            if self.early_stop and len(nodes) == len(self.descriptions):
                raise _Enough

        outer, mode.observe = mode.observe, collect
        here = random.get_rng_state() if self.rng is not None else None
        try:
            if self.rng is not None:
                random.set_rng_state(self.rng)
            with enable_grad(), intercepting(self.intercept):
                self.call()
        except _Enough:
            pass
        finally:
            mode.observe = outer
            if here is not None:
                random.set_rng_state(here)
        self._compare(nodes)
        return [(_settled(n.saved, n), _settled(n.out, n)) for n in nodes]

    def _compare(self, nodes: list[Any]) -> None:
        if len(nodes) != len(self.descriptions):
            raise CheckpointError(
                f"a checkpointed function recorded {len(self.descriptions)} operations in forward and {len(nodes)} "
                "when it was run again in backward; it must do the same both times"
            )
        for k, (was, node) in enumerate(zip(self.descriptions, nodes, strict=True)):
            if self.check and _describe(node) != was:
                raise CheckpointError(
                    f"a checkpointed function did something else when it was run again: operation {k} was {was} and "
                    f"now is {_describe(node)}; determinism_check='none' turns this check off"
                )


class _Dropped:
    """Stands in a node where its saved values were: the engine calls it to have them back."""

    __slots__ = ("k", "run")

    def __init__(self, run: _Run, k: int):
        self.run = run
        self.k = k

    def __call__(self, node: Any) -> None:
        self.run.restore(self.k, node)


def _describe(node: Any) -> tuple:
    return node.op.name, tuple((tuple(shape), str(dtype)) for shape, dtype in (m for m in node.metas if m is not None))


def _settled(saved: Any, node: Any) -> Any:
    """Saved values, those copied whose memory was changed in place before the second run saved them.

    The original node is older than these changes, which therefore look to the engine as if they had come too late.
    """
    if isinstance(saved, _Dropped) or saved is None:
        return saved
    if isinstance(saved, tuple | list):
        return type(saved)(_settled(v, node) for v in saved)
    if hasattr(saved, "base"):
        changed = engine._modified.get(id(engine._owner(saved)))
        if changed is not None and changed[0] < node.sequence:
            return saved.copy()
    return saved


def checkpoint(
    function: Callable,
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable | None = None,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """`function(*args, **kwargs)`, without keeping what backward needs: backward runs the function again for it.

    preserve_rng_state: the second run draws the random numbers of the first (dropout). determinism_check: "default"
    compares operations, shapes and dtypes of both runs, "none" does not. early_stop: the second run ends as soon as
    all is there. use_reentrant: PyTorch's older form, a backward within backward: only then at least one argument
    must require a gradient. Checkpoints nest, and `create_graph=True` works (except with use_reentrant).

    Errors: CheckpointError (a RuntimeError) when the second run differs, or an argument was changed in between.

    >>> import flambeau
    >>> x = flambeau.ones(2, requires_grad=True)
    >>> flambeau.utils.checkpoint.checkpoint(lambda x: x.exp().sin(), x).sum().backward()
    >>> x.grad
    tensor([-2.4784, -2.4784])
    """
    if context_fn is not None or debug:
        raise NotImplementedError("checkpoint: context_fn and debug are not supported")
    if determinism_check not in ("default", "none"):
        raise ValueError(f"checkpoint: determinism_check must be 'default' or 'none', not {determinism_check!r}")
    if use_reentrant:
        if kwargs:
            raise ValueError(f"checkpoint: with use_reentrant=True no keywords are passed on, got {', '.join(kwargs)}")
        return _Reentrant.apply(function, preserve_rng_state, *args)
    if not mode.grad:
        return function(*args, **kwargs)
    run = _Run(
        lambda: function(*args, **kwargs), [*args, *kwargs.values()], preserve_rng_state,
        determinism_check == "default", early_stop,
    )  # fmt: skip
    return run.forward()


class _Reentrant(Function):
    """The older form: forward without recording, and in backward a graph of its own that is run through at once."""

    @staticmethod
    def forward(ctx: Any, function: Callable, keep_rng: bool, *args: Any) -> Any:
        ctx.function, ctx.args = function, args
        ctx.rng = random.get_rng_state() if keep_rng else None
        return function(*args)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if mode.grad:
            raise RuntimeError("checkpoint(use_reentrant=True) does not support create_graph; use use_reentrant=False")
        here = random.get_rng_state() if ctx.rng is not None else None
        try:
            if ctx.rng is not None:
                random.set_rng_state(ctx.rng)
            args = [a.detach().requires_grad_(a.requires_grad) if isinstance(a, Tensor) else a for a in ctx.args]
            with enable_grad():
                outputs = ctx.function(*args)
        finally:
            if here is not None:
                random.set_rng_state(here)
        outputs = outputs if isinstance(outputs, tuple | list) else (outputs,)
        pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if isinstance(o, Tensor) and o.requires_grad]
        if not pairs:
            raise RuntimeError("checkpoint: none of the outputs requires a gradient, so there is nothing to do")
        engine.backward([o for o, _ in pairs], [g for _, g in pairs])
        return (None, None, *[a.grad if isinstance(a, Tensor) else None for a in args])


def checkpoint_sequential(
    functions: Iterable[Callable], segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """The functions (or the modules of a Sequential) one after the other, in `segments` parts.

    All parts but the last are checkpointed. Keywords: preserve_rng_state.
    """
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError(f"checkpoint_sequential: unexpected keyword arguments: {', '.join(kwargs)}")
    chain = list(functions)
    if not 1 <= segments <= len(chain):
        raise ValueError(f"checkpoint_sequential: segments must be between 1 and {len(chain)}, not {segments}")

    def part(start: int, end: int) -> Callable:
        def forward(x: Any) -> Any:
            for f in chain[start:end]:
                x = f(x)
            return x

        return forward

    size = len(chain) // segments
    end = 0
    for k in range(segments - 1):
        input = checkpoint(
            part(k * size, (k + 1) * size), input, use_reentrant=use_reentrant, preserve_rng_state=preserve
        )
        end = (k + 1) * size
    return part(end, len(chain))(input)
