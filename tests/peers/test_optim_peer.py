"""Optimizers and schedules beside PyTorch's: same steps, same state dicts, same rates."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import flambeau
from flambeau import nn, optim

OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.001, "weight_decay": 0.05, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ("Adam", {"lr": 0.05}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True}),
    ("Adam", {"lr": 0.05, "maximize": True, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.3, "amsgrad": True}),
    ("Adamax", {"lr": 0.05, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.05}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True, "momentum_decay": 0.01}),
    ("RAdam", {"lr": 0.05, "betas": (0.9, 0.8)}),
    ("RAdam", {"lr": 0.05, "weight_decay": 0.1}),
    ("RAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "centered": True, "weight_decay": 0.1, "alpha": 0.9}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("Adadelta", {"lr": 0.5, "weight_decay": 0.1}),
    ("Adafactor", {"lr": 0.05, "weight_decay": 0.1}),
    ("ASGD", {"lr": 0.05, "t0": 5, "lambd": 0.1}),
    ("Rprop", {"lr": 0.01, "step_sizes": (0.005, 0.02)}),
]
IDS = [f"{i}-{name}" for i, (name, _) in enumerate(OPTIMIZERS)]


def models():
    theirs = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2)).double()
    ours = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs


def run(model, optimizer, library, start, stop):
    for step in range(start, stop):
        x = library.tensor(np.random.default_rng(step).normal(size=(8, 5)))
        optimizer.zero_grad()
        ((model(x) - 1) ** 2).mean().backward()
        optimizer.step()


def same_parameters(ours, theirs, rtol=1e-9):
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=rtol, atol=1e-11)


def plain(value):
    """A state dict with arrays in place of tensors."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.detach().numpy() if hasattr(value, "detach") else value


def same_state(ours, theirs):
    ours, theirs = plain(ours), plain(theirs)
    assert ours.keys() == theirs.keys()
    assert ours["param_groups"] == theirs["param_groups"]
    assert [list(group) for group in ours["param_groups"]] == [list(group) for group in theirs["param_groups"]]
    assert list(ours["state"]) == list(theirs["state"])
    for i, entries in theirs["state"].items():
        assert set(ours["state"][i]) == set(entries)
        for name, value in entries.items():
            mine = ours["state"][i][name]
            assert mine.dtype == value.dtype and mine.shape == value.shape, name
            np.testing.assert_allclose(mine, value, rtol=1e-5 if value.dtype == np.float32 else 1e-8, atol=1e-13)


@pytest.mark.parametrize("case", OPTIMIZERS, ids=IDS)
def test_twenty_steps_and_state(case):
    name, kwargs = case
    ours, theirs = models()
    mine, other = getattr(optim, name)(ours.parameters(), **kwargs), None
    other = getattr(torch.optim, name)(theirs.parameters(), **kwargs)
    rtol = 1e-6 if name in ("NAdam", "ASGD") else 1e-9  # they keep products and rates in float32
    run(ours, mine, flambeau, 0, 20)
    run(theirs, other, torch, 0, 20)
    same_parameters(ours, theirs, rtol)
    same_state(mine.state_dict(), other.state_dict())

    # PyTorch's state goes on here, and ours goes on there.
    ours2, theirs2 = models()
    ours2.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    theirs2.load_state_dict({key: torch.tensor(value.numpy()) for key, value in ours.state_dict().items()})
    mine2 = getattr(optim, name)(ours2.parameters())
    mine2.load_state_dict(other.state_dict())
    other2 = getattr(torch.optim, name)(theirs2.parameters())
    state = mine.state_dict()
    state["state"] = {i: {k: torch.tensor(v.numpy()) for k, v in s.items()} for i, s in state["state"].items()}
    other2.load_state_dict(state)
    run(ours2, mine2, flambeau, 20, 25)
    run(theirs2, other2, torch, 20, 25)
    run(theirs, other, torch, 20, 25)
    same_parameters(ours2, theirs, rtol)
    same_parameters(ours2, theirs2, rtol)


@pytest.mark.parametrize("name", sorted({name for name, _ in OPTIMIZERS}))
def test_signature(name):
    import inspect

    mine = inspect.signature(getattr(optim, name).__init__).parameters
    other = inspect.signature(getattr(torch.optim, name).__init__).parameters
    assert [(n, p.default, p.kind) for n, p in mine.items()] == [(n, p.default, p.kind) for n, p in other.items()]


