"""Operators and methods of Tensor whose signature differs from the op's: variable arguments, in-place forms, `to`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes
from ..device import device as _device
from ..tensor import Tensor
from . import activation, create, elementwise, index, inplace, logic, matmul, queries, reduce, shape, shape_forms
from . import random as _random
from ._op import alias
from .elementwise import div


# -- indexing ---------------------------------------------------------------------------------------------------
def _getitem(self: Tensor, item: Any) -> Tensor:
    try:
        return index.getitem(self, inplace.raw_index(item))
    except IndexError as e:
        raise IndexError(f"{str(e).removeprefix('getitem: ')} for a tensor of shape {list(self.shape)}") from None


# In-place methods that PyTorch has as functions too.
_INPLACE_FUNCTIONS = (
    "abs acos acosh addmv arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh ceil clamp clamp_max "
    "clamp_min clip conj_physical cos cosh deg2rad erf erfc exp exp2 expm1 fill fix floor frac gcd i0 index_put lcm "
    "ldexp log log10 log1p log2 logit nan_to_num neg negative rad2deg reciprocal relu resize_as round rsqrt sigmoid "
    "sin sinc sinh sqrt square tan tanh trunc xlogy zero detach"
)


def _attach_inplace() -> None:
    for name in inplace.INPLACE.split():
        function = getattr(Tensor, name, None)
        if function is not None:
            setattr(Tensor, name + "_", inplace.make_inplace(function, name + "_"))
    alias(inplace.fill, "fill", method=False)
    for name in ("squeeze", "unsqueeze", "transpose", "t", "swapaxes", "swapdims"):
        setattr(Tensor, name + "_", inplace.make_reshaping(getattr(Tensor, name), name + "_"))
    for function in (
        inplace.fill_, inplace.zero_, inplace.copy_, inplace.fill_diagonal_, inplace.index_put_, inplace.resize_,
        inplace.relu_, inplace.resize_as_, inplace.set_,
    ):  # fmt: skip
        setattr(Tensor, function.__name__, function)
    for name, draw in _random.FILLERS.items():
        setattr(Tensor, name, inplace.make_filler(draw, name))
    for name in _INPLACE_FUNCTIONS.split():
        alias(getattr(Tensor, name + "_"), name + "_", method=False)
    alias(Tensor.detach, "detach", method=False)


# -- dtype and device -------------------------------------------------------------------------------------------
def to(
    self: Tensor, *args: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False, copy: bool = False,
    memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """The tensor with another dtype and/or device; itself when nothing changes and `copy` is not set.

    `memory_format` is accepted and leaves the strides as they are.
    """
    flags = [a for a in args if isinstance(a, bool)]  # non_blocking (every copy is waited for), then copy
    copy = copy or flags[1:] == [True]
    for a in args:
        if isinstance(a, Tensor):
            dtype, device = a.dtype, a.device
        elif isinstance(a, bool):
            continue
        elif isinstance(a, _device | str | int):
            device = a
        else:
            dtype = a
    out = self
    if dtype is not None and dtypes.as_dtype(dtype).numpy != out.array.dtype:
        out = logic.cast(out, dtypes.as_dtype(dtype).numpy)
    if device is not None:
        place = _device(device)
        here = out.device
        if place.type != here.type or (place.index is not None and place.index != here.index and place.type == "cuda"):
            out = create.to_device(out, place, here)
    return shape.clone(out) if copy and out is self else out


def _typed(name: str) -> Any:
    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        return to(self, dtype=getattr(dtypes, name))

    method.__doc__ = f"The values as {name}."
    return method


def _astype(self: Tensor, dtype: Any = None) -> Any:
    """`to(dtype)`; without an argument the name of the type."""
    return f"flambeau.{self.dtype.name}" if dtype is None else to(self, dtype=dtype)


# -- variable arguments -----------------------------------------------------------------------------------------
def _ints(args: tuple) -> tuple:
    if len(args) == 1 and isinstance(args[0], list | tuple):
        args = tuple(args[0])
    return tuple(int(a) for a in args)


def _varargs(function: Any) -> Any:
    def method(self: Tensor, *sizes: Any) -> Tensor:
        return function(self, _ints(sizes))

    method.__name__ = function.__name__
    method.__doc__ = function.__doc__
    return method


def _new(maker: Any) -> Any:
    def method(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, **kwargs: Any) -> Tensor:
        kind = self.dtype if dtype is None else dtype
        return maker(*args, dtype=kind, device=self.device if device is None else device, **kwargs)

    return method


def _reverse(function: Any) -> Any:
    return lambda self, other: function(other, self)


def _operator(function: Any) -> Any:
    """Returns NotImplemented for operands that are not numbers or arrays, so that Python can ask the other one."""

    def method(self: Tensor, other: Any) -> Any:
        if isinstance(other, Tensor | int | float | bool | complex | np.ndarray | np.generic) or hasattr(
            other, "dtype"
        ):
            return function(self, other)
        return NotImplemented

    return method


def attach() -> None:
    """Hangs operators and methods on Tensor."""
    e = elementwise
    for name, function in dict(
        add=e.add, sub=e.sub, mul=e.mul, truediv=div, floordiv=e.floor_divide, mod=e.remainder, pow=e.pow,
        matmul=matmul.matmul, **{"and": logic.bitwise_and, "or": logic.bitwise_or, "xor": logic.bitwise_xor},
    ).items():  # fmt: skip
        setattr(Tensor, f"__{name}__", _operator(function))
        setattr(Tensor, f"__r{name}__", _operator(_reverse(function)))
        setattr(Tensor, f"__i{name}__", inplace.make_inplace(function, f"__i{name}__"))
    for name in ("add", "sub", "mul"):  # the hot ones, without the check
        setattr(Tensor, f"__{name}__", getattr(e, name))
    Tensor.__truediv__ = e.true_divide  # type: ignore[attr-defined]
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Tensor, f"__{name}__", _operator(getattr(logic, name)))
    Tensor.__hash__ = object.__hash__  # type: ignore[method-assign] # setting __eq__ must not remove it
    Tensor.__neg__, Tensor.__pos__, Tensor.__abs__ = e.neg, e.positive, e.abs  # type: ignore[attr-defined]
    Tensor.__invert__ = logic.bitwise_not  # type: ignore[attr-defined]
    Tensor.__getitem__, Tensor.__setitem__ = _getitem, inplace.setitem  # type: ignore[attr-defined]

    for function in (shape.reshape, shape.permute, shape.expand, shape.repeat, shape.flip):
        setattr(Tensor, function.__name__, _varargs(function))
    for further, target in dict(
        subtract="sub", multiply="mul", divide="div", negative="neg", absolute="abs", arccos="acos", arcsin="asin",
        arctan="atan", arctan2="atan2", greater="gt", less="lt", greater_equal="ge", less_equal="le", not_equal="ne",
        clip="clamp", ger="outer", fix="trunc",
    ).items():  # fmt: skip
        alias(getattr(Tensor, target), further)
    Tensor.conj, Tensor.norm = logic.conj, reduce.norm  # type: ignore[attr-defined]
    Tensor.hardshrink, Tensor.prelu = activation.hardshrink, activation.prelu  # type: ignore[attr-defined]
    Tensor.reshape_as = lambda self, other: shape.reshape(self, tuple(other.shape))  # type: ignore[attr-defined]
    Tensor.expand_as = lambda self, other: shape.expand(self, tuple(other.shape))  # type: ignore[attr-defined]
    Tensor.where = lambda self, condition, other: e.where(condition, self, other)  # type: ignore[attr-defined]
    Tensor.T = property(lambda self: shape.permute(self, tuple(range(self.ndim))[::-1]))  # type: ignore[attr-defined]
    Tensor.mT = property(lambda self: shape.transpose(self, -1, -2))  # type: ignore[attr-defined]
    Tensor.H = property(shape_forms._hermitian)  # type: ignore[attr-defined]
    Tensor.mH = property(shape_forms.adjoint)  # type: ignore[attr-defined]
    Tensor.real, Tensor.imag = property(logic.real), property(logic.imag)  # type: ignore[attr-defined]

    _attach_inplace()
    Tensor.to, Tensor.type = to, _astype  # type: ignore[attr-defined]
    for name in ("float", "double", "half", "bfloat16", "long", "int", "short", "bool", "cfloat", "cdouble"):
        setattr(Tensor, name, _typed(name))
    Tensor.byte, Tensor.char = _typed("uint8"), _typed("int8")  # type: ignore[attr-defined]
    Tensor.cpu = lambda self: to(self, device="cpu")  # type: ignore[attr-defined]
    Tensor.cuda = lambda self, device=None: to(self, device="cuda" if device is None else device)  # type: ignore[attr-defined]
    queries._attach()
    Tensor.type_as = lambda self, other: to(self, dtype=other.dtype)  # type: ignore[attr-defined]
    for name in ("zeros", "ones", "empty", "full", "tensor"):
        setattr(Tensor, f"new_{name}", _new(getattr(create, name)))


attach()
