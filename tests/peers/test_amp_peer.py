"""autocast beside PyTorch's: the dtypes of every operator of its database under it, and training; 16 and 8 bits."""

import itertools
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
common = pytest.importorskip("torch.testing._internal.common_methods_invocations")

import flambeau
from flambeau import amp, nn, optim

# Operator -> why the dtype is another one here; each is checked to differ.
DIFFERS: dict[str, str] = {
    "linalg.pinv of float32": "PyTorch's is built on matmul, which it casts; here it stays in float32",
    "linalg.lstsq of float32": "the database takes two of the four results",
    "linalg.lstsq of bfloat16": "the database takes two of the four results",
    "linalg.det of bfloat16": "a determinant of 16-bit numbers is not rounded back",
    "matrix_exp of bfloat16": "an exponential of a 16-bit matrix is not rounded back",
    "native_layer_norm of bfloat16": "the statistics are kept in float32",
}
# Not about autocast: random numbers, memory, or what is not in this package.
SKIPPED = ("empty", "new_empty", "jiterator", "sparse", "_", "torch.", "normal", "rand", "bernoulli", "multinomial")
NARROW, WIDE = torch.bfloat16, torch.float32


def mapped(value, change):
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        items = [mapped(item, change) for item in value]
        return type(value)(items) if type(value) in (list, tuple) else tuple(items)
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    return value


def kinds(value):
    """The dtypes of all tensors in a result, by name."""
    if isinstance(value, torch.Tensor | flambeau.Tensor):
        return [str(value.dtype).split(".")[1]]
    if isinstance(value, list | tuple):
        return [kind for item in value for kind in kinds(item)]
    return []


def ours(tensor):
    if tensor.dtype == NARROW:
        return flambeau.tensor(tensor.float().numpy().copy()).to(flambeau.bfloat16)
    return flambeau.tensor(tensor.detach().resolve_conj().resolve_neg().numpy().copy())


def find(name):
    found = flambeau
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            return getattr(flambeau.Tensor, name.split(".")[-1], None)
    return found


def attempt(function, sample, change, context):
    """The dtypes of the result; None where the operator does not take the sample."""
    args = mapped([sample.input, *sample.args], change)
    kwargs = mapped(sample.kwargs, change)
    try:
        with context():
            return kinds(function(*args, **kwargs))
    except Exception:
        return None


def under(library):
    return lambda: (library.autocast if library is torch else amp.autocast)("cpu")


def operators():
    for op in common.op_db:
        if op.name.startswith(SKIPPED) or torch.float32 not in op.dtypes:
            continue
        try:
            with torch.random.fork_rng():
                sample = next(itertools.islice(iter(op.sample_inputs("cpu", torch.float32)), 1))
        except Exception:
            continue
        yield op, sample


def test_every_operator_gives_the_dtype_that_pytorchs_does(capsys):
    other, seen, listed = {}, 0, 0
    with warnings.catch_warnings(), torch.no_grad(), flambeau.no_grad():
        warnings.simplefilter("ignore")
        for op, sample in operators():
            function = find(op.name)
            if not callable(function):
                continue
            for kind in (WIDE, NARROW):

                def change(t, kind=kind):
                    return t.to(kind) if t.dtype == WIDE else t

                theirs = attempt(op, sample, change, under(torch))
                mine = attempt(function, sample, lambda t, change=change: ours(change(t)), under(flambeau))
                if theirs is None or mine is None:
                    continue
                seen += 1
                listed += theirs != attempt(op, sample, change, torch.no_grad)
                if theirs != mine:
                    key = f"{op.name} of {str(kind).split('.')[1]}"
                    other[key] = f"{mine} here, {theirs} in PyTorch"
    with capsys.disabled():
        print(f"\n{seen} results of operators compared, {listed} of which autocast changes; {len(other)} differ")
    unexpected = [f"{key}: {value}" for key, value in other.items() if key not in DIFFERS]
    assert not unexpected, "\n" + "\n".join(unexpected)
    assert set(DIFFERS) <= set(other), "listed as different, but the same"
    assert listed > 100


@pytest.mark.parametrize("layer", ["GRU", "RNN"])  # PyTorch's LSTM needs a processor with bfloat16
def test_recurrent_layers(layer):
    x = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    theirs, mine = getattr(torch.nn, layer)(4, 5), getattr(nn, layer)(4, 5)
    mine.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    with torch.autocast("cpu"), amp.autocast("cpu"):
        a, b = mine(flambeau.tensor(x))[0], theirs(torch.tensor(x))[0]
    assert kinds(a) == kinds(b)
    np.testing.assert_allclose(a.detach().float().numpy(), b.detach().float().numpy(), atol=0.02)


