"""Parameters and operations of `flambeau.summary` against PyTorch's own counts of the same models."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode as Theirs

import flambeau
from flambeau.utils.flop_counter import FlopCounterMode as Ours


def plain_attention():
    """PyTorch does not count the fused attention of the CPU."""
    return sdpa_kernel(SDPBackend.MATH)


def convolutions(lib, groups=8):
    nn = lib.nn
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=groups),
        nn.Conv2d(8, 6, (1, 3), dilation=(1, 2)), nn.ConvTranspose2d(6, 4, 4, 2, groups=min(groups, 2)),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(84, 5),
    )  # fmt: skip


def functional(lib):
    """Nothing that a table of layers would know."""
    F = lib.nn.functional

    class Net(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = lib.nn.Parameter(lib.ones(12, 7))
            self.k = lib.nn.Parameter(lib.ones(3, 2, 5))

        def forward(self, x):  # (2, 6, 7)
            y = F.linear(x, self.w)
            z = F.conv1d(y.reshape(2, 2, 36), self.k, padding=2)
            q = z.reshape(2, 3, 6, 6)
            a = F.scaled_dot_product_attention(q, q, q)
            b = lib.einsum("bhij,bhjk->bhik", a, q)
            return lib.baddbmm(b[:, 0], b[:, 1], b[:, 2]) @ x

    return Net()


def transformer(lib):
    layer = lib.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return lib.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def shared(lib):
    nn = lib.nn

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.block = nn.Linear(6, 6)
            self.again = self.block
            self.head = nn.Linear(6, 11)
            self.head.weight = self.embed.weight
            self.head.bias.requires_grad_(False)

        def forward(self, x):
            return self.head(self.again(self.block(self.embed(x))))

    return Tied()


def plain_convolutions(lib):
    """PyTorch counts the gradient of a grouped convolution's weight as if it had one group."""
    return convolutions(lib, groups=1)


CASES = {
    "plain convolutions": (plain_convolutions, (2, 4, 16, 16), "float32"),
    "convolutions": (convolutions, (2, 4, 16, 16), "float32"),
    "functional": (functional, (2, 6, 7), "float32"),
    "transformer": (transformer, (3, 10, 16), "float32"),
    "shared": (shared, (4, 5), "int64"),
}


def both(name):
    build, shape, dtype = CASES[name]
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    x = np.abs(x) if dtype == "int64" else x
    ours, theirs = build(flambeau).eval(), build(torch).train()
    for m in theirs.modules():  # in eval mode PyTorch's transformer layers take a path that nothing can count
        if isinstance(m, (torch.nn.Dropout, torch.nn.BatchNorm2d)):
            m.eval()
    return ours, theirs, x


@pytest.mark.parametrize("name", CASES)
def test_parameters_and_forward_operations(name):
    ours, theirs, x = both(name)
    found = flambeau.summary(ours, flambeau.from_numpy(x))
    with Theirs(display=False) as counter, plain_attention():
        theirs(torch.from_numpy(x))
    assert found.total_flops == counter.get_total_flops() > 0
    assert found.total_params == sum(p.numel() for p in theirs.parameters())
    assert found.trainable_params == sum(p.numel() for p in theirs.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["plain convolutions", "functional", "transformer", "shared"])
def test_operations_of_the_backward_pass(name):
    ours, theirs, x = both(name)
    with Ours(display=False) as mine:
        ours(flambeau.from_numpy(x)).sum().backward()
    with Theirs(display=False) as counter, plain_attention():
        theirs(torch.from_numpy(x)).sum().backward()
    # Fused attention makes the product of queries and keys again, PyTorch's plain one keeps it.
    again = mine.get_flop_counts()["Global"].get("attention", 0) // 2
    assert mine.get_total_flops() - again == counter.get_total_flops()


def test_operations_by_module():
    ours, theirs, x = both("convolutions")
    with Ours(display=False) as mine:
        ours(flambeau.from_numpy(x))
    with Theirs(display=False) as counter:
        theirs(torch.from_numpy(x))
    totals = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    assert {k: sum(v.values()) for k, v in mine.get_flop_counts().items()} == {k: v for k, v in totals.items() if v}


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(kind):
    x = np.ones((7, 2, 5), np.float32)
    ours, theirs = (getattr(lib.nn, kind)(5, 6, 2, bidirectional=True) for lib in (flambeau, torch))
    with torch.backends.mkldnn.flags(enabled=False), Theirs(display=False) as counter:
        theirs(torch.from_numpy(x))
    found = flambeau.summary(ours, flambeau.from_numpy(x))
    assert found.total_flops == counter.get_total_flops() > 0


def test_resnet18_of_torchvision_size():
    """1.814 G multiply-adds for one image of 224 x 224, as everyone's tables have it."""
    pytest.importorskip("flambeau_vision")
    from flambeau.plugins import create_model

    found = flambeau.summary(create_model("vision/resnet18"), input_size=(1, 3, 224, 224))
    assert found.total_params == 11_689_512
    assert found.total_mult_adds == pytest.approx(1.814e9, rel=1e-3)
