"""flambeau.save and flambeau.load: state dicts, nested containers, folders, and clear refusals."""

from __future__ import annotations

import io
import json
import math
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flambeau
from flambeau.errors import FlambeauError
from flambeau.io import CheckpointError, load_model_state, read_model_card, safe_open, save_file, save_model_state
from flambeau.io.tree import flatten, unflatten


def test_a_state_dict_is_a_plain_file(tmp_path):
    state = OrderedDict({"w": flambeau.ones(2, 3), "b": flambeau.zeros(3).to(flambeau.bfloat16)})
    flambeau.save(state, tmp_path / "a.safetensors")
    assert safe_open(tmp_path / "a.safetensors").metadata == {}
    back = flambeau.load(tmp_path / "a.safetensors")
    assert back["w"].tolist() == state["w"].tolist() and back["b"].dtype is flambeau.bfloat16


def test_nested_containers_keep_their_structure(tmp_path):
    obj = {
        "model": {"w": flambeau.ones(2), "n": 0},
        "state": {0: {"step": 3, "m": np.arange(3)}, 1: None},
        "groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 1]}],
        "float": [math.inf, -math.inf, 1e-300],
        "nan": math.nan,
        "text": "é\n",
        "bytes": b"\0\xff",
        "flag": True,
        "big": 2**100,
        "scalar": np.float32(1.5),
        "empty": {},
        "dtype": flambeau.float16,
        "w": flambeau.zeros(()),
    }
    flambeau.save(obj, tmp_path / "a")
    back = flambeau.load(tmp_path / "a")
    assert list(back) == list(obj) and math.isnan(back.pop("nan"))
    assert back["model"]["w"].tolist() == [1, 1] and back["model"]["n"] == 0
    assert back["state"][0]["m"].tolist() == [0, 1, 2] and back["state"][1] is None
    assert back["groups"] == obj["groups"] and type(back["groups"][0]["betas"]) is tuple
    for key in ("float", "text", "bytes", "flag", "big", "empty"):
        assert back[key] == obj[key] and type(back[key]) is type(obj[key])
    assert back["scalar"] == 1.5 and back["scalar"].dtype == np.float32
    assert back["dtype"] is flambeau.float16 and tuple(back["w"].shape) == ()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(obj=plain)
def test_any_plain_object_comes_back(obj):
    back = unflatten({}, flatten(obj)[1])
    assert back == obj and repr(back) == repr(obj)


def test_names_that_clash_are_kept_apart():
    obj = {"a": {"b": np.zeros(1)}, "a.b": np.ones(1), "__metadata__": np.full(1, 2)}
    arrays, text = flatten(obj)
    back = unflatten(arrays, text)
    assert (back["a"]["b"][0], back["a.b"][0], back["__metadata__"][0]) == (0, 1, 2)


def test_single_values_and_binary_files():
    for obj in (flambeau.ones(3), np.arange(2), 7, "text", [1]):
        file = io.BytesIO()
        flambeau.save(obj, file)
        back = flambeau.load(io.BytesIO(file.getvalue()))
        assert type(back) is type(obj) and str(back) == str(obj)


@pytest.mark.parametrize("bad", [{"a": {"f": print}}, [object()], {(1, 2): 3}, {"a": {1, 2}}])
def test_what_is_not_plain_data_is_refused(bad, tmp_path):
    with pytest.raises(FlambeauError, match="cannot save") as caught:
        flambeau.save(bad, tmp_path / "a")
    assert caught.value.mend and list(tmp_path.iterdir()) == []


def test_an_object_that_contains_itself_is_refused(tmp_path):
    loop: list = []
    loop.append(loop)
    with pytest.raises(FlambeauError, match="contains itself"):
        flambeau.save(loop, tmp_path / "a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        '{"list": 3}',
        '{"tensor": "none"}',
        '{"what": 1}',
        '{"dict": [1]}',
        '{"a":1,"b":2}',
        "[" * 9999,
    ],
)
def test_a_damaged_description_is_a_clear_error(text, tmp_path):
    save_file({"x": np.zeros(1)}, tmp_path / "a", {"flambeau.tree": text})
    with pytest.raises(FlambeauError, match="damaged"):
        flambeau.load(tmp_path / "a")


def test_what_is_no_checkpoint_is_named(tmp_path):
    for name, content, words in (
        ("a.pt", b"PK\3\4....", "cut off"),
        ("renamed.safetensors", b"PK\3\4....", "cut off"),
        ("old", b"\x80\x02}q\x00.", "not one that torch.save wrote"),
        ("ancient", b"\0" * 257 + b"ustar" + bytes(250), "tar format"),
        ("model.gguf", b"GGUF" + bytes(20), "GGUF"),
        ("keras.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=words) as caught:
            flambeau.load(tmp_path / name)
        assert name in str(caught.value) and caught.value.mend
    with pytest.raises(NotImplementedError, match="not written"):
        flambeau.save({}, tmp_path / "b.pkl")
    with pytest.raises(FlambeauError, match="does not exist"):
        flambeau.load(tmp_path / "missing.pt")


@pytest.mark.parametrize("length", [128, 128 + 256, 640, 0x4B50])
def test_a_header_length_that_looks_like_another_format(length, tmp_path):
    text = b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(length)
    (tmp_path / "a").write_bytes(length.to_bytes(8, "little") + text + b"\7")
    assert flambeau.load(tmp_path / "a")["x"].tolist() == [7]


def test_arguments_of_load(tmp_path):
    flambeau.save({"x": flambeau.ones(2)}, tmp_path / "a.pt")
    for place in ("cpu", flambeau.device("cpu"), None):
        assert flambeau.load(tmp_path / "a.pt", place, mmap=None)["x"].tolist() == [1, 1]
    with pytest.raises(NotImplementedError, match="would run"):
        flambeau.load(tmp_path / "a.pt", weights_only=False)
    for place in (lambda storage, location: storage, {"cuda:0": "cpu"}):
        with pytest.raises(FlambeauError, match="map_location"):
            flambeau.load(tmp_path / "a.pt", place)
    with pytest.raises(ValueError, match="device"):
        flambeau.load(tmp_path / "a.pt", "tpu")
    with pytest.raises(TypeError):
        flambeau.load(tmp_path / "a.pt", pickle_module=None)
    with pytest.raises(ValueError, match="format"):
        flambeau.save({}, tmp_path / "a", format="onnx")


def test_sharded_folder(tmp_path):
    save_file({"a": np.zeros(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": np.ones(2)}, tmp_path / "model-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"b": "model-2.safetensors", "a": "model-1.safetensors"}}))
    back = flambeau.load(tmp_path)
    assert list(back) == ["b", "a"] and back["b"].tolist() == [1, 1]
    for content, words in (
        ({"weight_map": {"a": "../x.safetensors"}}, "outside"),
        ({"weight_map": {"c": "model-1.safetensors"}}, "lacks it"),
        ({"weight_map": {"a": "model-3.safetensors"}}, "does not exist"),
        ({}, "damaged"),
        ([], "damaged"),
        ({"weight_map": {"a": 3}}, "damaged"),
    ):
        index.write_text(json.dumps(content))
        with pytest.raises(FlambeauError, match=words):
            flambeau.load(tmp_path)


def test_folder_with_one_file_and_without(tmp_path):
    with pytest.raises(FlambeauError, match=r"no model\.safetensors"):
        flambeau.load(tmp_path)
    save_file({"a": np.zeros(2)}, tmp_path / "model.safetensors")
    assert list(flambeau.load(tmp_path)) == ["a"]


def test_model_card(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model_state(
        {"w": flambeau.ones(2)}, path, model="x/net", config={"width": 3}, plugin="x-plugin", notes={"classes": ["a"]}
    )
    card = read_model_card(path)
    assert (card.model, card.config, card.plugin, card.notes) == ("x/net", {"width": 3}, "x-plugin", {"classes": ["a"]})
    assert card.version == flambeau.__version__
    state, again = load_model_state(path)
    assert again == card and state["w"].tolist() == [1, 1]
    save_file({"w": np.ones(2)}, path)
    assert read_model_card(path) is None
    save_file({}, path, {"flambeau.model": "x", "flambeau.config": "["})
    with pytest.raises(FlambeauError, match="model card is not JSON"):
        read_model_card(path)
