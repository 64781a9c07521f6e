"""The engine: accumulation, order, freeing, in-place changes, hooks, modes, depth."""

import gc

import numpy as np
import pytest

import flambeau as fb
from flambeau.autograd import grad
from flambeau.testing.gradients import gradcheck, gradgradcheck


def leaf(*shape, seed=0, dtype=np.float64):
    return fb.tensor(np.random.default_rng(seed).uniform(0.5, 1.5, shape).astype(dtype), requires_grad=True)


def test_gradients_accumulate_over_calls_and_paths():
    x = leaf(3)
    (x * x + x).sum().backward()
    once = x.grad.numpy().copy()
    np.testing.assert_allclose(once, 2 * x.detach().numpy() + 1)
    (x * x + x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * once)


def test_grad_does_not_share_memory_with_the_gradient_given():
    x = leaf(3)
    g = fb.ones(3, dtype=fb.float64)
    (x + 0.0).backward(g)
    x.grad.array[...] = 7
    assert (g.numpy() == 1).all()
    a, b = leaf(3), leaf(3)
    (a + b).sum().backward()
    a.grad.array[...] = 7
    assert (b.grad.numpy() == 1).all()


def test_broadcast_and_dtype_are_undone():
    w = leaf(4, dtype=np.float32)
    x = fb.tensor(np.ones((2, 3, 4)))
    (w * x).sum().backward()
    assert w.grad.dtype is fb.float32
    np.testing.assert_array_equal(w.grad.numpy(), np.full(4, 6, np.float32))


def test_second_backward_needs_retain_graph():
    x = leaf(3)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match=r"second time.*retain_graph"):
        y.backward()


def test_scalar_outputs_only_unless_a_gradient_is_given():
    x = leaf(3)
    with pytest.raises(RuntimeError, match="scalar outputs"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match="shape"):
        (x * 2).backward(fb.ones(4, dtype=fb.float64))
    with pytest.raises(RuntimeError, match="does not require"):
        fb.ones(3).sum().backward()


def test_grad_leaves_dot_grad_alone_and_reports_unused_inputs():
    x, z = leaf(3), leaf(2)
    (gx,) = grad((x**3).sum(), x)
    np.testing.assert_allclose(gx.numpy(), 3 * x.detach().numpy() ** 2)
    assert x.grad is None
    with pytest.raises(RuntimeError, match="allow_unused"):
        grad((x**2).sum(), [x, z])
    assert grad((x**2).sum(), [x, z], allow_unused=True)[1] is None
    zeros = grad((x**2).sum(), [x, z], materialize_grads=True)[1]
    np.testing.assert_array_equal(zeros.numpy(), np.zeros(2))


def test_grad_of_an_intermediate_tensor():
    x = leaf(3)
    h = x * 2
    (g,) = grad((h * h).sum(), h)
    np.testing.assert_allclose(g.numpy(), 4 * x.detach().numpy())


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_any_order_from_one_formula(order):
    x = fb.tensor(0.7, dtype=fb.float64, requires_grad=True)
    y = fb.sin(x)
    for _ in range(order):
        (y,) = grad(y, x, create_graph=True)
    expected = [np.sin, np.cos, lambda v: -np.sin(v), lambda v: -np.cos(v)][order % 4](0.7)
    assert float(y.detach()) == pytest.approx(float(expected), abs=1e-12)


def test_double_backward_through_a_small_network():
    w1, w2, x = leaf(5, 4, seed=1), leaf(1, 5, seed=2), leaf(3, 4, seed=3)

    def network(w1, w2, x):
        return fb.matmul(fb.tanh(fb.matmul(x, w1.T)), w2.T)

    assert gradcheck(network, [w1, w2, x])
    assert gradgradcheck(network, [w1, w2, x])


def test_gradient_penalty_reaches_the_weights():
    w, x = leaf(1, 3), leaf(2, 3, seed=5)
    (gx,) = grad(fb.tanh(fb.matmul(x, w.T)).sum(), x, create_graph=True)
    (gx * gx).sum().backward()
    assert w.grad is not None and float(w.grad.abs().sum()) > 0


def test_in_place_change_of_a_saved_value_is_caught():
    x = leaf(3)
    h = x * 2
    y = (h * h).sum()
    with fb.no_grad():
        h.mul_(3)
    with pytest.raises(RuntimeError, match="in-place"):
        y.backward()


def test_in_place_change_before_it_is_saved_is_fine():
    x = leaf(3)
    h = x * 2
    h.add_(1)
    (h * h).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 4 * (2 * x.detach().numpy() + 1))


