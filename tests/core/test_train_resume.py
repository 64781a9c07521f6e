"""A resumed run ends with the bits of the unbroken one: stopped at any step, killed by SIGKILL, other workers."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import train_cases

import flambeau
from flambeau.data import DataLoader
from flambeau.errors import UsageError
from flambeau.io import load_model_state, read_model_card
from flambeau.train import F1, Accuracy, Callback, read_checkpoint, supervised

HERE = dataclasses.replace(train_cases.OPTIONS, workers=0)
PROGRAM = Path(train_cases.__file__)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    train_cases.train(folder, options=HERE)
    return folder


def outcome(folder):
    """All that must be equal: final weights, optimizer, EMA, schedule, history without times, the kept model."""
    state = read_checkpoint(folder / "checkpoints" / "last.safetensors")
    for row in state["history"]:
        row.pop("seconds")
    return json.dumps(
        state, default=lambda x: x.array.tobytes().hex() if hasattr(x, "array") else x.tolist(), sort_keys=True
    ), (folder / "model.safetensors").read_bytes()


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.counters.optimizer_step == self.step:
            raise KeyboardInterrupt


def test_the_run_folder(unbroken):
    names = {"checkpoints", "config.json", "history.jsonl", "history.csv", "model.safetensors", "curve.png"} | {
        "report.html"
    }
    assert set(os.listdir(unbroken)) == names
    history = [json.loads(line) for line in (unbroken / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4] and history[-1]["loss"] < history[0]["loss"]
    config = json.loads((unbroken / "config.json").read_text())
    assert config["model"] == "tests/small" and config["options"]["ema"] == 0.9
    card = read_model_card(unbroken / "model.safetensors")
    assert card.model == "tests/small" and card.config == {"a": 1} and card.plugin == "tests"
    best = max(history, key=lambda row: row["val_accuracy"])
    assert (
        card.notes["metrics"]["val_accuracy"] == best["val_accuracy"]
        and card.notes["metrics"]["epoch"] == best["epoch"]
    )


def test_the_kept_weights_have_the_metrics_of_the_card(unbroken):
    state, card = load_model_state(unbroken / "model.safetensors")
    net = train_cases.network()
    net.load_state_dict(state)
    found = supervised.evaluate(
        net,
        DataLoader(train_cases.Images(20, seed=1, noise=0.0), 8),
        loss=supervised.cross_entropy(label_smoothing=0.1),
        metrics={"accuracy": Accuracy(), "f1": F1(3)},
    )
    assert {f"val_{name}": value for name, value in found.items()} == {
        name: value for name, value in card.notes["metrics"].items() if name.startswith("val_")
    }


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(unbroken, tmp_path):
    train_cases.train(tmp_path / "again", options=HERE)
    train_cases.train(tmp_path / "other", options=dataclasses.replace(HERE, seed=4))
    assert outcome(tmp_path / "again") == outcome(unbroken)
    assert outcome(tmp_path / "other")[1] != outcome(unbroken)[1]


# 7 batches an epoch, 4 optimizer steps (the last one of a single, short batch): 16 steps in all.
@pytest.mark.parametrize("step", [1, 2, 4, 5, 8, 11, 16])
def test_stopped_at_a_step_and_resumed(unbroken, tmp_path, step):
    with pytest.raises(KeyboardInterrupt):
        train_cases.train(tmp_path / "r", options=HERE, callbacks=[StopAt(step)])
    np.random.seed(0)  # what happens in between does not matter
    flambeau.manual_seed(99)
    random.seed(1)
    train_cases.train(tmp_path / "r", resume=True, options=HERE, callbacks=[Callback()])
    assert outcome(tmp_path / "r")[1] == outcome(unbroken)[1]
    strip = [json.loads(outcome(folder)[0]) for folder in (tmp_path / "r", unbroken)]
    for state in strip:
        state.pop("callbacks")
    assert strip[0] == strip[1]


def test_stopped_twice_and_resumed_with_workers(unbroken, tmp_path):
    for resume, step, workers in ((False, 3, 1), (True, 9, 2), (True, 0, 1)):
        options = dataclasses.replace(HERE, workers=workers)
        stop = StopAt(step)
        if step:
            with pytest.raises(KeyboardInterrupt):
                train_cases.train(tmp_path / "r", resume=resume, options=options, callbacks=[stop])
        else:
            train_cases.train(tmp_path / "r", resume=resume, options=options)
    assert outcome(tmp_path / "r")[1] == outcome(unbroken)[1]


def test_resume_from_an_epoch_boundary(unbroken, tmp_path):
    options = dataclasses.replace(HERE, checkpoint_every=None)
    with pytest.raises(KeyboardInterrupt):
        train_cases.train(tmp_path / "r", options=options, callbacks=[StopAt(10)])
    train_cases.train(tmp_path / "r", resume=True, options=options)
    assert outcome(tmp_path / "r")[1] == outcome(unbroken)[1]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_at_random_moments_with_workers(unbroken, tmp_path):
    folder = tmp_path / "r"
    rng = random.Random(5)
    kills = 0
    for _ in range(5):
        command = [
            sys.executable,
            str(PROGRAM),
            str(folder),
            *(["--resume"] if (folder / "config.json").exists() else []),
        ]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 60
            started = (folder / "checkpoints" / "last.safetensors").stat().st_mtime if kills else 0
            while process.poll() is None and time.monotonic() < deadline:
                last = folder / "checkpoints" / "last.safetensors"
                if last.exists() and last.stat().st_mtime > started:
                    break
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.15))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.wait(60)
        finally:
            process.kill()
            process.wait()
            error = process.stderr.read().decode()
            process.stderr.close()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, error
    else:
        subprocess.run([sys.executable, str(PROGRAM), str(folder), "--resume"], check=True)
    assert kills >= 2
    assert outcome(folder)[1] == outcome(unbroken)[1]


def test_a_folder_with_a_run_is_not_overwritten_and_options_may_not_change(unbroken, tmp_path):
    with pytest.raises(UsageError, match="already holds a run"):
        train_cases.train(unbroken, options=HERE)
    with pytest.raises(UsageError, match="no run to resume"):
        train_cases.train(tmp_path / "none", resume=True, options=HERE)
    with pytest.raises(UsageError, match=r"option lr is 0.5, the run in .* was started with 0.01"):
        train_cases.train(unbroken, resume=True, options=dataclasses.replace(HERE, lr=0.5))


def test_resuming_a_finished_run_changes_nothing(unbroken):
    before = outcome(unbroken)
    train_cases.train(unbroken, resume=True, options=HERE)
    assert outcome(unbroken) == before
