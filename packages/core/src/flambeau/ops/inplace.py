"""Changing tensors in place: the history of what was written, of the base of a view, and of its other views.

An in-place method computes the out-of-place form, writes the result into the tensor's memory and takes over its
history. When the tensor is a view, the history of its base changes (`copy_slices`), and with it that of every live
view of the base: each is made again from the new base.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.engine import mark_modified, same_memory
from ..autograd.modes import mode
from ..autograd.views import renew_views, through
from ..tensor import Tensor
from . import create, elementwise, index, logic, shape
from . import random as _random
from ._dispatch import record
from ._errors import check_castable
from ._op import op
from .activation import relu


# -- views ------------------------------------------------------------------------------------------------------
@op(
    vjp=dict(input=lambda g, steps: copy_slices(g, 0.0, steps), values=lambda g, steps: through(g, steps)),
    samples=lambda t: [(t(3, 4), t(4), ((index.getitem, (1,), None),))],
    method=False,
)
def copy_slices(xp, input, values, steps):
    """A copy of `input` in which the view that `steps` make of it is overwritten with `values`."""
    out = input.copy()
    view = through(out, steps)
    if same_memory(view, out):
        view[...] = values
    else:  # a step had to copy because of the memory layout: find the positions that it picks
        positions = through(xp.arange(out.size).reshape(out.shape), steps)
        out.reshape(-1)[positions] = values
    return out


@op(
    vjp=dict(input=lambda g: g * 0, src=lambda g: g),
    samples=lambda t: [(t(3, 4), t(4)), (t(3), t(1))],
    method=False,
)
def overwrite(xp, input, src):
    """`src` in the shape and dtype of `input`: what a tensor holds after `copy_`."""
    src = xp.asarray(src)
    if src.dtype.kind == "c" and input.dtype.kind != "c":
        src = src.real
    return xp.broadcast_to(src, input.shape).astype(input.dtype)


# -- writing ----------------------------------------------------------------------------------------------------
def _check_writable(self: Tensor) -> None:
    base, _, recorded = self._view or (self, (), True)
    if base.requires_grad and base._edge is None:
        kind = "a leaf tensor" if base is self else "a view of a leaf tensor"
        raise RuntimeError(
            f"{kind} that requires a gradient is being used in an in-place operation; wrap it in no_grad()"
        )
    if not recorded:
        raise RuntimeError(
            "a view that was made under no_grad() is being changed in place while gradients are recorded; "
            "do both inside no_grad(), or both outside"
        )


def write(self: Tensor, out: Tensor) -> Tensor:
    """Puts the values of `out` into the memory of `self`, which takes over its history."""
    mine, theirs = self.array, out.array
    if theirs.shape != mine.shape:
        raise RuntimeError(f"output with shape {list(self.shape)} doesn't match the broadcast shape {list(out.shape)}")
    if theirs.dtype != mine.dtype:
        check_castable(theirs.dtype, mine.dtype)
        out = logic.cast(out, mine.dtype)
    if not mode.grad or not (self.requires_grad or out.requires_grad):
        mine[...] = out.array
        mark_modified(mine)
        return self
    _check_writable(self)
    if out._edge is not None:  # the formula may need the old values: it keeps a copy, as the memory is about to change
        node = out._edge[0]
        if node.saved.__class__ is tuple:  # not dropped by a checkpoint
            node.saved = tuple([a.copy() if a is mine else a for a in node.saved])
    if self._view is None:
        mine[...] = out.array
        mark_modified(mine)
        self._edge, self.requires_grad = out._edge, out.requires_grad
        renew_views(self)
        return self
    base, steps, _ = self._view
    mask, edges, metas = 0, [], []
    for bit, t in ((1, base), (2, out)):
        if t.requires_grad:
            mask |= bit
            edges.append(t._edge or (t, 0))
            metas.append((t.array.shape, t.array.dtype))
    mine[...] = out.array
    mark_modified(mine)
    new = record(copy_slices.op, [base.array, out.array, steps], mask, edges, metas, base.array)
    base._edge, base.requires_grad = new._edge, True
    renew_views(base)
    if self.requires_grad is False or self._edge is None:  # no longer in its base's list
        again = through(base, steps)
        self._edge, self.requires_grad = again._edge, again.requires_grad
    return self


def make_inplace(function: Callable, name: str) -> Callable:
    """The in-place form of an out-of-place method."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if mode.grad and self.requires_grad:
            _check_writable(self)
        return write(self, function(self, *args, **kwargs))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place form of `{name.rstrip('_')}`."
    return method