def test_large_parameters_go_through_blocks():
    """More elements than one block, and a parameter that is not contiguous."""
    w = np.random.default_rng(0).normal(size=(300, 301))
    for name, kwargs in (("Adam", {"amsgrad": True}), ("SGD", {"momentum": 0.9, "nesterov": True}), ("RMSprop", {})):
        mine = flambeau.tensor(w, requires_grad=True)
        flipped = flambeau.from_numpy(w.copy().T).requires_grad_()
        other = torch.tensor(w, requires_grad=True)
        optimizers = (
            getattr(optim, name)([mine, flipped], lr=0.01, **kwargs),
            getattr(torch.optim, name)([other], lr=0.01, **kwargs),
        )
        for step in range(5):
            g = np.random.default_rng(step + 1).normal(size=w.shape)
            mine.grad, flipped.grad, other.grad = flambeau.tensor(g), flambeau.tensor(g.T), torch.tensor(g)
            for optimizer in optimizers:
                optimizer.step()
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=1e-10)
        np.testing.assert_allclose(flipped.detach().numpy().T, other.detach().numpy(), rtol=1e-10)


def test_parameter_groups():
    ours, theirs = models()
    mine = optim.SGD(
        [{"params": ours[0].parameters()}, {"params": ours[2].parameters(), "lr": 0.5}], lr=0.1, momentum=0.9
    )
    other = torch.optim.SGD(
        [{"params": theirs[0].parameters()}, {"params": theirs[2].parameters(), "lr": 0.5}], lr=0.1, momentum=0.9
    )
    run(ours, mine, flambeau, 0, 5)
    run(theirs, other, torch, 0, 5)
    same_parameters(ours, theirs)
    same_state(mine.state_dict(), other.state_dict())


def test_named_parameters_are_kept_in_the_state():
    ours, theirs = models()
    mine, other = optim.SGD(ours.named_parameters()), torch.optim.SGD(theirs.named_parameters())
    assert mine.state_dict()["param_groups"][0]["param_names"] == other.state_dict()["param_groups"][0]["param_names"]


# -- schedules -------------------------------------------------------------------------------------------------------

L = "lr_scheduler"


def swa(schedules):
    return (flambeau if "flambeau" in schedules.__name__ else torch).optim.swa_utils


def half(epoch):
    return 0.5 ** (epoch // 3)


def tenth(epoch):
    return 0.9 + 0.01 * epoch


SCHEDULES = [
    ("LambdaLR", lambda s, o: s.LambdaLR(o, half)),
    ("LambdaLR-groups", lambda s, o: s.LambdaLR(o, [half, tenth])),
    ("MultiplicativeLR", lambda s, o: s.MultiplicativeLR(o, tenth)),
    ("StepLR", lambda s, o: s.StepLR(o, 3, 0.5)),
    ("MultiStepLR", lambda s, o: s.MultiStepLR(o, [2, 5, 5, 11], 0.3)),
    ("ConstantLR", lambda s, o: s.ConstantLR(o, 0.4, 6)),
    ("LinearLR", lambda s, o: s.LinearLR(o, 0.1, 0.8, 7)),
    ("ExponentialLR", lambda s, o: s.ExponentialLR(o, 0.9)),
    ("PolynomialLR", lambda s, o: s.PolynomialLR(o, 12, 2.0)),
    ("CosineAnnealingLR", lambda s, o: s.CosineAnnealingLR(o, 7, 0.01)),
    ("CosineAnnealingWarmRestarts", lambda s, o: s.CosineAnnealingWarmRestarts(o, 4, 2, 0.01)),
    ("CosineAnnealingWarmRestarts-1", lambda s, o: s.CosineAnnealingWarmRestarts(o, 5)),
    ("OneCycleLR", lambda s, o: s.OneCycleLR(o, 0.5, 70)),
    (
        "OneCycleLR-linear",
        lambda s, o: s.OneCycleLR(o, [0.5, 0.2], epochs=5, steps_per_epoch=13, anneal_strategy="linear"),
    ),
    ("OneCycleLR-three", lambda s, o: s.OneCycleLR(o, 0.5, 62, three_phase=True, pct_start=0.4, final_div_factor=10)),
    ("CyclicLR", lambda s, o: s.CyclicLR(o, 0.01, 0.3, 4, 6)),
    ("CyclicLR-2", lambda s, o: s.CyclicLR(o, 0.01, 0.3, 3, mode="triangular2", cycle_momentum=False)),
    ("CyclicLR-exp", lambda s, o: s.CyclicLR(o, 0.01, [0.3, 0.4], 3, mode="exp_range", gamma=0.97)),
    ("CyclicLR-fn", lambda s, o: s.CyclicLR(o, 0.01, 0.3, 3, scale_fn=half, scale_mode="iterations")),
    (
        "SequentialLR",
        lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, total_iters=4), s.CosineAnnealingLR(o, 10)], [4]),
    ),
    (
        "SequentialLR-3",
        lambda s, o: s.SequentialLR(o, [s.ConstantLR(o, 0.5, 3), s.ExponentialLR(o, 0.9), s.StepLR(o, 2, 0.5)], [3, 9]),
    ),
    ("ChainedScheduler", lambda s, o: s.ChainedScheduler([s.LinearLR(o, 0.1, total_iters=4), s.ExponentialLR(o, 0.9)])),
    ("SWALR", lambda s, o: swa(s).SWALR(o, 0.05, anneal_epochs=7)),
    ("SWALR-linear", lambda s, o: swa(s).SWALR(o, [0.05, 0.2], anneal_epochs=5, anneal_strategy="linear")),
    ("SWALR-at-once", lambda s, o: swa(s).SWALR(o, 0.05, anneal_epochs=0)),
    ("two at once", lambda s, o: [s.StepLR(o, 4, 0.5), s.CosineAnnealingLR(o, 9, 0.02)]),
]


