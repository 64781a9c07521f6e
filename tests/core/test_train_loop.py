"""The loop: exact accumulation, counters, schedule, clipping, EMA, callbacks, and errors."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import flambeau
from flambeau import nn, optim
from flambeau.data import DataLoader, Dataset, TensorDataset
from flambeau.errors import FlambeauError, UsageError
from flambeau.train import (
    Callback,
    CheckpointFolder,
    EarlyStopping,
    Freeze,
    find_lr,
    fit,
    parameter_groups,
    supervised,
    warmup_schedule,
)

rng = np.random.default_rng(0)
X = rng.normal(size=(24, 5))
Y = (X @ rng.normal(size=(5, 1))) + 0.1


def model64():
    flambeau.manual_seed(0)
    return nn.Linear(5, 1).to(flambeau.float64)


def squared(model, batch):
    x, y = batch
    total, count = supervised.mean_squared_error()(model(x), y)
    return total, count, len(x)


def trained(batch_size, accumulate=1, clip=None, epochs=2, lr=0.05):
    model = model64()
    loader = DataLoader(TensorDataset(X, Y), batch_size)
    run = fit(
        model, optim.SGD(model.parameters(), lr=lr, momentum=0.9), squared, loader,
        epochs=epochs, accumulate=accumulate, clip=clip,
    )  # fmt: skip
    return np.concatenate([p.detach().array.ravel() for p in model.parameters()]), run


def plain_loop(batch_size, epochs=2, lr=0.05):
    model = model64()
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for _ in range(epochs):
        for start in range(0, len(X), batch_size):
            x, y = (flambeau.from_numpy(a[start : start + batch_size]) for a in (X, Y))
            optimizer.zero_grad()
            ((model(x) - y) ** 2).mean().backward()
            optimizer.step()
    return np.concatenate([p.detach().array.ravel() for p in model.parameters()])


@pytest.mark.parametrize("batch_size", [24, 7, 1])
def test_the_loop_does_what_the_plain_loop_does(batch_size):
    np.testing.assert_allclose(trained(batch_size)[0], plain_loop(batch_size), rtol=1e-12)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 3), (5, 5), (1, 24), (7, 4), (12, 1), (3, 4)])
def test_accumulation_is_exact_also_with_a_short_last_batch(batch_size, accumulate):
    """The gradient of a group of batches is that of one batch of all their samples."""
    together = batch_size * accumulate
    np.testing.assert_allclose(trained(batch_size, accumulate)[0], plain_loop(together), rtol=1e-12)


def test_accumulation_of_batches_with_different_counts_of_tokens():
    """Padded targets: the mean is over the tokens that count, not over batches."""
    logits, labels = rng.normal(size=(8, 4, 6)), rng.integers(0, 4, (8, 6))
    labels[:3, 2:] = -100
    labels[5] = -100
    loss = supervised.cross_entropy()

    def gradient(batch_size, accumulate):
        weight = nn.Parameter(flambeau.ones(4, 1, dtype=flambeau.float64))
        loader = DataLoader(TensorDataset(logits, labels), batch_size)
        fit(
            None_model(weight),
            optim.SGD([weight], lr=1.0),
            lambda m, b: loss(b[0] * weight, b[1]),
            loader,
            epochs=1,
            accumulate=accumulate,
        )
        return weight.detach().array - 1

    whole = gradient(8, 1)
    assert np.abs(whole).max() > 1e-3
    for batch_size, accumulate in ((1, 8), (2, 4), (3, 3)):
        np.testing.assert_allclose(gradient(batch_size, accumulate), whole, rtol=1e-12)


class None_model(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight


def test_counters_are_apart():
    _, run = trained(batch_size=5, accumulate=2, epochs=3)
    counters = run.counters
    assert (counters.epoch, counters.step, counters.optimizer_step, counters.samples) == (3, 15, 9, 72)
    assert [row["epoch"] for row in run.history] == [1, 2, 3] and run.finished
    assert [row["samples"] for row in run.history] == [24, 48, 72]


def test_the_reported_loss_is_the_mean_over_samples():
    model = model64()
    _, run = trained(batch_size=7, lr=0.0, epochs=1)
    expected = float(((model(flambeau.from_numpy(X)) - flambeau.from_numpy(Y)) ** 2).mean().item())
    assert run.history[0]["loss"] == pytest.approx(expected, rel=1e-12)


def test_clipping_limits_the_step():
    before = np.concatenate([p.detach().array.ravel() for p in model64().parameters()])
    after = trained(24, clip=0.1, epochs=1, lr=1.0)[0]
    assert np.linalg.norm(after - before) == pytest.approx(0.1, rel=1e-4)


def test_batches_without_a_count_make_no_step():
    model = model64()
    before = copy.deepcopy(model.state_dict())
    loader = DataLoader(TensorDataset(X, Y), 12)
    with pytest.raises(FlambeauError, match="no samples"):
        fit(model, optim.AdamW(model.parameters()), lambda m, b: (m(b[0]).sum() * 0, 0), loader, epochs=1)
    assert all((before[k].array == v.array).all() for k, v in model.state_dict().items())


@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_schedule_units(unit):
    model = model64()
    optimizer = optim.SGD(model.parameters(), lr=1e-3)
    schedule = optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    loader = DataLoader(TensorDataset(X, Y), 8)
    run = fit(model, optimizer, squared, loader, epochs=2, schedule=schedule, schedule_unit=unit)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.5 ** (6 if unit == "step" else 2))
    assert len(run.history) == 2


def test_warmup_schedule():
    model = model64()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    for kind, end in (("cosine", 0.0), ("linear", 0.0), ("constant", 1.0)):
        optimizer.param_groups[0].pop("initial_lr", None)
        optimizer.param_groups[0]["lr"] = 1.0
        schedule = warmup_schedule(optimizer, kind, 3, 10)
        rates = []
        for _ in range(10):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
        assert rates[3:] == sorted(rates[3:], reverse=True)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(end, abs=1e-12)


def test_ema_is_evaluated_and_the_model_trains_on():
    model = model64()
    ema = optim.EMA(model, 0.9)
    seen = []

    def evaluate(net):
        seen.append((net is ema.module, net.training, flambeau.is_grad_enabled()))
        return {"val": 1.0}

    loader = DataLoader(TensorDataset(X, Y), 8)
    fit(model, optim.SGD(model.parameters(), lr=0.1), squared, loader, epochs=2, ema=ema, evaluate=evaluate)
    assert seen == [(True, False, False)] * 2 and model.training
    assert not np.array_equal(ema.module.weight.array, model.weight.array)


def test_order_of_callbacks():
    events = []

    class Recorder(Callback):
        def __init__(self, name):
            self.name = name

        def on_start(self, run):
            events.append(f"{self.name} start")

        def on_step(self, run):
            events.append(f"{self.name} step {run.counters.optimizer_step}")

        def on_epoch(self, run, row):
            assert row is run.history[-1]
            events.append(f"{self.name} epoch {row['epoch']} val {row['val']}")

        def on_end(self, run):
            events.append(f"{self.name} end {run.finished}")

    model = model64()
    loader = DataLoader(TensorDataset(X, Y), 12)
    fit(
        model, optim.SGD(model.parameters(), lr=0.1), squared, loader, epochs=1,
        evaluate=lambda m: {"val": 7.0}, callbacks=[Recorder("a"), Recorder("b")],
    )  # fmt: skip
    assert events == [
        "a start", "b start", "a step 1", "b step 1", "a step 2", "b step 2",
        "a epoch 1 val 7.0", "b epoch 1 val 7.0", "a end True", "b end True",
    ]  # fmt: skip


def test_on_end_is_called_after_an_error_too():
    ended = []

    class Recorder(Callback):
        def on_step(self, run):
            raise KeyboardInterrupt

        def on_end(self, run):
            ended.append(run.finished)

    model = model64()
    with pytest.raises(KeyboardInterrupt):
        fit(
            model,
            optim.SGD(model.parameters()),
            squared,
            DataLoader(TensorDataset(X, Y), 12),
            epochs=1,
            callbacks=[Recorder()],
        )
    assert ended == [False]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_early_stopping_and_the_best_checkpoint(tmp_path, mode):
    values = iter([3.0, 2.0, 2.5, 2.4, 1.0] if mode == "min" else [1.0, 2.0, 1.5, 1.9, 3.0])
    model = model64()
    folder = CheckpointFolder(tmp_path)
    run = fit(
        model, optim.SGD(model.parameters(), lr=0.1), squared, DataLoader(TensorDataset(X, Y), 12), epochs=5,
        evaluate=lambda m: {"val": next(values)}, monitor="val", mode=mode,
        callbacks=[EarlyStopping("val", patience=2, mode=mode)], checkpoints=folder,
    )  # fmt: skip
    assert run.counters.epoch == 4 and run.best == {"value": 2.0, "epoch": 2}
    best = folder.load_best()
    assert best["counters"]["epoch"] == 2 and len(best["history"]) == 2
    resumed = fit(
        model64(), optim.SGD(model.parameters(), lr=0.1), squared, DataLoader(TensorDataset(X, Y), 12), epochs=5,
        callbacks=[EarlyStopping("val", patience=2, mode=mode)], checkpoints=folder, resume=True,
    )  # fmt: skip
    assert resumed.counters.epoch == 4, "a run that has stopped early stays so"


def test_a_name_that_is_not_there_to_monitor():
    model = model64()
    with pytest.raises(FlambeauError, match="no 'val'") as caught:
        fit(model, optim.SGD(model.parameters()), squared, DataLoader(TensorDataset(X, Y), 12), epochs=1, monitor="val")
    assert "loss" in caught.value.mend


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_spoilt():
    model = model64()
    bad = X.copy()
    bad[13, 0] = np.nan
    with pytest.raises(FlambeauError, match="loss is nan at epoch 1, batch 2"):
        fit(model, optim.SGD(model.parameters(), lr=0.1), squared, DataLoader(TensorDataset(bad, Y), 12), epochs=1)
    assert np.isfinite(model.weight.array).all()


def test_a_silent_broadcast_in_the_loss_is_refused():
    with pytest.raises(ValueError, match="make them equal"):
        supervised.mean_squared_error()(flambeau.ones(3, 1), flambeau.ones(3))


@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_sum_over_count_is_the_mean(weighted):
    scores, labels = flambeau.from_numpy(rng.normal(size=(6, 4, 5))), rng.integers(0, 4, (6, 5))
    labels[0] = 255
    labels = flambeau.from_numpy(labels)
    weight = flambeau.from_numpy(np.array([1.0, 2.0, 0.5, 3.0])) if weighted else None
    total, count = supervised.cross_entropy(weight=weight, ignore_index=255)(scores, labels)
    mean = nn.functional.cross_entropy(scores, labels, weight=weight, ignore_index=255)
    assert total.item() / count == pytest.approx(mean.item(), rel=1e-6)


def test_resuming_with_another_optimizer_or_model_is_a_clear_error(tmp_path):
    model = model64()
    folder = CheckpointFolder(tmp_path)
    loader = DataLoader(TensorDataset(X, Y), 12)
    fit(model, optim.SGD(model.parameters(), lr=0.1), squared, loader, epochs=1, checkpoints=folder)
    with pytest.raises(FlambeauError, match="no state for the ema"):
        fit(
            model, optim.SGD(model.parameters()), squared, loader, epochs=2, checkpoints=folder, resume=True,
            ema=optim.EMA(model, 0.9),
        )  # fmt: skip


def test_a_loader_that_is_a_plain_list_works():
    model = model64()
    batches = [(flambeau.from_numpy(X), flambeau.from_numpy(Y))] * 3
    run = fit(model, optim.SGD(model.parameters(), lr=0.1), squared, batches, epochs=2)
    assert run.counters.step == 6 and run.history[1]["loss"] < run.history[0]["loss"]


def test_an_empty_dataset_is_a_clear_error():
    class Empty(Dataset):
        def __len__(self):
            return 0

    model = model64()
    with pytest.raises(FlambeauError, match="no samples"):
        fit(model, optim.SGD(model.parameters()), squared, DataLoader(Empty(), 4), epochs=1)


def small(seed=0):
    flambeau.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


LOADER = [(flambeau.tensor(X[i : i + 8], dtype=flambeau.float32), flambeau.tensor(Y[i : i + 8], dtype=flambeau.float32))
          for i in (0, 8, 16)]  # fmt: skip


def test_autocast_is_round_the_forward_pass_only():
    seen = []

    def step(model, batch):
        seen.append(flambeau.is_autocast_enabled("cpu"))
        return squared(model, batch)

    model = small()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    fit(model, optimizer, step, LOADER, epochs=1, autocast=lambda: flambeau.autocast("cpu"),
        callbacks=[Recorder(lambda run: seen.append(flambeau.is_autocast_enabled("cpu")))])  # fmt: skip
    assert seen == [True, False] * 3


class Recorder(Callback):
    def __init__(self, tell):
        self.on_step = tell


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_scaler_changes_no_step_but_those_that_overflow(accumulate, clip):
    def weights(scaler):
        model = small()
        run = fit(model, optim.SGD(model.parameters(), lr=0.01), squared, LOADER, epochs=2, accumulate=accumulate,
                  clip=clip, scaler=scaler)  # fmt: skip
        return np.concatenate([p.detach().array.ravel() for p in model.parameters()]), run

    plain, _ = weights(None)
    scaled, run = weights(flambeau.amp.GradScaler("cpu", init_scale=2.0**10))
    np.testing.assert_array_equal(plain, scaled)  # a power of two as scale is exact
    over = flambeau.amp.GradScaler("cpu", init_scale=2.0**126)
    _, skipped = weights(over)
    assert skipped.counters.optimizer_step < run.counters.optimizer_step and over.get_scale() < 2.0**126
    assert "scaler" in run.state_dict()


def test_frozen_parts_stay_until_they_are_unfrozen():
    model = small()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    moved = []

    class Look(Callback):
        def on_epoch(self, run, row):
            moved.append([n for n, v in model.state_dict().items() if not np.array_equal(v.array, start[n].array)])

    fit(model, optim.SGD(model.parameters(), lr=0.01, momentum=0.9), squared, LOADER, epochs=2,
        callbacks=[Freeze(["0.*", "1.*"], until=1), Look()])  # fmt: skip
    assert moved[0] == ["3.weight", "3.bias"]
    # The bias in front of batch norm has no gradient but rounding.
    assert set(moved[1]) >= set(start) - {"0.bias"}


@pytest.mark.parametrize(
    ("pattern", "mend"), [("bakbone.*", "its parts are 0.*, 1.*, 3.*"), ("3.wieght", "'3.weight'")]
)
def test_a_pattern_that_fits_nothing(pattern, mend):
    model = small()
    with pytest.raises(UsageError) as error:
        fit(model, optim.SGD(model.parameters(), lr=0.01), squared, LOADER, epochs=1, callbacks=[Freeze([pattern])])
    assert pattern in error.value.cause and mend in error.value.mend
    with pytest.raises(UsageError, match="no parameter"):
        parameter_groups(model, 0.1, rates={pattern: 1.0})


def test_rates_by_layer():
    model = nn.Sequential()
    model.stem = nn.Linear(2, 2)
    model.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model.head = nn.Linear(2, 1)
    groups = parameter_groups(model, 1.0, weight_decay=0.1, layer_decay=0.5, rates={"head.*": 3.0, "*.bias": 0.0})
    rate = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    found = {name: rate[id(p)] for name, p in model.named_parameters()}
    assert found == {
        "stem.weight": (0.125, 0.1), "blocks.0.weight": (0.25, 0.1), "blocks.1.weight": (0.5, 0.1),
        "head.weight": (3.0, 0.1), "stem.bias": (0.0, 0.0), "blocks.0.bias": (0.0, 0.0),
        "blocks.1.bias": (0.0, 0.0), "head.bias": (0.0, 0.0),
    }  # fmt: skip


def test_the_rate_test_leaves_nothing_changed_and_finds_a_rate_that_trains():
    model = small()
    optimizer = optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    before = copy.deepcopy(model.state_dict())
    loader = DataLoader(TensorDataset(X.astype(np.float32), Y.astype(np.float32)), 8, shuffle=True)
    expected = copy.deepcopy(loader.state_dict())
    test = find_lr(model, optimizer, squared, loader, steps=80)
    assert optimizer.param_groups[0]["lr"] == 0.3 and not optimizer.state and loader.state_dict() == expected
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.array, before[name].array)
    assert test.rates == sorted(test.rates) and len(test.rates) == len(test.losses)
    run = fit(model, optim.SGD(model.parameters(), lr=test.suggestion, momentum=0.9), squared, loader, epochs=10)
    assert run.history[-1]["loss"] < 0.5 * run.history[0]["loss"]


def test_the_rate_test_refuses_what_it_cannot_measure():
    model = small()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(FlambeauError, match="no batches"):
        find_lr(model, optimizer, squared, [])
    with pytest.raises(FlambeauError, match="not finite"):
        find_lr(model, optimizer, lambda m, b: (flambeau.tensor(float("nan")), 1), LOADER)
