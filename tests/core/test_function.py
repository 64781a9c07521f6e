"""Custom autograd functions, anomaly mode, the memory of graphs."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import flambeau as fb
from flambeau import nn
from flambeau.autograd import Function, detect_anomaly, once_differentiable


class Cube(Function):
    @staticmethod
    def forward(ctx, x, scale=1.0):
        out = x * x * x * scale
        ctx.save_for_backward(x, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, g):
        x, _ = ctx.saved_tensors
        return g * 3 * x * x * ctx.scale, None


def leaf(*values):
    return fb.tensor([float(v) for v in values], requires_grad=True, dtype=fb.float64)


def test_first_and_second_order():
    x = leaf(1, 2)
    y = Cube.apply(x, 2.0)
    assert y.tolist() == [2, 16] and y.grad_fn.name() == "CubeBackward"
    (g,) = fb.autograd.grad(y.sum(), x, create_graph=True)
    (h,) = fb.autograd.grad(g.sum(), x)
    assert g.tolist() == [6, 24] and h.tolist() == [12, 24]
    assert fb.testing.gradcheck(Cube.apply, [x]) and fb.testing.gradgradcheck(Cube.apply, [x])


def test_saved_output_has_its_history():
    class Exp(Function):
        @staticmethod
        def forward(ctx, x):
            out = x.exp()
            ctx.save_for_backward(out)
            return out

        @staticmethod
        def backward(ctx, g):
            (out,) = ctx.saved_tensors
            return g * out

    assert fb.testing.gradgradcheck(Exp.apply, [leaf(0.3, 0.7)])


def test_setup_context_and_several_outputs():
    class Both(Function):
        @staticmethod
        def forward(a, b):
            return a + b, a * b, a > b

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.mark_non_differentiable(output[2])

        @staticmethod
        def backward(ctx, g_sum, g_product, g_order):
            a, b = ctx.saved_tensors
            assert g_product.tolist() == [0, 0]  # unused outputs come as zeros
            return g_sum + g_product * b, g_sum + g_product * a

    a, b = leaf(1, 2), leaf(3, 4)
    total, product, order = Both.apply(a, b)
    assert product.requires_grad and not order.requires_grad
    total.sum().backward()
    assert a.grad.tolist() == [1, 1] == b.grad.tolist()


def test_unused_outputs_as_none_on_request():
    seen = []

    class Two(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 1, x * 2

        @staticmethod
        def backward(ctx, g, h):
            seen.append((g, h))
            return g

    x = leaf(1)
    Two.apply(x)[0].sum().backward()
    assert seen[0][1] is None and x.grad.tolist() == [1]


def test_in_place_function():
    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = leaf(1, 2)
    y = x * 1
    z = Double.apply(y)
    assert z is y
    y.sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_needs_input_grad_and_identity():
    class Reverse(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, g):
            assert ctx.needs_input_grad == (True, False)
            return -g, None

    x = leaf(1, 2)
    Reverse.apply(x, leaf(3).detach()).sum().backward()
    assert x.grad.tolist() == [-1, -1]


def test_no_node_without_need():
    assert Cube.apply(fb.ones(2)).grad_fn is None
    with fb.no_grad():
        assert Cube.apply(leaf(1)).grad_fn is None


def test_errors():
    class Short(Function):
        @staticmethod
        def forward(ctx, a, b):
            return a * b

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(RuntimeError, match=r"Short.backward returned 1 gradients for 2"):
        Short.apply(leaf(1), leaf(2)).sum().backward()
    with pytest.raises(TypeError, match="apply"):
        Cube()
    x = leaf(1)
    y = Cube.apply(x)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    with pytest.raises(RuntimeError, match="freed"):
        _ = y.grad_fn.saved_tensors
    x = leaf(2)
    inner = x * 1
    y = Cube.apply(inner)
    inner.add_(1)
    with pytest.raises(RuntimeError, match=r"Cube .*modified by an in-place"):
        y.sum().backward()


def test_once_differentiable():
    class Once(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            return g * 2 * ctx.saved_tensors[0]

    x = leaf(3)
    (g,) = fb.autograd.grad(Once.apply(x).sum(), x)
    assert g.tolist() == [6]
    w = leaf(1)
    (g,) = fb.autograd.grad((Once.apply(x) * w).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        g.sum().backward()


# -- anomaly mode -----------------------------------------------------------------------------------------------
class Net(nn.Module):
    def __init__(self, fault):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 2), fault)

    def forward(self, x):
        return self.body(x)


class Log(nn.Module):
    def forward(self, x):
        return (x - x).log()


class Root(nn.Module):
    def forward(self, x):
        return (x - x).abs().sqrt()


def test_anomaly_names_op_and_module_forward():
    with detect_anomaly(), pytest.raises(RuntimeError, match=r"log made an infinity .*test_function.py") as caught:
        Net(Log())(fb.ones(1, 2))
    assert "body.1" in "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def test_anomaly_names_op_and_module_backward():
    with detect_anomaly():
        loss = Net(Root())(fb.ones(1, 2)).sum()
        with pytest.raises(RuntimeError, match=r"gradient of sqrt in module body.1 \(Root\) has an infinity"):
            loss.backward()


def test_anomaly_leaves_good_steps_and_masks_alone():
    scores = fb.zeros(2, 2, requires_grad=True)
    with detect_anomaly():
        masked = scores.masked_fill(fb.tensor([[True, False], [False, False]]), -float("inf"))
        masked.softmax(-1).sum().backward()
    assert fb.autograd.is_anomaly_enabled() is False
    y = (fb.zeros(1, requires_grad=True)).sqrt()  # outside: nothing is checked
    y.sum().backward()


# -- memory -----------------------------------------------------------------------------------------------------
def test_deep_graph():
    x = leaf(1)
    y = x
    for _ in range(50_000):
        y = y + 1
    y.sum().backward(retain_graph=True)
    assert x.grad.tolist() == [1]
    del y  # taking the chain apart must not overflow the stack either


def test_graph_is_freed_by_backward():
    x = leaf(*range(10))
    y = x.exp()
    watched = weakref.ref(y.array)
    z = (y * y).sum()
    del y
    assert watched() is not None
    z.backward()
    assert watched() is None


def test_no_garbage_from_training_steps():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(36, 8), nn.LayerNorm(8), nn.Dropout(0.1), nn.GELU(), nn.Linear(8, 3))  # fmt: skip
    optimizer = fb.optim.AdamW(model.parameters())
    x, target = fb.rand(8, 1, 8, 8), fb.randint(0, 3, (8,))

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    for _ in range(3):
        step()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        step()
        gc.collect()  # also empties the interpreter's own lists of tuples to reuse
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            step()
        assert gc.collect() == 0, "a step left cycles behind"
        grown = tracemalloc.get_traced_memory()[0] - before
        assert grown < 20_000, f"{grown} bytes in 20 steps"
    finally:
        tracemalloc.stop()
        gc.enable()


def test_gradient_of_a_leaf_is_its_own_memory():
    x, y = leaf(1, 2), leaf(3, 4)
    g = fb.ones(2, dtype=fb.float64)
    (x + y).backward(g)
    x.grad.zero_()
    assert y.grad.tolist() == [1, 1] and g.tolist() == [1, 1]
    assert not np.shares_memory(x.grad.array, y.grad.array)
