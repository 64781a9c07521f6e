"""PyTorch's ``torch.utils.flop_counter``: floating-point operations, counted from the ops that run.

Counted are matrix products, convolutions, attention and recurrent products, whoever calls them: a layer, a function or
a formula of ``backward()``. A multiply-add is two operations. Elementwise ops, reductions, Fourier transforms and
decompositions count nothing, as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..autograd.modes import mode
from ..nn import hooks

__all__ = ["FlopCounterMode", "OpObserver", "multiply_adds"]


def _size(value: Any) -> int:
    return math.prod(value.shape)


def _matmul(out: Any, input: Any, other: Any, *rest: Any) -> int:
    return _size(out) * input.shape[-1]


def _linear(out: Any, input: Any, *rest: Any) -> int:
    return _size(out) * input.shape[-1]


def _convolution(out: Any, input: Any, weight: Any, *rest: Any) -> int:
    return _size(out) * math.prod(weight.shape[1:])


def _convolution_input_grad(out: Any, grad_output: Any, weight: Any, *rest: Any) -> int:
    return _size(grad_output) * math.prod(weight.shape[1:])


def _convolution_weight_grad(out: Any, grad_output: Any, input: Any, weight_shape: Any, *rest: Any) -> int:
    return _size(grad_output) * math.prod(weight_shape[1:])


def _attention(out: Any, query: Any, key: Any, value: Any, *rest: Any) -> int:
    return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


_FORMULAS: dict[str, Callable[..., int]] = {
    "matmul": _matmul,
    "linear": _linear,
    "linear_activation": _linear,
    "linear_int8": _linear,
    "linear_int4": _linear,
    "convolution": _convolution,
    "convolution_input_grad": _convolution_input_grad,
    "convolution_weight_grad": _convolution_weight_grad,
    "attention": _attention,
}
# Products with the recurrent weight at each step; the gradient has two for each of the forward pass.
_RECURRENT = {name + tail: 1 + bool(tail) for name in ("lstm_sequence", "gru_sequence", "rnn_sequence")
              for tail in ("", "_grad")}  # fmt: skip


def multiply_adds(op: Any, values: list[Any], out: Any) -> int:
    """The multiply-adds of one call of an op of the registry, by the shapes of its arguments and of its result.

    Args:
        op: the op's record, as the dispatcher hands it over.
        values: all its arguments by position, as ``op.bind`` gives them.
        out: the result.
    """
    formula = _FORMULAS.get(op.name)
    if formula is not None:
        return formula(out, *values)
    products = _RECURRENT.get(op.name)
    if products is None:
        return 0
    given = dict(zip(op.params, values, strict=True))
    weights = [given[name] for name in ("w_hh", "w_hr") if given.get(name) is not None]
    return products * sum(given["batch_sizes"]) * sum(_size(w) for w in weights)


class OpObserver:
    """Sees every op that runs inside a ``with`` block in this thread, and the module that it runs in.

    Results and gradients are the same as without it: attention takes its fused form, formulas of ``backward()`` run as
    ops. A subclass defines `on_op`.
    """

    takes_formulas = True  # the interceptor is called for those of backward() as well

    def __init__(self) -> None:
        self.stack: list[Any] = []  # the modules that are running, outermost first

    def on_op(self, op: Any, values: list[Any], out: Any) -> None:
        """An op has run: its record, its arguments by position, its result."""
        raise NotImplementedError

    def on_module(self, module: Any, output: Any) -> None:
        """A module's forward pass is over; it is still the last one of the stack."""

    def symbol(self, array: Any) -> Any:
        """What ``backward()`` starts from: the array as it is."""
        return array

    def __call__(self, op: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        target = kwargs.pop("out", None)
        values = op.bind(args, kwargs)
        if op.composite:  # made of other ops, which come here one by one
            out = op.forward(*values)
        else:
            mode.intercept = self._previous
            try:
                out = op.function(*values)
            finally:
                mode.intercept = self
            self.on_op(op, values, out)
        return out if target is None else _written(op, values, target, out)

    def __enter__(self) -> Any:
        self._handles = (
            hooks.register_module_forward_pre_hook(lambda module, args: self.stack.append(module)),
            hooks.register_module_forward_hook(self._leave, always_call=True),
        )
        self._previous, mode.intercept = mode.intercept, self
        return self

    def __exit__(self, *exc: object) -> None:
        mode.intercept = self._previous
        for handle in self._handles:
            handle.remove()
        self.stack.clear()

    def _leave(self, module: Any, args: Any, output: Any) -> None:
        if self.stack and self.stack[-1] is module:
            self.on_module(module, output)
            self.stack.pop()


def _written(op: Any, values: list[Any], target: Any, out: Any) -> Any:
    """`f(..., out=tensor)`: written by the dispatcher, from the result that is there."""
    from ..ops._dispatch import _into

    return _into(lambda *args: out, values, {"out": target})


class FlopCounterMode(OpObserver):
    """Counts floating-point operations inside a ``with`` block, those of ``backward()`` included.

    Args:
        mods: ignored, as in PyTorch.
        depth: how many levels of modules `get_table` shows.
        display: print the table when the block ends.
        custom_mapping: op name -> ``function(*args, out=result) -> flops``, beside or in place of the built-in ones.

    >>> import flambeau
    >>> with FlopCounterMode(display=False) as counter:
    ...     _ = flambeau.ones(2, 3) @ flambeau.ones(3, 4)
    >>> counter.get_total_flops()
    48
    """

    def __init__(
        self,
        mods: Any = None,
        depth: int = 2,
        display: bool = True,
        custom_mapping: dict[str, Callable[..., int]] | None = None,
    ) -> None:
        super().__init__()
        self.depth, self.display = depth, display
        self.custom_mapping = dict(custom_mapping or {})
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []  # so that ids stay those of one module
        self.flop_counts: dict[str, dict[str, int]] = {"Global": {}}

    def on_op(self, op: Any, values: list[Any], out: Any) -> None:
        custom = self.custom_mapping.get(op.name)
        flops = 2 * multiply_adds(op, values, out) if custom is None else custom(*values, out=out)
        if not flops:
            return
        for name in dict.fromkeys(["Global", *[self._name(i) for i in range(len(self.stack))]]):
            counts = self.flop_counts.setdefault(name, {})
            counts[op.name] = counts.get(op.name, 0) + flops

    def _name(self, position: int) -> str:
        """``ResNet.layer1.0``: the outermost module by its class, the others by their path in it."""
        module, root = self.stack[position], self.stack[0]
        if id(module) not in self._names:
            self._kept.append(root)
            title = type(root).__name__
            for path, m in root.named_modules():
                self._names.setdefault(id(m), f"{title}.{path}" if path else title)
            self._names.setdefault(id(module), type(module).__name__)
        return self._names[id(module)]

    def get_total_flops(self) -> int:
        """All operations so far; a multiply-add is two."""
        return sum(self.flop_counts["Global"].values())

    def get_flop_counts(self) -> dict[str, dict[str, int]]:
        """Operations by module (``"Global"`` is all) and op."""
        return {name: dict(counts) for name, counts in self.flop_counts.items()}

    def get_table(self, depth: int | None = None) -> str:
        """Operations and their share by module, `depth` levels deep."""
        depth = self.depth if depth is None else depth
        total = self.get_total_flops()
        rows = []
        for name, counts in self.flop_counts.items():
            level = 0 if name == "Global" else name.count(".") + 1
            if level <= depth:
                flops = sum(counts.values())
                rows.append(("  " * level + name, f"{flops:,}", f"{flops / total:.1%}" if total else "-"))
        width, figures = (
            max([len(title)] + [len(row[i]) for row in rows]) for i, title in enumerate(("Module", "FLOP"))
        )
        lines = [("Module", "FLOP", "% Total"), *rows]
        return "\n".join(f"{a.ljust(width)}  {b.rjust(figures)}  {c.rjust(7)}" for a, b, c in lines)

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        if self.display and exc[0] is None:
            print(self.get_table())
