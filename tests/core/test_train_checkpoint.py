"""Checkpoints: checksum, fall-back, atomic writing, random states."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flambeau
from flambeau.errors import FlambeauError
from flambeau.io import safe_open, save_file
from flambeau.io.atomic import remove_leftovers
from flambeau.train import CheckpointFolder, read_checkpoint, write_checkpoint
from flambeau.train.random_state import capture_rng, restore_rng
from flambeau.train.versions import versions_of, warn_of_other_versions


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


def steps(folder):
    return [read_checkpoint(path)["counters"]["step"] for path in folder.files()]


def test_the_last_k_are_kept(tmp_path):
    for number in range(1, 7):
        CheckpointFolder(tmp_path, keep=4).save(state(number))
    assert steps(CheckpointFolder(tmp_path)) == [6, 5, 4, 3]
    CheckpointFolder(tmp_path, keep=2).save(state(7))
    assert steps(CheckpointFolder(tmp_path)) == [7, 6]
    CheckpointFolder(tmp_path, keep=1).save(state(8))
    assert os.listdir(tmp_path) == ["last.safetensors"] and steps(CheckpointFolder(tmp_path)) == [8]
    with pytest.raises(ValueError, match="keep must be at least 1"):
        CheckpointFolder(tmp_path, keep=0)


@pytest.mark.parametrize("moment", range(8))
def test_cut_off_between_any_two_renames(tmp_path, moment, monkeypatch):
    """Whatever call is the last one before a crash, the newest or the one before is whole, and the next save works."""
    folder = CheckpointFolder(tmp_path, keep=3)
    for number in (1, 2, 3):
        folder.save(state(number), best=number == 1)
    calls = []

    def crashing(function):
        def call(*arguments):
            if len(calls) == moment:
                raise KeyboardInterrupt
            calls.append(function)
            return function(*arguments)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "link", "unlink"):
            patch.setattr(os, name, crashing(getattr(os, name)))
        try:
            folder.save(state(4), best=True)
        except KeyboardInterrupt:
            pass
        else:
            assert moment >= 6
    assert folder.load()["counters"]["step"] in (3, 4)
    newest = folder.load()["counters"]["step"]
    # A run that goes on from 4 does not make the best checkpoint of 4 again.
    assert newest == 3 or folder.load_best()["counters"]["step"] == 4
    folder.clean()
    folder.save(state(5))
    assert steps(folder)[0] == 5 and len(steps(folder)) == 3
    assert {path.name for path in tmp_path.iterdir()} - {path.name for path in folder.files()} == {"best.safetensors"}


def damaged(content, damage):
    flipped = bytearray(content)
    flipped[-5] ^= 1
    return {
        "cut": content[:-40],
        "flip": bytes(flipped),
        "empty": b"",
        "zeros": bytes(len(content)),
        "zeros at the end": content[:-200] + bytes(200),
        "of something else": b"PK" + content,
    }[damage]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "zeros", "zeros at the end", "of something else"])
def test_falls_back_to_the_one_before(tmp_path, damage):
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1))
    folder.save(state(2))
    folder.last.write_bytes(damaged(folder.last.read_bytes(), damage))
    with pytest.warns(UserWarning, match=r"last.safetensors.*going on from previous") as caught:
        assert folder.load()["counters"]["step"] == 1
    assert len(caught) == 1
    folder.previous.write_bytes(b"x")
    with pytest.raises(
        FlambeauError, match=r"no checkpoint is usable: \S*last.safetensors .*; \S*previous.safetensors "
    ):
        folder.load()


def test_a_missing_newest_one_is_no_damage(tmp_path, recwarn):
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1))
    folder.save(state(2))
    folder.last.unlink()
    assert folder.load()["counters"]["step"] == 1 and not recwarn


def test_a_folder_in_the_place_of_a_file(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1))
    folder.save(state(2))
    folder.last.unlink()
    folder.last.mkdir()
    with pytest.warns(UserWarning, match="is a folder"):
        assert folder.load()["counters"]["step"] == 1


def test_a_missing_part_is_named(tmp_path):
    write_checkpoint(tmp_path / "a", {"w": np.ones(3), "b": np.zeros(2)})
    file = safe_open(tmp_path / "a")
    save_file({"w": file.array("w")}, tmp_path / "b", file.metadata)
    with pytest.raises(FlambeauError, match=r"checksum does not match \(at b\)"):
        read_checkpoint(tmp_path / "b")
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "c").write_bytes(content[:-1] + b"\x01")
    with pytest.raises(FlambeauError, match=r"checksum does not match \(at [wb]\)"):
        read_checkpoint(tmp_path / "c")


@given(data=st.data())
def test_whatever_happens_to_the_newest_the_right_state_is_loaded(data, tmp_path_factory):
    """Cuts, flipped bits and overwritten stretches: the newest if unharmed, else the one before; never another."""
    folder = CheckpointFolder(tmp_path_factory.mktemp("c"))
    folder.save(state(1))
    folder.save(state(2))
    content = bytearray(folder.last.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["cut", "flip", "zeros", "noise"]))
    if kind == "cut":
        del content[start:]
    elif kind == "flip":
        content[start] ^= 1 << data.draw(st.integers(0, 7))
    else:
        stop = data.draw(st.integers(start + 1, len(content)))
        noise = bytes(stop - start) if kind == "zeros" else data.draw(st.binary(min_size=1, max_size=64))
        content[start : start + len(noise)] = noise
    folder.last.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = folder.load()
    number = found["counters"]["step"]
    assert number == 1 + (not caught), "a fall-back has one warning, and only it"
    assert found["w"].tolist() == [number] * 100 and found["history"] == [{"loss": 0.5}] * number


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(state(1))
    names = [".new.safetensors.0123456789ab.tmp", "new.safetensors", "best.new"]
    for name in [*names, "mine.tmp", ".mine.tmp"]:
        (tmp_path / name).write_text("x")
    with folder.lock():
        folder.clean()
    assert set(os.listdir(tmp_path)) == {".lock", "last.safetensors", "mine.tmp", ".mine.tmp"}


def test_only_the_named_leftovers_are_removed(tmp_path):
    for name in (".history.csv.0123456789ab.tmp", ".other.0123456789ab.tmp", "history.csv"):
        (tmp_path / name).write_text("x")
    assert remove_leftovers(tmp_path, ["history.csv"]) == [".history.csv.0123456789ab.tmp"]
    assert set(os.listdir(tmp_path)) == {".other.0123456789ab.tmp", "history.csv"}
    assert remove_leftovers(tmp_path / "none") == []


def test_one_lock_at_a_time(tmp_path):
    folder = CheckpointFolder(tmp_path / "c")
    with folder.lock() as lock:
        assert lock.held
        with pytest.raises(FlambeauError, match=rf"c is in use: process {os.getpid()} on"):
            folder.lock().acquire()
    with folder.lock():
        pass
    assert os.listdir(tmp_path / "c") == [".lock"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 kB, where the system lets us have one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)]
    if not sys.platform.startswith("linux") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_stops_the_run_and_keeps_the_last_good_checkpoint(small_disk):
    folder = CheckpointFolder(small_disk / "c")
    folder.save(state(1))
    folder.save(state(2), best=True)
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    with pytest.raises(
        FlambeauError, match=r"disk is full; the checkpoint needs 800.* kB, [0-9.]+ kB are free"
    ) as caught:
        folder.save({"w": np.zeros(100_000)})
    assert caught.value.mend and isinstance(caught.value.__cause__, OSError)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before
    assert folder.load()["counters"]["step"] == 2
    with contextlib.suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as file:
        while True:  # not even an empty file has room, nor the name of the lock's holder
            file.write(b"0" * 4096)
    with folder.lock(), pytest.raises(FlambeauError, match="disk is full"):
        folder.save(state(3))
    assert folder.load()["counters"]["step"] == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE on Linux")
def test_a_file_that_gets_too_big_keeps_the_last_good_checkpoint(tmp_path):
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
    assert "too big; the checkpoint needs 800" in done.stdout, done.stderr
    assert folder.load()["counters"]["step"] == 1 and os.listdir(tmp_path) == ["last.safetensors"]


def test_other_versions_are_named_once():
    with pytest.warns(
        UserWarning, match=r"run was saved with numpy 1.0 \(now 2\), gone 3 \(now not installed\): "
    ) as caught:
        warn_of_other_versions({"numpy": "1.0", "flambeau": "1", "gone": "3"}, {"numpy": "2", "flambeau": "1"}, "run")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_other_versions({"numpy": "2"}, {"numpy": "2", "new": "1"}, "run")


def test_versions_of_the_packages_of_a_runs_objects():
    class Foreign(flambeau.nn.Linear):
        pass

    Foreign.__module__ = "pytest.layers"
    found = versions_of([flambeau.nn.Sequential(Foreign(1, 1)), None])
    assert found == {
        "flambeau": flambeau.__version__, "numpy": np.__version__, "python": platform.python_version(),
        "pytest": pytest.__version__,
    }  # fmt: skip


def test_random_states(tmp_path):
    def draw():
        return flambeau.rand(3).tolist(), np.random.normal(size=3).tolist(), random.random(), random.gauss(0, 1)

    random.gauss(0, 1), np.random.normal()  # so that both hold a spare normal number
    write_checkpoint(tmp_path / "a", capture_rng())
    first = draw()
    restore_rng(read_checkpoint(tmp_path / "a"))
    assert draw() == first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    folder = CheckpointFolder(tmp_path)
    lock = folder.lock()
    lock.acquire()
    child = os.fork()
    if not child:  # such as a loader's worker that outlives a killed run for a moment
        time.sleep(30)
        os._exit(0)
    try:
        time.sleep(0.3)
        with pytest.raises(FlambeauError, match="in use"):
            folder.lock().acquire()
        lock.release()
        with folder.lock():
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
