"""From a graph to one flat Python function: arguments bound, memory planned, no dispatch.

Each node becomes one line. Results of NumPy functions and matrix products go into buffers that are laid out
beforehand from the lifetimes of the values and kept between calls; a call takes one set of buffers, so threads do
not meet. What the function returns is always fresh memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph.ir import Graph, Node, Ref, function_of, refs, substitute
from ..graph.passes import ufunc_of
from . import direct
from .fused import FusedKernel

_BLOCK = 1 << 13  # elements of one block of a fused chain
_MAX_SPARE = 4  # sets of buffers that are kept


class Program:
    """A graph ready to run: `run(static, arrays)` gives the outputs."""

    def __init__(self, graph: Graph, nodes: Sequence[Node], sources: Sequence[int], outputs: Sequence[int], keep: bool):
        """sources: what `run` is given, in order. keep: outputs may be any memory (for the static part)."""
        self.graph = graph
        self.source = ""
        self.buffers: list[tuple[tuple[int, ...], np.dtype]] = []  # (elements, dtype)
        self._globals: dict[str, Any] = {}
        self._spare: list[list[np.ndarray]] = []
        self._function = self._compile(list(nodes), sources, outputs, keep)

    def run(self, arrays: Sequence[Any]) -> Any:
        """The outputs, in a tuple."""
        if not self.buffers:
            return self._function(arrays, ())
        try:
            buffers = self._spare.pop()
        except IndexError:
            buffers = [np.empty(shape, dtype) for shape, dtype in self.buffers]
        out = self._function(arrays, buffers)
        if len(self._spare) < _MAX_SPARE:
            self._spare.append(buffers)
        return out

    @property
    def buffer_bytes(self) -> int:
        """Bytes of one set of buffers."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.buffers)

    # -- building ------------------------------------------------------------------------------------------------
    def _compile(self, nodes: list[Node], sources: Sequence[int], outputs: Sequence[int], keep: bool) -> Callable:
        values = self.graph.values
        last: dict[int, int] = {}  # root -> position of the last use of its memory
        root_of = {v: x.root for v, x in values.items()}
        for i, node in enumerate(nodes):
            for v in (*node.inputs(), *node.outputs):
                last[root_of[v]] = i
        kept = {root_of[v] for v in outputs}
        free: list[int] = []
        where: dict[int, int] = {}  # root -> buffer
        lines = []
        for i, node in enumerate(nodes):

            def buffer(v: int, i: int = i) -> str | None:
                """The name of memory for value `v`; None: to be allocated."""
                want = values[v]
                # Memory of another layout than at the trace would make copies of views and views of copies.
                if keep or root_of[v] != v or v in kept or not want.contiguous:
                    return None
                if want.dtype.kind not in "fbiu" or not want.shape:
                    return None
                for k in free:
                    if self.buffers[k] == (want.shape, want.dtype):
                        free.remove(k)
                        break
                else:
                    self.buffers.append((want.shape, want.dtype))
                    k = len(self.buffers) - 1
                where[v] = k
                return f"b{k}"

            dying = [r for r in dict.fromkeys(root_of[v] for v in node.inputs()) if last[r] == i and r in where]
            elementwise = bool(node.body) or ufunc_of(self.graph, node) is not None
            if elementwise and not node.body:
                # The output may take the place of an input that is read for the last time.
                same = [r for r in dying if values[r].shape == values[node.outputs[0]].shape]
                for r in same:
                    if any(v == r for v in node.inputs()) and all(v == r for v in node.inputs() if root_of[v] == r):
                        free.append(where.pop(r))
                        dying.remove(r)
            lines += self._lines(node, i, buffer)
            for r in dying:
                free.append(where.pop(r))
            for v in node.outputs:
                if last.get(root_of[v]) == i and v in where:
                    free.append(where.pop(v))
        arguments = "".join(f"v{v}, " for v in sources)
        head = ["def replay(arrays, buffers):"]
        if sources:
            head.append(f"({arguments}) = arrays")
        if self.buffers:
            head.append(f"({''.join(f'b{k}, ' for k in range(len(self.buffers)))}) = buffers")
        lines = [*head, *lines, f"return ({''.join(f'v{v}, ' for v in outputs)})"]
        self.source = "\n    ".join(lines)
        exec(compile(self.source, "<flambeau.compile>", "exec"), self._globals)
        return self._globals["replay"]

    def bind(self, name: str, value: Any) -> str:
        """A name in the function for an object."""
        if name in self._globals and self._globals[name] is not value:
            name = f"{name}_{len(self._globals)}"
        self._globals[name] = value
        return name

    def _text(self, value: Any) -> str:
        """An argument as Python source."""
        if isinstance(value, Ref):
            return f"v{value.id}"
        if any(True for _ in refs(value)):
            if isinstance(value, slice):
                return f"slice({self._text(value.start)}, {self._text(value.stop)}, {self._text(value.step)})"
            if hasattr(value, "_fields"):
                raise NotImplementedError("named tuples of arrays as an argument")
            body = "".join(f"{self._text(v)}, " for v in value)
            return f"({body})" if isinstance(value, tuple) else f"[{body}]"
        if value is None or type(value) in (bool, int, str):
            return repr(value)
        return self.bind(f"k{len(self._globals)}", value)

    def _lines(self, node: Node, i: int, buffer: Callable[[int], str | None]) -> list[str]:
        if node.op == "write":
            target, index, value = node.args
            return [f"v{target.id}[{self._text(index)}] = {self._text(value)}"]
        if node.op == "update":
            target, name, args = node.args
            text = ", ".join(self._text(a) for a in args)
            return [f"{self.bind(f'np_{name}', getattr(np, name))}({text}, out=v{target.id})"]
        if node.op == "optimizer.step":
            return [f"{self.bind(f'step{i}', node.args[0])}({self._text(node.args[2])})"]
        if node.body:
            chain = Chain(self.graph, node).run if node.op == "fused" else FusedKernel(self.graph, node)
            outs = [buffer(v) or "None" for v in node.outputs]
            ins = "".join(f"v{v}, " for v in node.inputs())
            call = f"{self.bind(f'{node.op}{i}', chain)}(({ins}), ({', '.join(outs)},))"
            return [f"{''.join(f'v{v}, ' for v in node.outputs)} = {call}"]
        out = node.outputs[0]
        found = ufunc_of(self.graph, node)
        if found is not None:
            name, args = found
            text = ", ".join(self._text(a) for a in args)
            memory = buffer(out)
            function = self.bind(f"np_{name}", getattr(np, name))
            if memory is None and not self.graph.values[out].shape:
                return [f"v{out} = {self.bind('asarray', np.asarray)}({function}({text}))"]
            return [f"v{out} = {function}({text}{'' if memory is None else f', out={memory}'})"]
        special = (
            self._product(node, buffer)
            if node.op in ("linear", "matmul")
            else direct.lines(self, self.graph, node, buffer)
        )
        if special is not None:
            return special
        function, form = self._function_for(node)
        text = ", ".join(self._text(a) for a in node.args)
        call = f"{function}({form}{text})"
        if len(node.outputs) > 1:
            return [f"{', '.join(f'v{v}' for v in node.outputs)} = {call}"]
        if self._may_be_scalar(node):
            call = f"{self.bind('as_array', _as_array)}({call})"
        return [f"v{out} = {call}"]

    def _may_be_scalar(self, node: Node) -> bool:
        return not self.graph.values[node.outputs[0]].shape or node.op.startswith("split")

    def _function_for(self, node: Node) -> tuple[str, str]:
        """(name of the function, its first argument): the op's own function where nothing faster is registered."""
        from ..ops._op import REGISTRY

        op = REGISTRY.get(node.op)
        if op is not None and (op.kernel is None or node.plain):
            return self.bind(f"op_{node.op}", op.forward), "" if op.composite else f"{self.bind('np', np)}, "
        return self.bind(f"f_{node.op.replace('.', '_')}", function_of(node.op)), ""

    def _product(self, node: Node, buffer: Callable[[int], str | None]) -> list[str] | None:
        """`linear` and plain matrix products into a buffer."""
        from ..ops._op import REGISTRY

        values, out = self.graph.values, node.outputs[0]
        a, b = node.args[0], node.args[1]
        x, w, y = values[a.id], values[b.id], values[out]
        if (
            (REGISTRY[node.op].kernel is not None and not node.plain)
            or not x.dtype == w.dtype == y.dtype
            or x.dtype.kind != "f"
        ):
            return None
        if x.dtype.itemsize < 4 or len(x.shape) < 2 or not math.prod(y.shape):
            return None
        product = self.bind("np_matmul", np.matmul)
        rows, width = math.prod(x.shape[:-1]), x.shape[-1]
        memory = buffer(out)
        if node.op == "matmul":
            if len(w.shape) < 2 or (len(w.shape) == 2 and len(x.shape) > 2):
                if memory is None or len(w.shape) != 2:
                    return None if memory is None else [f"v{out} = {product}(v{a.id}, v{b.id}, {memory})"]
                n = w.shape[1]
                return [
                    f"{product}(v{a.id}.reshape({rows}, {width}), v{b.id}, {memory}.reshape({rows}, {n}))",
                    f"v{out} = {memory}",
                ]
            return [f"v{out} = {product}(v{a.id}, v{b.id}{'' if memory is None else f', {memory}'})"]
        n = w.shape[0]
        left = f"v{a.id}" if len(x.shape) == 2 else f"v{a.id}.reshape({rows}, {width})"
        flat = "" if memory is None else f", {memory}" if len(y.shape) == 2 else f", {memory}.reshape({rows}, {n})"
        lines = [f"t = {product}({left}, v{b.id}.T{flat})"]
        if isinstance(node.args[2], Ref):
            lines.append(f"t += v{node.args[2].id}")
        lines.append(f"v{out} = {memory or ('t' if len(y.shape) == 2 else f't.reshape({y.shape!r})')}")
        return lines


