"""The graph form: what a function computes, as a flat list of nodes on numbered values.

A `Graph` is what tracing gives and what compiling, exporting, quantising, counting and drawing read. Values have a
fixed shape and dtype. Everything that is more than a pure function of arrays is a node of its own and stays in order:
`write` and `update` (memory that is changed in place), `optimizer.step`, and `random.*` (draws from the default
generator).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of the graph where it stands among the arguments of a node."""

    id: int

    def __repr__(self) -> str:
        return f"%{self.id}"


@dataclass(frozen=True, slots=True)
class Value:
    """Shape, dtype, whose memory it is (its own id unless it is a view), and whether that is in row-major order."""

    shape: tuple[int, ...]
    dtype: np.dtype
    root: int
    contiguous: bool = True

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


@dataclass(slots=True)
class Node:
    """One call: an op of the registry, `numpy.<function>`, `random.<method>`, `write` or `fused`.

    args: by position; arrays are `Ref`s (also inside tuples, lists and slices), all else is an attribute.
    module: the path of the module that was running, "" outside of any.
    """

    op: str
    args: tuple
    outputs: tuple[int, ...]
    module: str = ""
    body: tuple[Node, ...] = ()  # of `fused`: the nodes that it stands for
    plain: bool = False  # the op's fast kernel does not take this case

    @property
    def effect(self) -> bool:
        """Whether the node does more than compute its outputs, so that it must stay, in order."""
        return self.op in ("write", "update", "optimizer.step") or self.op.startswith("random.")

    def targets(self) -> tuple[int, ...]:
        """The ids of the values whose memory the node changes."""
        if self.op in ("write", "update"):
            return (self.args[0].id,)
        return tuple(r.id for r in self.args[1]) if self.op == "optimizer.step" else ()

    def inputs(self) -> tuple[int, ...]:
        """The ids of the values that are read, in order, with repeats."""
        return tuple(r.id for r in refs(self.args))


def refs(args: Any) -> Iterator[Ref]:
    """All `Ref`s in nested arguments."""
    if isinstance(args, Ref):
        yield args
    elif isinstance(args, tuple | list):
        for a in args:
            yield from refs(a)
    elif isinstance(args, slice):
        yield from refs((args.start, args.stop, args.step))


def substitute(args: Any, replace: Callable[[Ref], Any]) -> Any:
    """Nested arguments with each `Ref` replaced."""
    if isinstance(args, Ref):
        return replace(args)
    if isinstance(args, tuple) and hasattr(args, "_fields"):
        return type(args)(*[substitute(a, replace) for a in args])
    if isinstance(args, tuple | list):
        return type(args)([substitute(a, replace) for a in args])
    if isinstance(args, slice):
        return slice(*[substitute(a, replace) for a in (args.start, args.stop, args.step)])
    return args


