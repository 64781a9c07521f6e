"""Without the extra `fast` everything works, slower: one training run through all families of kernels, both ways."""

import os
import subprocess
import sys

import numpy as np
import pytest

TRAIN = """
import sys
if sys.argv[1] == "without":
    sys.modules["numba"] = sys.modules["cffi"] = None  # as if they were not installed
import numpy as np
import flambeau as fb
from flambeau import nn

fb.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1),
            nn.GroupNorm(4, 32), nn.SiLU(), nn.MaxPool2d(2),
        )
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 128), nn.Linear(128, 32)
        self.lstm = nn.LSTM(32, 48, batch_first=True)
        self.words, self.head = nn.Embedding(50, 32), nn.Linear(48, 50)

    def forward(self, x, words):
        y = self.stem(x).flatten(2).transpose(1, 2)
        y = y + self.attention(y, y, y, need_weights=False)[0]
        y = y + self.down(nn.functional.gelu(self.up(self.norm(y)))) + self.words(words)
        return self.head(self.lstm(y)[0])


rng = np.random.default_rng(0)
net = Net()
optimizer = fb.optim.AdamW(net.parameters(), lr=1e-3)
x = fb.from_numpy(rng.standard_normal((4, 3, 16, 16), dtype=np.float32))
words = fb.from_numpy(rng.integers(0, 50, (4, 64)))
losses = []
for _ in range(4):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(x, words).reshape(-1, 50), words.reshape(-1))
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
print(*losses)
from flambeau.backends import kernels
print(kernels.load(), kernels.load_numba())
"""


def train(which):
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, which], env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    losses, loaded = done.stdout.splitlines()
    return np.array(losses.split(), float), loaded.split()


def test_training_goes_the_same_way_without_fast_kernels():
    pytest.importorskip("numba")
    pytest.importorskip("cffi")
    with_kernels, _ = train("with")
    plain, loaded = train("without")
    assert loaded == ["False", "False"]
    assert plain[-1] < plain[0]
    np.testing.assert_allclose(with_kernels, plain, rtol=1e-5)
