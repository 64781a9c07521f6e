"""The vision models beside PyTorch: their very source, run with torch in the place of flambeau, must give the same.

That the unchanged file runs there checks that the models use PyTorch's names and arguments; that the outputs and
gradients agree checks the operators. State dicts are exchanged without a mapping.
"""

import importlib.util
import sys

import numpy as np
import pytest

import flambeau
import flambeau_vision.models.dilated_fpn as dilated_fpn
import flambeau_vision.models.resnet as resnet

torch = pytest.importorskip("torch")


def under_torch(module, monkeypatch):
    """The source of a module of flambeau_vision, executed against torch."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "flambeau", torch)
        patch.setitem(sys.modules, "flambeau.nn", torch.nn)
        patch.setitem(sys.modules, "flambeau.nn.functional", torch.nn.functional)
        name = f"{module.__name__.rpartition('.')[2]}_under_torch"
        spec = importlib.util.spec_from_file_location(name, module.__file__)
        peer = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, name, peer)  # dataclasses look their module up
        spec.loader.exec_module(peer)
    return peer


CASES = [
    (dilated_fpn, "DilatedFPN", "DilatedFPNConfig", {"widths": (8, 12, 16), "bottleneck": 8}, (2, 3, 45, 60)),
    (dilated_fpn, "DilatedFPN", "DilatedFPNConfig", {}, (1, 3, 90, 120)),
    (resnet, "ResNet", "ResNet20Config", {}, (3, 3, 32, 32)),
    (resnet, "ResNet", "ResNetConfig", {"layers": (1, 2, 1, 1), "num_classes": 7}, (2, 3, 64, 80)),
]


@pytest.mark.parametrize(("module", "model", "config", "options", "shape"), CASES, ids=lambda v: None)
def test_outputs_and_gradients(module, model, config, options, shape, monkeypatch):
    peer_module = under_torch(module, monkeypatch)
    torch.manual_seed(0)
    theirs = getattr(peer_module, model)(getattr(peer_module, config)(**options))
    ours = getattr(module, model)(getattr(module, config)(**options))
    rng = np.random.default_rng(0)
    state = {
        key: value if value.dtype == torch.int64 else value + 0.1 * torch.rand(value.shape)
        for key, value in theirs.state_dict().items()
    }
    theirs.load_state_dict(state)
    # In float64, where no ReLU falls on the other side of its kink by rounding.
    theirs, ours = theirs.double(), ours.double()
    ours.load_state_dict({key: flambeau.from_numpy(value.numpy().copy()) for key, value in state.items()})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = rng.standard_normal(shape)

    for mode in (False, True):
        out = ours.train(mode)(flambeau.tensor(x))
        wanted = theirs.train(mode)(torch.from_numpy(x))
        for one, two in zip(
            out if isinstance(out, tuple) else [out], wanted if isinstance(wanted, tuple) else [wanted]
        ):
            scale = float(two.detach().abs().max())
            np.testing.assert_allclose(one.detach().numpy(), two.detach().numpy(), atol=1e-9 * scale)

    out, wanted = (value if isinstance(value, tuple) else (value,) for value in (out, wanted))
    sum((part * part).mean() for part in out).backward()
    sum((part * part).mean() for part in wanted).backward()
    for (name, one), (_, two) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        scale = float(two.grad.abs().max()) + 1e-9
        np.testing.assert_allclose(one.grad.numpy(), two.grad.numpy(), atol=1e-7 * scale, err_msg=name)
    for (name, one), (_, two) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=1e-9, atol=1e-9, err_msg=name)
