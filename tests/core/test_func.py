"""Function transforms: what needs no peer to be checked against."""

import threading
import time

import numpy as np
import pytest

import flambeau as fb
from flambeau import func, nn
from flambeau.nn import functional as F


def mlp():
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def per_sample(model):
    parameters = {k: v.detach() for k, v in model.named_parameters()}

    def loss(p, x, y):
        return F.cross_entropy(func.functional_call(model, p, (x.unsqueeze(0),)), y.unsqueeze(0))

    return parameters, func.grad(loss)


def test_per_sample_gradients_are_many_times_faster_than_a_loop():
    parameters, gradient = per_sample(mlp())
    x, y = fb.randn(64, 20), fb.randint(0, 10, (64,))
    batched = func.vmap(gradient, (None, 0, 0))
    batched(parameters, x, y)

    def best(run):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            out = run()
            times.append(time.perf_counter() - start)
        return out, min(times)

    together, fast = best(lambda: batched(parameters, x, y))
    single, slow = best(lambda: [gradient(parameters, x[i], y[i]) for i in range(64)])
    for k in parameters:
        fb.testing.assert_close(together[k], fb.stack([g[k] for g in single]), rtol=1e-4, atol=1e-6)
    assert slow > 4 * fast, f"{slow * 1e3:.1f} ms one by one, {fast * 1e3:.1f} ms batched"


# -- what leaves a transform -------------------------------------------------------------------------------------
def test_results_carry_no_history_unless_the_caller_records():
    x = fb.randn(3)
    assert not func.grad(lambda x: (x**2).sum())(x).requires_grad
    out, pull = func.vjp(fb.sin, x)
    assert not out.requires_grad and not pull(x)[0].requires_grad
    assert not func.jacrev(fb.sin)(x).requires_grad and not func.jacfwd(fb.sin)(x).requires_grad


def test_gradients_can_be_differentiated_by_what_the_caller_records():
    w = fb.tensor([1.0, 2.0], requires_grad=True)
    func.grad(lambda x: (x**2 * w).sum())(fb.tensor([3.0, 4.0])).sum().backward()
    assert w.grad.tolist() == [6.0, 8.0]
    x = fb.tensor([3.0], requires_grad=True)
    func.grad(lambda x: (x**3).sum())(x).backward()
    assert x.grad.tolist() == [18.0]
    with fb.no_grad():
        assert not func.grad(lambda x: (x**3).sum())(x).requires_grad


def test_inputs_and_their_grad_are_left_alone():
    x = fb.tensor([3.0], requires_grad=True)
    func.grad(lambda x: (x * x).sum())(x)
    func.hessian(lambda x: (x * x).sum())(x)
    assert x.grad is None and x.is_leaf


def test_grad_under_no_grad():
    with fb.no_grad():
        assert func.grad(lambda x: (x * x).sum())(fb.tensor([3.0])).tolist() == [6.0]


def test_nothing_is_left_behind_by_an_error():
    with pytest.raises(ZeroDivisionError):
        func.vmap(lambda x: 1 / 0)(fb.ones(2))
    assert fb.randn(2).shape == (2,)  # neither the refusing generator
    assert (fb.ones(2) + 1).tolist() == [2, 2]  # nor the interceptor


def test_other_threads_are_not_batched():
    found = []

    def function(x):
        thread = threading.Thread(target=lambda: found.append((fb.ones(2) * fb.rand(2)).shape))
        thread.start()
        thread.join()
        return x

    func.vmap(function)(fb.ones(3))
    assert found == [(2,)]


# -- randomness --------------------------------------------------------------------------------------------------
def test_randomness():
    x = fb.ones(200, 50)
    same = func.vmap(lambda x: F.dropout(x, 0.5), randomness="same")(x)
    assert (same == same[0]).all()
    fb.manual_seed(1)
    different = func.vmap(lambda x: F.dropout(x, 0.5), randomness="different")(x)
    assert not (different == different[0]).all()
    assert 0.45 < float((different == 0).float().mean()) < 0.55
    fb.manual_seed(1)
    assert (F.dropout(x, 0.5) == different).all()  # one draw for the batch, as without vmap
    noise = func.vmap(lambda x: fb.randn(3) * x + fb.rand(3), randomness="different")(fb.ones(4))
    assert noise.shape == (4, 3) and not (noise == noise[0]).all()
    with pytest.raises(RuntimeError, match="randomness='error'"):
        func.vmap(lambda x: F.dropout(x, 0.5))(x)


def test_gradient_of_dropout_follows_its_mask():
    x = fb.ones(4, 6)
    fb.manual_seed(3)
    gradient = func.vmap(func.grad(lambda x: F.dropout(x, 0.5).sum()), randomness="different")(x)
    fb.manual_seed(3)
    assert (gradient == F.dropout(x, 0.5)).all()


