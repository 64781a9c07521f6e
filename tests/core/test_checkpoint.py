"""Activation checkpointing: the same bits for less memory."""

import gc
import weakref
from functools import reduce

import numpy as np
import pytest

import flambeau as fb
from flambeau import nn
from flambeau.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential


def network():
    def block():
        return nn.Sequential(nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.LayerNorm(16), nn.Tanh())

    return nn.Sequential(*[block() for _ in range(4)])


def gradients(net, x, call):
    fb.manual_seed(3)
    leaves = [x, *net.parameters()]
    for t in leaves:
        t.grad = None
    call(x).square().sum().backward()
    return [t.grad.numpy().copy() for t in leaves], fb.rand(3).tolist()


WAYS = {
    "whole": lambda net, x: checkpoint(net, x),
    "to the end": lambda net, x: checkpoint(net, x, early_stop=False),
    "parts": lambda net, x: checkpoint_sequential(net, 2, x),
    "each": lambda net, x: reduce(lambda h, part: checkpoint(part, h), net, x),
    "nested": lambda net, x: checkpoint(lambda x: checkpoint(net[2:], checkpoint(net[:2], x)), x),
    "reentrant": lambda net, x: checkpoint(net, x, use_reentrant=True),
    "keywords": lambda net, x: checkpoint(lambda *, x: net(x), x=x),
}


@pytest.mark.parametrize("way", WAYS)
def test_same_bits(way):
    net, x = network(), fb.randn(8, 16, requires_grad=True)
    expected, after = gradients(net, x, net)
    actual, after_too = gradients(net, x, lambda x: WAYS[way](net, x))
    assert after == after_too  # dropout drew again in backward, and the generator stands where it would
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)


def test_activations_are_freed_in_forward():
    held = []

    def function(x):
        h = x.exp()  # saves its output
        held.append(weakref.ref(h.array))
        return h.sin()

    x = fb.ones(5, requires_grad=True)
    out = function(x)
    gc.collect()
    assert held.pop()() is not None
    out = checkpoint(function, x)
    gc.collect()
    assert held[0]() is None
    out.sum().backward()
    assert len(held) == 2  # it ran again
    gc.collect()
    assert held[1]() is None


def test_nested_checkpoints_hold_one_level_at_a_time():
    counts = {"inner": 0, "outer": 0}

    def inner(x):
        counts["inner"] += 1
        return x.sin().exp()

    def outer(x):
        counts["outer"] += 1
        return checkpoint(inner, checkpoint(inner, x.cos()))

    x = fb.ones(3, requires_grad=True)
    checkpoint(outer, x).sum().backward()
    assert counts["outer"] == 2 and counts["inner"] == 6  # forward, with the outer run, and for itself


def test_create_graph():
    x = fb.randn(4, dtype=fb.float64, requires_grad=True)
    function = lambda x: (x.sin() * x.exp()).tanh()

    def second(f):
        (first,) = fb.autograd.grad(f(x).sum(), x, create_graph=True)
        return fb.autograd.grad(first.sum(), x)[0]

    assert (second(function) == second(lambda x: checkpoint(function, x))).all()
    assert fb.autograd.gradgradcheck(lambda x: checkpoint(function, x), x)


def test_graph_can_be_retained():
    x = fb.randn(4, requires_grad=True)
    out = checkpoint(lambda x: x.sin().exp(), x).sum()
    first = fb.autograd.grad(out, x, retain_graph=True)[0]
    assert (fb.autograd.grad(out, x)[0] == first).all()
    with pytest.raises(RuntimeError, match="second time"):
        out.backward()


@pytest.mark.parametrize("early_stop", [True, False])
def test_in_place_operations_inside(early_stop):
    def function(x):
        h = x * 2
        h += 1
        s = h.sin()
        h = h * s
        h.mul_(x)
        h[0] = 3.0
        return h.exp()

    x = fb.randn(3, requires_grad=True)
    expected = fb.autograd.grad(function(x).sum(), x)[0]
    assert (fb.autograd.grad(checkpoint(function, x, early_stop=early_stop).sum(), x)[0] == expected).all()


def test_autocast_holds_in_the_second_run():
    amp = pytest.importorskip("flambeau.amp")
    layer, x = nn.Linear(4, 4), fb.randn(2, 4, requires_grad=True)

    def gradient(call):
        with amp.autocast("cpu", dtype=fb.bfloat16):
            out = call(x)
        return fb.autograd.grad(out.float().sum(), x)[0]

    assert (gradient(layer) == gradient(lambda x: checkpoint(layer, x))).all()


def test_only_parameters_require_gradients():
    layer = nn.Linear(3, 3)
    checkpoint(layer, fb.ones(1, 3)).sum().backward()
    assert layer.weight.grad is not None


def test_without_recording_the_function_just_runs():
    with fb.no_grad():
        assert not checkpoint(fb.sin, fb.ones(2, requires_grad=True)).requires_grad


def test_errors():
    x = fb.ones(3, requires_grad=True)
    runs = []

    def fickle(x):
        runs.append(1)
        return x.sin() if len(runs) == 1 else x.exp()

    with pytest.raises(CheckpointError, match="something else"):
        checkpoint(fickle, x).sum().backward()
    runs.clear()
    with pytest.raises(CheckpointError, match="recorded 1 operations in forward and 2"):
        checkpoint(lambda x: fickle(x) if not runs else fickle(x).cos(), x, early_stop=False).sum().backward()
    y = fb.ones(3)
    out = checkpoint(lambda x, y: (x * y).sin(), x, y)
    y.add_(1)
    with pytest.raises(CheckpointError, match="in place"):
        out.sum().backward()
    with pytest.raises(NotImplementedError):
        checkpoint(fb.sin, x, context_fn=lambda: None)
    with pytest.raises(ValueError, match="determinism_check"):
        checkpoint(fb.sin, x, determinism_check="always")
    with pytest.raises(ValueError, match="segments"):
        checkpoint_sequential([fb.sin], 2, x)
    with pytest.raises(ValueError, match="keywords"):
        checkpoint(fb.sin, x, use_reentrant=True, other=1)
