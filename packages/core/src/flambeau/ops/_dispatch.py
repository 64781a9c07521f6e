"""What happens when an op is called: arguments are unwrapped and promoted, the op runs, a node is recorded.

One dispatcher for each form of arguments: one array, two, several, a list of arrays; and one for composites.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from .. import backends, dtypes
from ..autograd.engine import Node, mark_modified, next_sequence
from ..autograd.modes import mode
from ..autograd.views import note_view
from ..tensor import Tensor
from ._errors import check_castable, check_same_dtype, explain

if TYPE_CHECKING:
    from ._op import Op

_new_tensor = Tensor.__new__
_new_node = Node.__new__


class Plan:
    """What to save and which formulas to run, for one set of inputs that require a gradient."""

    __slots__ = ("edges", "formulas", "keeps", "save", "saved", "single")

    def __init__(self, op: Op, mask: int):
        inputs = [i for i in op.inputs if mask >> i & 1]
        self.edges = tuple(inputs)  # positions of the arguments that get a gradient, in order
        saved: list[tuple[int, bool]] = []  # (argument position, shape only)
        # (call of the formula, mask of wanted arguments or None, places in `edges` of what it returns)
        self.formulas: list[tuple[Callable, tuple | None, tuple]] = []
        # The outputs that formulas ask for: "out" all of them, "out1" the second one.
        self.keeps: set[str] = set()
        done = set()
        for i in inputs:
            names, formula = op.vjp_of[i]
            if formula in done:
                continue
            done.add(formula)
            targets = [op.params.index(n) for n in names]
            need = tuple(bool(mask >> t & 1) for t in targets) if len(names) > 1 else None
            fill = []  # for each parameter of the formula: index into `saved`, -1 for out, -2 - k for out<k>
            for name in list(inspect.signature(formula).parameters)[1:]:
                if name == "out" or (name[:3] == "out" and name[3:].isdigit()):
                    self.keeps.add(name)
                    fill.append(-2 - int(name[3:]) if name[3:] else -1)
                elif name != "need":
                    key = op.locate(name)
                    if key not in saved:
                        saved.append(key)
                    fill.append(saved.index(key))
            places = tuple(inputs.index(t) for t in targets if t in inputs)
            self.formulas.append((_bound(formula, fill, need), need, places))
        self.saved = tuple(saved)
        self.save = _picker(self.saved)  # the arguments -> what the node keeps of them
        plain = not op.has_list and all(need is None for _, need, _ in self.formulas)
        self.single = tuple(call for call, _, _ in self.formulas) if plain else None  # one formula for each edge


def _bound(formula: Callable, fill: list[int], need: tuple | None) -> Callable:
    """`call(g, saved, out)` that gives a formula its arguments; the short ones without a list."""

    def pick(k: int, saved: tuple, out: Any) -> Any:
        return saved[k] if k >= 0 else out if k == -1 else out[-2 - k]

    if need is not None:
        return lambda g, saved, out: formula(g, *[pick(k, saved, out) for k in fill], need=need)
    if not fill:
        return lambda g, saved, out: formula(g)
    if fill == [-1]:
        return lambda g, saved, out: formula(g, out)
    if len(fill) == 1 and fill[0] >= 0:
        (k,) = fill
        return lambda g, saved, out: formula(g, saved[k])
    return lambda g, saved, out: formula(g, *[pick(k, saved, out) for k in fill])


def _picker(saved: tuple[tuple[int, bool], ...]) -> Callable[[Sequence[Any]], tuple]:
    places = [i for i, _ in saved]
    if not saved:
        return lambda raw: ()
    if any(shape for _, shape in saved):
        return lambda raw: tuple([_shape_of(raw[i]) if shape else raw[i] for i, shape in saved])
    if len(places) == 1:
        (only,) = places
        return lambda raw: (raw[only],)
    return operator.itemgetter(*places)


def promote(op: Op, raw: list[Any]) -> None:
    """Brings the promoted arguments to their common dtype, in place."""
    values = [raw[i] for i in op.positions]
    first: Any = None
    scalars: tuple[Any, ...] = ()
    for v in values:
        d = getattr(v, "dtype", None)
        if d is None:
            if v is not None:
                scalars = (*scalars, v)
        elif first is None:
            first = d
        elif d is not first:
            break
    else:
        if (
            first is not None
            and first.kind == "f"
            and first.itemsize > 1
            and not any(isinstance(s, complex) for s in scalars)
        ):
            return  # one floating dtype: nothing to do (Python scalars are weak in NumPy 2 as in PyTorch)
    common = dtypes.result_numpy(values)
    if op.promote == "float" and dtypes.category(common) < dtypes.FLOAT:
        common = dtypes.get_default_dtype().numpy
    for i, v in zip(op.positions, values, strict=True):
        if v is None:
            continue
        if hasattr(v, "dtype"):
            if v.dtype != common:
                raw[i] = v.astype(common)
        elif len(values) == 1 or dtypes._scalar_category(v) > dtypes.category(common) or common.kind in "V":
            raw[i] = common.type(v)
        elif first is None or dtypes.category(common) < dtypes.FLOAT or common.itemsize == 2:
            raw[i] = numpy.asarray(v).astype(common)[()]


def _wrap(out: Any) -> Tensor:
    t = _new_tensor(Tensor)
    t.array = out if isinstance(out, numpy.ndarray) or type(out).__module__ == "cupy" else numpy.asarray(out)
    t.requires_grad = False
    t._edge = None
    return t


def _wrap_all(out: Any) -> Any:
    return like(out, [_wrap(o) for o in out]) if isinstance(out, tuple) else _wrap(out)


def like(out: tuple, items: list) -> tuple:
    """The items in a tuple of the class of `out` (plain or named)."""
    return tuple(items) if out.__class__ is tuple else out.__class__(*items)


def record(op: Op, raw: Sequence[Any], mask: int, edges: list, metas: list, out: Any) -> Any:
    """Wraps the output(s) and hangs them on a new node."""
    plan = op.plans.get(mask)
    if plan is None:
        plan = op.plans[mask] = Plan(op, mask)
    node = _new_node(Node)
    node.op = op
    node.plan = plan
    node.edges = edges
    node.metas = metas
    node.sequence = next_sequence()
    node.saved = plan.save(raw)
    if out.__class__ is numpy.ndarray:
        outputs: Any = _new_tensor(Tensor)
        outputs.array = out
        outputs.requires_grad = True
        outputs._edge = (node, 0)
        node.out = out if plan.keeps else None
    elif isinstance(out, tuple):
        items = [_wrap(o) for o in out]
        for k, t in enumerate(items):
            if t.array.dtype.kind in "fcV":
                t._edge = (node, k)
                t.requires_grad = True
        outputs = like(out, items)
        node.out = None
        if plan.keeps:
            everything = "out" in plan.keeps
            node.out = tuple([t.array if everything or f"out{k}" in plan.keeps else None for k, t in enumerate(items)])
        node.out_metas = tuple([(t.array.shape, t.array.dtype) for t in items])
    else:
        outputs = _wrap(out)
        outputs._edge = (node, 0)
        outputs.requires_grad = True
        node.out = outputs.array if plan.keeps else None
    if mode.observe is not None:
        mode.observe(node, outputs)
    return outputs


def _shape_of(value: Any) -> Any:
    return tuple(a.shape for a in value) if isinstance(value, list | tuple) else value.shape


def dispatcher(op: Op) -> Callable:
    """The public function of an op whose arguments are single arrays.

    What runs for every op of a model is written out for the two common cases, one array and two arrays in front: a
    loop over the arguments costs as much as a small array operation.
    """
    if op.inputs == (0,) and op.promote != "same":
        return _one_array(op)
    if op.inputs == (0, 1) and op.positions == (0, 1):
        return _two_arrays(op)
    return _several_arrays(op)


def _tails(op: Op) -> dict[int, tuple]:
    """The defaults that complete so and so many positional arguments, where none is missing."""
    return {given: op.defaults[given:] for given in range(op.required, len(op.params) + 1)}


def _one_array(op: Op) -> Callable:
    forward, view, promotes = op.forward, op.view, op.promote is not None
    bit = 1 if 0 in op.vjp_of else 0
    tails = _tails(op)

    def call(*args: Any, **kwargs: Any) -> Any:
        if mode.intercept is not None:
            return mode.intercept(op, args, kwargs)
        if kwargs:
            if "out" in kwargs:
                return _into(call, args, kwargs)
            raw = op.bind(args, kwargs)
        else:
            raw = [*args, *tails[len(args)]] if len(args) in tails else op.bind(args, kwargs)
        source = raw[0]
        if not isinstance(source, Tensor):
            return forward(numpy, *raw) if op.kernel is None and backends._cuda is None else op.run(raw)
        array = raw[0] = source.array
        if promotes and (array.dtype.kind != "f" or array.dtype.itemsize == 1):
            promote(op, raw)
        try:
            out = forward(numpy, *raw) if op.kernel is None and backends._cuda is None else op.run(raw)
        except (ValueError, TypeError, IndexError, RuntimeError) as e:
            raise explain(op, raw, e) from None if type(e) is ValueError else e
        if bit and source.requires_grad and mode.grad:
            result = record(op, raw, 1, [source._edge or (source, 0)], [(array.shape, array.dtype)], out)
        elif out.__class__ is numpy.ndarray:
            result = _new_tensor(Tensor)
            result.array = out
            result.requires_grad = False
            result._edge = None
        else:
            result = _wrap_all(out)
        if view:
            _note_views(op, result, source, raw)
        return result

    return call


def _two_arrays(op: Op) -> Callable:
    forward, view, kind = op.forward, op.view, op.promote
    left, right = (1 if 0 in op.vjp_of else 0), (2 if 1 in op.vjp_of else 0)
    tails = _tails(op)

    def call(*args: Any, **kwargs: Any) -> Any:
        if mode.intercept is not None:
            return mode.intercept(op, args, kwargs)
        if kwargs:
            if "out" in kwargs:
                return _into(call, args, kwargs)
            raw = op.bind(args, kwargs)
        else:
            raw = [*args, *tails[len(args)]] if len(args) in tails else op.bind(args, kwargs)
        first, second = raw[0], raw[1]
        mask = 0
        if isinstance(first, Tensor):
            a = raw[0] = first.array
            if left and first.requires_grad and mode.grad:
                mask = 1
            if isinstance(second, Tensor):
                b = raw[1] = second.array
                if right and second.requires_grad and mode.grad:
                    mask |= 2
            else:
                b = second
        elif isinstance(second, Tensor):
            a, b = first, second.array
            raw[1] = b
            if right and second.requires_grad and mode.grad:
                mask = 2
        else:
            return forward(numpy, *raw) if op.kernel is None and backends._cuda is None else op.run(raw)
        if kind is not None:
            if kind == "same":
                check_same_dtype(op, raw)
            # Two arrays of one floating dtype are by far the most common: nothing to promote.
            elif (
                a.__class__ is not numpy.ndarray
                or b.__class__ is not numpy.ndarray
                or a.dtype is not b.dtype
                or a.dtype.kind != "f"
            ):
                promote(op, raw)
        try:
            out = forward(numpy, *raw) if op.kernel is None and backends._cuda is None else op.run(raw)
        except (ValueError, TypeError, IndexError, RuntimeError) as e:
            raise explain(op, raw, e) from None if type(e) is ValueError else e
        if mask:
            edges, metas = [], []
            if mask & 1:
                edges.append(first._edge or (first, 0))
                metas.append((a.shape, a.dtype))
            if mask & 2:
                edges.append(second._edge or (second, 0))
                metas.append((b.shape, b.dtype))
            result = record(op, raw, mask, edges, metas, out)
        elif out.__class__ is numpy.ndarray:
            result = _new_tensor(Tensor)
            result.array = out
            result.requires_grad = False
            result._edge = None
        else:
            result = _wrap_all(out)
        if view and isinstance(first, Tensor):
            _note_views(op, result, first, raw)
        return result

    return call


def _several_arrays(op: Op) -> Callable:
    kind, forward, view = op.promote, op.forward, op.view
    inputs = tuple([(i, 1 << i if i in op.vjp_of else 0) for i in op.inputs])
    tails = _tails(op)

    def call(*args: Any, **kwargs: Any) -> Any:
        if mode.intercept is not None:
            return mode.intercept(op, args, kwargs)
        if kwargs:
            if "out" in kwargs:
                return _into(call, args, kwargs)
            raw = op.bind(args, kwargs)
        else:
            raw = [*args, *tails[len(args)]] if len(args) in tails else op.bind(args, kwargs)
        found = False
        mask = 0
        for i, bit in inputs:
            a = raw[i]
            if isinstance(a, Tensor):
                found = True
                array = raw[i] = a.array
                if bit and a.requires_grad and mode.grad:
                    if not mask:
                        edges, metas = [], []
                    mask |= bit
                    edges.append(a._edge or (a, 0))
                    metas.append((array.shape, array.dtype))
        if not found:
            return forward(numpy, *raw) if op.kernel is None and backends._cuda is None else op.run(raw)
        if kind == "same":
            check_same_dtype(op, raw)
        elif kind is not None:
            promote(op, raw)
        try:
            out = forward(numpy, *raw) if op.kernel is None and backends._cuda is None else op.run(raw)
        except (ValueError, TypeError, IndexError, RuntimeError) as e:
            raise explain(op, raw, e) from None if type(e) is ValueError else e
        if mask:
            result = record(op, raw, mask, edges, metas, out)
        elif out.__class__ is numpy.ndarray:
            result = _new_tensor(Tensor)
            result.array = out
            result.requires_grad = False
            result._edge = None
        else:
            result = _wrap_all(out)
        if view:
            source = args[0] if args else kwargs[op.params[0]]
            if isinstance(source, Tensor):
                _note_views(op, result, source, raw)
        return result

    return call


def _note_views(op: Op, result: Any, source: Tensor, raw: list) -> None:
    """In-place changes of the result have to find the base."""
    for k, t in enumerate(result) if isinstance(result, tuple) else ((None, result),):
        note_view(t, source, ((op.function, raw[1:], k),))


def _into(call: Callable, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """`f(..., out=tensor)`: the result is written into a tensor that exists (an empty one takes any shape)."""
    target = kwargs.pop("out")
    result = call(*args, **kwargs)
    if target is None:
        return result
    for t, r in zip(target, result, strict=True) if isinstance(target, tuple | list) else [(target, result)]:
        if t.requires_grad or (mode.grad and r.requires_grad):
            raise RuntimeError(
                "out=... does not support automatic differentiation, but an argument requires a gradient"
            )
        check_castable(r.array.dtype, t.array.dtype)
        if t.array.shape == r.array.shape:
            t.array[...] = r.array
            mark_modified(t.array)
        elif t.array.size == 0:
            t.array = r.array.astype(t.array.dtype)
        else:
            raise RuntimeError(f"out has shape {list(t.shape)} but the result has {list(r.shape)}")
    return target


def list_dispatcher(op: Op) -> Callable:
    """The public function of an op whose first argument is a list of arrays (`tensors`)."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if mode.intercept is not None:
            return mode.intercept(op, args, kwargs)
        if "out" in kwargs:
            return _into(call, args, kwargs)
        raw = op.bind(args, kwargs)
        tensors = list(raw[0])
        if not tensors:
            raise ValueError(f"{op.name}() expects a non-empty list of tensors")
        raw[0] = [t.array if isinstance(t, Tensor) else t for t in tensors]
        if not any(isinstance(t, Tensor) for t in tensors):
            return op.run(raw)
        if op.promote is not None:
            common = dtypes.result_numpy(raw[0])
            raw[0] = [a if a.dtype == common else a.astype(common) for a in raw[0]]
        try:
            out = op.run(raw)
        except (ValueError, TypeError, IndexError) as e:
            raise explain(op, raw, e) from None
        wanted = [isinstance(t, Tensor) and t.requires_grad for t in tensors]
        if not any(wanted) or not mode.grad or not op.vjp_of:
            return _wrap_all(out)
        # One edge per list element: None where no gradient is wanted.
        edges = [(t._edge or (t, 0)) if w else None for t, w in zip(tensors, wanted, strict=True)]
        metas = [(t.array.shape, t.array.dtype) if w else None for t, w in zip(tensors, wanted, strict=True)]
        return record(op, raw, 1, edges, metas, out)

    return call


def composite_dispatcher(op: Op) -> Callable:
    """The public function of a composite: recorded op by op when a gradient may be asked for, else one kernel call."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if mode.intercept is not None:
            return mode.intercept(op, args, kwargs)
        if "out" in kwargs:
            return _into(call, args, kwargs)
        values = op.bind(args, kwargs)
        tensors = [v for v in values if isinstance(v, Tensor)]
        if tensors and (op.kernel is None or (mode.grad and any(t.requires_grad for t in tensors))):
            return op.forward(*values)
        if not tensors:
            return op.run(values)
        return _wrap_all(op.run([v.array if isinstance(v, Tensor) else v for v in values]))

    return call