# -- in place ----------------------------------------------------------------------------------------------------
def test_in_place_changes_reach_views_or_raise():
    def through_a_view(x):
        y = x * 1
        view = y[0]
        view += 10
        return y

    assert func.vmap(through_a_view)(fb.zeros(2, 2)).tolist() == [[10, 0], [10, 0]]

    def stale(x):
        y = x * 1
        view = y[0]
        y += 10
        return view

    with pytest.raises(NotImplementedError, match="changed in place"):
        func.vmap(stale)(fb.zeros(2, 2))
    with pytest.raises(NotImplementedError, match="argument"):
        func.vmap(lambda x: x.add_(1))(fb.zeros(2, 2))


# -- modules -----------------------------------------------------------------------------------------------------
def test_functional_call_leaves_the_module_alone():
    layer = nn.Linear(2, 1)
    before = layer.weight
    out = func.functional_call(layer, ({"weight": fb.ones(1, 2)}, {"bias": fb.zeros(1)}), fb.ones(1, 2))
    assert out.item() == 2 and layer.weight is before
    with pytest.raises(KeyError, match="no parameter"):
        func.functional_call(layer, {"weights": fb.ones(1, 2)}, fb.ones(1, 2))
    with pytest.raises(RuntimeError, match="missing"):
        func.functional_call(layer, {"weight": fb.ones(1, 2)}, fb.ones(1, 2), strict=True)
    with pytest.raises(ValueError, match="more than one"):
        func.functional_call(layer, ({"bias": fb.ones(1)}, {"bias": fb.ones(1)}), fb.ones(1, 2))
    with pytest.raises(RuntimeError):
        func.functional_call(layer, {"weight": fb.ones(1, 3)}, fb.ones(1, 2))
    assert layer.weight is before


def test_tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2, bias=False)
            self.b = nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    eye, x = fb.eye(2) * 2, fb.ones(1, 2)
    assert func.functional_call(Tied(), {"a.weight": eye}, x).tolist() == [[4, 4]]
    module = Tied()
    with fb.no_grad():
        module.a.weight.copy_(fb.eye(2))
    assert func.functional_call(module, {"a.weight": eye}, x, tie_weights=False).tolist() == [[2, 2]]
    with pytest.raises(ValueError, match="tied"):
        func.functional_call(module, {"a.weight": eye, "b.weight": eye * 2}, x)


def test_stack_module_state():
    parameters, buffers = func.stack_module_state([nn.BatchNorm1d(3) for _ in range(2)])
    assert parameters["weight"].shape == (2, 3) and parameters["weight"].requires_grad
    assert buffers["num_batches_tracked"].shape == (2,)
    for models in ([], [nn.Linear(1, 1), nn.ReLU()], [nn.Linear(1, 1), nn.Linear(1, 1).eval()]):
        with pytest.raises(RuntimeError):
            func.stack_module_state(models)


# -- checks of gradients -----------------------------------------------------------------------------------------
class Wrong(fb.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * x

    @staticmethod
    def backward(ctx, g):
        return g


def test_gradcheck_says_where_the_numbers_differ():
    x = fb.tensor([3.0, 2.0], dtype=fb.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"input 0 at \(0,\): backward gives .*, finite differences"):
        fb.autograd.gradcheck(Wrong.apply, x)
    assert not fb.autograd.gradcheck(Wrong.apply, x, raise_exception=False)
    assert not fb.autograd.gradcheck(Wrong.apply, x, raise_exception=False, fast_mode=True)
    assert fb.autograd.gradcheck(fb.exp, x, check_batched_grad=True, check_grad_dtypes=True)
    assert fb.autograd.gradgradcheck(lambda x: fb.exp(x) * x, x, gen_non_contig_grad_outputs=True)
    with pytest.raises(ValueError, match="float64"):
        fb.autograd.gradcheck(fb.exp, fb.ones(2, requires_grad=True))
    with pytest.raises(NotImplementedError, match="check_forward_ad"):
        fb.autograd.gradcheck(fb.exp, x, check_forward_ad=True)


def test_jacobian_and_jvp_against_finite_differences():
    x = fb.randn(4, dtype=fb.float64)
    function = lambda x: (x.sin() * x.sum()).reshape(2, 2)
    eps = 1e-6
    numeric = np.stack(
        [(function(x + eps * e) - function(x - eps * e)).numpy() / (2 * eps) for e in fb.eye(4, dtype=fb.float64)],
        -1,
    )
    for transform in (func.jacrev, func.jacfwd):
        np.testing.assert_allclose(transform(function)(x).numpy(), numeric, rtol=1e-6, atol=1e-8)
    tangent = fb.randn(4, dtype=fb.float64)
    pushed = func.jvp(function, (x,), (tangent,))[1]
    np.testing.assert_allclose(pushed.numpy(), numeric @ tangent.numpy(), rtol=1e-6, atol=1e-8)
