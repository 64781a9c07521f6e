"""`compile`: the same results as the function, guards, fallbacks, gradients, randomness, threads."""

import copy
import re
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau as fb
from flambeau import nn
from flambeau.compiler import compile
from flambeau.graph import GraphBreak

F = nn.functional
SCALE = 2.0


def same(a, b):
    assert a.dtype is b.dtype and a.shape == b.shape
    assert np.array_equal(a.detach().numpy(), b.detach().numpy(), equal_nan=True)


UNARY = {
    "relu": lambda x: x.relu(), "tanh": lambda x: x.tanh(), "exp": lambda x: x.clamp(-3, 3).exp(), "neg": lambda x: -x,
    "sigmoid": lambda x: x.sigmoid(), "silu": F.silu, "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "square": lambda x: x.square(), "t": lambda x: x.transpose(0, 1).exp().reshape(x.shape), "half": lambda x: x * 0.5,
    "softmax": lambda x: x.softmax(-1), "rows": lambda x: x @ x.transpose(0, 1)[:, :1] + x,
    "write": lambda x: _written(x), "sum": lambda x: x - x.sum(0, keepdim=True), "compare": lambda x: (x > 0) * x,
    "cat": lambda x: fb.cat([x[:1], x[1:]], 0), "linear": lambda x: F.linear(x, WEIGHT[: x.shape[1], : x.shape[1]]),
}  # fmt: skip
WEIGHT = fb.from_numpy(np.random.default_rng(0).standard_normal((300, 300)).astype(np.float32) / 20)


def _written(x):
    y = x * 2
    y[0] += 1
    return y


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(UNARY)), st.sampled_from(["", "add", "mul", "sub"])), min_size=1, max_size=8
    ),
    st.sampled_from([(2, 3), (5, 1), (200, 200)]),
    st.booleans(),
    st.integers(0, 99),
)
def test_random_graphs_equal_eager(steps, shape, transposed, seed):
    def f(x, y):
        kept = [x, y]
        for name, join in steps:
            z = UNARY[name](kept[-1])
            if join:
                z = {"add": z + kept[-2], "mul": z * kept[-2], "sub": z - kept[-2]}[join]
            kept.append(z)
        return kept[-1], kept[len(kept) // 2]

    rng = np.random.default_rng(seed)
    compiled = compile(f, fullgraph=True)
    with fb.no_grad(), np.errstate(all="ignore"):
        for _ in range(3):
            arrays = [rng.standard_normal(shape[::-1] if transposed else shape).astype(np.float32) for _ in range(2)]
            x, y = (fb.from_numpy(a.T if transposed else a) for a in arrays)
            for a, b in zip(compiled(x, y), f(x, y), strict=True):
                same(a, b)


def test_results_are_not_overwritten_by_later_calls():
    f = compile(lambda x: (x * 2).exp() + x)
    x = fb.randn(300, 300)
    first = f(x)
    kept = first.clone()
    for _ in range(3):
        f(x + 1)
    same(first, kept)


def test_gradients_and_buffers_equal_eager():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Dropout(0.3), nn.Linear(8, 2))
    twin, x = copy.deepcopy(model), fb.randn(6, 4)
    fast = compile(model, fullgraph=True)
    optimizers = [fb.optim.Adam(m.parameters(), lr=0.01) for m in (model, twin)]
    for step in range(4):
        for run, optimizer in zip((fast, twin), optimizers, strict=True):
            fb.manual_seed(step)
            optimizer.zero_grad()
            run(x).square().mean().backward()
            optimizer.step()
        for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
            same(a, b)
    assert len(fast.explain().graphs) == 1


def test_gradients_of_arguments_and_of_several_outputs():
    def f(x, y):
        return (x * y).tanh(), x.sum(), {"z": y.exp()}

    fast = compile(f, fullgraph=True)
    for _ in range(2):
        grads = []
        for run in (fast, f):
            x, y = (fb.full((2, 3), v, requires_grad=True) for v in (0.5, 0.25))
            a, b, c = run(x, y)
            (a.sum() * 2 + b + c["z"].sum()).backward()
            grads.append((x.grad, y.grad))
        for a, b in zip(*grads, strict=True):
            same(a, b)
    x = fb.ones(2, 3, requires_grad=True)
    fast(x, fb.ones(2, 3))[1].backward()  # outputs that nobody used
    same(x.grad, fb.ones(2, 3))


def test_second_order_says_so():
    f = compile(lambda x: x**3)
    x = fb.ones(2, requires_grad=True)
    with pytest.raises(NotImplementedError, match="create_graph"):
        fb.autograd.grad(f(x).sum(), x, create_graph=True)


def test_saved_values_that_changed_are_caught():
    f = compile(lambda x, w: x * w)
    x, w = fb.ones(3), fb.ones(3, requires_grad=True)
    out = f(x, w)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified"):
        out.sum().backward()


