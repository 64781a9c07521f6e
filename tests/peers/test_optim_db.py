"""PyTorch's own optimizer database: every sample input, 20 steps on both sides; every error input."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
database = pytest.importorskip("torch.testing._internal.common_optimizers")

import flambeau
from flambeau import optim

SKIPPED = {"SparseAdam": "there are no sparse tensors"}
# (optimizer, description of the error input) -> why ours does not raise as PyTorch does.
DIFFERS: dict[tuple[str, str], str] = {}
# Muon computes in bfloat16: another order of summation may round an entry the other way (2 ** -8 of it) at any step.
# LBFGS builds on differences of gradients, which magnify rounding; NAdam and ASGD keep products in float32.
TOLERANCE = {
    "LBFGS": dict(rtol=1e-4, atol=1e-5),
    "Muon": dict(rtol=0, atol=2e-3),
    "NAdam": dict(rtol=1e-6, atol=1e-9),
    "ASGD": dict(rtol=1e-6, atol=1e-9),
}
INFOS = [info for info in database.optim_db if info.name not in SKIPPED]
counts = {"inputs": 0, "errors": 0}


def ours(value, made=None):
    """PyTorch's tensors anywhere in the arguments, as ours; a tensor that occurs twice is one tensor here, too."""
    made = {} if made is None else made
    if id(value) in made:
        return made[id(value)]
    if isinstance(value, torch.Tensor):
        result = made[id(value)] = flambeau.tensor(value.detach().numpy().copy(), requires_grad=value.requires_grad)
        if value.grad is not None:
            result.grad = flambeau.tensor(value.grad.numpy().copy())
        return result
    if isinstance(value, dict):
        return {key: ours(item, made) for key, item in value.items()}
    return type(value)(ours(item, made) for item in value) if isinstance(value, list | tuple) else value


def theirs(value):
    """Our tensors anywhere in a state dict, as PyTorch's."""
    if isinstance(value, flambeau.Tensor):
        return torch.tensor(value.detach().numpy())
    if isinstance(value, dict):
        return {key: theirs(item) for key, item in value.items()}
    return type(value)(theirs(item) for item in value) if isinstance(value, list | tuple) else value


def numbers(value):
    return value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)


def same(mine, other, tolerance, path=""):
    if isinstance(other, dict):
        assert set(mine) == set(other), path
        for key in other:
            same(mine[key], other[key], tolerance, f"{path}.{key}")
    elif isinstance(other, list | tuple):
        assert len(mine) == len(other), path
        for i, (a, b) in enumerate(zip(mine, other, strict=True)):
            same(a, b, tolerance, f"{path}[{i}]")
    elif other is None or isinstance(other, str | bool):
        assert mine is other or mine == other, path
    else:
        a, b = numbers(mine), numbers(other)
        assert a.shape == b.shape, path
        if isinstance(other, torch.Tensor) and isinstance(mine, flambeau.Tensor):
            assert a.dtype == b.dtype, path
        counter = a.dtype == np.float32
        np.testing.assert_allclose(a, b, **(dict(rtol=1e-5, atol=1e-7) if counter else tolerance), err_msg=path)


SHAPES = [(4, 3), (3, 5), (5,), ()]


def start(name, kind):
    rng = np.random.default_rng(7)
    shapes = SHAPES[:2] if name == "Muon" else SHAPES
    values = [rng.normal(size=shape) + (1j * rng.normal(size=shape) if kind == "complex128" else 0) for shape in shapes]
    return [np.asarray(value, kind) for value in values]


def steps(library, optimizer, params, first, last, closure_needed):
    """The loss grows with the distance from noise that is new in each step; its gradients stay below 1."""
    for step in range(first, last):
        rng = np.random.default_rng(step)
        noise = [library.tensor(rng.normal(size=p.shape).astype(numbers(p).dtype) * 0.3) for p in params]

        def closure(noise=noise):
            optimizer.zero_grad()
            total = 0
            for p, shift in zip(params, noise, strict=True):
                for part in (p.real - shift.real, p.imag) if p.is_complex() else (p - shift,):
                    total = total + ((1 + part * part) ** 0.5).sum()
            total.backward()
            return total

        if closure_needed:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()


