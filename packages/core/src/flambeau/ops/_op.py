"""The `@op` declaration and the dispatcher: everything that is the same for all ops is written here, once.

An op is a pure function on arrays. Calling it with Tensors unwraps them, promotes dtypes, picks a fast kernel
when one is registered, runs the function, and records a `Node` when a gradient may be asked for. Calling it with
raw arrays only runs the function: that is how gradient formulas run inside `backward()`.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy

from .. import backends, dtypes
from ..autograd.engine import Node, mark_modified, next_sequence
from ..autograd.modes import mode
from ..autograd.views import note_view
from ..tensor import Tensor
from ._errors import check_castable, check_same_dtype, explain

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
REGISTRY: dict[str, Op] = {}
ALIASES: dict[str, Callable] = {}
_MISSING = object()
_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input"}  # accepted as well, as by PyTorch
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


class Op:
    """All that is known of an op: its function, formulas, samples, reference and fast kernels."""

    __slots__ = (
        "composite", "defaults", "forward", "function", "has_list", "inputs", "kernel", "name", "params", "plans",
        "positions", "promote", "ref", "required", "samples", "view", "vjp_of",
    )  # fmt: skip

    def __init__(self, forward, vjp, samples, promote, ref, view=False, composite=False):
        self.name = forward.__name__
        self.forward = forward
        parameters = list(inspect.signature(forward).parameters.values())
        parameters = parameters if composite else parameters[1:]
        self.params = [p.name for p in parameters]
        self.defaults = tuple(_MISSING if p.default is p.empty else p.default for p in parameters)
        self.vjp_of: dict[int, tuple[tuple[str, ...], Callable]] = {}
        for names, formula in (vjp or {}).items():
            names = names if isinstance(names, tuple) else (names,)
            for n in names:
                self.vjp_of[self.params.index(n)] = (names, formula)
        # Arguments that may be tensors: required ones, differentiable ones, and those annotated `Array`.
        self.required = sum(d is _MISSING for d in self.defaults)
        self.inputs = tuple(
            i
            for i, p in enumerate(parameters)
            if p.default is p.empty or i in self.vjp_of or "Array" in str(p.annotation)
        )
        # Dtype promotion looks at the differentiable arguments (at all arrays when there are none).
        self.positions = tuple(sorted(self.vjp_of)) or self.inputs
        self.has_list = bool(self.params) and self.params[0] == "tensors"
        self.promote = promote
        self.samples = samples
        self.ref = ref
        self.view = view
        self.composite = composite
        self.kernel: Callable | None = None
        self.plans: dict[int, Plan] = {}
        self.function: Callable = forward

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        """All arguments by position; unknown, doubled or missing ones raise TypeError as a function call does."""
        params = self.params
        if len(args) > len(params):
            raise TypeError(f"{self.name}() takes at most {len(params)} arguments but {len(args)} were given")
        given = len(args)
        values = [*args, *self.defaults[given:]]
        if not kwargs and given >= self.required:
            return values
        for k, v in kwargs.items():
            try:
                i = params.index(_NUMPY_NAMES.get(k, k) if k not in params else k)
            except ValueError:
                message = f"{self.name}() got an unexpected keyword argument {k!r}; it takes {', '.join(params)}"
                raise TypeError(message) from None
            if i < len(args):
                raise TypeError(f"{self.name}() got multiple values for argument {k!r}")
            values[i] = v
        for name, v in zip(params, values, strict=True):
            if v is _MISSING:
                raise TypeError(f"{self.name}() is missing the argument {name!r}")
        return values

    def locate(self, name: str) -> tuple[int, bool]:
        """Where a formula's parameter comes from: (argument position, shape only)."""
        if name in self.params:
            return self.params.index(name), False
        base = name.removesuffix("_shape")
        if name.endswith("_shape") and base in self.params:
            return self.params.index(base), True
        raise TypeError(f"a formula of op {self.name} asks for {name!r}, which is none of {', '.join(self.params)}")

    def run(self, raw: Sequence[Any]) -> Any:
        """The op on raw arrays: the fast kernel if it takes the case, the declared function otherwise."""
        kernel = self.kernel
        if kernel is not None:
            out = kernel(*raw)
            if out is not NotImplemented:
                return out
        if self.composite:
            return self.forward(*raw)
        xp = backends.namespace(raw[0] if self.has_list else raw)
        if xp is not numpy:  # a number on the CPU beside arrays on the GPU
            raw = [xp.asarray(v) if isinstance(v, numpy.ndarray) and v.ndim == 0 else v for v in raw]
        return self.forward(xp, *raw)


def _promote(op: Op, raw: list[Any]) -> None:
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
    return _like(out, [_wrap(o) for o in out]) if isinstance(out, tuple) else _wrap(out)


def _like(out: tuple, items: list) -> tuple:
    """The items in a tuple of the class of `out` (plain or named)."""
    return tuple(items) if out.__class__ is tuple else out.__class__(*items)


def _record(op: Op, raw: Sequence[Any], mask: int, edges: list, metas: list, out: Any) -> Any:
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
        outputs = _like(out, items)
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


