"""Tracing into graphs: what is noted, what is refused, and that running a graph is running the function."""

import json
import random as python_random

import numpy as np
import pytest

import flambeau as fb
from flambeau import nn
from flambeau.graph import Graph, GraphBreak, Node, Ref, Value, passes, trace

HIDDEN = fb.ones(3)


def test_text_names_values_ops_and_modules():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    text = str(trace(model, fb.ones(4, 3)))
    assert "0.weight = captured: float32[2, 3]" in text
    assert "linear(%0, %1, %2)  # 0" in text and "relu(" in text


def test_json_is_complete():
    graph = trace(lambda x: (x[1:] + 1).relu(), fb.ones(3))
    data = json.loads(graph.to_json())
    assert [n["op"] for n in data["nodes"]] == ["getitem", "add", "relu"]
    assert data["nodes"][0]["args"] == [{"value": 0}, {"slice": [1, None, None]}]
    assert data["outputs"] == [3]


def test_run_equals_the_function_and_checks_its_inputs():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = fb.randn(2, 5, 8)
    graph = trace(model, x)
    y = fb.randn(2, 5, 8)
    assert np.array_equal(graph.run(y.array)[0], model(y).detach().numpy())
    with pytest.raises(ValueError, match=r"must be float32\[2, 5, 8\]"):
        graph.run(y.array[:1])
    with pytest.raises(ValueError, match="takes 1 arrays"):
        graph.run()


def test_in_place_writes_through_views_are_nodes():
    def f(x):
        y = x + 1
        y[0] = x[1]
        view = y[1:]
        view.mul_(3)
        return y

    x = fb.randn(4, 2)
    graph = trace(f, x)
    assert graph.counts()["write"] == 2
    assert np.array_equal(graph.run(x.array)[0], f(x).numpy())


def test_arguments_may_be_changed():
    x = fb.zeros(3)
    graph = trace(lambda t: t.add_(2), x)
    assert x.tolist() == [2, 2, 2]  # tracing runs the function for real
    graph.run(x.array)
    assert x.tolist() == [4, 4, 4]


def test_random_draws_are_made_again():
    x = fb.ones(50)
    graph = trace(lambda t: fb.nn.functional.dropout(t, 0.5) + fb.randn(50), x)
    fb.manual_seed(3)
    got = graph.run(x.array)[0]
    fb.manual_seed(3)
    assert np.array_equal(got, (fb.nn.functional.dropout(x, 0.5) + fb.randn(50)).numpy())
    assert not np.array_equal(got, graph.run(x.array)[0])


def test_running_statistics_are_updated():
    model, twin = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    x = fb.randn(8, 3)
    graph = trace(model, x)
    twin(x)
    graph.run(x.array)
    twin(x)
    for a, b in zip(model.buffers(), twin.buffers(), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x if x.sum() > 0 else -x, "a value is read"),
        (lambda x: x * x.max().item(), "a value is read"),
        (lambda x: x * float(np.random.rand()), "global generator"),
        (lambda x: x * python_random.random(), "global generator"),
        (lambda x: x + fb.from_numpy(np.exp(x.detach().array)), "NumPy array"),
        (lambda x: HIDDEN.add_(x), "changed in place|NumPy array"),
        (lambda x: fb.randn(3, generator=fb.default_generator()).mul_(fb.poisson(x.abs())), "generator|array"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused_and_undone(function, reason):
    before, state = HIDDEN.tolist(), fb.get_rng_state()
    with pytest.raises((GraphBreak, RuntimeError, AttributeError, TypeError), match=reason):
        trace(function, fb.ones(3))
    assert HIDDEN.tolist() == before
    assert fb.get_rng_state() == state


def test_backward_inside_is_refused():
    w = fb.ones(3, requires_grad=True)

    def step(x):
        with fb.enable_grad():
            (w * x).sum().backward()
        return x

    with pytest.raises(Exception, match=r"backward|array"):
        trace(step, fb.ones(3))
    assert w.grad is None


def test_a_failed_trace_puts_buffers_back():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(x) if bool(self.norm(x).sum() > 100) else x

    model = Odd()
    with pytest.raises(GraphBreak):
        trace(model, fb.randn(4, 3))
    assert model.norm.running_mean.tolist() == [0, 0, 0]
    assert int(model.norm.num_batches_tracked) == 0


def test_verify_finds_malformed_graphs():
    value = Value((2,), np.dtype("float32"), 0)
    good = Graph({0: value, 1: value}, [Node("relu", (Ref(0),), (1,))], [0], {}, {}, [1])
    assert good.verify() is good
    with pytest.raises(ValueError, match="reads %0"):
        Graph({0: value, 1: value}, [Node("relu", (Ref(0),), (1,))], [], {}, {}, [1]).verify()
    with pytest.raises(ValueError, match="there already"):
        Graph({0: value}, [Node("relu", (Ref(0),), (0,))], [0], {}, {}, [0]).verify()
    with pytest.raises(ValueError, match="is not made"):
        Graph({0: value}, [], [0], {}, {}, [5]).verify()


def test_passes_remove_what_is_twice_or_unused():
    def f(x):
        (x * 5).exp()
        return (x + 1) * (x + 1)

    x = fb.randn(4)
    graph = passes.dead_code(passes.common_subexpressions(trace(f, x)))
    assert graph.counts() == {"add": 1, "mul": 1}
    assert np.array_equal(graph.verify().run(x.array)[0], f(x).numpy())


def test_equal_calls_around_a_write_are_not_merged():
    def f(x):
        y = x * 1
        a = y + 1
        y.mul_(2)
        return a + (y + 1)

    x = fb.randn(4)
    graph = passes.common_subexpressions(trace(f, x))
    assert np.array_equal(graph.run(x.array)[0], f(x).numpy())