def pair(info, kind, kwargs):
    values = start(info.name, kind)
    mine = [flambeau.tensor(value, requires_grad=True) for value in values]
    other = [torch.tensor(value, requires_grad=True) for value in values]
    return (mine, getattr(optim, info.name)(mine, **ours(kwargs))), (other, info.optim_cls(other, **kwargs))


def compare(info, kind, kwargs):
    tolerance = TOLERANCE.get(info.name, dict(rtol=1e-8, atol=1e-11))
    closure_needed = info.step_requires_closure
    last = 5 if closure_needed else 20
    if closure_needed:  # near the minimum, rounding decides where L-BFGS stops: compare it on the way there
        kwargs = {"max_iter": 6, **kwargs}
    (mine, our_optimizer), (other, their_optimizer) = pair(info, kind, kwargs)
    steps(flambeau, our_optimizer, mine, 0, last, closure_needed)
    steps(torch, their_optimizer, other, 0, last, closure_needed)
    same(mine, other, tolerance, "params")
    ours_saved, theirs_saved = our_optimizer.state_dict(), their_optimizer.state_dict()
    same(ours_saved, theirs_saved, tolerance, "state_dict")

    # The states change places, and both sides go on.
    (mine2, our_second), (other2, their_second) = pair(info, kind, kwargs)
    our_second.load_state_dict(theirs_saved)
    their_second.load_state_dict(theirs(ours_saved))
    for a, b, c, d in zip(mine, other, mine2, other2, strict=True):
        c.array[...] = numbers(b)
        d.data = torch.tensor(numbers(a))
    steps(flambeau, our_second, mine2, last, last + 3, closure_needed)
    steps(torch, their_second, other2, last, last + 3, closure_needed)
    steps(torch, their_optimizer, other, last, last + 3, closure_needed)
    same(mine2, other, tolerance, "ours after loading theirs")
    same(other2, other, tolerance, "theirs after loading ours")
    counts["inputs"] += 1


@pytest.mark.parametrize("info", INFOS, ids=[info.name for info in INFOS])
def test_every_sample_input(info):
    for sample in info.optim_inputs_func(device="cpu", dtype=torch.float64):
        try:
            compare(info, "float64", sample.kwargs)
        except AssertionError as error:
            error.add_note(f"{info.name}: {sample.desc}")
            raise
    print(f"{info.name}: {counts['inputs']} inputs compared so far")


COMPLEX = [info for info in INFOS if info.supports_complex and info.name not in ("Adafactor", "Muon")]


@pytest.mark.parametrize("info", COMPLEX, ids=[info.name for info in COMPLEX])
def test_complex_parameters(info):
    for sample in info.optim_inputs_func(device="cpu", dtype=torch.float64):
        compare(info, "complex128", sample.kwargs)


def raised(build):
    """The error of building and stepping; a warning counts as one, as in the database."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            build()
    except Exception as error:
        return error
    return None


def attempt(cls, sample, library, convert):
    params = sample.params
    if params is None:
        params = [torch.nn.Parameter(torch.randn(2, 3, dtype=torch.float64)) for _ in range(2)]
    params = convert(params)

    def build():
        optimizer = cls(params, **convert(sample.kwargs))
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = library.zeros_like(p)
        optimizer.step(lambda: library.zeros(()))

    return raised(build)


@pytest.mark.parametrize("info", INFOS, ids=[info.name for info in INFOS])
def test_every_error_input(info):
    quiet = []
    for case in info.optim_error_inputs_func(device="cpu", dtype=torch.float64):
        sample = case.optimizer_error_input
        error = attempt(getattr(optim, info.name), sample, flambeau, ours)
        assert attempt(info.optim_cls, sample, torch, lambda value: value) is not None, sample.desc
        counts["errors"] += 1
        if error is None:
            quiet.append((info.name, sample.desc))
        else:
            assert isinstance(error, case.error_type), (sample.desc, error)
    assert set(quiet) == {key for key in DIFFERS if key[0] == info.name}
    print(f"{info.name}: {counts['errors']} error inputs raise so far")


def test_every_optimizer_of_pytorch_is_here():
    public = {name for name in torch.optim.__all__ if isinstance(getattr(torch.optim, name), type)}
    assert public - set(SKIPPED) <= set(optim.__all__)
