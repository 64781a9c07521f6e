"""Steps of all parameters in one compiled call: the bits of the plain form, whatever happens to the arrays."""

import copy

import numpy as np
import pytest

pytest.importorskip("numba", reason="these kernels need numba")
try:
    from flambeau.backends.kernels import numba_optim, numba_setup
except ImportError as error:
    pytest.skip(f"no thread pool for numba: {error}", allow_module_level=True)
import flambeau
from flambeau import nn
from flambeau.optim import together

CASES = {
    "adam": (flambeau.optim.Adam, {}),
    "adam, weight decay, maximize": (flambeau.optim.Adam, dict(weight_decay=0.1, maximize=True, eps=1e-3)),
    "adamw": (flambeau.optim.AdamW, dict(lr=0.01, weight_decay=0.3, betas=(0.8, 0.95))),
    "sgd": (flambeau.optim.SGD, dict(lr=0.1)),
    "sgd, weight decay": (flambeau.optim.SGD, dict(lr=0.1, weight_decay=0.1, maximize=True)),
    "sgd, momentum": (flambeau.optim.SGD, dict(lr=0.1, momentum=0.9, dampening=0.2, weight_decay=0.01)),
    "sgd, nesterov": (flambeau.optim.SGD, dict(lr=0.1, momentum=0.9, nesterov=True)),
    "lion": (flambeau.optim.Lion, dict(weight_decay=0.1)),
}
SHAPES = [(3,), (), (130, 129), (40, 3, 5, 5), (numba_optim.CHUNK * 5 + 7,), (1, 7)]
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 1e30], np.float32)


@pytest.fixture
def calls(monkeypatch):
    """The names of the kernels that ran."""
    names = []
    step = numba_optim.step
    monkeypatch.setattr(numba_optim, "step", lambda name, *rest: (names.append(name), step(name, *rest))[1])
    monkeypatch.setattr(together, "_WORTH_LOADING", 0)
    return names


