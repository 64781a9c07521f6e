"""`compile` of whole training steps: the same losses, parameters, gradients and states as without it, bit for bit."""

import copy

import numpy as np
import pytest

import flambeau as fb
from flambeau import nn
from flambeau.compiler import compile

OPTIMIZERS = {
    "sgd": lambda p: fb.optim.SGD(p, lr=0.1),
    "momentum": lambda p: fb.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: fb.optim.Adam(p, lr=0.01),
    "adamw": lambda p: fb.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "amsgrad": lambda p: fb.optim.Adam(p, lr=0.01, amsgrad=True, maximize=True),
    "rmsprop": lambda p: fb.optim.RMSprop(p, lr=0.01),
}


def equal(a, b):
    assert (a is None) == (b is None)
    if a is not None:
        assert a.dtype is b.dtype
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def same_state(model, twin, optimizer, other):
    for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        equal(a, b)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        equal(p.grad, q.grad)
    states = [o.state_dict()["state"] for o in (optimizer, other)]
    assert states[0].keys() == states[1].keys()
    for i, state in states[0].items():
        for name, value in state.items():
            equal(value, states[1][i][name])


def network():
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2))


def make(model, optimizer, clip=False, first=True, none=True):
    def step(x):
        if first:
            optimizer.zero_grad(set_to_none=none)
        loss = model(x).square().mean()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        if not first:
            optimizer.zero_grad(set_to_none=none)
        return loss.item()

    return step


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_equal_eager_ones(name, first, clip):
    model = network()
    twin = copy.deepcopy(model)
    optimizer, other = (OPTIMIZERS[name](m.parameters()) for m in (model, twin))
    fast, plain = compile(make(model, optimizer, clip, first), fullgraph=True), make(twin, other, clip, first)
    for i in range(5):
        x = fb.randn(5, 3)
        losses = []
        for run in (fast, plain):
            fb.manual_seed(i)
            losses.append(run(x))
        assert losses[0] == losses[1] and type(losses[0]) is float
        same_state(model, twin, optimizer, other)
        if i == 2:  # what a schedule does between the steps
            for o in (optimizer, other):
                o.param_groups[0]["lr"] *= 0.5
        if i == 3:  # the state in other memory
            for o in (optimizer, other):
                o.load_state_dict(copy.deepcopy(o.state_dict()))
    assert len(fast.explain().graphs) == 1


@pytest.mark.parametrize("none", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_gradients_that_are_set_to_zero(first, none):
    model = network()
    twin = copy.deepcopy(model)
    optimizer, other = (fb.optim.Adam(m.parameters(), lr=0.01) for m in (model, twin))
    fast, plain = (
        compile(make(model, optimizer, True, first, none), fullgraph=True),
        make(twin, other, True, first, none),
    )
    for i in range(5):
        x = fb.randn(5, 3)
        for run in (fast, plain):
            fb.manual_seed(i)
            run(x)
        same_state(model, twin, optimizer, other)


def test_gradients_that_add_up_over_calls():
    model = network()
    twin = copy.deepcopy(model)
    optimizer, other = (fb.optim.SGD(m.parameters(), lr=0.1) for m in (model, twin))

    def part(m):
        def run(x):
            loss = m(x).square().mean()
            loss.backward()
            return loss

        return run

    fast, plain = compile(part(model), fullgraph=True), part(twin)
    for i in range(9):
        x = fb.randn(5, 3)
        for run in (fast, plain):
            fb.manual_seed(i)
            loss = run(x)
            with pytest.raises(RuntimeError, match="second time"):
                loss.backward()
        same_state(model, twin, optimizer, other)
        if i % 3 == 2:
            for o in (optimizer, other):
                o.step()
                o.zero_grad()
    assert len(fast.explain().graphs) == 2  # without a gradient before, and with one


def test_gradients_of_gradients():
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    twin = copy.deepcopy(model)
    optimizer, other = (fb.optim.Adam(m.parameters(), lr=0.01) for m in (model, twin))
    place = fb.randn(5, 3)

    def make(m, o, x):
        def step():
            o.zero_grad()
            (slope,) = fb.autograd.grad(m(x).sum(), x, create_graph=True)
            loss = slope.square().mean()
            loss.backward()  # also adds to the gradient of x
            o.step()
            return loss.item(), slope

        return step

    xs = [place.clone().requires_grad_() for _ in range(2)]
    fast, plain = compile(make(model, optimizer, xs[0]), fullgraph=True), make(twin, other, xs[1])
    for _ in range(5):
        a, b = fast(), plain()
        assert a[0] == b[0] and a[1].requires_grad
        equal(a[1], b[1])
        equal(xs[0].grad, xs[1].grad)
        same_state(model, twin, optimizer, other)


def test_what_was_returned_or_left_in_grad_stays():
    model = nn.Linear(3, 2)
    optimizer = fb.optim.SGD(model.parameters(), lr=0.1)
    fast = compile(make(model, optimizer), fullgraph=True)
    fast(fb.randn(4, 3))
    kept = model.weight.grad
    copied = kept.clone()
    fast(fb.randn(4, 3))
    equal(kept, copied)
    assert model.weight.grad is not kept


@pytest.mark.filterwarnings("ignore:flambeau.compile")
def test_what_a_replay_would_not_do_makes_the_function_itself_run():
    model = nn.Linear(3, 1)
    optimizer = fb.optim.SGD(model.parameters(), lr=0.1)
    schedule = fb.optim.lr_scheduler.StepLR(optimizer, 2)
    losses, closed = [], fb.optim.LBFGS(model.parameters())

    def logged(x):
        loss = model(x).square().mean()
        loss.backward()
        losses.append(1)
        return loss.detach()

    def scheduled(x):
        model(x).sum().backward()
        optimizer.step()
        schedule.step()

    def searched(x):
        def again():
            closed.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            return loss

        closed.step(again)

    def read(x):
        loss = model(x).square().mean()
        value = loss.item()
        loss.backward()
        optimizer.step()
        return value + 1

    for f, reason in ((logged, "losses"), (scheduled, "schedule"), (searched, "closure"), (read, "is read")):
        model.zero_grad()
        before = [p.clone() for p in model.parameters()]
        fast = compile(f)
        for _ in range(2):
            fast(fb.ones(2, 3))
        ((why, count),) = fast.explain().fallbacks.items()
        assert reason in why and count == 2
        if f is logged:
            assert len(losses) == 2
            for a, b in zip(before, model.parameters(), strict=True):
                equal(a, b)
    assert schedule.last_epoch == 2
