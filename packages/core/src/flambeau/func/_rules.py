"""The table of batching rules: which op follows which rule, and the rules that serve one op alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import ops
from ..ops._op import Op, normalize_dim
from . import _rules_index, _rules_linear
from ._batched import expand_front
from ._call import (
    DIMS,
    Call,
    along,
    dynamic,
    elementwise,
    folded,
    one_by_one,
    picking,
    shifted,
    trailing,
    unfold,
    whole,
)

RULES: dict[str, Callable[[Call], Any]] = {}
# Every op of these families works element by element, and every one of these on planes of (N, C, …).
_ELEMENTWISE_FAMILIES = ("elementwise", "logic", "special", "activation")
_FOLDED_FAMILIES = ("pool", "resample")
_TRAILING_FAMILIES = ("linalg",)


def rule_for(op: Op) -> Callable[[Call], Any] | None:
    """The batching rule of an op; None for composites, which are carried out op by op."""
    rule = RULES.get(op.name)
    if rule is not None:
        return rule
    if op.composite:
        return None
    family = op.function.__module__.rpartition(".")[2].partition("_")[0]
    if op.has_list:
        chosen = one_by_one
    elif any(d in op.params for d in DIMS):
        chosen = along
    elif family in _ELEMENTWISE_FAMILIES:
        chosen = elementwise
    elif family in _FOLDED_FAMILIES:
        chosen = folded
    elif family in _TRAILING_FAMILIES:
        chosen = trailing
    else:
        chosen = one_by_one
    RULES[op.name] = chosen
    return chosen


def _assign(rule: Callable, names: str) -> None:
    for name in names.split():
        RULES[name] = rule


_assign(elementwise, "clone contiguous masked_fill bce")
_assign(whole, "sum mean variance amax amin argmax argmin prod any all count_nonzero linalg_vector_norm")
_assign(picking, "gather scatter_add scatter_add_zeros scatter_src scatter_fold")
_assign(dynamic, "argwhere _unique _unique_consecutive bincount")
_assign(trailing, "tril triu to_device")
_assign(one_by_one, "ctc_grad")  # a composite, but it reads the lengths
_assign(folded, "im2col col2im")


def rule(*names: str) -> Callable:
    """Registers the rule of one op (or of several)."""

    def register(function: Callable) -> Callable:
        for name in names:
            RULES[name] = function
        return function

    return register


# -- dtype and shape ---------------------------------------------------------------------------------------------
@rule("cast")
def _cast(call: Call) -> Any:
    if not isinstance(call["dtype"], str):
        call["like"] = None
    call.batch("input")
    return call.run()


@rule("reshape", "view")
def _reshape(call: Call) -> Any:
    shape = call["shape"]
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if -1 in shape and call.size == 0:
        known = 1
        for n in shape:
            known *= n if n != -1 else 1
        total = 1
        for n in call.shape("input"):
            total *= n
        shape = tuple(total // known if n == -1 else n for n in shape)
    call["shape"] = (call.size, *shape)
    return call.run()


@rule("expand")
def _expand(call: Call) -> Any:
    shape = tuple(call["shape"])
    if len(shape) < call.rank("input"):
        raise RuntimeError(f"expand: {len(shape)} sizes for a tensor with {call.rank('input')} dimensions")
    call.align("input", len(shape))
    call["shape"] = (call.size, *shape)
    return call.run()


@rule("sum_to")
def _sum_to(call: Call) -> Any:
    shape = tuple(call["shape"])
    call["shape"] = (call.size, *[1] * (call.rank("input") - len(shape)), *shape)
    return ops.reshape(call.run(), (call.size, *shape))


@rule("place_diagonal", "place_windows")
def _place(call: Call) -> Any:
    """Gradients of views: the dims are those of the base, whose shape is given."""
    shape = tuple(call["shape"])
    call["shape"] = (call.size, *shape)
    for d in DIMS:
        if d in call.op.params:
            call[d] = shifted(call[d], len(shape))
    return call.run()


@rule("overwrite")
def _overwrite(call: Call) -> Any:
    call.batch("input")
    call.align("src", call.rank("input"))
    return call.run()


@rule("permute")
def _permute(call: Call) -> Any:
    if len(call["dims"]) != call.rank("input"):
        raise RuntimeError(f"permute: {len(call['dims'])} dims for a tensor with {call.rank('input')} dimensions")
    call["dims"] = (0, *shifted(tuple(call["dims"]), call.rank("input")))
    return call.run()


@rule("transpose")
def _transpose(call: Call) -> Any:
    rank = call.rank("input")
    if rank == 0:
        return call["input"]
    call["dim0"], call["dim1"] = shifted(call["dim0"], rank), shifted(call["dim1"], rank)
    return call.run()


@rule("squeeze")
def _squeeze(call: Call) -> Any:
    shape = call.shape("input")
    dims = range(len(shape)) if call["dim"] is None else normalize_dim(call["dim"], len(shape)) if shape else ()
    dims = (dims,) if isinstance(dims, int) else dims
    return ops.reshape(call["input"], (call.size, *[n for i, n in enumerate(shape) if i not in dims or n != 1]))


@rule("unsqueeze")
def _unsqueeze(call: Call) -> Any:
    call["dim"] = shifted(call["dim"], call.rank("input") + 1)
    return call.run()


@rule("roll")
def _roll(call: Call) -> Any:
    if call["dims"] is not None and call["dims"] != ():
        return along(call)
    shape = call["input"].array.shape
    call["input"] = ops.reshape(call["input"], (call.size, -1))
    call["dims"] = 1
    return ops.reshape(call.run(), shape)


@rule("pad_constant")
def _pad(call: Call) -> Any:
    call["widths"] = [(0, 0), *call["widths"]]
    return call.run()


@rule("repeat")
def _repeat(call: Call) -> Any:
    repeats = tuple(call["repeats"])
    call.align("input", len(repeats))
    call["repeats"] = (1, *repeats)
    return call.run()


@rule("cat", "stack")
def _join(call: Call) -> Any:
    tensors = call.values[0]
    rank = max(t.array.ndim - (i in call.batched) for i, t in enumerate(tensors))
    if call.op.name == "cat":  # PyTorch lets an empty 1-d tensor be joined to anything
        kept = [i for i, t in enumerate(tensors) if t.array.shape[i in call.batched :] != (0,) or rank == 1]
    else:
        kept = list(range(len(tensors)))
    call.values[0] = [tensors[i] if i in call.batched else expand_front(tensors[i], call.size) for i in kept]
    call["dim"] = shifted(call["dim"], rank + (call.op.name == "stack"))
    return call.run()


@rule("one_hot")
def _one_hot(call: Call) -> Any:
    if call["num_classes"] == -1:
        raise RuntimeError("vmap: one_hot needs num_classes; counting the classes depends on the values")
    return call.run()


# -- reductions and order ----------------------------------------------------------------------------------------
@rule("masked_fill")
def _masked_fill(call: Call) -> Any:
    if "value" not in call.batched:
        return elementwise(call)
    rank = max(call.rank("input"), call.rank("mask"))
    value = ops.cast(call.align("value", rank), call["input"].array.dtype)
    return ops.where(call.align("mask", rank), value, call.align("input", rank))


for _table in (_rules_index.RULES, _rules_linear.RULES):
    RULES.update(_table)

__all__ = ["RULES", "rule_for", "unfold"]
