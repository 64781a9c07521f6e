"""autocast and GradScaler."""

import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import flambeau
from flambeau import amp, nn, optim
from flambeau.autograd.modes import mode
from flambeau.nn import functional as F


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("dtype", [flambeau.bfloat16, flambeau.float16])
def test_products_are_narrow_losses_wide_and_gradients_the_parameters(model, dtype):
    x, y = flambeau.randn(5, 4), flambeau.randn(5, 2)
    with flambeau.amp.autocast("cpu", dtype=dtype):
        out = model(x)
        loss = F.mse_loss(out, y)
    assert out.dtype is dtype and loss.dtype is flambeau.float32
    loss.backward()
    narrow = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    F.mse_loss(model(x), y).backward()
    for p, g in zip(model.parameters(), narrow, strict=True):
        assert g.dtype is flambeau.float32
        np.testing.assert_allclose(g.numpy(), p.grad.numpy(), atol=0.05)
    assert model(x).dtype is flambeau.float32 and mode.intercept is None


def test_functions_imported_early_know_of_autocast():
    """In a fresh process, where nothing has entered autocast before the import."""
    code = (
        "from flambeau.nn.functional import mse_loss, mse_loss as kept\n"
        "import flambeau as fb\n"
        "from flambeau.ops import mv\n"
        "x = fb.ones(2, 2).to(fb.bfloat16)\n"
        "with fb.amp.autocast('cpu'):\n"
        "    print(kept(x, x).dtype, mv(x.float(), x[0].float()).dtype, fb.nn.MSELoss()(x, x).dtype)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["flambeau.float32"] * 3


def test_nesting_and_switching_off(model):
    x = flambeau.ones(1, 4)
    with amp.autocast("cpu"):
        with amp.autocast("cpu", enabled=False):
            assert model(x).dtype is flambeau.float32 and not amp.is_autocast_enabled("cpu")
        with amp.autocast("cpu", dtype=flambeau.float16):
            assert model(x).dtype is flambeau.float16
            assert amp.get_autocast_dtype("cpu") is flambeau.float16
        assert model(x).dtype is flambeau.bfloat16 and amp.is_autocast_enabled("cpu")
        with pytest.raises(ZeroDivisionError), amp.autocast("cpu", enabled=False):
            1 / 0
        assert model(x).dtype is flambeau.bfloat16
    assert not amp.is_autocast_enabled("cpu") and amp.get_autocast_dtype("cpu") is flambeau.bfloat16


def test_a_decorator_that_may_call_itself():
    @amp.autocast("cpu")
    def product(n):
        x = flambeau.ones(2, 2) @ flambeau.ones(2, 2)
        return [x.dtype, *(product(n - 1) if n else [])]

    assert product(2) == [flambeau.bfloat16] * 3 and mode.intercept is None
    with pytest.raises(TypeError, match="needs a function"):
        amp.autocast("cpu")(3)


def test_another_thread_is_not_in_the_context():
    seen = []
    with amp.autocast("cpu"):
        thread = threading.Thread(target=lambda: seen.append((flambeau.ones(2, 2) @ flambeau.ones(2, 2)).dtype))
        thread.start(), thread.join()
    assert seen == [flambeau.float32]


def test_float64_and_integers_stay():
    x = flambeau.ones(2, 2)
    with amp.autocast("cpu"):
        assert (x.double() @ x.double()).dtype is flambeau.float64
        assert (x.long() @ x.long()).dtype is flambeau.int64
        assert (x + x).dtype is flambeau.float32


def test_several_backward_passes_and_updates_inside_one_context(model):
    """A parameter's copy is kept, yet every pass has a graph of its own and sees the newest values."""
    x = flambeau.randn(3, 4)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with amp.autocast("cpu"):
        first, second = model(x).float().sum(), model(x).float().square().sum()
        first.backward(), second.backward()
        with flambeau.no_grad():
            before = model(x)
        optimizer.step()
        after = model(x)
        assert not flambeau.equal(before, after)
        after.float().sum().backward()
    np.testing.assert_allclose(after.detach().float().numpy(), model(x).detach().numpy(), atol=0.1)


def test_the_copy_of_a_parameter_is_made_once_and_then_forgotten(model):
    from flambeau.amp.autocast_mode import _state

    x = flambeau.ones(1, 4)
    with amp.autocast("cpu"):
        model(x)
        copies = {key: entry[2] for key, entry in _state.cache.items()}
        model(x)
        assert len(copies) == 4 and all(_state.cache[key][2] is copy for key, copy in copies.items())
        amp.clear_autocast_cache()
        assert not _state.cache
        with amp.autocast("cpu", cache_enabled=False):
            model(x)
            assert not _state.cache and not amp.is_autocast_cache_enabled()
        model(x)
    assert not _state.cache and amp.is_autocast_cache_enabled()


def test_second_order_gradients_pass_through(model):
    x = flambeau.randn(2, 4, requires_grad=True)
    with amp.autocast("cpu"):
        out = model(x).float().square().sum()
        (g,) = flambeau.autograd.grad(out, x, create_graph=True)
        g.square().sum().backward()
    assert model[0].weight.grad.dtype is flambeau.float32 and x.grad.dtype is flambeau.float32


def test_within_and_around_vmap():
    from flambeau import func

    w, xs = flambeau.randn(3, 3), flambeau.randn(4, 2, 3)

    def inner(x):
        with amp.autocast("cpu"):
            return x @ w

    with amp.autocast("cpu"):
        outer = func.vmap(lambda x: x @ w)(xs)
        assert func.vmap(lambda x: F.mse_loss(x @ w, x))(xs).dtype is flambeau.float32
    assert outer.dtype is flambeau.bfloat16 and flambeau.equal(outer, func.vmap(inner)(xs))


def test_a_checkpoint_runs_again_as_it_ran(model):
    from flambeau.utils.checkpoint import checkpoint

    x, grads = flambeau.randn(3, 4, requires_grad=True), []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
        model.zero_grad()
        with amp.autocast("cpu"):
            out = run(x)
        out.float().square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(flambeau.equal(a, b) for a, b in zip(*grads, strict=True))


def test_what_cannot_be_is_said():
    with pytest.raises(RuntimeError, match="unsupported autocast device_type 'tpu'"):
        amp.autocast("tpu")
    with pytest.raises(ValueError, match="type `str`"):
        amp.autocast(3)
    with pytest.warns(UserWarning, match="float32 is not supported"), amp.autocast("cpu", dtype=flambeau.float32):
        assert not amp.is_autocast_enabled("cpu")
    assert amp.is_autocast_available("cpu") and not amp.is_autocast_available("tpu")


def test_switches_without_a_context():
    amp.set_autocast_enabled("cpu", True)
    amp.set_autocast_dtype("cpu", flambeau.float16)
    try:
        assert (flambeau.ones(2, 2) @ flambeau.ones(2, 2)).dtype is flambeau.float16
    finally:
        amp.set_autocast_enabled("cpu", False)
        amp.set_autocast_dtype("cpu", flambeau.bfloat16)
    assert (flambeau.ones(2, 2) @ flambeau.ones(2, 2)).dtype is flambeau.float32 and mode.intercept is None


def test_functions_of_ones_own():
    seen = []

    class Double(flambeau.autograd.Function):
        @staticmethod
        @amp.custom_fwd(device_type="cpu", cast_inputs=flambeau.float32)
        def forward(ctx, x):
            seen.append((x.dtype, amp.is_autocast_enabled("cpu")))
            return x * 2

        @staticmethod
        @amp.custom_bwd(device_type="cpu")
        def backward(ctx, g):
            seen.append(amp.is_autocast_enabled("cpu"))
            return g * 2

    x = flambeau.ones(2, dtype=flambeau.bfloat16, requires_grad=True)
    with amp.autocast("cpu"):
        out = Double.apply(x)
    out.sum().backward()
    Double.apply(x)
    assert seen == [(flambeau.float32, False), False, (flambeau.bfloat16, False)]


# -- GradScaler --------------------------------------------------------------------------------------------------------


def scaled(scaler, w, optimizer, factor=1.0):
    optimizer.zero_grad()
    scaler.scale((w * factor).sum()).backward()


def test_a_step_with_infinite_gradients_is_left_out_and_the_scale_falls():
    w = flambeau.ones(2, requires_grad=True)
    optimizer, scaler = optim.SGD([w], lr=0.5), amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    scaled(scaler, w, optimizer)
    assert w.grad.tolist() == [8, 8]
    scaler.unscale_(optimizer)
    assert w.grad.tolist() == [1, 1]
    scaler.step(optimizer), scaler.update()
    assert w.tolist() == [0.5, 0.5] and scaler.get_scale() == 8
    scaled(scaler, w, optimizer, float("inf"))
    assert scaler.step(optimizer) is None
    scaler.update()
    assert w.tolist() == [0.5, 0.5] and scaler.get_scale() == 4
    for _ in range(2):
        scaled(scaler, w, optimizer)
        scaler.step(optimizer), scaler.update()
    assert scaler.get_scale() == 8
    scaler.update(64.0)
    assert scaler.get_scale() == 64


def test_each_optimizer_has_its_own_check():
    a, b = flambeau.ones(1, requires_grad=True), flambeau.ones(1, requires_grad=True)
    first, second = optim.SGD([a], lr=1.0), optim.SGD([b], lr=1.0)
    scaler = amp.GradScaler("cpu", init_scale=2.0)
    for loss in scaler.scale([a.sum(), (b * float("nan")).sum()]):
        loss.backward()
    scaler.step(first), scaler.step(second), scaler.update()
    assert a.item() == 0 and b.item() == 1 and scaler.get_scale() == 1


def test_wrong_order_and_wrong_settings():
    w = flambeau.ones(1, requires_grad=True)
    optimizer, scaler = optim.SGD([w], lr=1.0), amp.GradScaler("cpu")
    with pytest.raises(AssertionError, match="scale"):
        scaler.step(optimizer)
    scaled(scaler, w, optimizer)
    with pytest.raises(AssertionError, match="No inf checks"):
        scaler.update()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    for method, match in ((scaler.unscale_, "after step"), (scaler.step, "already been called")):
        with pytest.raises(RuntimeError, match=match):
            method(optimizer)
    with pytest.raises(RuntimeError, match="Closure"):
        scaler.step(optimizer, closure=lambda: 0)
    scaler.update()
    half = flambeau.ones(1, dtype=flambeau.float16, requires_grad=True)
    half.grad = flambeau.ones_like(half)
    with pytest.raises(ValueError, match="FP16"):
        scaler.unscale_(optim.SGD([half]))
    with pytest.raises(AssertionError, match="growth factor"):
        amp.GradScaler("cpu", growth_factor=1.0)
    with pytest.raises(ValueError, match="iterable"):
        scaler.scale(3)


def test_a_scaler_that_is_off_and_its_state():
    w = flambeau.ones(1, requires_grad=True)
    optimizer, off = optim.SGD([w], lr=1.0), amp.GradScaler("cpu", enabled=False)
    scaled(off, w, optimizer)
    off.unscale_(optimizer), off.step(optimizer), off.update()
    assert w.item() == 0 and off.state_dict() == {} and off.get_scale() == 1 and not off.is_enabled()
    scaler = amp.GradScaler("cpu", init_scale=4.0, growth_interval=7)
    other = amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict() and other.get_scale() == 4
    with pytest.raises(RuntimeError, match="empty"):
        other.load_state_dict({})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert amp.GradScaler().is_enabled() or "CUDA is not available" in str(caught[0].message)


# -- float8: to store numbers in --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_is_stored_moved_and_saved_but_not_computed_with(name, tmp_path):
    dtype = getattr(flambeau, name)
    x = flambeau.tensor([1.0, -0.3, 300.0]).to(dtype)
    assert x.dtype is dtype and x[1:].shape == (2,) and x.reshape(3, 1).dtype is dtype and dtype.itemsize == 1
    assert flambeau.zeros(2, dtype=dtype).float().tolist() == [0, 0]
    flambeau.save({"x": x}, tmp_path / "x.safetensors")
    assert flambeau.equal(flambeau.load(tmp_path / "x.safetensors")["x"].float(), x.float())
    with pytest.raises(RuntimeError, match=rf"arithmetic on flambeau\.{name}.*\.to\(flambeau\.float32\)"):
        x + flambeau.ones(3)
    w = flambeau.tensor([1.0, 2.0], requires_grad=True)
    w.to(dtype).to(flambeau.float32).sum().backward()
    assert w.grad.tolist() == [1, 1]


@pytest.mark.parametrize("compute", [lambda x: x + x, lambda x: x * 2.0, lambda x: x @ x, lambda x: x.exp()])
def test_arithmetic_on_float8_alone_is_refused(compute):
    with pytest.raises(RuntimeError, match="arithmetic on"):
        compute(flambeau.ones(3).to(flambeau.float8_e4m3fn))