def test_in_place_on_a_leaf_is_refused():
    x = leaf(3)
    with pytest.raises(RuntimeError, match="no_grad"):
        x.add_(1)
    with fb.no_grad():
        x.add_(1)


def test_setitem_takes_part_in_the_graph():
    x = leaf(4)
    h = x * 1
    h[1:3] = 0.0
    h.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 0, 0, 1])


def test_in_place_through_shared_memory():
    a = np.zeros(3, np.float32)
    t = fb.from_numpy(a)
    t.view(3).add_(1)
    np.testing.assert_array_equal(a, [1, 1, 1])


def test_modes():
    x = leaf(3)
    with fb.no_grad():
        assert not (x * 2).requires_grad
        with fb.enable_grad():
            assert (x * 2).requires_grad
    assert (x * 2).requires_grad
    with fb.inference_mode():
        assert fb.is_inference_mode_enabled() and not (x * 2).requires_grad

    @fb.no_grad()
    def evaluated():
        return x * 2

    assert not evaluated().requires_grad
    fb.set_grad_enabled(False)
    try:
        assert not (x * 2).requires_grad
    finally:
        fb.set_grad_enabled(True)


def test_an_exception_inside_backward_restores_recording():
    x = leaf(3)
    y = (x * 2).sum()
    y.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        y.backward()
    assert fb.is_grad_enabled()


def test_hooks_see_and_replace_gradients():
    x = leaf(3)
    h = x * 2
    seen = []
    handle = h.register_hook(lambda g: seen.append(g.tolist()) or g * 10)
    h.sum().backward(retain_graph=True)
    assert seen == [[1.0, 1.0, 1.0]]
    np.testing.assert_array_equal(x.grad.numpy(), [20, 20, 20])
    handle.remove()
    x.grad = None
    h.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2, 2])


def test_retain_grad():
    x = leaf(3)
    h = x * 2
    h.retain_grad()
    (h * h).sum().backward()
    np.testing.assert_allclose(h.grad.numpy(), 2 * h.detach().numpy())


def test_detach_cuts_the_graph():
    x = leaf(3)
    (x * x.detach()).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), x.detach().numpy())


def test_multiple_outputs_of_which_one_is_used():
    x = leaf(3, 4)
    values, indices = x.max(1)
    values.sum().backward()
    assert (x.grad.numpy().sum(1) == 1).all() and not indices.requires_grad


def test_a_deep_graph_neither_recurses_nor_overflows_when_freed():
    x = fb.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(50_000):
        y = y + 1e-6
    y.backward()
    assert float(x.grad) == 1
    z = x
    for _ in range(50_000):
        z = z * 1.0
    del z  # freed without having gone backward


def test_a_training_step_leaves_no_cycles():
    w = leaf(20, 20, dtype=np.float32)
    x = fb.tensor(np.ones((8, 20), np.float32))

    def step():
        h = fb.softmax(fb.tanh(fb.matmul(x, w)), 1)
        fb.cat([h, h.exp()], 1).pow(2).mean().backward()
        w.grad = None

    step()
    gc.collect()
    gc.disable()
    try:
        step()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_errors_name_op_and_shapes():
    with pytest.raises(RuntimeError, match=r"matmul.*3x4 and 5x2"):
        fb.ones(3, 4) @ fb.ones(5, 2)
    with pytest.raises(
        RuntimeError, match=r"add: the size of input \(3\) must match the size of other \(4\) at dimension -1"
    ):
        fb.ones(3) + fb.ones(4)
    with pytest.raises(RuntimeError, match=r"matmul: .*same dtype, but got float32 and float64; cast one"):
        fb.ones(2, 2) @ fb.ones(2, 2, dtype=fb.float64)
    with pytest.raises(TypeError, match="unexpected keyword"):
        fb.sum(fb.ones(3), axes=0)


def test_batched_cotangents():
    x = fb.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (rows,) = fb.autograd.grad(x * x, x, fb.eye(3), is_grads_batched=True)
    assert rows.tolist() == [[2, 0, 0], [0, 4, 0], [0, 0, 6]]


def test_grad_visits_only_what_leads_to_the_inputs():
    x = fb.tensor([1.0], requires_grad=True)
    seen = []
    upstream = x * 2
    upstream.register_hook(seen.append)
    middle = upstream.exp()
    (g,) = fb.autograd.grad((middle * middle).sum(), middle)
    assert not seen and g.tolist() == (2 * middle).tolist()


def test_backward_to_given_inputs_alone():
    x, y = fb.tensor([1.0], requires_grad=True), fb.tensor([2.0], requires_grad=True)
    middle = x * y
    (middle * 3).sum().backward(inputs=[y, middle])
    assert x.grad is None and y.grad.tolist() == [3] and middle.grad.tolist() == [3]
