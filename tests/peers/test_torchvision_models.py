"""Every registered classifier beside torchvision's of the same name: keys, shapes, and outputs in both modes."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import flambeau
from flambeau import nn
from flambeau.plugins import create_model, list_models
from flambeau_vision.models.backbone import create_backbone

torch = pytest.importorskip("torch")

OURS_ALONE = {"convnextv2_tiny"}
SPECS = {
    spec.short_name: spec for spec in list_models() if "backbone" in spec.tags and spec.short_name not in OURS_ALONE
}
SMALL = 12_000_000  # parameters of the models that are run, so that the test is quick
RUN = sorted({name for name, spec in SPECS.items() if spec.parameters < SMALL} | {"resnet50", "resnext50_32x4d"})
RUN += ["convnext_tiny", "efficientnet_v2_s"]


_KEEP = []  # a library's definitions go with it


@pytest.fixture(scope="module")
def peers():
    """``torchvision.models``, also where its compiled operators do not load; skips when it is not installed."""
    found = importlib.util.find_spec("torchvision")
    if found is None:
        pytest.skip("torchvision is not installed")
    try:
        import torchvision.models
    except (RuntimeError, ImportError, OSError):  # built for another torch: declare the operators that it looks up
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        names = {"nms"}
        for source in Path(found.origin).parent.rglob("*.py"):
            names.update(re.findall(r"torchvision::(\w+)", source.read_text("utf-8")))
        library = torch.library.Library("torchvision", "DEF")
        _KEEP.append(library)
        for name in sorted(names):
            library.define(f"{name}(Tensor x) -> Tensor")
        try:
            import torchvision.models
        except (RuntimeError, ImportError, OSError) as error:
            pytest.skip(f"torchvision cannot be imported: {str(error)[:80]}")
    return torchvision.models


def without_values(monkeypatch, init):
    """Leaves the parameters as they were allocated: sampling a thousand million values takes a minute."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "trunc_normal_"):
        monkeypatch.setattr(init, name, lambda tensor, *args, **kwargs: tensor)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_keys_and_shapes(name, peers, monkeypatch):
    without_values(monkeypatch, nn.init)
    without_values(monkeypatch, torch.nn.init)
    theirs = getattr(peers, name)()
    ours = create_model(f"vision/{name}")
    assert [(key, tuple(value.shape)) for key, value in ours.state_dict().items()] == [
        (key, tuple(value.shape)) for key, value in theirs.state_dict().items()
    ]
    assert ours.config.num_classes == 1000


def quiet(model, dropouts):
    for module in model.modules():
        if type(module).__name__ in dropouts:
            module.p = 0.0
    return model


def numbers(tensor):
    return tensor.detach().numpy()


@pytest.mark.parametrize("name", RUN)
def test_outputs(name, peers):
    torch.manual_seed(0)
    options = {"init_weights": False} if name.startswith("vgg") else {}
    theirs = quiet(getattr(peers, name)(num_classes=11, **options), {"Dropout", "StochasticDepth"}).double()
    ours = quiet(create_model(f"vision/{name}", num_classes=11), {"Dropout", "StochasticDepth"}).double()
    state = {
        key: value if value.dtype == torch.int64 else value + 0.05 * torch.rand(value.shape)
        for key, value in theirs.state_dict().items()
    }
    theirs.load_state_dict(state)
    ours.load_state_dict({key: flambeau.from_numpy(value.numpy().copy()) for key, value in state.items()})
    picture = np.random.default_rng(0).standard_normal((2, 3, 64, 72))
    for mode in (False, True):
        with flambeau.no_grad(), torch.no_grad():
            got = numbers(ours.train(mode)(flambeau.tensor(picture)))
            wanted = numbers(theirs.train(mode)(torch.from_numpy(picture)))
        assert np.isfinite(wanted).all() and wanted.std() > 0
        np.testing.assert_allclose(got, wanted, atol=1e-8 * np.abs(wanted).max())
    for (key, one), (_, two) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=1e-8, atol=1e-8, err_msg=key)


def test_a_file_of_theirs_by_name(peers, tmp_path):
    theirs = peers.mobilenet_v3_small().eval()
    torch.save(theirs.state_dict(), tmp_path / "mobilenet_v3_small.pth")
    ours = create_backbone("vision/mobilenet_v3_small", weights=tmp_path / "mobilenet_v3_small.pth").eval()
    picture = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    with flambeau.no_grad(), torch.no_grad():
        got, wanted = ours(flambeau.tensor(picture)), theirs(torch.from_numpy(picture))
    np.testing.assert_allclose(numbers(got), numbers(wanted), atol=1e-5)