def pair(kind="SGD"):
    settings = {"SGD": dict(lr=0.1, momentum=0.9), "Adam": dict(lr=0.1)}[kind]
    built = []
    for library in (flambeau, torch):
        a, b = library.tensor([1.0], requires_grad=True), library.tensor([1.0], requires_grad=True)
        groups = [{"params": [a]}, {"params": [b], "lr": 0.03}]
        built.append(getattr(library.optim, kind)(groups, **settings))
    return built


def rates(optimizer):
    return [(g["lr"], g.get("momentum"), g.get("betas")) for g in optimizer.param_groups]


def close(a, b):
    np.testing.assert_allclose(
        np.array([[r[0], r[1] or 0, (r[2] or [0])[0]] for r in a], float),
        np.array([[r[0], r[1] or 0, (r[2] or [0])[0]] for r in b], float),
        rtol=1e-12,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("case", SCHEDULES, ids=[name for name, _ in SCHEDULES])
def test_rates(case, kind):
    _, build = case
    optimizers = pair(kind)
    schedules = [build(lib.optim.lr_scheduler, o) for lib, o in zip((flambeau, torch), optimizers, strict=True)]
    schedules = [s if isinstance(s, list) else [s] for s in schedules]
    close(rates(optimizers[0]), rates(optimizers[1]))
    for step in range(60):
        for optimizer, group in zip(optimizers, schedules, strict=True):
            optimizer.step()
            for schedule in group:
                schedule.step()
        close(rates(optimizers[0]), rates(optimizers[1]))
        for ours, theirs in zip(*schedules, strict=True):
            assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr()), step


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", SCHEDULES, ids=[name for name, _ in SCHEDULES])
def test_a_rate_that_is_a_tensor_is_filled(case):
    _, build = case
    optimizers, held = [], []
    for library in (flambeau, torch):
        rates_held = [library.tensor(0.1), library.tensor(0.03)]
        params = [library.tensor([1.0], requires_grad=True) for _ in rates_held]
        groups = [{"params": [p], "lr": lr} for p, lr in zip(params, rates_held, strict=True)]
        optimizers.append(library.optim.SGD(groups, momentum=0.9))
        held.append([group["lr"] for group in optimizers[-1].param_groups])
    schedules = [build(lib.optim.lr_scheduler, o) for lib, o in zip((flambeau, torch), optimizers, strict=True)]
    schedules = [s if isinstance(s, list) else [s] for s in schedules]
    for _ in range(20):
        for optimizer, group in zip(optimizers, schedules, strict=True):
            optimizer.step()
            for schedule in group:
                schedule.step()
        mine, other = ([float(lr) for lr in lrs] for lrs in held)
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-7)
        assert mine == [float(group["lr"]) for group in optimizers[0].param_groups]


def test_every_schedule_of_pytorch_is_here_with_its_signature():
    import inspect

    for name in (*torch.optim.lr_scheduler.__all__, "SWALR"):
        modules = [(lib.optim.swa_utils if name == "SWALR" else lib.optim.lr_scheduler) for lib in (flambeau, torch)]
        mine, other = (inspect.signature(getattr(module, name).__init__).parameters for module in modules)
        assert [(n, p.default) for n, p in mine.items()] == [(n, p.default) for n, p in other.items()], name


def averaged(library, how):
    swa_utils = library.optim.swa_utils
    return {
        "default": {},
        "swa": {"avg_fn": swa_utils.get_swa_avg_fn()},
        "ema": {"avg_fn": swa_utils.get_ema_avg_fn(0.9)},
        "multi-ema": {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9), "use_buffers": True},
        "multi-swa": {"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()},
    }[how]


