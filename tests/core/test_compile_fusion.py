"""Kernels that `compile` writes for elementwise groups: the bits of the eager function, on every shape and dtype."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau as fb
from flambeau import nn
from flambeau.compiler import compile
from flambeau.graph import fusion, trace

F = nn.functional
numba = pytest.importorskip("numba")


def array(shape, dtype=np.float32, odd=True):
    """Random numbers; with `odd` some that are none, infinite or zero."""
    a = np.asarray(np.random.default_rng(sum(shape)).standard_normal(shape) * 3)
    if dtype is bool:
        return fb.from_numpy(np.asarray(a > 0))
    if np.dtype(dtype).kind == "i":
        return fb.from_numpy((a * 4).astype(dtype))
    a = a.astype(dtype)
    if odd and a.size > 20:
        a.reshape(-1)[[0, 3, 7, 11, 12]] = np.nan, np.inf, -np.inf, 0.0, -0.0
    return fb.from_numpy(a)


def bits(t):
    """An array in which only equal bits are equal, but for the sign and payload of NaN."""
    a = t.detach().numpy()
    if a.dtype.kind != "f":
        return a
    whole = a.view(f"i{a.dtype.itemsize}").copy()
    whole[np.isnan(a)] = 1
    return whole


def same(a, b):
    assert a.dtype is b.dtype and a.shape == b.shape
    assert np.array_equal(bits(a), bits(b))


def groups(compiled):
    return [n for g in compiled.explain().graphs for n in g.nodes if n.op == "kernel"]


def compare(f, *args, fused=True):
    expected = f(*args)
    compiled = compile(f, fullgraph=True)
    for _ in range(2):
        found = compiled(*args)
        for a, b in zip(
            expected if isinstance(expected, tuple) else (expected,),
            found if isinstance(found, tuple) else (found,),
            strict=True,
        ):
            same(a, b)
    if fused:
        assert groups(compiled), compiled.explain()
    return compiled


ONE = {
    "neg": lambda x: -x, "abs": lambda x: x.abs(), "square": lambda x: x.square(), "sqrt": lambda x: x.sqrt(),
    "relu": lambda x: x.relu(), "half": lambda x: x * 0.5, "left": lambda x: 2 - x, "inverse": lambda x: 3.0 / x,
    "pow": lambda x: x**2, "sigmoid": lambda x: x.sigmoid(), "silu": F.silu, "gelu": F.gelu,
    "tanh gelu": lambda x: F.gelu(x, approximate="tanh"), "softplus": F.softplus,
    "soft 2": lambda x: F.softplus(x, 2.0, 5.0), "exp": lambda x: x.exp(), "tanh": lambda x: x.tanh(),
    "log": lambda x: x.log(), "double": lambda x: (x.double() + 1).float() if x.dtype is fb.float32 else x,
    "mask": lambda x: x * (x > 0.5), "where": lambda x: fb.where(x < 1, x, x * 2),
    "limit": lambda x: fb.maximum(x, x * 2),
    "below": lambda x: fb.minimum(-x, x), "nan": lambda x: fb.where(x == x, x, -1.0),
    "in place": lambda x: _changed(x), "row sum": lambda x: x + x.sum(-1, keepdim=True),
    "expand": lambda x: x + x[..., :1].expand(x.shape),
}  # fmt: skip
TWO = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": lambda x, y: x / y,
    "max": lambda x, y: fb.maximum(x, y), "where": lambda x, y: fb.where(x > y, x, x - y),
    "less": lambda x, y: x * (x <= y).to(x.dtype),
}  # fmt: skip


def _changed(x):
    y = x * 2
    z = y + 1
    y += x
    return y - z


SHAPES = [
    ((300, 64), [(64,), (300, 1), (1,), (300, 64), ()]),
    ((7, 33, 101), [(101,), (33, 101), (7, 1, 1), (33, 1), (1, 33, 101)]),
    ((3, 5, 17, 131), [(1, 5, 1, 1), (3, 5, 1, 1), (131,), (17, 131)]),
    ((40001,), [(1,), (40001,)]),
    ((5, 11), [(11,), (5, 1), ()]),
    ((1, 9), [(9,), (1, 1)]),
]


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from([np.float32, np.float32, np.float64]),
    st.lists(
        st.tuples(st.sampled_from(sorted(ONE)), st.sampled_from(["", *sorted(TWO)]), st.integers(0, 4)),
        min_size=2,
        max_size=9,
    ),
)
def test_random_chains(shapes, dtype, steps):
    shape, others = shapes
    x = array(shape, dtype)
    operands = [array(s, dtype) for s in others]

    def f(x, operands):
        kept = [x]
        for one, two, k in steps:
            y = ONE[one](kept[-1])
            if two:
                y = TWO[two](y, operands[k % len(operands)])
                y = TWO[two](y, kept[len(kept) // 2])
            kept.append(y)
        return kept[-1], kept[len(kept) // 2] * 1

    with np.errstate(all="ignore"):
        compare(f, x, operands, fused=False)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([np.int32, np.int64]),
    st.lists(st.sampled_from(["+", "-", "*", "neg", "abs", "max", "float", "bool", "where"]), min_size=3, max_size=8),
    st.sampled_from([(300, 200), (9, 7)]),
)
def test_integers_and_booleans(dtype, steps, shape):
    big = np.iinfo(dtype).max // 3

    def f(x, row):
        for name in steps:
            if name == "+":
                x = x + row
            elif name == "-":
                x = x - big
            elif name == "*":
                x = x * 7
            elif name == "neg":
                x = -x
            elif name == "abs":
                x = x.abs()
            elif name == "max":
                x = fb.maximum(x, row)
            elif name == "float":
                x = x + (x.float() * 0.5 > 1).to(x.dtype)
            elif name == "bool":
                x = x * ((x > 3) & (row < 2)).to(x.dtype)
            else:
                x = fb.where(x == row, row, x)
        return x

    compare(f, array(shape, dtype), array(shape[-1:], dtype), fused=False)


@pytest.mark.parametrize("name", sorted(ONE.keys() - {"exp", "tanh", "log"}))
def test_each_operation_in_a_large_kernel(name):
    with np.errstate(all="ignore"):
        compare(lambda x: (ONE[name](x + 1) * 2 - x) * x, array((33, 1001)))


def test_what_numpy_computes_by_polynomials_is_left_to_numpy():
    compiled = compare(lambda x: ((x * 2 + 1).exp() * x + 1) * 2, array((300, 200)))
    assert all(n.op != "exp" for k in groups(compiled) for n in k.body)


def test_gradients_of_a_chain():
    x, w = array((200, 300), odd=False).requires_grad_(), array((300,), odd=False).requires_grad_()

    def f(x, w):
        y = F.silu(x * w + 1) * x.relu() - F.softplus(x) / (x.square() + 1)
        return (y * F.gelu(x)).sum(-1)

    compiled = compile(f, fullgraph=True)
    for _ in range(2):
        expected = fb.autograd.grad(f(x, w).sum(), (x, w))
        found = fb.autograd.grad(compiled(x, w).sum(), (x, w))
        for a, b in zip(expected, found, strict=True):
            same(a, b)
    (entry,) = [e for found in compiled._entries.values() for e in found]
    assert any(n.op == "kernel" for n in entry.backward_graph.nodes)


@pytest.mark.parametrize("width", [8, 9, 31, 64, 127, 128, 129, 200])
def test_sums_of_rows(width):
    compare(lambda x: ((x * x + 1) / 3).sum(-1, keepdim=True) * 2, array((5000, width), odd=False))
    compare(lambda x: ((x * x - x) / 3).sum(-1), array((600, width)))


def test_sums_of_negative_zeros():
    compare(lambda x: ((x * 0.0) * 1.0).sum(-1), fb.from_numpy(np.full((5000, 16), -1.0, np.float32)))


def test_picked_rows():
    index = fb.from_numpy(np.random.default_rng(1).integers(0, 50, 2000))
    negative = fb.from_numpy(-1 - index.numpy())
    strided = fb.from_numpy(np.stack([index.numpy()] * 2, 1)[:, 0])
    w = array((2000, 1))

    for i in (index, strided):
        compiled = compare(lambda x, i=i: (x[i] * w + 1) * (x + 1)[i] + w, array((50, 64)))
        assert any(n.op == "getitem" for k in groups(compiled) for n in k.body)
    compiled = compare(lambda x: (x[negative] * w + 1) * 2 + w, array((50, 64)))
    assert all(n.op != "getitem" for k in groups(compiled) for n in k.body)


def test_picked_rows_by_an_argument():
    compiled = compile(lambda x, i: (x[i] * 2 + 1) * x[i] - 3, fullgraph=True)
    x = array((50, 64))
    for index in (np.arange(2000) % 50, -1 - np.arange(2000) % 50):
        i = fb.from_numpy(index)
        same(compiled(x, i), (x[i] * 2 + 1) * x[i] - 3)
    assert any(n.op == "getitem" for k in groups(compiled) for n in k.body)
    with pytest.raises(IndexError):
        compiled(x, fb.from_numpy(np.full(2000, 50)))


def test_picked_rows_of_what_is_changed_in_place():
    index = fb.from_numpy(np.arange(1999, -1, -1))

    def f(x):
        y = x * 2
        z = y[index] + 1
        y += 1
        return (z * y[index] + y) * 2

    compare(f, array((2000, 64)), fused=False)


def test_changes_of_arguments_stay_in_order():
    def f(x, y):
        a = (x + y) * 2 - 1
        x *= 2
        b = (x + y) * 2 - a
        x += b
        return (a * b + x) * 3

    compiled = compile(f, fullgraph=True)
    y = array((300, 200))
    x1, x2 = (fb.from_numpy(array((300, 200)).numpy().copy()) for _ in range(2))
    for _ in range(3):
        same(f(x1, y), compiled(x2, y))
        same(x1, x2)


def test_results_stay_when_called_again():
    compiled = compile(lambda x: (x * 2 + 1) * x - 3)
    first = compiled(array((300, 200)))
    before = first.numpy().copy()
    compiled(array((300, 200)) * 5)
    assert np.array_equal(first.numpy(), before, equal_nan=True)


def test_other_shapes_share_the_text():
    from flambeau.backends.kernels import numba_fused

    compiled = compile(lambda x, y: ((x - y) * 3 + 1) * x / 7)
    same(
        compiled(array((400, 200)), array((200,))),
        ((array((400, 200)) - array((200,))) * 3 + 1) * array((400, 200)) / 7,
    )
    count = len(numba_fused.kernels)
    compiled(array((777, 123)), array((123,)))
    assert len(numba_fused.kernels) == count and len(groups(compiled)) == 2


def test_a_training_step_of_second_derivatives():
    def make():
        net = nn.Sequential(nn.Linear(16, 64), nn.Softplus(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
        for k, p in enumerate(net.parameters()):
            p.data.copy_(fb.from_numpy(np.random.default_rng(k).standard_normal(p.shape).astype(np.float32) / 8))
        optimizer = fb.optim.Adam(net.parameters(), lr=1e-2)

        x = array((1000, 16), odd=False).requires_grad_()

        def step():
            optimizer.zero_grad()
            energy = net(x)
            (slope,) = fb.autograd.grad(energy.sum(), x, create_graph=True)
            loss = (energy.square()).mean() + ((slope - 1).square() * 0.5).mean()
            loss.backward()
            optimizer.step()
            return loss.item(), slope

        return step, net

    (eager, first), (step, second) = make(), make()
    compiled = compile(step, fullgraph=True)
    for _ in range(4):
        (a, b), (c, d) = eager(), compiled()
        assert a == c
        same(b, d)
    assert groups(compiled)
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        same(p, q)


def test_explain_lists_the_groups():
    compiled = compile(lambda x: (x * 2 + 1) * x - 3)
    compiled(array((300, 200)))
    text = str(compiled.explain())
    assert "1 kernels" in text and "mul, add, mul, sub" in text


def test_groups_keep_the_order_of_what_depends_on_them():
    graph = trace(lambda x: ((x * 2 + 1).exp() + x * 3) * x, array((300, 200)))
    fused = fusion.fuse(graph).verify()
    x = array((300, 200)).numpy()
    with np.errstate(all="ignore"):
        assert np.array_equal(fused.run(x)[0], graph.run(x)[0], equal_nan=True)


def test_threads_and_processes_give_the_same_bits():
    code = (
        "import numpy as np, flambeau as fb, hashlib\n"
        "x = fb.from_numpy(np.linspace(-3, 3, 300 * 64, dtype=np.float32).reshape(300, 64).repeat(9, 0))\n"
        "f = fb.compile(lambda x: (fb.nn.functional.silu(x * 2) + x).sum(-1, keepdim=True) * 2)\n"
        "f(x)\nprint(hashlib.sha256(f(x).numpy().tobytes()).hexdigest(), len(f.explain().graphs))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "FLAMBEAU_NUM_THREADS": threads},
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_use_numpy():
    compiled = compile(lambda x: (x * 2 + 1) * x - 3)
    x = array((300, 200))
    expected = bits(compiled(x))
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(bits(compiled(x)), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_numba():
    code = (
        "import sys\nsys.modules['numba'] = None\nimport numpy as np, flambeau as fb\n"
        "f = lambda x: (x * 2 + 1) * x - 3\ng = fb.compile(f)\nx = fb.randn(300, 200)\n"
        "g(x)\nassert np.array_equal(f(x).numpy(), g(x).numpy())\n"
        "assert not any(n.op == 'kernel' for n in g.explain().graphs[0].nodes)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