def relu_(self: Tensor) -> Tensor:
    """In-place form of `relu`; without a copy where no gradient is recorded."""
    mine = self.array
    recorded = mode.grad and self.requires_grad
    if recorded:
        _check_writable(self)
    if recorded or mode.intercept is not None or not isinstance(mine, np.ndarray) or mine.dtype.kind != "f":
        return write(self, relu(self))
    kernel = relu.op.kernel  # type: ignore[attr-defined]
    if kernel is None or kernel(mine, mine) is NotImplemented:
        np.maximum(mine, 0, out=mine)
    mark_modified(mine)
    return self


def make_reshaping(function: Callable, name: str) -> Callable:
    """The in-place form of a method that only changes the shape: the tensor becomes the view."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = function(self, *args, **kwargs)
        self.array, self._edge, self.requires_grad = out.array, out._edge, out.requires_grad
        if self._view is not None:
            self._view = out._view
        return self

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place form of `{name.rstrip('_')}`: the same memory in another shape."
    return method


def fill_(self: Tensor, value: Any) -> Tensor:
    """Sets every element."""
    if isinstance(value, Tensor) and value.array.ndim:
        raise RuntimeError(f"fill_ takes a number or a 0-d tensor, not one of shape {list(value.shape)}")
    return write(self, overwrite(self, value))


def zero_(self: Tensor) -> Tensor:
    """Sets every element to 0."""
    return write(self, overwrite(self, 0))


def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Takes over the values of `src`, broadcast and cast."""
    src = src.to(self.device) if isinstance(src, Tensor) else create.as_tensor(src, device=self.device)
    try:
        return write(self, overwrite(self, src))
    except ValueError:
        raise RuntimeError(f"copy_: shape {list(src.shape)} cannot be broadcast to {list(self.shape)}") from None


def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor like `input` in which every element is `value` (a number or a 0-d tensor)."""
    if isinstance(value, Tensor) and value.array.ndim:
        raise RuntimeError(f"fill takes a number or a 0-d tensor, not one of shape {list(value.shape)}")
    return overwrite(input, value)


def fill_diagonal_(self: Tensor, fill_value: float, wrap: bool = False) -> Tensor:
    """Sets the main diagonal; `wrap` starts again below the square part of a tall matrix."""
    if self.ndim < 2 or (self.ndim > 2 and len(set(self.shape)) > 1):
        raise RuntimeError(f"fill_diagonal_ takes a matrix or a cube, not shape {list(self.shape)}")
    mask = np.zeros(self.array.shape, bool)
    np.fill_diagonal(mask, True, wrap)
    return write(self, elementwise.where(create.as_tensor(mask, device=self.device), overwrite(self, fill_value), self))


def index_put_(self: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """`self[indices] = values`, or `+=` with `accumulate` (repeats add up)."""
    values = logic.cast(create.as_tensor(values, device=self.device), self.array.dtype)
    return write(self, index.index_put(self, raw_index(tuple(indices)), values, accumulate))


def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Another shape for the same elements in row-major order; new elements, if it grows, are 0."""
    if self.requires_grad:
        raise RuntimeError("cannot resize tensors that require a gradient")
    new_shape = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    flat, count = self.array.reshape(-1), int(np.prod(new_shape, dtype=int))
    if count > flat.size:
        larger = create.zeros(count, dtype=self.dtype, device=self.device).array
        larger[: flat.size] = flat
        flat = larger
    self.array = flat[:count].reshape(new_shape)
    return self