def test_guards_on_shape_dtype_mode_and_python_values():
    def f(x, k=1.0):
        return x * k + (1 if fb.is_grad_enabled() else 2)

    fast = compile(f, limit=20)
    for x in (fb.ones(3), fb.ones(2, 2), fb.ones(3, dtype=fb.float64), fb.ones(4, 4)[:, 0]):
        for k in (1.0, 2, True):
            same(fast(x, k), f(x, k))
    with fb.no_grad():
        same(fast(fb.ones(3)), f(fb.ones(3)))
    assert not fast.explain().fallbacks


def test_guards_on_training_flag_attributes_and_parameters():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    fast, x = compile(model), fb.ones(2, 3)
    with fb.no_grad():
        fast(x)
        model.eval()
        same(fast(x), model(x))
        model[0].weight = nn.Parameter(fb.ones(3, 3))  # another tensor
        same(fast(x), model(x))
        model[0].weight.mul_(3)  # the same tensor, changed
        same(fast(x), model(x))
        model[0].weight.data = fb.zeros(3, 3)
        same(fast(x), model(x))
        model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
        same(fast(x), model(x))
        model[0] = nn.Linear(3, 3, bias=False)
        same(fast(x), model(x))
    assert fast.explain().recompiles


def test_guards_on_globals_and_closures(monkeypatch):
    factor = 3.0

    def f(x):
        return x * factor * SCALE

    fast, x = compile(f), fb.ones(2)
    same(fast(x), f(x))
    factor = 5.0
    same(fast(x), f(x))
    monkeypatch.setitem(globals(), "SCALE", 7.0)
    same(fast(x), f(x))
    assert sorted(fast.explain().recompiles) == [
        "the captured variable factor changed",
        "the global name SCALE changed",
    ]


def test_batch_norm_is_folded_and_follows_its_statistics():
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())
    for _ in range(3):
        model(fb.randn(4, 3, 6, 6))
    model.eval()
    fast = compile(model, fullgraph=True)
    with fb.no_grad():
        for _ in range(3):
            x = fb.randn(2, 3, 6, 6)
            fast(x)
            np.testing.assert_allclose(fast(x).numpy(), model(x).numpy(), rtol=1e-5, atol=1e-6)
            model[1].running_mean.add_(0.5)
            np.testing.assert_allclose(fast(x).numpy(), model(x).numpy(), rtol=1e-5, atol=1e-6)
    assert "mul(" not in fast.explain().sources[0]


@pytest.mark.filterwarnings("ignore:flambeau.compile")
@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x * 2 if x.sum() > 0 else -x, "a value is read"),
        (lambda x: x * float(x.mean()), "a value is read"),
        (lambda x: fb.zeros(3).add_(x), "NumPy array|changed in place"),
    ],
)
def test_fallbacks_are_right_and_visible(function, reason):
    fast = compile(function)
    for x in (fb.ones(3), -fb.ones(3), fb.ones(3)):
        same(fast(x), function(x))
    ((why, count),) = fast.explain().fallbacks.items()
    assert count == 3 and re.search(reason, why)
    assert why in str(fast.explain())
    with pytest.raises(GraphBreak):
        compile(function, fullgraph=True)(fb.ones(3))