def numbers(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def parameters(shapes=SHAPES):
    made = [nn.Parameter(flambeau.from_numpy(numbers(i, shape))) for i, shape in enumerate(shapes)]
    for param in made:
        if param.ndim == 4:
            param.array = np.ascontiguousarray(param.array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return made


def give_gradients(params, seed, special=False):
    for i, param in enumerate(params):
        param.grad = flambeau.from_numpy(np.zeros_like(param.array))  # in the same layout
        param.grad.array[...] = numbers(100 * seed + i, param.shape)
        if special:
            param.grad.array[...] = np.resize(SPECIAL, param.shape)


def in_turn(make, steps, change=lambda optimizer, params, k: None, shapes=SHAPES):
    """What `steps` give one by one and together."""
    results = []
    for disabled in (True, False):
        params = parameters(shapes)
        optimizer = make(params)
        numba_setup.disabled = disabled
        try:
            for k in range(steps):
                give_gradients(params, k)
                change(optimizer, params, k)
                optimizer.step()
        finally:
            numba_setup.disabled = False
        state = [value for entry in optimizer.state_dict()["state"].values() for value in entry.values()]
        results.append([*[p.detach().numpy() for p in params], *[s.numpy() for s in state]])
    for plain, fast in zip(*results, strict=True):
        np.testing.assert_array_equal(plain.view(f"i{plain.itemsize}"), fast.view(f"i{fast.itemsize}"))
    return results[0]


@pytest.mark.parametrize("case", CASES)
def test_same_bits_as_one_by_one(case, calls):
    kind, settings = CASES[case]
    in_turn(lambda params: kind(params, **settings), 4)
    assert len(calls) == (3 if "momentum" in settings else 4)


@pytest.mark.parametrize("case", CASES)
def test_special_values(case, calls):
    kind, settings = CASES[case]

    def change(optimizer, params, k):
        if k == 1:
            give_gradients(params, k, special=True)

    with np.errstate(all="ignore"):
        results = []
        for disabled in (True, False):
            params = parameters([(64,), (9,)])
            optimizer = kind(params, **settings)
            numba_setup.disabled = disabled
            try:
                for k in range(3):
                    give_gradients(params, k)
                    change(optimizer, params, k)
                    optimizer.step()
            finally:
                numba_setup.disabled = False
            results.append([p.detach().numpy() for p in params])
    for plain, fast in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, fast)
    assert calls


def test_many_steps_keep_the_bits(calls):
    in_turn(lambda params: flambeau.optim.Adam(params, lr=0.01), 300, shapes=[(5, 4), (3,)])
    assert len(calls) == 300


def test_arrays_that_are_replaced(calls):
    def change(optimizer, params, k):
        if k == 1:
            params[0].data = flambeau.from_numpy(numbers(50, params[0].shape))
        elif k == 2:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        elif k == 3:
            optimizer.state[params[2]]["exp_avg"] = flambeau.zeros_like(params[2]).detach()
        elif k == 4:
            optimizer.state[params[1]]["exp_avg_sq"].data = flambeau.ones_like(params[1]).detach()
        elif k == 5:
            params[3].grad = None
        elif k == 6:
            optimizer.state.clear()
        elif k == 7:
            optimizer.param_groups[0]["lr"] = 0.5
        elif k == 8:
            params[0].array = params[0].array.astype(np.float64)
            params[0].grad = flambeau.ones(*params[0].shape, dtype=flambeau.float64)

    in_turn(lambda params: flambeau.optim.AdamW(params), 10, change, [(3,), (), (130, 129), (40, 75)])
    assert len(calls) == 8  # not with a parameter of float64


def test_groups_and_counts_of_their_own(calls):
    def make(params):
        groups = [{"params": params[:3], "lr": 0.1}, {"params": params[3:], "weight_decay": 0.5, "maximize": True}]
        return flambeau.optim.Adam(groups)

    def change(optimizer, params, k):
        if k < 2:
            params[1].grad = None  # counts two steps less

    in_turn(make, 4, change)
    assert len(calls) == 8


def test_gradients_in_another_layout_go_one_by_one(calls):
    def change(optimizer, params, k):
        if k == 1:
            grad = params[2].grad
            grad.array = np.asfortranarray(grad.array)

    in_turn(lambda params: flambeau.optim.SGD(params), 3, change)
    assert len(calls) == 2


def test_shared_memory_goes_one_by_one(calls):
    def make(params):
        params[1].array = params[0].array[1:]
        params[1].grad = flambeau.ones(*params[1].shape)
        return flambeau.optim.SGD(params[:2])

    in_turn(make, 2, lambda optimizer, params, k: setattr(params[1], "grad", flambeau.ones(2)), shapes=[(3,), (2,)])
    assert not calls


def test_what_is_not_covered(calls):
    in_turn(lambda params: flambeau.optim.Adam(params, amsgrad=True), 2)
    in_turn(lambda params: flambeau.optim.RMSprop(params), 2)
    with pytest.raises(RuntimeError, match="gradient has the shape"):
        params = parameters()
        optimizer = flambeau.optim.SGD(params)
        give_gradients(params, 0)
        optimizer.step()
        params[0].grad = flambeau.ones(5)
        optimizer.step()
    assert calls == ["sgd"]


def test_a_rule_of_ones_own(calls):
    class Halves(flambeau.optim.Adam):
        def _rule(self, group):
            def update(param, grad, state):
                param *= 0.5

            return update

    params = parameters()
    before = params[0].detach().numpy().copy()
    give_gradients(params, 0)
    Halves(params).step()
    np.testing.assert_array_equal(params[0].detach().numpy(), before / 2)
    assert not calls


def test_versions_and_copies(calls):
    params = parameters()
    optimizer = flambeau.optim.Adam(params)
    give_gradients(params, 0)
    product = params[0] * params[0]
    before = params[0]._version
    optimizer.step()
    assert params[0]._version == before + 1
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        product.sum().backward()
    other = copy.deepcopy(optimizer)
    give_gradients([p for g in other.param_groups for p in g["params"]], 1)
    unchanged = params[0].detach().numpy().copy()
    other.step()
    np.testing.assert_array_equal(params[0].detach().numpy(), unchanged)
    assert len(calls) == 2


def test_small_models_load_the_kernels_after_some_steps(calls, monkeypatch):
    monkeypatch.setattr(together, "_WORTH_LOADING", 1 << 13)
    in_turn(lambda params: flambeau.optim.Adam(params), 103, shapes=[(4, 4)])
    assert len(calls) == 3


@pytest.mark.parametrize("limit", [1e9, 0.1])
def test_clipping(limit):
    params = parameters()
    give_gradients(params, 3)
    wide = np.concatenate([p.grad.array.astype(np.float64).reshape(-1) for p in params])
    expected = np.linalg.norm(wide)
    grads = [p.grad.array.copy() for p in params]
    total = nn.utils.clip_grad_norm_(params, limit)
    assert total.dtype is flambeau.float32 and total.shape == ()
    np.testing.assert_allclose(total.item(), expected, rtol=1e-6)
    factor = min(1.0, limit / (expected + 1e-6))
    for p, before in zip(params, grads, strict=True):
        np.testing.assert_allclose(p.grad.array, before * factor, rtol=1e-6)


@pytest.mark.parametrize("shapes", [[(3,), (4, 5)], SHAPES], ids=["small", "large"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_clipping_of_what_is_not_finite(shapes, value):
    params = parameters(shapes)
    give_gradients(params, 0)
    params[0].grad.array[0] = value
    with pytest.raises(RuntimeError, match="not finite"):
        nn.utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    total = nn.utils.clip_grad_norm_(params, 1.0)
    np.testing.assert_equal(total.item(), value)
    assert np.isnan(params[0].grad.array[0])
    assert np.isnan(params[1].grad.array).all() if np.isnan(value) else not params[1].grad.array.any()
