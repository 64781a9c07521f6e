"""Optimizers, schedules and averaging: misuse, state, and what no peer can tell."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import flambeau
from flambeau import nn, optim
from flambeau.optim import lr_scheduler

ALL = ["SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "Lion"]


def problem(seed=0):
    """A convex problem with its minimum at 0."""
    generator = np.random.default_rng(seed)
    scale = flambeau.tensor(generator.uniform(0.5, 2, (6,)))
    w = flambeau.tensor(generator.normal(size=6), requires_grad=True)
    return w, lambda: (scale * w * w).sum()


def step(optimizer, loss):
    optimizer.zero_grad()
    value = loss()
    value.backward()
    optimizer.step()
    return value.item()


@pytest.mark.parametrize("name", ALL)
def test_minimises(name):
    w, loss = problem()
    optimizer = getattr(optim, name)([w], lr={"Adadelta": 10.0, "Lion": 0.01}.get(name, 0.05))
    first = step(optimizer, loss)
    for _ in range(150):
        last = step(optimizer, loss)
    assert last < 0.1 * first


@pytest.mark.parametrize("name", ALL)
def test_interrupted_is_uninterrupted_bit_for_bit(name):
    w, loss = problem()
    optimizer = getattr(optim, name)([w], lr=0.01)
    for _ in range(5):
        step(optimizer, loss)
    other, other_loss = problem()
    other.array[...] = w.array
    resumed = getattr(optim, name)([other], lr=1.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(5):
        step(optimizer, loss), step(resumed, other_loss)
    assert (w == other).all()


@pytest.mark.parametrize("name", ALL)
def test_maximize_is_minimising_the_negative(name):
    (w, loss), (v, negated) = problem(), problem()
    up, down = (getattr(optim, name)([p], lr=0.01, maximize=m) for p, m in ((w, True), (v, False)))
    for _ in range(3):
        step(up, loss), step(down, lambda: -negated())
    assert (w == v).all()


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_left_alone_and_parameters_without_one_are_skipped(name):
    w, unused = flambeau.ones(3, requires_grad=True), flambeau.ones(2, requires_grad=True)
    optimizer = getattr(optim, name)([w, unused], lr=0.1, weight_decay=0.1)
    w.grad = flambeau.tensor([1.0, -2.0, 3.0])
    optimizer.step(), optimizer.step()
    assert w.grad.tolist() == [1.0, -2.0, 3.0] and unused.tolist() == [1.0, 1.0]
    assert list(optimizer.state_dict()["state"]) in ([], [0])


def test_lion_follows_its_equations():
    w = flambeau.tensor([1.0, -2.0], dtype=flambeau.float64, requires_grad=True)
    optimizer = optim.Lion([w], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    p, m = w.detach().numpy().copy(), np.zeros(2)
    for g in (np.array([0.3, -1.0]), np.array([-5.0, 0.1]), np.array([0.2, 0.2])):
        w.grad = flambeau.tensor(g)
        optimizer.step()
        p = p * (1 - 0.1 * 0.5) - 0.1 * np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
        np.testing.assert_allclose(w.detach().numpy(), p, rtol=1e-12)


def test_closure_and_zero_grad():
    w, loss = problem()
    optimizer = optim.SGD([w], lr=0.1)

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    with flambeau.no_grad():
        assert optimizer.step(closure).item() > 0
    optimizer.zero_grad(set_to_none=False)
    assert w.grad.tolist() == [0.0] * 6
    optimizer.zero_grad()
    assert w.grad is None


def test_steps_are_in_place_and_seen_by_autograd():
    w, loss = problem()
    memory, optimizer = w.array, optim.SGD([w], lr=0.1)
    step(optimizer, loss)
    assert w.array is memory
    value = loss()
    w.grad = flambeau.ones_like(w)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        value.backward()


def test_groups():
    a, b, c = (flambeau.ones(1, requires_grad=True) for _ in range(3))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    optimizer.add_param_group({"params": [c], "momentum": 0.9})
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5, 0.1]
    assert [g["momentum"] for g in optimizer.param_groups] == [0, 0, 0.9]
    assert [g["params"] for g in optimizer.state_dict()["param_groups"]] == [[0], [1], [2]]
    assert repr(optimizer).startswith("SGD (\nParameter Group 0\n    dampening: 0\n")


def test_misuse_is_named():
    w = flambeau.ones(1, requires_grad=True)
    for params, error, match in [
        ([], ValueError, "empty parameter list"),
        (w, TypeError, "not a single Tensor"),
        ([{"params": [w]}, {"params": [w]}], ValueError, "more than one parameter group"),
        ([{"params": {w}}], TypeError, "sets have none"),
        ([1.0], TypeError, "can only optimize Tensors"),
        ([w * 2], ValueError, "non-leaf"),
    ]:
        with pytest.raises(error, match=match):
            optim.SGD(params, lr=0.1)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optim.SGD([w, w], lr=0.1)
    with pytest.raises(ValueError, match="invalid lr: -1"):
        optim.Adam([w], lr=-1)
    with pytest.raises(ValueError, match=r"invalid beta parameter at index 1: 1\.5"):
        optim.Adam([w], betas=(0.9, 1.5))
    with pytest.raises(ValueError, match="Nesterov"):
        optim.SGD([w], nesterov=True)
    with pytest.raises(NotImplementedError, match="differentiable"):
        optim.SGD([w], differentiable=True)
    with pytest.raises(TypeError, match="momentun"):
        optim.SGD([w], momentun=0.9)


def test_state_of_another_model_is_refused():
    w, loss = problem()
    optimizer = optim.Adam([w], lr=0.1)
    step(optimizer, loss)
    other = optim.Adam([flambeau.ones(1, requires_grad=True), flambeau.ones(1, requires_grad=True)], lr=0.3)
    with pytest.raises(ValueError, match=r"\[1\] parameters by group against \[2\]"):
        other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["lr"] == 0.3 and not other.state_dict()["state"]


def test_loaded_state_is_a_copy_in_the_parameters_dtype():
    w, loss = problem()
    optimizer = optim.Adam([w], lr=0.1)
    step(optimizer, loss)
    half = flambeau.ones(6, dtype=flambeau.float16, requires_grad=True)
    other = optim.Adam([half])
    other.load_state_dict(optimizer.state_dict())
    assert other.state[half]["exp_avg"].dtype is flambeau.float16
    assert other.state[half]["step"].dtype is flambeau.float32 and other.state[half]["step"].item() == 1
    other.state[half]["step"].array += 5
    assert optimizer.state[w]["step"].item() == 1


def test_schedules_refuse_bad_settings():
    w = flambeau.ones(1, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1)
    for build, match in [
        (lambda: lr_scheduler.LambdaLR(optimizer, [abs, abs]), "expected 1 lr_lambdas, but got 2"),
        (lambda: lr_scheduler.OneCycleLR(optimizer, 0.1), "total_steps or both"),
        (lambda: lr_scheduler.OneCycleLR(optimizer, 0.1, 10, pct_start=2), "pct_start"),
        (lambda: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 0), "at least 1"),
        (lambda: lr_scheduler.LinearLR(optimizer, 0.0), "start_factor"),
        (lambda: lr_scheduler.ConstantLR(optimizer, 2.0), "factor"),
        (lambda: lr_scheduler.ReduceLROnPlateau(optimizer, factor=1.0), "below 1"),
        (lambda: lr_scheduler.CyclicLR(optim.Adagrad([w]), 0.1, 0.2), "momentum"),
        (lambda: lr_scheduler.SequentialLR(optimizer, [lr_scheduler.StepLR(optimizer, 1)], [3]), "0 milestones, got 1"),
    ]:
        with pytest.raises(ValueError, match=match):
            build()
    with pytest.raises(TypeError, match="not an Optimizer"):
        lr_scheduler.StepLR(w, 1)
    with pytest.raises(KeyError, match="initial_lr"):
        lr_scheduler.StepLR(optim.SGD([w]), 1, last_epoch=3)


def test_one_cycle_ends():
    optimizer = optim.SGD([flambeau.ones(1, requires_grad=True)], lr=0.1, momentum=0.9)
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, 3)
    with pytest.raises(ValueError, match="total steps is 3"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(5):
            schedule.step()


def test_ema_averages_and_round_trips():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = optim.EMA(model, decay=0.5)
    start = model[0].weight.detach().clone()
    ema.update(model)
    model[0].weight.array[...] += 1
    model[1].num_batches_tracked.array[...] = 7
    ema.update(model)
    np.testing.assert_allclose(ema.module[0].weight.numpy(), (start + 0.5).numpy(), rtol=1e-6)
    assert ema.module[1].num_batches_tracked.item() == 7 and not ema.module.training
    assert not any(p.requires_grad for p in ema.parameters())
    x = flambeau.randn(3, 2)
    assert (ema(x) == ema.module(x)).all()
    other = optim.EMA(model)
    other.load_state_dict(ema.state_dict())
    assert (other(x) == ema(x)).all() and other.n_averaged.item() == 2
    warm = optim.EMA(model, decay=0.999, warmup=True)
    warm.update(model)
    model[0].bias.array[...] += 1
    before = warm.module[0].bias.numpy().copy()
    warm.update(model)
    np.testing.assert_allclose(warm.module[0].bias.numpy() - before, 1 - 2 / 11, rtol=1e-5)
    with pytest.raises(ValueError, match="decay"):
        optim.EMA(model, decay=1.5)


def test_hooks_run_around_steps_and_states():
    w, loss = problem()
    optimizer, log = optim.SGD([w], lr=0.1), []
    first = optimizer.register_step_pre_hook(lambda o, args, kwargs: log.append("before"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: log.append("after"))
    every = optim.optimizer.register_optimizer_step_post_hook(lambda o, args, kwargs: log.append(type(o).__name__))
    step(optimizer, loss)
    first.remove(), every.remove()
    step(optimizer, loss)
    assert log == ["before", "after", "SGD", "after"]
    optimizer.register_state_dict_pre_hook(lambda o: log.append("state"))
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "extra": 1})
    state = optimizer.state_dict()
    assert log[-1] == "state" and state["extra"] == 1
    optimizer.register_load_state_dict_pre_hook(
        lambda o, s: {**s, "param_groups": [{**s["param_groups"][0], "lr": 7.0}]}
    )
    optimizer.register_load_state_dict_post_hook(lambda o: log.append("loaded"))
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 7.0 and log[-1] == "loaded"
    optimizer.register_step_pre_hook(lambda o, args, kwargs: 3)
    with pytest.raises(RuntimeError, match="pre-hook"):
        optimizer.step()


def test_a_pre_hook_may_change_the_arguments():
    w, loss = problem()
    optimizer = optim.SGD([w], lr=0.1)
    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((lambda: loss(),), {}))
    assert optimizer.step().item() > 0


class Signed(optim.Optimizer):
    """An optimizer as users of PyTorch write them."""

    def __init__(self, params, lr=optim.optimizer.required):
        super().__init__(params, dict(lr=lr))

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["seen"] = self.state[p].get("seen", 0) + 1
                    p.data.add_(p.grad.sign(), alpha=-group["lr"])


def test_an_optimizer_of_ones_own():
    w, loss = problem()
    with pytest.raises(ValueError, match="required optimization parameter lr"):
        Signed([w])
    optimizer, log = Signed([w], lr=0.25), []
    optimizer.register_step_post_hook(lambda *a: log.append(1))
    before, schedule = w.detach().clone(), lr_scheduler.StepLR(optimizer, 1)
    step(optimizer, loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()
    assert ((w - before).abs() == 0.25).all() and log == [1] and optimizer.state_dict()["state"] == {0: {"seen": 1}}
    with pytest.raises(NotImplementedError, match="neither"):
        optim.Optimizer([w], {}).step()


class Halved(lr_scheduler._LRScheduler):
    """A schedule as users of PyTorch write them."""

    def get_lr(self):
        if not self._get_lr_called_within_step:
            warnings.warn("use get_last_lr()", UserWarning, stacklevel=2)
        return [base * 0.5**self.last_epoch for base in self.base_lrs]


def test_a_schedule_of_ones_own():
    w, loss = problem()
    optimizer = optim.SGD([w], lr=0.4)
    schedule = Halved(optimizer)
    step(optimizer, loss)
    schedule.step()
    assert schedule.get_last_lr() == [0.2] and optimizer.param_groups[0]["lr"] == 0.2


def test_pickled_and_copied_optimizers_go_on():
    w, loss = problem()
    optimizer = optim.Adam([w], lr=0.1)
    step(optimizer, loss)
    for other in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        (v,) = other.param_groups[0]["params"]
        v.grad = w.grad.clone()
        other.step()
        assert other.state[v]["step"].item() == 2 and (v != w).any()
    assert optimizer.state[w]["step"].item() == 1


def test_names_are_for_all_parameters_or_none():
    a, b = (flambeau.ones(1, requires_grad=True) for _ in range(2))
    for params in ([("a", a), b], [{"params": [("a", a)]}, {"params": [b]}]):
        with pytest.raises(ValueError, match="with/without names"):
            optim.SGD(params)
    optimizer = optim.SGD([("a", a)])
    optimizer.load_state_dict(optim.SGD([b], lr=0.5).state_dict())
    assert optimizer.param_groups[0]["param_names"] == ["a"] and optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", [*ALL, "Adafactor", "Muon", "Rprop", "ASGD"])
def test_sixteen_bit_parameters(name, dtype):
    """The state keeps the parameter's dtype, and a step is the float32 step up to rounding."""
    values, gradient = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
    wide, narrow = flambeau.tensor(values), flambeau.tensor(values).to(getattr(flambeau, dtype))
    wide = narrow.float()
    optimizers = []
    for p in (wide, narrow):
        p.requires_grad_()
        p.grad = flambeau.tensor(gradient).to(narrow.dtype).to(p.dtype)
        optimizers.append(getattr(optim, name)([p], lr=0.1))
        optimizers[-1].step()
    assert {
        v.dtype for k, v in optimizers[1].state[narrow].items() if k not in ("step", "mu_product", "eta", "mu")
    } <= {narrow.dtype}
    tolerance = 0.03 if name == "Adafactor" else 0.01
    np.testing.assert_allclose(narrow.detach().float().numpy(), wide.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_a_gradient_of_another_shape_is_refused():
    w = flambeau.ones(3, requires_grad=True)
    w.grad = flambeau.ones(1)
    with pytest.raises(RuntimeError, match="shape"):
        optim.SGD([w]).step()


def test_rosenbrock_with_lbfgs():
    w = flambeau.tensor([-1.5, 2.0], dtype=flambeau.float64, requires_grad=True)
    optimizer = optim.LBFGS([w], line_search_fn="strong_wolfe", max_iter=100)

    def closure():
        optimizer.zero_grad()
        value = (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2
        value.backward()
        return value

    optimizer.step(closure)
    np.testing.assert_allclose(w.detach().numpy(), [1, 1], atol=1e-5)
    with pytest.raises(RuntimeError, match="strong_wolfe"):
        optim.LBFGS([w], line_search_fn="armijo").step(closure)
    with pytest.raises(ValueError, match="parameter groups"):
        optim.LBFGS([{"params": [w]}, {"params": [flambeau.ones(1, requires_grad=True)]}])
