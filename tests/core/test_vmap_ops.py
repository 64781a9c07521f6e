"""Every op under vmap: a stacked argument gives the results of the samples, stacked."""

import numpy as np
import pytest

from flambeau import func, ops
from flambeau.tensor import Tensor
from flambeau.testing import assert_close
from flambeau.testing.cases import op_cases

# Ops that raise under vmap, because the shape of their output depends on the values.
DYNAMIC = {"argwhere", "_unique", "_unique_consecutive", "bincount"}
SIZE = 3


def varied(t, k):
    """Another value of the same kind: shifted a little, rolled for integers and booleans so that they stay valid."""
    a = t.array
    if a.dtype.kind in "fc":
        return Tensor._wrap(a * (1 - 0.03 * k))
    return Tensor._wrap(np.roll(a, k, -1) if a.ndim else a)


def leaves(out):
    return [t for o in out for t in leaves(o)] if isinstance(out, tuple | list) else [out]


def compare(case, positions):
    """The op with the arguments at `positions` batched against a loop over the samples."""
    args = case.tensors()
    function = case.op.function
    stacks = {}
    for p in positions:
        v = args[p]
        each = [[varied(t, k) for t in (v if isinstance(v, list) else [v])] for k in range(SIZE)]
        stacks[p] = each if isinstance(v, list) else [one for (one,) in each]

    def call(*batched):
        full = list(args)
        for p, v in zip(positions, batched, strict=True):
            full[p] = v
        out = function(*full)
        return tuple(t for t in leaves(out) if isinstance(t, Tensor))

    expected = [call(*[stacks[p][k] for p in positions]) for k in range(SIZE)]
    joined = [
        [ops.stack(list(c)) for c in zip(*stack, strict=True)] if isinstance(stack[0], list) else ops.stack(stack)
        for stack in stacks.values()
    ]
    actual = func.vmap(call)(*joined)
    for k in range(SIZE):
        for a, e in zip(actual, expected[k], strict=True):
            assert_close(a[k], e, rtol=1e-9, atol=1e-11)


def tensor_positions(case):
    args = case.tensors()
    return [
        i for i, v in enumerate(args)
        if isinstance(v, Tensor) or (isinstance(v, list) and v and isinstance(v[0], Tensor))
    ]  # fmt: skip


CASES = [c for c in op_cases() if c.op.name not in DYNAMIC]


@pytest.mark.opcase
@pytest.mark.parametrize("case", CASES, ids=str)
def test_first_argument_batched(case):
    positions = tensor_positions(case)
    if positions:
        compare(case, positions[:1])


@pytest.mark.opcase
@pytest.mark.parametrize("case", [c for c in CASES if len(tensor_positions(c)) > 1], ids=str)
def test_other_arguments_batched(case):
    positions = tensor_positions(case)
    compare(case, positions)
    compare(case, positions[1:])


@pytest.mark.parametrize("name", sorted(DYNAMIC))
def test_dynamic_shapes_raise(name):
    from flambeau.ops._op import REGISTRY

    with pytest.raises(RuntimeError, match="shape depends on the values"):
        func.vmap(REGISTRY[name].function)(ops.ones(2, 3, dtype="int64"))
