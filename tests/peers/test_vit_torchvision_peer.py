"""torchvision's vision transformers and dilated ResNets under our names."""

import numpy as np
import pytest

import flambeau
from flambeau_vision.models.detr import Backbone, DetrConfig
from flambeau_vision.models.vit import ViT, ViTConfig, from_torchvision

torch = pytest.importorskip("torch")
models = pytest.importorskip("torchvision.models", exc_type=ImportError)


def ours_of(state):
    return {key: flambeau.from_numpy(value.numpy().copy()) for key, value in state.items()}


def test_vit():
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "num_classes": 7}
    theirs = models.VisionTransformer(num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, **sizes).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape))
    widths = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    ours = ViT(ViTConfig(layer_norm_eps=1e-6, **widths, **sizes)).eval()
    ours.load_state_dict(from_torchvision(ours_of(theirs.state_dict())))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        np.testing.assert_allclose(ours(flambeau.from_numpy(x.numpy())).detach().numpy(), theirs(x), atol=1e-5)


@pytest.mark.parametrize("dilated", [False, True])
def test_backbone_of_detr(dilated):
    torch.manual_seed(0)
    theirs = models.resnet50(replace_stride_with_dilation=[False, False, dilated]).eval()
    state = {key: value for key, value in theirs.state_dict().items() if "num_batches" not in key and key[:3] != "fc."}
    ours = Backbone(DetrConfig(dilation=dilated)).eval()
    ours.load_state_dict(ours_of(state))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        wanted = torch.nn.Sequential(*list(theirs.children())[:-2])(x)
    out = ours(flambeau.from_numpy(x.numpy())).detach().numpy()
    np.testing.assert_allclose(out, wanted, atol=1e-5 * float(wanted.max()))
