"""A new Python process that builds a small network, loads its checkpoint and makes one prediction."""

import subprocess
import sys
import tempfile
from pathlib import Path

from ._common import set_weights

COMPILES = False


def network(torch):
    nn = torch.nn
    layers = []
    for inputs, outputs in [(3, 32), (32, 64), (64, 128)]:
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def predict(torch, checkpoint: str) -> float:
    model = network(torch)
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    model.eval()
    with torch.no_grad():
        x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
        return model(x).square().sum().item()


def make(torch, device):
    folder = tempfile.TemporaryDirectory(prefix="flambeau-bench-")
    checkpoint = Path(folder.name) / "network.pt"
    torch.save(set_weights(torch, network(torch)).state_dict(), checkpoint)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); import {torch.__name__} as torch; "
        f"from workloads.cold_start import predict; print(predict(torch, {str(checkpoint)!r}))"
    )

    def step(folder=folder) -> float:  # the folder lives as long as the step
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        return float(done.stdout)

    return step
