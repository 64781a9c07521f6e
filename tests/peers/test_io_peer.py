"""Files against the safetensors library and PyTorch, both ways."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
st_lib = pytest.importorskip("safetensors")
st_torch = pytest.importorskip("safetensors.torch")

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from test_io_safetensors import HOSTILE, WHOLE

import flambeau
from flambeau.errors import FlambeauError
from flambeau.io.safetensors import parse, safe_open, serialize

DTYPES = [
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
    "float8_e4m3fn", "float8_e5m2", "complex64",
]  # fmt: skip


def bits(tensor):
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def example(dtype):
    values = torch.arange(6).reshape(2, 3)
    return (values % 2 if dtype == "bool" else values).to(getattr(torch, dtype))


def test_torch_reads_our_file(tmp_path):
    state = {f"layer.{d}": flambeau.from_numpy(np.arange(6).reshape(2, 3) % 2).to(getattr(flambeau, d)) for d in DTYPES}
    flambeau.save(state, tmp_path / "w.safetensors")
    theirs = st_torch.load_file(tmp_path / "w.safetensors")
    assert theirs.keys() == state.keys()
    for name, tensor in theirs.items():
        assert str(tensor.dtype).removeprefix("torch.") == state[name].dtype.name
        assert bits(tensor) == state[name].array.tobytes()


def test_we_read_torchs_file(tmp_path):
    theirs = {d: example(d) for d in DTYPES}
    st_torch.save_file(theirs, tmp_path / "w.safetensors", {"format": "pt"})
    ours = flambeau.load(tmp_path / "w.safetensors")
    for name, tensor in ours.items():
        assert tensor.dtype.name == name and tuple(tensor.shape) == (2, 3)
        assert tensor.array.tobytes() == bits(theirs[name])


def test_the_same_bytes_as_the_library():
    arrays = {"w": np.arange(6, dtype=np.float32), "b": np.arange(3, dtype=np.int8), "c": np.zeros((2, 0))}
    from safetensors.numpy import save

    ours = serialize(arrays)
    assert {k: v.tobytes() for k, v in parse(save(arrays)).arrays().items()} == {
        k: v.tobytes() for k, v in arrays.items()
    }
    assert st_lib.deserialize(ours).__len__() == 3


def test_the_library_reads_our_metadata(tmp_path):
    flambeau.save({"a": flambeau.ones(2), "n": 1}, tmp_path / "w.safetensors")
    with st_lib.safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata().keys() == safe_open(tmp_path / "w.safetensors").metadata.keys()


def theirs_accepts(content):
    try:
        st_lib.deserialize(bytes(content))
    except Exception:
        return False
    return True


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_whatever_the_library_refuses_we_refuse(content):
    with pytest.raises(FlambeauError):
        parse(content)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_we_accept_no_more_than_the_library(changes):
    damaged = bytearray(WHOLE)
    for position, value in changes:
        damaged[position] = value
    try:
        parse(damaged)
    except FlambeauError:
        return
    assert theirs_accepts(damaged)