def _dispatcher(op: Op) -> Callable:
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
    forward, view, promote = op.forward, op.view, op.promote is not None
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
        if promote and (array.dtype.kind != "f" or array.dtype.itemsize == 1):
            _promote(op, raw)
        try:
            out = forward(numpy, *raw) if op.kernel is None and backends._cuda is None else op.run(raw)
        except (ValueError, TypeError, IndexError, RuntimeError) as e:
            raise explain(op, raw, e) from None if type(e) is ValueError else e
        if bit and source.requires_grad and mode.grad:
            result = _record(op, raw, 1, [source._edge or (source, 0)], [(array.shape, array.dtype)], out)
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
    forward, view, promote = op.forward, op.view, op.promote
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
        if promote is not None:
            if promote == "same":
                check_same_dtype(op, raw)
            # Two arrays of one floating dtype are by far the most common: nothing to promote.
            elif (
                a.__class__ is not numpy.ndarray
                or b.__class__ is not numpy.ndarray
                or a.dtype is not b.dtype
                or a.dtype.kind != "f"
            ):
                _promote(op, raw)
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
            result = _record(op, raw, mask, edges, metas, out)
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
    promote, forward, view = op.promote, op.forward, op.view
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
        if promote == "same":
            check_same_dtype(op, raw)
        elif promote is not None:
            _promote(op, raw)
        try:
            out = forward(numpy, *raw) if op.kernel is None and backends._cuda is None else op.run(raw)
        except (ValueError, TypeError, IndexError, RuntimeError) as e:
            raise explain(op, raw, e) from None if type(e) is ValueError else e
        result = _record(op, raw, mask, edges, metas, out) if mask else _wrap_all(out)
        source = args[0] if args else kwargs[op.params[0]]
        if view and isinstance(source, Tensor):
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


def _list_dispatcher(op: Op) -> Callable:
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
        return _record(op, raw, 1, edges, metas, out)

    return call


def _composite_dispatcher(op: Op) -> Callable:
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


def _publish(op: Op, dispatcher: Callable, method: bool, doc_source: Callable) -> Callable:
    if op.name in REGISTRY:
        raise ValueError(f"op {op.name} is declared twice")
    REGISTRY[op.name] = op
    op.function = dispatcher
    signature = inspect.signature(doc_source)
    parameters = list(signature.parameters.values())
    dispatcher.__signature__ = signature.replace(parameters=parameters if op.composite else parameters[1:])  # type: ignore[attr-defined]
    dispatcher.__name__ = dispatcher.__qualname__ = op.name
    dispatcher.__doc__ = doc_source.__doc__
    dispatcher.__module__ = doc_source.__module__
    dispatcher.op = op  # type: ignore[attr-defined]
    if method and op.params and op.params[0] == "input":
        setattr(Tensor, op.name, dispatcher)
    return dispatcher


def op(
    vjp: dict[Any, Callable] | None = None,
    samples: Callable | None = None,
    promote: str | None = None,
    ref: Callable | None = None,
    method: bool = True,
    view: bool = False,
) -> Callable[[Callable[Concatenate[Any, P], Any]], Callable[P, Any]]:
    """Declares an op.

    vjp: argument name (or tuple of names) -> formula giving the cotangent(s). The formula's parameter names say
        what is saved: `g`, `out`, an argument, or `<argument>_shape`; grouped formulas also take `need`.
    samples: `lambda t: [args, ...]`, from which the tests are generated.
    promote: None, "arith" (PyTorch's promotion), "float" (then integers to the default float dtype), "same" (the
        differentiable arguments must have one dtype).
    ref: an independent NumPy reference for the tests.
    method: also install as a Tensor method (when the first parameter is `input`).
    view: the output may share memory with the input.
    """
    if promote not in (None, "arith", "float", "same"):
        raise ValueError(f"promote is {promote!r}; it must be None, 'arith', 'float' or 'same'")

    def declare(forward: Callable[Concatenate[Any, P], Any]) -> Callable[P, Any]:
        record = Op(forward, vjp, samples, promote, ref, view)
        make = _list_dispatcher if record.has_list else _dispatcher
        return _publish(record, make(record), method, forward)

    return declare


def method(*names: str) -> Callable[[F], F]:
    """Installs a plain function (one that is no op itself, but calls ops) as a Tensor method.

    Under its own name, or under `names` when given: `@method()`, `@method("svd", "linalg_svd")`.
    """

    def install(function: F) -> F:
        for name in names or (function.__name__,):
            setattr(Tensor, name, function)
        return function

    return install


def alias(function: Callable, *names: str, method: bool = True) -> None:
    """Further names of a function in `flambeau` and, when it is one, as a Tensor method (PyTorch has both)."""
    for name in names:
        ALIASES[name] = function
        if method:
            setattr(Tensor, name, function)


def composite(samples: Callable | None = None, ref: Callable | None = None, method: bool = True) -> Callable[[F], F]:
    """Declares a function written with other ops (no `xp`) for which a fast kernel may be registered.

    When a gradient may be asked for, its ops are recorded one by one, so it is differentiable to any order.
    """

    def declare(body: F) -> F:
        record = Op(body, None, samples, None, ref, composite=True)
        return _publish(record, _composite_dispatcher(record), method, body)  # type: ignore[return-value]

    return declare


def kernel(name: str) -> Callable[[F], F]:
    """Registers a faster form of op `name` for NumPy arrays; it may return NotImplemented to decline a case."""

    def register(function: F) -> F:
        def guarded(*args: Any) -> Any:
            if backends._cuda is not None and backends.namespace(args) is not numpy:
                return NotImplemented
            return function(*args)

        REGISTRY[name].kernel = guarded
        return function

    return register


def normalize_dim(dim: Any, ndim: int) -> Any:
    """A dim, or tuple of dims, counted from the front; IndexError when out of range or doubled."""
    if dim is None:
        return None
    if isinstance(dim, list | tuple):
        dims = tuple([normalize_dim(d, ndim) for d in dim])
        if len(set(dims)) != len(dims):
            raise ValueError(f"dim {dim} appears twice")
        return dims
    bound = max(ndim, 1)
    if not -bound <= dim < bound:
        raise IndexError(f"dimension out of range (expected to be in [{-bound}, {bound - 1}], but got {dim})")
    return dim + bound if dim < 0 else int(dim)
