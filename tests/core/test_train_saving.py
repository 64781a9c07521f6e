"""When a run saves, what a resumed one must share with it, and signals within a process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import resume_cases

from flambeau import nn, optim
from flambeau.amp import GradScaler
from flambeau.data import DataLoader, IterableDataset, TensorDataset
from flambeau.errors import FlambeauError, UsageError
from flambeau.train import (
    Callback,
    CheckpointFolder,
    EarlyStopping,
    Run,
    RunStopped,
    StopSignals,
    fit,
    read_checkpoint,
    supervised,
)

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(24, 5)).astype(np.float32), rng.normal(size=(24, 1)).astype(np.float32)


def squared(model, batch):
    x, y = batch
    return (*supervised.mean_squared_error()(model(x), y), len(x))


def train(folder, *, width=1, batch_size=4, loader=None, epochs=2, **options):
    model = nn.Sequential(nn.Linear(5, width), nn.Linear(width, 1))
    loader = loader or DataLoader(TensorDataset(X, Y), batch_size)
    return fit(
        model, optim.SGD(model.parameters(), lr=0.01), squared, loader, epochs=epochs,
        checkpoints=CheckpointFolder(folder), **options,
    )  # fmt: skip


class At(Callback):
    """Calls a function at an optimizer step."""

    def __init__(self, step, function):
        self.step, self.function = step, function

    def on_step(self, run):
        if run.counters.optimizer_step == self.step:
            self.function()


class Saves(CheckpointFolder):
    """Notes at which optimizer steps it saved."""

    def __init__(self, path):
        super().__init__(path)
        self.at = []

    def save(self, state, best=False):
        self.at.append(state["counters"]["optimizer_step"])
        super().save(state, best)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [6, 12]),
        ({"checkpoint_every": 4}, [4, 6, 8, 12, 12]),
        ({"checkpoint_minutes": 1e-9}, [1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 12]),
        ({"checkpoint_minutes": 60}, [6, 12]),
    ],
)
def test_when_it_saves(tmp_path, options, expected):
    model = nn.Linear(5, 1)
    folder = Saves(tmp_path)
    loader = DataLoader(TensorDataset(X, Y), 4)
    fit(model, optim.SGD(model.parameters(), lr=0.01), squared, loader, epochs=2, checkpoints=folder, **options)
    assert folder.at == expected


def test_minutes_count_from_the_latest_save(tmp_path):
    model = nn.Linear(5, 1)
    folder = Saves(tmp_path)
    loader = DataLoader(TensorDataset(X, Y), 4)
    pause = [At(step, lambda: time.sleep(0.3)) for step in (3, 8)]
    fit(
        model, optim.SGD(model.parameters(), lr=0.01), squared, loader, epochs=2, checkpoints=folder,
        checkpoint_minutes=0.25 / 60, callbacks=pause,
    )  # fmt: skip
    assert folder.at == [3, 6, 8, 12]


@pytest.mark.parametrize("name", ["every", "minutes"])
def test_senseless_intervals_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"checkpoint_{name} must be positive"):
        train(tmp_path, **{f"checkpoint_{name}": -1})


def test_a_loader_that_cannot_go_on_within_an_epoch(tmp_path):
    batches = list(DataLoader(TensorDataset(X, Y), 4))
    with pytest.raises(UsageError, match="a list cannot be resumed within an epoch"):
        train(tmp_path, loader=batches, checkpoint_every=2)
    with pytest.raises(RunStopped) as caught:
        train(tmp_path, loader=batches, callbacks=[At(8, lambda: os.kill(os.getpid(), signal.SIGTERM))])
    assert "after optimizer step 8" in caught.value.line
    # The checkpoint is that of the last whole epoch, not one that would repeat a part of the second.
    assert CheckpointFolder(tmp_path).load()["counters"]["optimizer_step"] == 6
    with pytest.raises(RunStopped, match="nothing is saved yet"):
        train(tmp_path / "b", loader=batches, callbacks=[At(1, lambda: os.kill(os.getpid(), signal.SIGTERM))])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accumulate": 2}, r"accumulate is 2, the run in .* has 1"),
        ({"clip": 1.0}, r"clip is 1.0, the run in .* has None"),
        ({"batch_size": 8}, r"batches is 3, the run in .* has 6"),
        ({"config": {"depth": 3, "new": 1}}, r"depth is 3, the run in .* has 2"),
        ({"width": 3}, r"does not fit the model of this run: .*size mismatch"),
        ({"loader": [(X, Y)] * 6}, r"has a state for the loader, this run differs"),
    ],
)
def test_changed_options_are_a_clear_error(tmp_path, change, words):
    train(tmp_path, config={"depth": 2, "path": Path("a"), "betas": (0.9, 0.99)}, epochs=1)
    before = (tmp_path / "last.safetensors").read_bytes()
    again = {"config": {"depth": 2, "path": Path("a"), "betas": (0.9, 0.99)}, **change}
    with pytest.raises(FlambeauError, match=words) as caught:
        train(tmp_path, **again, resume=True)
    assert caught.value.mend and (tmp_path / "last.safetensors").read_bytes() == before
    assert train(tmp_path, config={"depth": 2, "betas": (0.9, 0.99)}, resume=True).counters.epoch == 2


def test_the_config_is_in_the_checkpoint(tmp_path):
    train(tmp_path, config={"lr": 0.5})
    state = read_checkpoint(tmp_path / "last.safetensors")
    assert state["settings"] == {"accumulate": 1, "clip": None, "batches": 6, "lr": 0.5}
    assert {"flambeau", "numpy", "python"} <= state["versions"].keys()


def test_another_version_is_a_warning(tmp_path):
    train(tmp_path, epochs=1)
    state = read_checkpoint(tmp_path / "last.safetensors")
    CheckpointFolder(tmp_path).save({**state, "versions": {**state["versions"], "numpy": "1.0"}})
    with pytest.warns(UserWarning, match=rf"saved with numpy 1.0 \(now {np.__version__}\)"):
        assert train(tmp_path, resume=True).counters.epoch == 2


def test_the_checkpoint_of_something_else(tmp_path):
    CheckpointFolder(tmp_path).save({"run": {}, "recent": []})
    with pytest.raises(FlambeauError, match="not the checkpoint of such a run: it has no callbacks, counters"):
        train(tmp_path, resume=True)


def test_callbacks_are_matched_by_class(tmp_path):
    first = [At(0, None), EarlyStopping("loss", patience=9), EarlyStopping("lr", patience=7)]
    train(tmp_path, callbacks=first, epochs=1)
    again = [EarlyStopping("loss", patience=9), Callback(), EarlyStopping("lr", patience=7)]
    train(tmp_path, callbacks=again, epochs=1, resume=True)
    assert (again[0].best, again[2].best) == (first[1].best, first[2].best) and again[2].best == 0.01
    with pytest.warns(UserWarning, match="state for EarlyStopping, which this run does not have"):
        train(tmp_path, callbacks=again[:1], epochs=1, resume=True)
    train(tmp_path / "b", epochs=1)
    with pytest.warns(UserWarning, match="no state for EarlyStopping, which starts anew"):
        train(tmp_path / "b", callbacks=again[:1], epochs=1, resume=True)


def test_a_scaler_beside_the_run_is_saved():
    scaler = GradScaler("cpu", init_scale=8.0)
    model = nn.Linear(1, 1)

    def run():
        run = Run(model, optim.SGD(model.parameters(), lr=0.1), [], 1)
        run.scaler = GradScaler("cpu", init_scale=2.0)
        return run

    saved = run()
    saved.scaler = scaler
    other = run()
    other.load_state_dict(saved.state_dict())
    assert other.scaler.get_scale() == 8.0


def test_the_handlers_are_put_back(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    inside = []
    train(tmp_path, callbacks=[At(1, lambda: inside.append(signal.getsignal(signal.SIGTERM)))])
    assert inside[0] != before[1]
    with pytest.raises(RunStopped) as caught:
        train(tmp_path / "b", callbacks=[At(3, lambda: os.kill(os.getpid(), signal.SIGINT))])
    assert caught.value.code == 130 and caught.value.signal == signal.SIGINT
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "c", callbacks=[At(3, lambda: 1 / 0)])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    ends = []
    fit_without = nn.Linear(5, 1)  # nothing to save: Ctrl-C is Python's own
    with pytest.raises(KeyboardInterrupt):
        fit(
            fit_without, optim.SGD(fit_without.parameters(), lr=0.1), squared, DataLoader(TensorDataset(X, Y), 4),
            epochs=1, callbacks=[At(3, lambda: (ends.append(1), os.kill(os.getpid(), signal.SIGINT)))],
        )  # fmt: skip
    assert ends == [1]


def test_a_signal_in_the_last_step_lets_the_run_end(tmp_path):
    class AtEpoch(Callback):
        def on_epoch(self, run, row):
            if row["epoch"] == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    assert train(tmp_path, callbacks=[AtEpoch()]).finished
    with pytest.raises(RunStopped, match="after optimizer step 12"):
        train(tmp_path / "b", callbacks=[AtEpoch()], epochs=3)
    assert train(tmp_path / "b", epochs=3, resume=True).counters.optimizer_step == 18


def test_in_another_thread_signals_are_left_alone(tmp_path):
    before, found = signal.getsignal(signal.SIGTERM), []

    def work():
        seen = At(1, lambda: found.append(signal.getsignal(signal.SIGTERM)))
        found.append(train(tmp_path, callbacks=[seen]).finished)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before, True]


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        with StopSignals():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


class Stream(IterableDataset):
    """Draws from the global generators of its worker."""

    def __iter__(self):
        for _ in range(12):
            yield np.random.normal()


@pytest.mark.parametrize("stop", [0, 1, 4, 5])
@pytest.mark.parametrize("kind", ["indexed", "iterable"])
def test_the_generators_of_workers_go_on_within_an_epoch(kind, stop):
    def loader():
        data = resume_cases.Images(40) if kind == "indexed" else Stream()
        return DataLoader(data, 4 if kind == "indexed" else 2, shuffle=kind == "indexed" or None, num_workers=2)

    def content(batch):
        return batch[0].array.tobytes() if isinstance(batch, list) else batch.array.tobytes()

    whole = loader()
    batches, positions = [], []
    for batch in whole:
        batches.append(content(batch))
        positions.append(whole.state_dict())
    again = loader()
    again.load_state_dict(positions[stop])
    assert [content(batch) for batch in again] == batches[stop + 1 :]
    assert len(set(batches)) == len(batches) and len(batches) > stop


def test_global_generators_do_not_depend_on_the_number_of_workers():
    def read(workers):
        resume_cases.seed_everything(3)
        loader = DataLoader(resume_cases.Images(40), 4, shuffle=True, num_workers=workers)
        return [batch[0].array.tobytes() for batch in loader]

    assert read(1) == read(2) == read(3)


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="needs to mount a small disk")
def test_a_run_on_a_full_disk_stops_and_goes_on_when_there_is_room(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(place)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    filler = place / "filler"
    try:
        options = {"epochs": 2, "checkpoint_every": 2}
        resume_cases.train("images", tmp_path / "whole", **options)
        fill = At(9, lambda: filler.write_bytes(bytes(shutil.disk_usage(place).free - 20_000)))
        with pytest.raises(FlambeauError, match=r"disk is full; the checkpoint needs .*kB, .* are free"):
            resume_cases.train("images", place / "r", extra=[fill], **options)
        assert CheckpointFolder(place / "r" / "checkpoints").load()["counters"]["optimizer_step"] == 8
        left = {path.name for path in (place / "r" / "checkpoints").iterdir()}
        assert left == {".lock", "last.safetensors", "previous.safetensors"}
        filler.unlink()
        resume_cases.train("images", place / "r", resume=True, **options)
        assert (place / "r" / "final.safetensors").read_bytes() == (
            tmp_path / "whole" / "final.safetensors"
        ).read_bytes()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