def test_fallback_warns_once():
    fast = compile(lambda x: x * x.sum().item())
    with pytest.warns(RuntimeWarning, match="a value is read"):
        fast(fb.ones(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast(fb.ones(2))


def test_outputs_never_share_memory():
    fast = compile(lambda x: (x * 2, x * 2, x.exp().sum()), fullgraph=True)
    for _ in range(2):
        a, b, _ = fast(fb.ones(3))
        a.add_(1)
        same(b, fb.full((3,), 2.0))


@pytest.mark.filterwarnings("ignore:flambeau.compile")
def test_cache_is_bounded():
    fast = compile(lambda x: x + 1, limit=2)
    for n in range(1, 6):
        same(fast(fb.ones(n)), fb.ones(n) + 1)
    assert len(fast.explain().graphs) == 2 and sum(fast.explain().fallbacks.values()) == 3


@pytest.mark.filterwarnings("ignore:flambeau.compile")
def test_inside_autocast_and_vmap_the_function_itself_runs():
    f = lambda x: x @ x
    fast, x = compile(f), fb.randn(4, 4)
    fast(x)
    with fb.autocast("cpu", dtype=fb.bfloat16):
        same(fast(x), f(x))
    same(fb.vmap(fast)(fb.randn(3, 4, 4).mul(0)), fb.zeros(3, 4, 4))


def test_arguments_changed_in_place():
    def f(x, y):
        x.add_(y)
        return x * 2

    fast = compile(f)
    a, b, y = fb.ones(3), fb.ones(3), fb.ones(3)
    for _ in range(3):
        version = a._version
        same(fast(a, y), f(b, y))
        same(a, b)
        assert a._version > version


def test_outputs_that_are_arguments_parameters_and_plain_values():
    w = fb.ones(2)
    fast = compile(lambda x: (x, w, 3, {"a": x + 1, "b": None}), fullgraph=True)
    for _ in range(2):
        x = fb.ones(2)
        got = fast(x)
        assert got[0] is x and got[1] is w and got[2] == 3 and got[3]["b"] is None
        same(got[3]["a"], x + 1)


def test_threads():
    model = nn.Sequential(nn.Linear(50, 60), nn.Tanh(), nn.Linear(60, 50)).eval()
    fast = compile(model, limit=50)
    inputs = [fb.randn(n, 50) for n in range(1, 25)]
    with fb.no_grad():
        wanted = [model(x) for x in inputs]
    failures = []

    def work(order):
        with fb.no_grad():
            for i in order:
                if not np.array_equal(fast(inputs[i]).numpy(), wanted[i].numpy()):
                    failures.append(i)

    rng = np.random.default_rng(0)
    threads = [threading.Thread(target=work, args=(rng.permutation(24).tolist() * 3,)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures and not fast.explain().fallbacks


def test_decorator_and_refused_options():
    @compile
    def f(x):
        """Twice."""
        return x * 2

    assert f.__doc__ == "Twice." and f.__name__ == "f"
    same(f(fb.ones(2)), fb.full((2,), 2.0))
    assert compile(len, disable=True) is len
    with pytest.raises(NotImplementedError, match="dynamic"):
        compile(len, dynamic=True)
    with pytest.raises(NotImplementedError, match="backend"):
        compile(len, backend="inductor")


def test_values_of_outside_tensors_that_operations_look_at():
    mask = fb.ones(1, 4, 4, dtype=fb.bool).tril()
    mask[0, 0] = False  # a query that may look nowhere

    def f(q):
        return F.scaled_dot_product_attention(q, q, q, attn_mask=mask)

    fast, q = compile(f, fullgraph=True), fb.randn(1, 4, 8)
    for _ in range(2):
        same(fast(q), f(q))
    mask[0, 0, 0] = True
    for _ in range(2):
        same(fast(q), f(q))
    mask[0, 3] = False
    same(fast(q), f(q))


@pytest.mark.filterwarnings("ignore:flambeau.compile")
def test_what_is_returned_may_be_changed():
    w = fb.ones(3)
    fast = compile(lambda x: (w * 2, x + w * 2), fullgraph=True)
    made = compile(lambda x: (fb.zeros(3), fb.ones(4)[1:], x * 2))
    for _ in range(3):
        for a, b in zip((*fast(fb.ones(3)), *made(fb.ones(3))), (2.0, 3.0, 0.0, 1.0, 2.0), strict=True):
            same(a, fb.full((3,), b))
            a.add_(7)
    w.add_(1)
    same(fast(fb.ones(3))[0], fb.full((3,), 4.0))


def test_compiled_modules_nest_and_keep_their_methods():
    inner = compile(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), fullgraph=True)
    assert len(list(inner.parameters())) == 2 and inner.eval() is inner and not inner.training
    outer = compile(lambda x: inner(x) * 2, fullgraph=True)
    with fb.no_grad():
        for _ in range(2):
            same(outer(fb.ones(2, 3)), inner(fb.ones(2, 3)) * 2)
    assert len(inner.explain().graphs) == 1 and not inner.explain().fallbacks


def test_views_of_values_that_are_computed_once_keep_their_memory():
    def f(x, w):
        first, second = x * 2, x * 2  # one of them stays, with the view of the other
        view = second.reshape(3, 2)
        y = (first @ w).exp()
        for _ in range(4):
            y = (y @ w).tanh() * 0.5
        return y.reshape(3, 2) + view

    fast = compile(f, fullgraph=True)
    with fb.no_grad():
        for _ in range(3):
            x, w = fb.randn(2, 3), fb.randn(3, 3)
            same(fast(x, w), f(x, w))


@pytest.mark.filterwarnings("ignore:flambeau.compile")
def test_numpy_arrays_that_a_function_captures():
    small, large = np.ones(3, np.float32), np.ones(5000, np.float32)
    fast = compile(lambda x: x * fb.tensor(small) + fb.from_numpy(small))
    for _ in range(3):
        same(fast(fb.ones(3)), fb.from_numpy(small * 2))
        small += 1
    wide = compile(lambda x: x * fb.tensor(large))
    for _ in range(2):
        same(wide(fb.ones(5000)), fb.from_numpy(large))
        large += 1
    assert "large NumPy array" in str(wide.explain())
