"""Event files read back with TensorBoard's own reader, also after a resume."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorboardX")
reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

from flambeau import nn, optim
from flambeau.data import DataLoader, TensorDataset
from flambeau.train import CheckpointFolder, TensorBoard, fit, supervised


def train(folder, epochs, resume=False, **options):
    model = nn.Linear(3, 1)
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)

    def step(net, batch):
        return supervised.mean_squared_error()(net(batch[0]), batch[1])

    board = TensorBoard(folder / "tensorboard", every=1, **options)
    return fit(
        model, optim.SGD(model.parameters(), lr=0.01), step, DataLoader(TensorDataset(x, x[:, :1].copy()), 5),
        epochs=epochs, callbacks=[board], checkpoints=CheckpointFolder(folder / "checkpoints"), resume=resume,
    )  # fmt: skip


def read(folder):
    found = reader.EventAccumulator(str(folder / "tensorboard"), purge_orphaned_data=False)
    return found.Reload()


def test_scalars_histograms_images_and_texts(tmp_path):
    picture = np.linspace(0, 1, 48).reshape(4, 4, 3)
    run = train(
        tmp_path, 2, histograms=True, images=lambda m: [("gradient", picture)], texts={"note": "hello"},
        hparams={"lr": 0.01},
    )  # fmt: skip
    found = read(tmp_path)
    assert [e.step for e in found.Scalars("step/loss")] == list(range(1, 9))
    assert [e.value for e in found.Scalars("epoch/loss")] == pytest.approx([row["loss"] for row in run.history])
    assert "weight" in found.Tags()["histograms"] and "gradient" in found.Tags()["images"]
    assert found.Images("gradient")[0].width == 4
    assert any("note" in tag for tag in found.Tags()["tensors"])


def test_a_resumed_run_has_no_step_twice(tmp_path):
    train(tmp_path, 3)
    newest = CheckpointFolder(tmp_path / "checkpoints").load()
    assert newest["counters"]["step"] == 12
    from flambeau.train.tensorboard import _make_room

    _make_room(tmp_path / "tensorboard", 8)  # as if the checkpoint were that of the second epoch
    assert [e.step for e in read(tmp_path).Scalars("step/loss")] == list(range(1, 9))
    train(tmp_path, 4, resume=True)
    steps = [e.step for e in read(tmp_path).Scalars("step/loss")]
    assert steps == [*range(1, 9), *range(13, 17)]
