"""The page of a run: whole, offline, and never in the way of the run."""

from __future__ import annotations

import io
import re

import numpy as np

from flambeau import nn, optim
from flambeau.data import DataLoader, TensorDataset
from flambeau.train import HtmlReport, fit, supervised


def trained(*callbacks):
    model = nn.Linear(3, 1)
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    results = iter([0.25, 0.5])

    def step(net, batch):
        return supervised.mean_squared_error()(net(batch[0]), batch[1])

    loader = DataLoader(TensorDataset(x, x[:, :1].copy()), 5)
    return fit(
        model, optim.SGD(model.parameters(), lr=0.1), step, loader, epochs=2, callbacks=callbacks,
        evaluate=lambda m: {"val_accuracy": next(results)},
    )  # fmt: skip


def test_the_page_is_complete_and_offline(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    report = HtmlReport(
        tmp_path, monitor="val_accuracy", mode="max", samples=lambda m: [(picture, "<a>"), ("text", "said")],
        confusion=lambda m: np.array([[3, 1], [0, 2]]), classes=["cat", "dog"], title="A & B",
    )  # fmt: skip
    trained(report)
    page = (tmp_path / "report.html").read_text()
    for part in ("A &amp; B", "finished", "<svg", "data:image/png;base64,", "&lt;a&gt;", "cat taken for dog", "NumPy"):
        assert part in page, part
    assert "Linear" in page and "best val_accuracy, epoch 2" in page
    assert not re.search(r"https?://|<script|@import|url\(", page)


def test_what_fails_in_it_does_not_stop_the_run(tmp_path):
    stream = io.StringIO()
    run = trained(HtmlReport(tmp_path / "absent", stream=stream))
    assert run.finished and len(stream.getvalue().splitlines()) == 1
