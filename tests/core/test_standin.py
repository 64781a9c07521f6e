"""The CuPy path on arrays that refuse what CuPy refuses (see standin.py): ops, layers, optimizers, files, autocast."""

import copy
import io
import sys
from pathlib import Path

import numpy as np
import pytest

import flambeau as fb
from flambeau import nn
from flambeau.testing.cases import op_cases

sys.path.insert(0, str(Path(__file__).parent))
import standin

CASES = op_cases()


@pytest.fixture(autouse=True, scope="module")
def _device():
    remove = standin.install()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAMBEAU_DEVICE", "cuda")
        yield
    remove()


@pytest.mark.parametrize("case", [c for c in CASES if c.op.ref is not None], ids=str)
def test_reference(case):
    assert case.check_reference()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forms(case):
    case.check_forms()


@pytest.mark.parametrize("case", [c for c in CASES if c.op.vjp_of or c.op.composite][::9], ids=str)
def test_finite_differences(case):
    """`gradcheck` works on the device too; every ninth case, as it is slow there."""
    if case.op.name == "to_device":
        pytest.skip("its sample moves to the CPU, so gradcheck would mix host and device arrays")
    case.check_gradient(1)


@pytest.mark.parametrize("case", [c for c in CASES if c.op.vjp_of or c.op.composite], ids=str)
def test_gradient(case, monkeypatch):
    """The gradients of the sum of all outputs are on the device and are those of the CPU."""
    found = {}
    for where in ("cuda", "cpu"):
        monkeypatch.setenv("FLAMBEAU_DEVICE", where)
        args = case.tensors(requires_grad=True)
        leaves = [t for t in case._flat(args) if t.requires_grad]
        fb.manual_seed(0)
        outs = case.op.function(*args)
        outs = [o for o in (outs if isinstance(outs, tuple | list) else [outs]) if getattr(o, "requires_grad", False)]
        if not outs:
            return
        sum((o.abs() if o.is_complex() else o).sum() for o in outs).backward()
        if case.op.name != "to_device":  # whose sample moves to the CPU
            assert all(t.grad is None or t.grad.device.type == where for t in leaves)
        found[where] = [None if t.grad is None else t.grad.cpu().numpy() for t in leaves]
    for a, b in zip(found["cuda"], found["cpu"], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_the_standin_refuses_what_cupy_refuses():
    a = standin.xp.asarray(np.ones(3))
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(a)
    with pytest.raises(TypeError, match="Unsupported type"):
        a + np.ones(3)
    with pytest.raises(TypeError, match="does not support int64"):
        standin.xp.add.at(standin.xp.zeros(3, dtype=np.int64), standin.xp.arange(3), 1)
    with pytest.raises(TypeError, match="unexpected keyword"):
        standin.xp.sum(a, where=a > 0)
    assert isinstance(standin.xp.sum(a), standin.DeviceArray)
    assert isinstance(a[0], standin.DeviceArray)


def test_the_standin_refuses_host_arrays():
    xp, host = standin.xp, np.ones(3)
    a = xp.asarray(host)
    host[0] = 5
    assert a.tolist() == [1, 1, 1]  # a copy, as on the GPU
    for mix in (
        lambda: host + a, lambda: a * np.array(2.0), lambda: xp.where(a > 0, host, a), lambda: np.add(host, a),
        lambda: xp.concatenate([a, host]), lambda: a.dot(host), lambda: a @ host, lambda: xp.add(a, a, out=host),
        lambda: a + [1, 2, 3], lambda: a.__iadd__(host), lambda: xp.sum(host),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"Unsupported type|must be cupy\.ndarray"):
            mix()
    with pytest.raises(AttributeError, match="expects a device array"):
        xp.sum([1.0, 2.0])
    with pytest.raises(ValueError, match="cannot be used for fill"):
        a[:] = host
    a[np.array([0, 2])] = np.array([7.0, 8.0])  # which CuPy converts
    assert a.tolist() == [7, 1, 8]
    assert bool((a == np.array(1.0)).any())  # and 0-d arrays in comparisons


def test_the_standin_refuses_unknown_names_keywords_and_dtypes():
    xp = standin.xp
    a = xp.asarray([1, 2, 3])
    for missing in (lambda: xp.spacing, lambda: xp.linalg.multi_dot, lambda: a.byteswap, lambda: a.ctypes):
        with pytest.raises(AttributeError):
            missing()
    for wrong in (
        lambda: xp.add(a, a, where=a > 1), lambda: a.sum(initial=1), lambda: xp.zeros(3, like=a),
        lambda: a.astype(np.float32, casting="safe"), lambda: a.__itruediv__(2), lambda: xp.bitwise_and(a, 1.5),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(NotImplementedError, match=r"maximum\.reduce"):
        xp.maximum.reduce(a)
    with pytest.raises(NotImplementedError, match=r"multiply\.at"):
        xp.multiply.at(a, a, 2)
    with pytest.raises(ValueError, match="Unsupported dtype"):
        xp.asarray(np.ones(2, np.longdouble))
    with pytest.raises(OverflowError):
        a.astype(np.int8) + 300


def test_the_standin_wraps_indices_and_keeps_views():
    a = standin.xp.arange(6).reshape(2, 3)
    assert a[:, standin.xp.asarray([3, -1])].tolist() == [[0, 2], [3, 5]]
    view = a[1]
    view[...] = 9
    assert a.tolist() == [[0, 1, 2], [9, 9, 9]]
    assert view.base is a.base and view.data.ptr == a.data.ptr + a.strides[0]
    assert (a.astype(np.float32) + 1.0).dtype == np.float32 and (a + 1.0).dtype == np.float64


LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), (2, 4)), "conv2d": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 2, 5, 5)),
    "batch_norm": (lambda: nn.BatchNorm2d(2), (3, 2, 4, 4)), "layer_norm": (lambda: nn.LayerNorm(4), (2, 4)),
    "group_norm": (lambda: nn.GroupNorm(2, 4), (2, 4, 3)), "max_pool": (lambda: nn.MaxPool2d(2), (1, 2, 4, 4)),
    "dropout": (lambda: nn.Dropout(0.5), (4, 4)), "lstm": (lambda: nn.LSTM(4, 3), (5, 2, 4)),
    "gru": (lambda: nn.GRU(4, 3), (5, 2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    make, shape = LAYERS[name]
    layer = make()
    moved = copy.deepcopy(layer).to("cuda")
    x = fb.randn(*shape)
    results = []
    for module, where in ((layer, "cpu"), (moved, "cuda")):
        fb.manual_seed(1)
        t = x.detach().clone().to(where).requires_grad_()
        out = module(t)
        out = out[0] if isinstance(out, tuple) else out
        (out * out).sum().backward()
        assert out.device.type == t.grad.device.type == where
        results.append((out.detach().cpu().numpy(), t.grad.cpu().numpy()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax"])
def test_optimizer(name):
    ends = []
    for where in ("cpu", "cuda"):
        p = nn.Parameter(fb.tensor([1.0, -2.0, 3.0], device=where))
        optimizer = getattr(fb.optim, name)([p], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (p * p).sum().backward()
            optimizer.step()
        ends.append(p.detach().cpu().numpy())
    np.testing.assert_allclose(*ends, rtol=1e-5)


def test_embedding_and_cross_entropy():
    layer = nn.Embedding(6, 4).to("cuda")
    logits = layer(fb.tensor([[0, 1], [1, 5]], device="cuda")).flatten(0, 1)
    nn.functional.cross_entropy(logits, fb.tensor([0, 1, 2, 3], device="cuda")).backward()
    assert layer.weight.grad.device.type == "cuda"


def test_attention():
    layer = nn.MultiheadAttention(4, 2, batch_first=True).to("cuda")
    x = fb.randn(2, 3, 4, device="cuda", requires_grad=True)
    layer(x, x, x)[0].sum().backward()
    assert x.grad.shape == x.shape


def test_state_dict_through_a_file():
    layer = nn.Linear(3, 2).to("cuda")
    file = io.BytesIO()
    fb.save(layer.state_dict(), file)
    file.seek(0)
    other = nn.Linear(3, 2).to("cuda")
    other.load_state_dict(fb.load(file))
    assert other.weight.device.type == "cuda"
    assert bool((other.weight == layer.weight).all())


def test_indexing_in_place_and_printing():
    x = fb.arange(6.0, device="cuda").reshape(2, 3)
    x[0] = 1
    x[x > 3] = 0
    x[:, fb.tensor([0, 2], device="cuda")] += 1
    x.add_(1).mul_(2)
    assert x.cpu().tolist() == [[6, 4, 6], [10, 2, 4]]
    assert "device='cuda:0'" in repr(x)


def test_autocast():
    layer = nn.Linear(3, 2).to("cuda")
    with fb.autocast("cuda", dtype=fb.bfloat16):
        out = layer(fb.ones(4, 3, device="cuda"))
    out.float().sum().backward()
    assert layer.weight.grad.dtype is fb.float32