@pytest.mark.parametrize("how", ["default", "swa", "ema", "multi-ema", "multi-swa"])
def test_averaged_model_and_update_bn(how):
    ours, theirs = models()
    ours.append(nn.BatchNorm1d(2).double()), theirs.append(torch.nn.BatchNorm1d(2).double())
    average = optim.swa_utils.AveragedModel(ours, **averaged(flambeau, how))
    other = torch.optim.swa_utils.AveragedModel(theirs, **averaged(torch, how))
    mine, reference = optim.SGD(ours.parameters(), 0.1), torch.optim.SGD(theirs.parameters(), 0.1)
    for step in range(5):
        run(ours, mine, flambeau, step, step + 1), average.update_parameters(ours)
        run(theirs, reference, torch, step, step + 1), other.update_parameters(theirs)
    batches = [np.random.default_rng(step).normal(size=(8, 5)) for step in range(3)]
    for stage in range(2):
        mine_state = average.state_dict()
        assert list(mine_state) == list(other.state_dict())
        for key, value in other.state_dict().items():
            np.testing.assert_allclose(mine_state[key].numpy(), value.numpy(), rtol=1e-8, err_msg=f"{stage} {key}")
        optim.swa_utils.update_bn([(flambeau.tensor(b), None) for b in batches], average)
        torch.optim.swa_utils.update_bn([(torch.tensor(b), None) for b in batches], other)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", SCHEDULES[:-1], ids=[name for name, _ in SCHEDULES[:-1]])
def test_resuming_from_state_dicts(case):
    """After 9 of 20 steps: our state into a new pair here, and PyTorch's state into ours."""
    _, build = case
    optimizers = pair()
    schedules = [build(lib.optim.lr_scheduler, o) for lib, o in zip((flambeau, torch), optimizers, strict=True)]
    for _ in range(9):
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step(), schedule.step()
    fresh = [pair()[0], pair()[0]]
    for source in (0, 1):
        schedule = build(flambeau.optim.lr_scheduler, fresh[source])
        fresh[source].load_state_dict(optimizers[source].state_dict())
        schedule.load_state_dict(schedules[source].state_dict())
        schedules.append(schedule)
    every = optimizers + fresh
    for _ in range(11):
        for optimizer, schedule in zip(every, schedules, strict=True):
            optimizer.step(), schedule.step()
        for optimizer in every[1:]:
            close(rates(every[0]), rates(optimizer))


@pytest.mark.parametrize("kwargs", [
    {}, {"mode": "max", "factor": 0.5}, {"threshold_mode": "abs", "threshold": 0.3}, {"cooldown": 2, "min_lr": 0.001},
    {"mode": "max", "threshold_mode": "abs", "threshold": 0.2, "min_lr": [0.05, 0.01]},
])  # fmt: skip
def test_reduce_on_plateau(kwargs):
    optimizers = pair()
    schedules = [lib.optim.lr_scheduler.ReduceLROnPlateau(o, patience=2, **kwargs)
                 for lib, o in zip((flambeau, torch), optimizers, strict=True)]  # fmt: skip
    metrics = np.random.default_rng(3).normal(size=40).cumsum() * 0.3
    for metric in metrics:
        for schedule in schedules:
            schedule.step(metric)
        close(rates(optimizers[0]), rates(optimizers[1]))
    skipped = ("_last_lr",)
    mine, other = ({k: v for k, v in s.state_dict().items() if k not in skipped} for s in schedules)
    assert mine == other


def test_restart_at_fractions_of_an_epoch():
    optimizers = pair()
    schedules = [lib.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2)
                 for lib, o in zip((flambeau, torch), optimizers, strict=True)]  # fmt: skip
    for epoch in np.arange(0, 12, 0.35):
        for schedule in schedules:
            schedule.step(epoch)
        close(rates(optimizers[0]), rates(optimizers[1]))


def test_step_order_is_warned_about():
    for optimizer, library in zip(pair(), (flambeau, torch), strict=True):
        schedule = library.optim.lr_scheduler.StepLR(optimizer, 2)
        with pytest.warns(UserWarning, match="before `?optimizer.step"):
            schedule.step()
    optimizer, _ = pair()
    schedule = flambeau.optim.lr_scheduler.StepLR(optimizer, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(), schedule.step()


def test_ema_is_pytorchs_averaged_model():
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    ours, theirs = models()
    ours.append(nn.BatchNorm1d(2).double()), theirs.append(torch.nn.BatchNorm1d(2).double())
    ema, other = optim.EMA(ours, 0.9), AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    mine, reference = optim.SGD(ours.parameters(), 0.1), torch.optim.SGD(theirs.parameters(), 0.1)
    for step in range(6):
        run(ours, mine, flambeau, step, step + 1), ema.update(ours)
        run(theirs, reference, torch, step, step + 1), other.update_parameters(theirs)
    assert set(ema.state_dict()) == set(other.state_dict())
    for key, value in other.state_dict().items():
        if "num_batches" not in key:
            np.testing.assert_allclose(ema.state_dict()[key].numpy(), value.numpy(), rtol=1e-10, err_msg=key)