@dataclass
class Graph:
    """A traced function.

    inputs: the ids of the arguments' values. captured: values that come from tensors which exist outside (parameters,
    buffers), as {id: tensor}; their arrays are read anew at each run. constants: {id: array}.
    names: what inputs, parameters and buffers are called.
    """

    values: dict[int, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    captured: dict[int, Any] = field(default_factory=dict)
    constants: dict[int, np.ndarray] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    # -- reading -------------------------------------------------------------------------------------------------
    def sources(self) -> list[int]:
        """The ids of the values that no node makes."""
        return [*self.inputs, *self.captured, *self.constants]

    def users(self) -> dict[int, list[int]]:
        """For each value, the positions of the nodes that read it."""
        found: dict[int, list[int]] = {v: [] for v in self.values}
        for i, node in enumerate(self.nodes):
            for v in dict.fromkeys(node.inputs()):
                found[v].append(i)
        return found

    def written(self) -> set[int]:
        """The roots of all memory that is changed in place."""
        return {self.values[v].root for n in self.nodes for v in n.targets()}

    def counts(self) -> dict[str, int]:
        """How many nodes there are of each op."""
        found: dict[str, int] = {}
        for node in self.nodes:
            found[node.op] = found.get(node.op, 0) + 1
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def verify(self) -> Graph:
        """Checks that every value is made once, before it is used. Errors: ValueError that names the node."""
        known: set[int] = set()
        for v in self.sources():
            if v in known:
                raise ValueError(f"graph: %{v} is given twice among inputs, captured tensors and constants")
            known.add(v)
        for i, node in enumerate(self.nodes):
            for v in node.inputs():
                if v not in known:
                    raise ValueError(f"graph: node {i} ({node.op}) reads %{v}, which is not made before it")
            if node.op == "write" and node.outputs:
                raise ValueError(f"graph: node {i} is a write and must have no outputs")
            for v in node.outputs:
                if v in known:
                    raise ValueError(f"graph: node {i} ({node.op}) makes %{v}, which is there already")
                if v not in self.values:
                    raise ValueError(f"graph: node {i} ({node.op}) makes %{v}, whose shape and dtype are not given")
                known.add(v)
        for v in self.outputs:
            if v not in known:
                raise ValueError(f"graph: the output %{v} is not made by any node")
        return self

    # -- running -------------------------------------------------------------------------------------------------
    def run(self, *arrays: Any) -> list[Any]:
        """The outputs, node by node, for raw arrays as inputs. Errors: ValueError for shapes or dtypes that differ."""
        if len(arrays) != len(self.inputs):
            raise ValueError(f"graph: takes {len(self.inputs)} arrays but {len(arrays)} were given")
        env: dict[int, Any] = {}
        for v, a in zip(self.inputs, arrays, strict=True):
            value = self.values[v]
            if tuple(a.shape) != value.shape or a.dtype != value.dtype:
                raise ValueError(f"graph: input {self.label(v)} must be {value}, not {a.dtype}{list(a.shape)}")
            env[v] = a
        env.update({v: t.array for v, t in self.captured.items()})
        env.update(self.constants)
        for node in self.nodes:
            execute(node, env)
        return [env[v] for v in self.outputs]

    # -- showing -------------------------------------------------------------------------------------------------
    def label(self, v: int) -> str:
        """`%3`, with its name where it has one."""
        return f"%{v} {self.names[v]}" if v in self.names else f"%{v}"

    def __str__(self) -> str:
        lines = [f"graph({', '.join(f'{self.label(v)}: {self.values[v]}' for v in self.inputs)}):"]
        lines += [f"  {self.label(v)} = captured: {self.values[v]}" for v in self.captured]
        lines += [f"  {self.label(v)} = constant: {self.values[v]}" for v in self.constants]
        for node in self.nodes:
            lines.append(f"  {_line(self, node)}")
            lines += [f"    | {_line(self, inner)}" for inner in node.body]
        return "\n".join([*lines, f"  return {', '.join(f'%{v}' for v in self.outputs)}"])

    def to_json(self, indent: int | None = None) -> str:
        """The graph as JSON; arrays by shape and dtype only, attributes that JSON does not know as their `repr`."""
        data = {
            "inputs": self.inputs,
            "captured": list(self.captured),
            "constants": list(self.constants),
            "outputs": self.outputs,
            "names": {str(v): name for v, name in self.names.items()},
            "values": {
                str(v): {"shape": list(x.shape), "dtype": x.dtype.name, "root": x.root} for v, x in self.values.items()
            },
            "nodes": [_plain_node(n) for n in self.nodes],
        }
        return json.dumps(data, indent=indent)


def execute(node: Node, env: dict[int, Any]) -> None:
    """Runs one node on raw arrays."""
    if node.body:
        for inner in node.body:
            execute(inner, env)
        return
    args = substitute(node.args, lambda r: env[r.id])
    if node.op == "write":
        target, index, value = args
        target[index] = value
        return
    if node.op == "update":
        getattr(np, args[1])(*args[2], out=args[0])
        return
    if node.op == "optimizer.step":
        args[0](args[2])
        return
    out = function_of(node.op)(*args)
    if len(node.outputs) == 1 and not isinstance(out, tuple):
        env[node.outputs[0]] = out if isinstance(out, np.ndarray) else np.asarray(out)
    else:
        for v, a in zip(node.outputs, out, strict=True):
            env[v] = a if a is None or isinstance(a, np.ndarray) else np.asarray(a)


def function_of(name: str) -> Callable:
    """What a node's op name stands for, as a function on raw arrays. Errors: KeyError for an unknown name."""
    if name.startswith("numpy."):
        return _NUMPY.get(name[6:]) or getattr(np, name[6:])
    if name.startswith("random."):
        return _draw(name[7:])
    from ..ops._op import REGISTRY

    op = REGISTRY[name]
    return lambda *raw: op.run(list(raw))


def _draw(method: str) -> Callable:
    from .. import random

    return lambda *args: getattr(random.default_generator(), method)(*args)


_NUMPY: dict[str, Callable] = {
    "astype": lambda a, dtype: a.astype(dtype),
    "getitem": lambda a, index: a[index],
    "linalg.norm": lambda a, order: np.linalg.norm(a, order),
    "clip": lambda a, low, high: a.clip(low, high),
}


def _line(graph: Graph, node: Node) -> str:
    if node.op == "optimizer.step":
        step, params, grads = node.args
        pairs = ", ".join(f"{p} <- {g}" for p, g in zip(params, grads, strict=True))
        return f"optimizer.step {step!r}: {pairs}"
    if node.op == "update":
        return f"write {node.args[0]} <- numpy.{node.args[1]}({', '.join(_short(a) for a in node.args[2])})"
    if node.op == "write":
        target, index, value = node.args
        place = "" if index is Ellipsis else f"[{_short(index)}]"
        return f"write {target}{place} <- {value}"
    outs = ", ".join(f"%{v}: {graph.values[v]}" for v in node.outputs)
    where = f"  # {node.module}" if node.module else ""
    return f"{outs} = {node.op}({', '.join(_short(a) for a in node.args)}){where}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain_node(node: Node) -> dict[str, Any]:
    data: dict[str, Any] = {"op": node.op, "args": _plain(node.args), "outputs": list(node.outputs)}
    if node.module:
        data["module"] = node.module
    if node.body:
        data["body"] = [_plain_node(n) for n in node.body]
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, Ref):
        return {"value": value.id}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(v) for v in value]
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and np.isfinite(value):
        return value
    if isinstance(value, slice):
        return {"slice": [_plain(value.start), _plain(value.stop), _plain(value.step)]}
    return {"repr": repr(value)}
