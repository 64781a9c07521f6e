"""The safetensors reader refuses what is cut, corrupt or hostile, and the writer's files are read back whole."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flambeau.errors import FlambeauError
from flambeau.io.safetensors import _DTYPES, parse, safe_open, save_file, serialize


def packed(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


GOOD = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(3, dtype=np.int8),
    "half": np.array([1.5, -2], ml_dtypes.bfloat16),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 4), np.float16),
    "mask": np.array([True, False, True]),
}


@pytest.mark.parametrize("dtype", list(_DTYPES.values()), ids=list(_DTYPES))
def test_every_dtype_round_trips(tmp_path, dtype):
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    save_file({"x": array}, tmp_path / "a.safetensors")
    back = safe_open(tmp_path / "a.safetensors").array("x")
    assert back.dtype == dtype and back.shape == (2, 3)
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("mapped", [True, False])
def test_round_trip_with_metadata(tmp_path, mapped):
    path = tmp_path / "a.safetensors"
    save_file(GOOD, path, {"note": "é\n"})
    file = safe_open(path, mapped=mapped)
    assert file.metadata == {"note": "é\n"} and set(file.keys()) == set(GOOD)
    for name, array in file.arrays().items():
        assert array.dtype == GOOD[name].dtype and array.shape == GOOD[name].shape
        assert array.tobytes() == GOOD[name].tobytes()


def test_mapped_arrays_are_writable_without_changing_the_file(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(GOOD, path)
    before = path.read_bytes()
    array = safe_open(path).array("w")
    array += 1
    assert array[0, 0] == 1 and path.read_bytes() == before


def test_mapped_arrays_share_memory_and_outlive_the_file_object(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": np.arange(1000.0)}, path)
    file = safe_open(path)
    first, second = file.array("x"), file.array("x")
    assert np.shares_memory(first, second)
    del file, second
    gc.collect()
    path.unlink()
    assert first.sum() == 499500


def test_non_contiguous_and_big_endian_arrays_are_saved_by_value(tmp_path):
    array = np.arange(12.0).reshape(3, 4)
    save_file({"t": array.T, "big": array.astype(">f4"), "step": array[::2, ::2]}, tmp_path / "a")
    file = safe_open(tmp_path / "a")
    assert (file.array("t") == array.T).all() and (file.array("big") == array).all()
    assert (file.array("step") == array[::2, ::2]).all()


def test_unaligned_files_from_elsewhere_are_read():
    header = {"a": entry("U8", [1], [0, 1]), "b": entry("F64", [2], [1, 17])}
    data = b"\x07" + np.array([1.0, 2.0]).tobytes()
    assert parse(packed(header, data)).array("b").tolist() == [1.0, 2.0]


HOSTILE = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "header longer than file": (1000).to_bytes(8, "little") + b"{}",
    "header over 100 MB": (200_000_000).to_bytes(8, "little") + b"{}",
    "header length 2^64-1": b"\xff" * 8 + b"{}",
    "not json": packed(b"hello!!!"),
    "not utf-8": packed(b'{"\xff": 1}'),
    "a list": packed([]),
    "a number": packed(3),
    "deep nesting": packed(b"[" * 100_000),
    "NaN": packed(b'{"a": NaN}'),
    "duplicate names": packed(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        b"ab",
    ),
    "duplicate fields": packed(b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', b"a"),
    "metadata not text": packed({"__metadata__": {"a": 1}}),
    "metadata a list": packed({"__metadata__": []}),
    "entry a list": packed({"a": []}),
    "field missing": packed({"a": {"dtype": "F32", "shape": [1]}}, b"0000"),
    "field too many": packed({"a": {**entry(), "x": 1}}, b"0000"),
    "unknown dtype": packed({"a": entry("F7")}, b"0000"),
    "dtype a list": packed({"a": entry(["F32"])}, b"0000"),
    "shape negative": packed({"a": entry(shape=[-1])}, b"0000"),
    "shape two negatives": packed({"a": entry(shape=[-1, -1])}, b"0000"),
    "shape a bool": packed({"a": entry(shape=[True])}, b"0000"),
    "shape a float": packed({"a": entry(shape=[1.0])}, b"0000"),
    "shape overflow": packed({"a": entry(shape=[2**62, 4])}, b"0000"),
    "shape huge but empty": packed({"a": entry(shape=[2**63, 0], offsets=[0, 0])}),
    "too many dims": packed({"a": entry(shape=[1] * 70)}, b"0000"),
    "size lies": packed({"a": entry(shape=[2])}, b"0000"),
    "offsets reversed": packed({"a": entry(offsets=[4, 0])}, b"0000"),
    "offsets negative": packed({"a": entry(offsets=[-4, 0])}, b"0000"),
    "offsets three": packed({"a": entry(offsets=[0, 2, 4])}, b"0000"),
    "data cut": packed({"a": entry()}, b"00"),
    "data too long": packed({"a": entry()}, b"00000"),
    "overlap": packed({"a": entry(), "b": entry(offsets=[2, 6])}, b"000000"),
    "same range twice": packed({"a": entry(), "b": entry()}, b"0000"),
    "gap": packed({"a": entry(), "b": entry(offsets=[6, 10])}, b"0000000000"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("mapped", [True, False])
def test_hostile_files_are_refused(tmp_path, content, mapped):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(FlambeauError) as caught:
        safe_open(path, mapped=mapped)
    assert "bad.safetensors" in caught.value.cause or "tensor" in caught.value.cause
    assert caught.value.mend and "\n" not in caught.value.cause and len(caught.value.cause) < 400


def test_bytes_that_are_no_booleans_are_refused():
    with pytest.raises(FlambeauError, match="boolean"):
        parse(packed({"a": entry("BOOL", [2], [0, 2])}, b"\x01\x02")).array("a")


def test_missing_file_folder_and_tensor(tmp_path):
    with pytest.raises(FlambeauError, match="does not exist"):
        safe_open(tmp_path / "nothing")
    with pytest.raises(FlambeauError, match="folder"):
        safe_open(tmp_path)
    with pytest.raises(FlambeauError, match="no tensor 'y'"):
        parse(serialize({"x": np.zeros(1)})).array("y")


WHOLE = serialize(GOOD, {"k": "v"})


@given(cut=st.integers(0, len(WHOLE) - 1))
def test_every_cut_is_noticed(cut):
    with pytest.raises(FlambeauError):
        parse(WHOLE[:cut])


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes_give_arrays_or_a_clear_error(changes):
    damaged = bytearray(WHOLE)
    for position, value in changes:
        damaged[position] = value
    try:
        arrays = parse(damaged).arrays()
    except FlambeauError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(damaged)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*_DTYPES, "F7"]) | json_values,
        "shape": st.lists(st.integers(-2, 5), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-2, 40), min_size=2, max_size=2) | json_values,
    }
)


@settings(max_examples=300)
@given(header=st.dictionaries(st.text(max_size=4), entries | json_values, max_size=4), data=st.binary(max_size=40))
def test_any_header_gives_arrays_or_a_clear_error(header, data):
    try:
        arrays = parse(packed(header, data)).arrays()
    except FlambeauError:
        return
    assert sum(array.nbytes for array in arrays.values()) == len(data)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tensors=st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__" and name.isprintable()),
        st.tuples(st.sampled_from(list(_DTYPES.values())), st.lists(st.integers(0, 4), max_size=3)),
        max_size=5,
    )
)
def test_whatever_is_written_is_read_back(tensors):
    arrays = {name: np.ones(shape, dtype) for name, (dtype, shape) in tensors.items()}
    back = parse(serialize(arrays)).arrays()
    assert back.keys() == arrays.keys()
    assert all(back[n].shape == a.shape and back[n].tobytes() == a.tobytes() for n, a in arrays.items())


def test_refuses_what_the_format_cannot_hold(tmp_path):
    for tensors in ({"x": np.array(["a"])}, {"x": np.array([None])}, {"x": np.zeros(1, "c16")}, {3: np.zeros(1)}):
        with pytest.raises(FlambeauError):
            save_file(tensors, tmp_path / "a")
    with pytest.raises(FlambeauError, match="not a pair of texts"):
        save_file({}, tmp_path / "a", {"epoch": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE on Linux")
def test_full_disk_leaves_the_old_file(tmp_path):
    """A file size limit stands for the full disk: the write fails half-way."""
    path = tmp_path / "a.safetensors"
    save_file({"x": np.arange(3)}, path)
    script = (
        "import resource, signal, sys, numpy as np; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        "from flambeau.io.safetensors import save_file; from flambeau.errors import FlambeauError\n"
        "try: save_file({'x': np.zeros(100000)}, sys.argv[1])\n"
        "except FlambeauError as error: print(error.cause)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, env={**os.environ})
    assert "too big" in done.stdout, done.stderr
    assert safe_open(path).array("x").tolist() == [0, 1, 2] and os.listdir(tmp_path) == ["a.safetensors"]
