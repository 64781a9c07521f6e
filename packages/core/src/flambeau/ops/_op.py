"""The `@op` declaration and the registry: everything that is the same for all ops is written here and in `_dispatch`.

An op is a pure function on arrays. Calling it with Tensors unwraps them, promotes dtypes, picks a fast kernel
when one is registered, runs the function, and records a `Node` when a gradient may be asked for. Calling it with
raw arrays only runs the function: that is how gradient formulas run inside `backward()`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy

from .. import backends
from ..tensor import Tensor
from ._dispatch import Plan, composite_dispatcher, dispatcher, list_dispatcher

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
REGISTRY: dict[str, Op] = {}
ALIASES: dict[str, Callable] = {}
_MISSING = object()
_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input"}  # accepted as well, as by PyTorch


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


def _publish(op: Op, call: Callable, method: bool, doc_source: Callable) -> Callable:
    if op.name in REGISTRY:
        raise ValueError(f"op {op.name} is declared twice")
    REGISTRY[op.name] = op
    op.function = call
    signature = inspect.signature(doc_source)
    parameters = list(signature.parameters.values())
    call.__signature__ = signature.replace(parameters=parameters if op.composite else parameters[1:])  # type: ignore[attr-defined]
    call.__name__ = call.__qualname__ = op.name
    call.__doc__ = doc_source.__doc__
    call.__module__ = doc_source.__module__
    call.op = op  # type: ignore[attr-defined]
    if method and op.params and op.params[0] == "input":
        setattr(Tensor, op.name, call)
    return call


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
        make = list_dispatcher if record.has_list else dispatcher
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
        return _publish(record, composite_dispatcher(record), method, body)  # type: ignore[return-value]

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