def resize_as_(self: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """`resize_` to the shape of another tensor."""
    return resize_(self, tuple(the_template.shape))


def set_(self: Tensor, source: Tensor) -> Tensor:
    """Takes over the memory of another tensor of the same dtype."""
    if source.dtype is not self.dtype:
        raise RuntimeError(f"set_ needs a tensor of dtype {self.dtype}, not {source.dtype}")
    if self.requires_grad:
        raise RuntimeError("set_ on a tensor that requires a gradient; do it inside no_grad() on .data")
    self.array = source.array
    return self


# -- x[index] = value -------------------------------------------------------------------------------------------
def raw_index(item: Any) -> Any:
    """An index with raw arrays and Python integers in place of tensors. Errors: IndexError, ValueError."""
    if isinstance(item, tuple):
        return tuple([raw_index(i) for i in item])
    if isinstance(item, Tensor):
        a = item.array
        if a.dtype.kind not in "iub":
            raise IndexError(f"tensors used as indices must be integer or bool, not {item.dtype}")
        return a if a.ndim or a.dtype == bool else int(a)
    if isinstance(item, slice):
        if item.step is not None and int(item.step) < 0:
            raise ValueError("slices with a negative step are not supported; use flip()")
        return slice(*[None if v is None else int(v) for v in (item.start, item.stop, item.step)])
    if isinstance(item, range):
        return list(item)
    return item


def setitem(self: Tensor, item: Any, value: Any) -> None:
    """`self[item] = value`; the value is broadcast and cast."""
    where = raw_index(item)
    if not isinstance(value, Tensor):
        value = create.as_tensor(value, dtype=None if isinstance(value, complex) else self.dtype, device=self.device)
    elif self.device != value.device:
        value = value.to(self.device)
    extra = value.ndim - self.ndim
    if extra > 0 and all(n == 1 for n in value.shape[:extra]):
        value = shape.reshape(value, tuple(value.shape[extra:]))
    try:
        if not mode.grad or not (self.requires_grad or value.requires_grad):
            index._write(np, self.array, where, value.array, False)
            mark_modified(self.array)
            return
        _check_writable(self)
        part = index.getitem(self, where)
        if part._view is not None:
            write(part, overwrite(part, value))
        else:
            write(self, index.index_put(self, where, logic.cast(value, self.array.dtype)))
    except ValueError as e:
        raise RuntimeError(f"cannot write a value of shape {list(value.shape)} there: {e}") from None
    except IndexError as e:
        raise IndexError(f"{str(e).removeprefix('getitem: ')} for a tensor of shape {list(self.shape)}") from None


# -- random numbers ---------------------------------------------------------------------------------------------
def make_filler(draw: Callable, name: str) -> Callable:
    """The in-place method that fills a tensor with what `draw(generator, tensor, ...)` gives."""

    def method(self: Tensor, *args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
        g = generator or _random.default_generator()
        return write(self, overwrite(self, create.as_tensor(draw(g, self, *args, **kwargs), device=self.device)))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Random numbers in place. {draw.__doc__}"
    return method


INPLACE = (
    "abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr arccos arccosh arcsin arcsinh arctan "
    "arctan2 arctanh asin asinh atan atan2 atanh baddbmm bitwise_and bitwise_left_shift bitwise_not bitwise_or "
    "bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min clip conj_physical copysign cos cosh cumprod "
    "cumsum deg2rad digamma div divide eq erf erfc erfinv exp exp2 expm1 fix float_power floor floor_divide fmod "
    "frac gcd ge greater greater_equal gt heaviside hypot i0 igamma igammac index_add index_copy index_fill "
    "index_reduce lcm ldexp le lerp less less_equal lgamma log log10 log1p log2 logical_and logical_not logical_or "
    "logical_xor logit lt masked_fill masked_scatter mul multiply mvlgamma nan_to_num ne neg negative nextafter "
    "not_equal polygamma pow put rad2deg reciprocal relu remainder renorm round rsqrt scatter scatter_add "
    "scatter_reduce sgn sigmoid sign sin sinc sinh sqrt square sub subtract tan tanh tril triu true_divide trunc "
    "xlogy"
)
