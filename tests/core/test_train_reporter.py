"""What a person sees: bar on a terminal, lines elsewhere, history files, the curve, and life without matplotlib."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math

import numpy as np
import pytest
from PIL import Image

import flambeau
from flambeau import nn, optim
from flambeau.data import DataLoader, TensorDataset
from flambeau.train import HistoryWriter, LearningCurve, PlainReporter, ProgressBar, fit, reporter, supervised


class Terminal(io.StringIO):
    def isatty(self):
        return True


def trained(*callbacks, values=(0.25, 0.5), epochs=2):
    flambeau.manual_seed(0)
    model = nn.Linear(3, 1)
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    results = iter(values)

    def step(net, batch):
        return supervised.mean_squared_error()(net(batch[0]), batch[1])

    loader = DataLoader(TensorDataset(x, x[:, :1].copy()), 5)
    return fit(
        model,
        optim.SGD(model.parameters(), lr=0.1),
        step,
        loader,
        epochs=epochs,
        evaluate=lambda m: {"val_accuracy": next(results)},
        callbacks=callbacks,
    )


def test_the_reporter_follows_the_stream():
    assert isinstance(reporter(Terminal()), ProgressBar) and isinstance(reporter(io.StringIO()), PlainReporter)


def test_progress_bar():
    stream = Terminal()
    trained(reporter(stream))
    text = stream.getvalue()
    for part in (
        "epoch 2/2",
        "8/8",
        "batches/s",
        "samples/s",
        "loss=",
        "val_accuracy=0.25",
        "epoch 1/2: loss",
        "100%",
        "left",
    ):
        assert part in text, (part, text)


def test_plain_lines():
    stream = io.StringIO()
    trained(PlainReporter(stream, seconds=0))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10 and "\r" not in stream.getvalue()
    assert lines[0].startswith("epoch 1/2, batch 1/8: loss ") and "batches/s" in lines[0] and lines[0].endswith("left")
    assert lines[4].startswith("epoch 1/2: loss ") and "val_accuracy 0.25" in lines[4]
    quiet = io.StringIO()
    trained(PlainReporter(quiet))
    assert len(quiet.getvalue().splitlines()) == 2


def test_nothing_goes_to_stdout(capsys):
    trained(reporter())
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err


def test_history_files(tmp_path):
    run = trained(HistoryWriter(tmp_path), values=(0.25, math.inf))
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and rows[0]["loss"] == run.history[0]["loss"]
    assert rows[1]["val_accuracy"] is None, "JSON has no infinity"
    with open(tmp_path / "history.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert float(table[0]["val_accuracy"]) == 0.25 and list(table[0])[0] == "epoch" and len(table) == 2


def test_learning_curve(tmp_path):
    pytest.importorskip("matplotlib")
    trained(LearningCurve(tmp_path / "curve.png"))
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG" and image.width > 400
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 20, "lines are drawn"


def test_without_matplotlib_one_line_says_so_and_training_goes_on(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else real(name, *a))
    stream = io.StringIO()
    run = trained(LearningCurve(tmp_path / "curve.png", stream=stream))
    assert run.finished and stream.getvalue().splitlines() == [
        'no learning curve will be drawn: pip install "flambeau-core[plot]"'
    ]
    assert list(tmp_path.iterdir()) == []
