"""PyTorch's zip format without PyTorch: what is written comes back, sharing, alignment, mapping, shards."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau
from flambeau import nn
from flambeau.errors import FlambeauError
from flambeau.io import CheckpointError, save_sharded
from flambeau.io.shards import parse_size

DTYPES = [
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64",
    "complex128", "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip


def again(obj):
    file = io.BytesIO()
    flambeau.save(obj, file, format="torch")
    return flambeau.load(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes(name):
    kind = getattr(flambeau, name)
    for shape in ((2, 3), (), (0, 4), (1,)):
        values = flambeau.from_numpy((np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(kind.numpy))
        back = again(values)
        assert back.dtype is kind and tuple(back.shape) == shape and back.array.tobytes() == values.array.tobytes()


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | st.binary(max_size=9)
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.tuples(st.integers(), st.text()), inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(obj=plain)
def test_any_plain_object_comes_back(obj):
    back = again(obj)
    assert back == obj and repr(back) == repr(obj)


def test_views_of_one_storage_stay_so(tmp_path):
    base = flambeau.arange(24.0).reshape(4, 6)
    tree = {"base": base, "turned": base.t(), "part": base[1:3, ::2], "wide": base[:1, :1].expand(3, 5), "list": [base]}
    flambeau.save(tree, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 2000  # one storage, not five
    before = (tmp_path / "a.pt").read_bytes()
    for mapped in (True, False):
        back = flambeau.load(tmp_path / "a.pt", mmap=mapped)
        for name in ("base", "turned", "part", "wide"):
            assert back[name].array.strides == tree[name].array.strides and back[name].tolist() == tree[name].tolist()
        assert back["list"][0] is back["base"]
        back["base"].array[1, 0] = 99
        assert back["turned"].array[0, 1] == back["part"].array[0, 0] == 99
        assert (tmp_path / "a.pt").read_bytes() == before


def test_arrays_lie_in_the_mapped_file_aligned(tmp_path):
    flambeau.save([flambeau.ones(n) for n in (1, 3, 1000)], tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            with open(tmp_path / "a.pt", "rb") as file:
                file.seek(info.header_offset + 26)
                name, extra = struct.unpack("<HH", file.read(4))
            assert (info.header_offset + 30 + name + extra) % 64 == 0 and info.compress_type == 0
    for tensor in flambeau.load(tmp_path / "a.pt"):
        assert tensor.array.base is not None and tensor.array.ctypes.data % 64 == 0 and tensor.array.flags.writeable


def test_what_numpy_can_and_pytorch_cannot_describe():
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    odd = np.frombuffer(bytes(41), np.uint8)[1:].view(np.float32)  # not on a boundary of its memory
    for array in (whole[::-1], whole[:, ::-1], whole.astype(">f4"), odd, np.broadcast_to(whole[:1], (5, 4)), whole.T):
        expected = array.astype(np.float32)
        tensor = flambeau.from_numpy(array) if array.dtype == np.float32 else flambeau.tensor(expected)
        assert again(tensor).tolist() == expected.tolist()


def test_one_memory_seen_as_two_dtypes():
    whole = np.arange(4, dtype=np.float32)
    back = again([flambeau.from_numpy(whole), flambeau.from_numpy(whole.view(np.int32))])
    assert back[0].tolist() == [0, 1, 2, 3] and back[1].tolist() == whole.view(np.int32).tolist()


def test_parameters_and_state_dicts():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = OrderedDict(model.state_dict())
    state._metadata = OrderedDict({"": {"version": 1}})
    back = again({"model": state, "p": model[0].weight, "frozen": nn.Parameter(flambeau.ones(2), requires_grad=False)})
    assert type(back["p"]) is nn.Parameter and back["p"].requires_grad and not back["frozen"].requires_grad
    assert back["model"]._metadata == {"": {"version": 1}} and list(back["model"]) == list(state)
    assert model.load_state_dict(back["model"]) == ([], [])
    assert again(flambeau.ones(2, requires_grad=True)).requires_grad
    tree = {"s": flambeau.Size([1, 2]), "d": flambeau.device("cuda:1"), "t": flambeau.bfloat16, "c": Counter("aab")}
    other = again({**tree, "e": {1, "x"}})
    assert other == {**tree, "e": {1, "x"}} and type(other["s"]) is flambeau.Size and type(other["c"]) is Counter


def test_equal_objects_give_equal_files(tmp_path):
    for name in ("a.pt", "b.pt"):
        flambeau.save({"w": flambeau.arange(9.0), "n": [1, 2]}, tmp_path / name)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def deep(levels):
    obj: list = []
    for _ in range(levels):
        obj = [obj]
    return obj


@pytest.mark.parametrize(
    "bad",
    [{"a": [print]}, object(), {"a": np.zeros(2)}, np.float32(1), {frozenset(): 1}, deep(300), nn.Linear(1, 1)],
    ids=["function", "object", "array", "number", "key", "deep", "module"],
)
def test_what_cannot_be_saved_leaves_nothing_behind(bad, tmp_path):
    with pytest.raises(FlambeauError, match="cannot save") as caught:
        flambeau.save(bad, tmp_path / "a.pt")
    assert caught.value.mend and list(tmp_path.iterdir()) == []


def test_the_other_byte_order(tmp_path):
    """A file of a big-endian machine: the elements are turned round, all but those of one byte."""
    arrays = {
        "f": np.arange(3, dtype=np.float32), "c": np.array([1 + 2j]), "b": np.array([True, False]),
        "h": np.array([1, 2], np.int16), "w": np.arange(3).astype(flambeau.bfloat16.numpy),
    }  # fmt: skip
    flambeau.save({key: flambeau.from_numpy(value) for key, value in arrays.items()}, tmp_path / "little.pt")
    with zipfile.ZipFile(tmp_path / "little.pt") as old, zipfile.ZipFile(tmp_path / "big.pt", "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("byteorder"):
                content = b"big"
            elif "/data/" in info.filename:
                array = list(arrays.values())[int(info.filename.rpartition("/")[2])]
                width = 8 if array.dtype.kind == "c" else array.dtype.itemsize
                content = np.frombuffer(content, np.uint8).reshape(-1, width)[:, ::-1].tobytes()
            new.writestr(info.filename, content)
    back = flambeau.load(tmp_path / "big.pt")
    for key, value in arrays.items():
        assert back[key].array.tobytes() == value.tobytes(), key


def test_streams_that_cannot_seek(tmp_path):
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.parts = []

        def writable(self):
            return True

        def write(self, data):
            self.parts.append(bytes(data))
            return len(data)

    pipe = Pipe()
    flambeau.save({"w": flambeau.ones(3)}, pipe, format="torch")
    assert flambeau.load(io.BytesIO(b"".join(pipe.parts)))["w"].tolist() == [1, 1, 1]


def test_pytorch_shards(tmp_path):
    flambeau.save({"a": flambeau.zeros(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    flambeau.save({"b": flambeau.ones(2)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    index = {"b": "pytorch_model-00002-of-00002.bin", "a": "pytorch_model-00001-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    back = flambeau.load(tmp_path)
    assert list(back) == ["b", "a"] and back["b"].tolist() == [1, 1]
    index["c"] = index["a"]
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(CheckpointError, match="lacks it"):
        flambeau.load(tmp_path)
    (tmp_path / "pytorch_model.bin.index.json").unlink()
    flambeau.save({"w": flambeau.ones(1)}, tmp_path / "pytorch_model.bin")
    assert list(flambeau.load(tmp_path)) == ["w"]
    flambeau.save({"s": flambeau.ones(1)}, tmp_path / "model.safetensors")
    assert list(flambeau.load(tmp_path)) == ["s"]  # safetensors first


def test_shards_are_cut_by_size_and_old_ones_go(tmp_path):
    state = {f"t{i}": flambeau.full((10,), float(i)) for i in range(5)}
    written = save_sharded(state, tmp_path, "100B")
    assert [path.name for path in written][-2:] == ["model-00003-of-00003.safetensors", "model.safetensors.index.json"]
    index = json.loads(written[-1].read_text())
    assert index["metadata"]["total_size"] == 200 and list(index["weight_map"]) == list(state)
    back = flambeau.load(tmp_path)
    assert all(back[key].tolist() == value.tolist() for key, value in state.items())
    (tmp_path / "notes.txt").write_text("mine")
    save_sharded(state, tmp_path, "1KB")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "notes.txt"]
    assert list(flambeau.load(tmp_path)) == sorted(state)


@pytest.mark.parametrize("bad", ["", "5", "5XB", 0, -1, "0GB", True, None])
def test_sizes_that_are_none(bad):
    with pytest.raises(ValueError, match="size"):
        parse_size(bad)
    assert parse_size("2 MiB") == 2**21 and parse_size("5gb") == 5 * 10**9
