"""PyTorch's files both ways: what it saves we load, what we save it loads (weights only), bit for bit."""

from __future__ import annotations

import io
import struct
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import flambeau
from flambeau import nn
from flambeau.errors import FlambeauError
from flambeau.io import CheckpointError, UnsupportedFormatError

DTYPES = [
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64",
    "complex128", "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def saved(obj, zipped=True, **how) -> bytes:
    file = io.BytesIO()
    torch.save(obj, file, _use_new_zipfile_serialization=zipped, **how)
    return file.getvalue()


def ours(obj, zipped=True, **how):
    return flambeau.load(io.BytesIO(saved(obj, zipped, **how)))


def theirs(obj):
    file = io.BytesIO()
    flambeau.save(obj, file, format="torch")
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def bits(tensor) -> bytes:
    plain = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    return bytes(plain.reshape(-1).view(torch.uint8).numpy())


def same(a, b) -> bool:
    """Whether two trees, the tensors of either library, are the same in type, structure and bits."""
    if isinstance(a, flambeau.Tensor):
        a, b = b, a
    if isinstance(a, torch.Tensor):
        if isinstance(b, torch.Tensor):
            return a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride() and bits(a) == bits(b)
        strides = a.numel() == 0 or a.is_conj() or tuple(a.stride()) == tuple(b.stride())
        name = str(a.dtype).removeprefix("torch.")
        kinds = isinstance(a, torch.nn.Parameter) == isinstance(b, nn.Parameter) and a.requires_grad == b.requires_grad
        form = name == b.dtype.name and tuple(a.shape) == tuple(b.shape)
        return strides and kinds and form and bits(a) == b.array.tobytes()
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        kinds = type(a) is type(b) or isinstance(a, torch.Size)
        return kinds and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def example(name):
    values = torch.arange(6).reshape(2, 3)
    return (values % 2 if name == "bool" else values).to(getattr(torch, name))


@st.composite
def tensors(draw):
    """A tensor of any dtype, a view more often than not."""
    name = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = int(np.prod(shape))
    raw = draw(st.binary(min_size=16, max_size=16))
    whole = torch.tensor(list(raw) * (size + 9), dtype=torch.uint8)
    if name == "bool":
        whole = whole % 2
    kind = getattr(torch, name)
    start = draw(st.integers(0, 8))
    tensor = whole[: (size + 8) * kind.itemsize].clone().view(kind)[start : start + size].reshape(shape)
    for _ in range(draw(st.integers(0, 2))):
        what = draw(st.sampled_from(["t", "step", "expand", "index"]))
        if what == "t" and tensor.ndim > 1:
            tensor = tensor.transpose(0, tensor.ndim - 1)
        elif what == "step" and tensor.ndim:
            tensor = tensor[:: draw(st.integers(1, 2))]
        elif what == "expand":
            tensor = tensor.unsqueeze(0).expand(3, *tensor.shape)
        elif what == "index" and tensor.ndim and tensor.shape[0]:
            tensor = tensor[-1]
    if draw(st.booleans()) and kind.is_floating_point and kind.itemsize > 1:
        tensor = torch.nn.Parameter(tensor, requires_grad=draw(st.booleans()))
    return tensor


trees = st.recursive(
    tensors()
    | st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from([1 + 2j, {1, 2}]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees, zipped=st.booleans(), protocol=st.sampled_from([2, 2, 2, 3, 4, 5]))
def test_there_and_back(tree, zipped, protocol):
    loaded = ours(tree, zipped, pickle_protocol=protocol)
    assert same(tree, loaded)
    back = theirs(loaded)
    assert same(back, loaded)


@FORMATS
@pytest.mark.parametrize("name", DTYPES)
def test_dtypes(name, zipped):
    value = example(name)
    for tensor in (value, value[0, 0], value[:0], value.t()):
        loaded = ours(tensor, zipped)
        assert same(tensor, loaded) and same(theirs(loaded), loaded)


@FORMATS
def test_shared_storages(zipped):
    base = torch.arange(24.0).reshape(4, 6)
    tree = [base, base.t(), base[1:, ::2], base[0, 0], base[:1, :1].expand(3, 5)]
    loaded = ours(tree, zipped)
    loaded[0].array[...] += 100
    base += 100
    assert all(same(a, b) for a, b in zip(tree, loaded, strict=True))
    back = theirs(loaded)
    assert len({tensor.untyped_storage().data_ptr() for tensor in back}) == 1
    back[0].add_(1)
    base += 1
    assert all(torch.equal(a, b) for a, b in zip(tree, back, strict=True))


@FORMATS
def test_a_training_checkpoint(zipped, tmp_path):
    """Model, optimizer, schedule: the nested thing that people save."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    schedule.step()
    state = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
        "epoch": 3, "best": float("inf"), "rng": torch.get_rng_state(), "counts": Counter("aab"),
    }  # fmt: skip
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    loaded = flambeau.load(tmp_path / "a.pth")
    assert same(state["model"], loaded["model"]) and same(state["optimizer"], loaded["optimizer"])
    assert loaded["model"]._metadata == state["model"]._metadata
    assert loaded["best"] == float("inf") and loaded["counts"] == state["counts"]
    twin = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    assert twin.load_state_dict(loaded["model"]) == ([], [])
    flambeau.save(loaded, tmp_path / "b.pt")
    back = torch.load(tmp_path / "b.pt", weights_only=True)
    optimizer.load_state_dict(back["optimizer"])
    model.load_state_dict(back["model"])
    flambeau.save(twin.state_dict(), tmp_path / "c.pt")
    model.load_state_dict(torch.load(tmp_path / "c.pt", weights_only=True, mmap=True))


@FORMATS
def test_numpy_and_other_plain_values(zipped):
    tree = {
        "c": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "e": np.zeros((0, 3)),
        "big": np.arange(3, dtype=">i4"), "text": np.array(["ab", "c"]), "half": np.float16([1, 2]),
        "flag": np.array([True]), "complex": np.array([1j]),
    }  # fmt: skip
    for protocol in (2, 4, 5):
        loaded = ours(tree, zipped, pickle_protocol=protocol)
        for key, value in tree.items():
            assert loaded[key].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
            assert np.array_equal(loaded[key], value), (key, protocol)
        scalars = ours([np.float64(1.5), np.int32(-3), np.bool_(True), np.float32(2)], zipped, pickle_protocol=protocol)
        assert [(type(v), v) for v in scalars] == [
            (np.float64, 1.5), (np.int32, -3), (np.bool_, True), (np.float32, 2),
        ]  # fmt: skip
    rest = {
        "size": torch.Size([1, 2]), "dtype": torch.bfloat16, "cpu": torch.device("cpu"), "slice": slice(1, None, 2),
        "range": range(3), "default": defaultdict(list, {1: [2]}), "bytes": bytearray(b"\xffx"), "fs": frozenset({1}),
    }  # fmt: skip
    loaded = ours(rest, zipped)
    assert loaded["size"] == (1, 2) and loaded["dtype"] is flambeau.bfloat16 and loaded["cpu"] == flambeau.device("cpu")
    for key in ("slice", "range", "default", "bytes", "fs"):
        assert loaded[key] == rest[key] and type(loaded[key]) is type(rest[key])


@FORMATS
def test_lazy_bits_and_attributes(zipped):
    value = torch.tensor([1 + 2j, 3 - 1j])
    tree = {"conj": value.conj(), "neg": value.clone().conj().imag, "grad": torch.ones(2, requires_grad=True)}
    marked = torch.nn.Parameter(torch.ones(2))
    marked.tag = "mine"
    tree["marked"] = marked
    loaded = ours(tree, zipped)
    assert loaded["conj"].tolist() == [1 - 2j, 3 + 1j] and loaded["neg"].tolist() == [-2, 1]
    assert loaded["grad"].requires_grad and loaded["marked"].tolist() == [1, 1]


class Unknown:
    pass


@FORMATS
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2, 2).to_sparse(),
        lambda: torch.ones(2, 2).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        lambda: torch.zeros(2, device="meta"),
        lambda: torch.zeros(2, dtype=torch.uint16),
        lambda: torch.ones(2).untyped_storage(),
        lambda: torch.nn.Linear(2, 2),
        lambda: Unknown(),
        lambda: torch.nested.nested_tensor([torch.zeros(1)]),
    ],
    ids=["sparse", "csr", "quantised", "meta", "uint16", "storage", "module", "class", "nested"],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_refused(make, zipped, tmp_path):
    (tmp_path / "a.pt").write_bytes(saved({"x": make()}, zipped))
    with pytest.raises(CheckpointError) as caught:
        flambeau.load(tmp_path / "a.pt")
    assert "a.pt" in str(caught.value) and caught.value.mend
    if not isinstance(make(), Unknown):
        assert isinstance(caught.value, UnsupportedFormatError)


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.filterwarnings("ignore")
def test_torchscript_parameters(how, tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten()).eval()
    script = torch.jit.script(model) if how == "script" else torch.jit.trace(model, torch.zeros(1, 1, 4, 4))
    torch.jit.save(script, str(tmp_path / "a.pt"))
    loaded = flambeau.load(tmp_path / "a.pt")
    assert loaded.keys() == model.state_dict().keys()
    assert all(bits(value) == loaded[key].array.tobytes() for key, value in model.state_dict().items())


def test_map_and_change(tmp_path):
    torch.save({"w": torch.ones(1000)}, tmp_path / "a.pt")
    before = (tmp_path / "a.pt").read_bytes()
    loaded = flambeau.load(tmp_path / "a.pt")
    loaded["w"].array[...] = 5
    assert (tmp_path / "a.pt").read_bytes() == before and torch.load(tmp_path / "a.pt")["w"].sum() == 1000


def test_pytorch_shards(tmp_path):
    import json

    index = {}
    for number, key in enumerate("ab", start=1):
        name = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({key: torch.full((2,), float(number))}, tmp_path / name)
        index[key] = name
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert {key: value.tolist() for key, value in flambeau.load(tmp_path).items()} == {"a": [1, 1], "b": [2, 2]}


def test_python_2_texts():
    """State dicts of 2017 have Python 2's byte texts and OrderedDicts made from pairs."""

    def old(value):
        return b"U" + struct.pack("<B", len(value)) + value

    pid = b"(" + old(b"storage") + b"ctorch\nFloatStorage\n" + old(b"0") + old(b"cpu") + b"K\x02NtQ"
    one = b"ctorch._utils\n_rebuild_tensor\n(" + pid + b"K\0(K\x02t(K\x01ttR"
    content = b"\x80\x02ccollections\nOrderedDict\n(](](" + old(b"conv.weight") + one + b"eetR."
    import pickle

    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    values = np.array([1, 2], np.float32).tobytes()
    file = head + content + pickle.dumps(["0"], 2) + struct.pack("<q", 2) + values
    loaded = flambeau.load(io.BytesIO(file))
    assert list(loaded) == ["conv.weight"] and loaded["conv.weight"].tolist() == [1, 2]
    assert torch.load(io.BytesIO(file), weights_only=True)["conv.weight"].tolist() == [1, 2]


WHOLE = {zipped: saved({"w": torch.arange(400.0), "n": [1, {"a": None}]}, zipped) for zipped in (True, False)}


@FORMATS
def test_cut_files(zipped):
    content = WHOLE[zipped]
    for length in range(0, len(content), 13):
        with pytest.raises(FlambeauError):
            flambeau.load(io.BytesIO(content[:length]))


@FORMATS
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_changed_bytes(zipped, data):
    content = bytearray(WHOLE[zipped])
    changes = st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=3)
    for position, value in data.draw(changes):
        content[position] = value
    try:
        flambeau.load(io.BytesIO(bytes(content)))
    except FlambeauError as error:
        assert error.mend