def _as_array(out: Any) -> Any:
    if isinstance(out, tuple):
        (out,) = out
    return out if isinstance(out, np.ndarray) else np.asarray(out)


class Chain:
    """Elementwise nodes on large arrays: all of them on one block of the arrays, then on the next.

    A block stays in the cache between the nodes, so memory is read and written once, not once a node. Every element
    is computed by the same NumPy functions as before: the same bits.
    """

    def __init__(self, graph: Graph, node: Node):
        values = graph.values
        self.shape = values[node.outputs[0]].shape
        inputs = node.inputs()
        self.suffix: tuple[int, ...] = ()  # the largest shape among inputs that are repeated along the first dimensions
        for v in inputs:
            shape = _stripped(values[v].shape)
            if shape not in (self.shape, (), (1,)) and len(shape) > len(self.suffix):
                self.suffix = shape
        self.columns = math.prod(self.suffix)
        self.full = [_stripped(values[v].shape) == self.shape for v in inputs]
        self.repeated = [
            _stripped(values[v].shape) if not full and values[v].shape not in ((), (1,)) else None
            for v, full in zip(inputs, self.full, strict=True)
        ]
        self.dtypes = [values[v].dtype for v in node.outputs]
        slots = {v: k for k, v in enumerate(inputs)}
        self.count = len(inputs)
        self.steps: list[tuple[Callable, tuple, int, int]] = []
        self.temporaries: list[np.dtype] = []
        last = {v: i for i, n in enumerate(node.body) for v in n.inputs()}
        outs = {v: k for k, v in enumerate(node.outputs)}
        place: dict[int, int] = {}
        free: list[int] = []
        for i, n in enumerate(node.body):
            v = n.outputs[0]
            found = ufunc_of(graph, n)
            function, args = (getattr(np, found[0]), found[1]) if found else (None, n.args)
            args = substitute(args, lambda r: _Slot(slots[r.id]))
            for used in dict.fromkeys(n.inputs()):
                if last[used] == i and used in place:
                    free.append(place.pop(used))
            slots[v] = len(slots)
            if v in outs:
                target = -1 - outs[v]
            else:
                dtype = values[v].dtype
                target = next((k for k in free if self.temporaries[k] == dtype), -1)
                if target >= 0:
                    free.remove(target)
                else:
                    self.temporaries.append(dtype)
                    target = len(self.temporaries) - 1
                if v in last:
                    place[v] = target
                else:
                    free.append(target)
            self.steps.append((function or function_of(n.op), args, target, found is not None))

    def run(self, arrays: Sequence[np.ndarray], outs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """The outputs for these inputs, in the given memory where there is some."""
        made = [np.empty(self.shape, d) if o is None else o for o, d in zip(outs, self.dtypes, strict=True)]
        columns = self.columns
        size = math.prod(self.shape)
        flat = [a.reshape(-1, columns) if full else a for a, full in zip(arrays, self.full, strict=True)]
        for k, shape in enumerate(self.repeated):
            if shape is not None:
                flat[k] = np.broadcast_to(arrays[k].reshape(shape), self.suffix).reshape(1, columns)
        results = [o.reshape(-1, columns) for o in made]
        rows = size // columns
        step = max(1, _BLOCK // columns)
        temporaries = [np.empty((min(step, rows), columns), d) for d in self.temporaries]
        with np.errstate(all="ignore"):
            for start in range(0, rows, step):
                stop = min(start + step, rows)
                env: list[Any] = [a[start:stop] if full else a for a, full in zip(flat, self.full, strict=True)]
                for function, args, target, direct in self.steps:
                    memory = results[-1 - target][start:stop] if target < 0 else temporaries[target][: stop - start]
                    given = [env[a.k] if a.__class__ is _Slot else a for a in args]
                    if direct:
                        function(*given, out=memory)
                    else:
                        memory[...] = function(*given)
                    env.append(memory)
        return made


class _Slot:
    __slots__ = ("k",)

    def __init__(self, k: int):
        self.k = k


def _stripped(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape
