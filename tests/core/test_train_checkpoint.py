"""Checkpoints: checksum, fall-back, atomic writing, random states."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flambeau
from flambeau.errors import FlambeauError
from flambeau.train import CheckpointFolder, read_checkpoint, write_checkpoint
from flambeau.train.checkpoint import capture_rng, restore_rng


def state(number):
    return {"w": np.full(100, number, np.float32), "counters": {"step": number}, "history": [{"loss": 0.5}] * number}


def test_round_trip(tmp_path):
    write_checkpoint(tmp_path / "a", state(2))
    back = read_checkpoint(tmp_path / "a")
    assert back["counters"] == {"step": 2} and back["w"].tolist() == [2] * 100


@given(data=st.data())
def test_any_flipped_bit_is_noticed(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "a"
    write_checkpoint(path, state(1))
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        back = read_checkpoint(path)
    except FlambeauError:
        return
    # Only what has no meaning may change unnoticed: white space of the header.
    assert back["w"].tolist() == [1] * 100 and back["counters"] == {"step": 1} and back["history"] == [{"loss": 0.5}]


def test_a_weights_file_is_not_a_checkpoint(tmp_path):
    flambeau.save({"w": flambeau.ones(2)}, tmp_path / "a")
    with pytest.raises(FlambeauError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "a")


def test_last_previous_and_best(tmp_path):
    folder = CheckpointFolder(tmp_path / "c")
    assert not folder.exists() and folder.load_best() is None
    with pytest.raises(FlambeauError, match="no checkpoint"):
        folder.load()
    for number in (1, 2, 3):
        folder.save(state(number), best=number == 2)
    assert folder.load()["counters"]["step"] == 3
    assert folder.load_best()["counters"]["step"] == 2
    assert read_checkpoint(folder.previous)["counters"]["step"] == 2
    assert sorted(os.listdir(folder.path)) == ["best.safetensors", "last.safetensors", "previous.safetensors"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "missing"])
def test_falls_back_to_the_one_before(tmp_path, damage):
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1))
    folder.save(state(2))
    content = bytearray(folder.last.read_bytes())
    if damage == "missing":
        folder.last.unlink()
        assert folder.load()["counters"]["step"] == 1
        return
    content[-5] ^= 1
    folder.last.write_bytes({"cut": content[:-40], "flip": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match=r"last.safetensors.*going on from previous"):
        assert folder.load()["counters"]["step"] == 1
    folder.previous.write_bytes(b"x")
    with pytest.raises(FlambeauError, match="no checkpoint is usable"):
        folder.load()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE on Linux")
def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1))
    script = (
        "import resource, signal, sys, numpy as np; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
        "from flambeau.train import CheckpointFolder; from flambeau.errors import FlambeauError\n"
        "try: CheckpointFolder(sys.argv[1]).save({'w': np.zeros(100000)})\n"
        "except FlambeauError as error: print(error.cause)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert "too big" in done.stdout, done.stderr
    assert folder.load()["counters"]["step"] == 1 and os.listdir(tmp_path) == ["last.safetensors"]


def test_random_states(tmp_path):
    def draw():
        return flambeau.rand(3).tolist(), np.random.normal(size=3).tolist(), random.random(), random.gauss(0, 1)

    random.gauss(0, 1), np.random.normal()  # so that both hold a spare normal number
    write_checkpoint(tmp_path / "a", capture_rng())
    first = draw()
    restore_rng(read_checkpoint(tmp_path / "a"))
    assert draw() == first