def test_training_is_as_pytorchs():
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    mine = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    mine.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    results = []
    for library, model, context in ((flambeau, mine, amp.autocast), (torch, theirs, torch.autocast)):
        optimizer = library.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scaler = library.amp.GradScaler("cpu", init_scale=256.0)
        losses = []
        for step in range(8):
            rng = np.random.default_rng(step)
            x, y = rng.normal(size=(6, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, 6)
            optimizer.zero_grad()
            with context("cpu"):
                out = model(library.tensor(x))
                loss = library.nn.functional.cross_entropy(out, library.tensor(y))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append((kinds(out), kinds(loss), loss.item()))
        results.append((losses, scaler.state_dict(), [kinds(p.grad) for p in model.parameters()]))
    (a, state, grads), (b, their_state, their_grads) = results
    assert [x[:2] for x in a] == [x[:2] for x in b] and grads == their_grads
    np.testing.assert_allclose([x[2] for x in a], [x[2] for x in b], rtol=0.03)
    assert state == their_state


@pytest.mark.parametrize("found", [[0], [1], [0, 0, 0, 1, 0, 0]])
def test_the_scale_follows_pytorchs(found):
    results = []
    for library in (flambeau, torch):
        w = library.ones(2, requires_grad=True)
        optimizer = library.optim.SGD([w], lr=0.5)
        scaler = library.amp.GradScaler(
            "cpu", init_scale=16.0, growth_interval=2, growth_factor=3.0, backoff_factor=0.25
        )
        log = []
        for bad in found * 3:
            optimizer.zero_grad()
            scaler.scale((w * (float("inf") if bad else 1.0)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            log.append((scaler.get_scale(), w.tolist()))
        results.append((log, scaler.state_dict()))
    assert results[0] == results[1]


def test_signatures():
    import inspect

    for name in ("autocast", "GradScaler"):
        mine, other = (inspect.signature(getattr(lib.amp, name).__init__).parameters for lib in (flambeau, torch))
        assert [(n, p.default) for n, p in mine.items()] == [(n, p.default) for n, p in other.items()]
    assert {n for n in dir(torch.amp) if not n.startswith("_")} - {"autocast_mode", "grad_scaler"} <= set(amp.__all__)
    assert optim.SGD is flambeau.optim.SGD


# -- 16-bit and 8-bit floats -------------------------------------------------------------------------------------------

FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("name", FLOAT8)
def test_conversion_to_float8_is_pytorchs(name, source):
    """All values of float16, with infinities and NaN, and random ones over the whole range."""
    rng = np.random.default_rng(0)
    values = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    values = np.concatenate([values, (rng.normal(size=9999) * np.exp2(rng.uniform(-20, 18, 9999))).astype(np.float32)])
    if source in ("int64", "bool"):
        values = np.round(values[np.abs(values) < 1000])
    theirs = torch.tensor(values).to(getattr(torch, source))
    mine = flambeau.tensor(values).to(getattr(flambeau, source)).to(getattr(flambeau.dtypes, name))
    expected = theirs.to(getattr(torch, name)).float().numpy()
    np.testing.assert_array_equal(mine.float().numpy(), expected)
    assert str(mine.dtype) == f"flambeau.{name}"


@pytest.mark.parametrize("name", FLOAT8)
def test_conversion_from_float8_is_pytorchs(name):
    bits = np.arange(256, dtype=np.uint8)
    mine = flambeau.from_numpy(bits.view(getattr(flambeau.dtypes, name).numpy))
    theirs = torch.tensor(bits).view(getattr(torch, name))
    for kind in ("float32", "float16", "bfloat16", "float64"):
        a, b = mine.to(getattr(flambeau, kind)).float(), theirs.to(getattr(torch, kind)).float()
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def draw(*shape, low=-1.0, high=1.0):
    return np.random.default_rng(len(shape) + sum(shape)).uniform(low, high, shape).astype(np.float32)


# name -> a function of the library, its functional module, and what makes a 16-bit tensor
HALF = {
    "matmul": lambda lib, F, t: lib.matmul(t(draw(64, 256)), t(draw(256, 32))),
    "bmm": lambda lib, F, t: lib.bmm(t(draw(3, 8, 64)), t(draw(3, 64, 8))),
    "linear": lambda lib, F, t: F.linear(t(draw(8, 300)), t(draw(16, 300)), t(draw(16))),
    "conv1d": lambda lib, F, t: F.conv1d(t(draw(2, 3, 9)), t(draw(4, 3, 3))),
    "conv2d": lambda lib, F, t: F.conv2d(t(draw(2, 3, 9, 9)), t(draw(4, 3, 3, 3)), t(draw(4))),
    "conv_transpose2d": lambda lib, F, t: F.conv_transpose2d(t(draw(2, 3, 9, 9)), t(draw(3, 4, 3, 3))),
    "baddbmm": lambda lib, F, t: lib.baddbmm(t(draw(2, 3, 4)), t(draw(2, 3, 90)), t(draw(2, 90, 4))),
    "einsum": lambda lib, F, t: lib.einsum("ij,jk->ik", t(draw(5, 90)), t(draw(90, 4))),
    "attention": lambda lib, F, t: F.scaled_dot_product_attention(*(t(draw(2, 4, 16, 8)) for _ in range(3))),
    "sum": lambda lib, F, t: lib.sum(t(draw(5000, low=0.0))),
    "mean": lambda lib, F, t: lib.mean(t(draw(3, 5000, low=0.0)), 1),
    "var": lambda lib, F, t: lib.var(t(draw(3, 500)), 1),
    "prod": lambda lib, F, t: lib.prod(t(draw(30, low=0.8, high=1.2))),
    "norm": lambda lib, F, t: lib.linalg.vector_norm(t(draw(3000))),
    "logsumexp": lambda lib, F, t: lib.logsumexp(t(draw(3, 500)), 1),
    "softmax": lambda lib, F, t: F.softmax(t(draw(3, 500)), -1),
    "log_softmax": lambda lib, F, t: F.log_softmax(t(draw(3, 500)), -1),
    "layer_norm": lambda lib, F, t: F.layer_norm(t(draw(3, 500)), (500,), t(draw(500)), t(draw(500))),
    "batch_norm": lambda lib, F, t: F.batch_norm(t(draw(8, 5, 4)), None, None, t(draw(5)), t(draw(5)), True),
    "group_norm": lambda lib, F, t: F.group_norm(t(draw(2, 6, 40)), 3),
    "rms_norm": lambda lib, F, t: F.rms_norm(t(draw(2, 600)), (600,)),
    "gelu": lambda lib, F, t: F.gelu(t(draw(50))),
    "silu": lambda lib, F, t: F.silu(t(draw(50))),
    "sigmoid": lambda lib, F, t: lib.sigmoid(t(draw(50))),
    "tanh": lambda lib, F, t: lib.tanh(t(draw(50))),
    "hardswish": lambda lib, F, t: F.hardswish(t(draw(50))),
    "leaky_relu": lambda lib, F, t: F.leaky_relu(t(draw(50))),
    "softplus": lambda lib, F, t: F.softplus(t(draw(50))),
    "exp": lambda lib, F, t: lib.exp(t(draw(50))),
    "pow": lambda lib, F, t: t(draw(50, low=0.1)) ** 2.5,
    "scaled": lambda lib, F, t: t(draw(50)) * 0.3,
    "cross_entropy": lambda lib, F, t: F.cross_entropy(t(draw(20, 50)), lib.arange(20)),
    "mse_loss": lambda lib, F, t: F.mse_loss(t(draw(2000)), t(draw(2000, 1))[:, 0]),
    "avg_pool2d": lambda lib, F, t: F.avg_pool2d(t(draw(1, 2, 8, 8)), 2),
    "interpolate": lambda lib, F, t: F.interpolate(t(draw(1, 2, 8, 8)), scale_factor=2, mode="bilinear"),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", HALF)
def test_sixteen_bits_are_summed_in_float32(name, dtype):
    results = []
    for lib in (flambeau, torch):
        made = []

        def make(values, lib=lib, made=made):
            made.append(lib.tensor(values).to(getattr(lib, dtype)).requires_grad_())
            return made[-1]

        out = HALF[name](lib, lib.nn.functional, make)
        (out.float() * lib.tensor(draw(*out.shape, 1))[..., 0]).sum().backward()
        results.append((kinds(out), out.detach().float().numpy(), made[0].grad))
    (kind, mine, grad), (their_kind, theirs, their_grad) = results
    unit = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
    assert kind == their_kind == [dtype] and kinds(grad) == [dtype]
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=3 * unit * np.abs(theirs).max())
    wide = their_grad.float().numpy()
    np.testing.assert_allclose(grad.float().numpy(), wide, rtol=0, atol=20 * unit * np.abs(wide).max())
