"""The registered classifiers: how many parameters they have, their stages, and folders of their own."""

import pytest

import flambeau
from flambeau import nn
from flambeau.errors import UsageError
from flambeau.io import from_pretrained, save_pretrained
from flambeau.plugins import create_model, list_models, resolve
from flambeau.testing import ModelConformance
from flambeau_vision.models.backbone import Backbone, create_backbone
from flambeau_vision.models.blocks import SamePadConv2d, StochasticDepth

SPECS = {spec.short_name: spec for spec in list_models() if "backbone" in spec.tags}
# One of each family, small enough to run.
SMALL = {
    "resnet50": {"layers": [1, 1, 1, 1], "widths": [4, 8, 8, 16]},
    "vgg11_bn": {"widths": [4, 4, 8, 8, 8], "hidden": 16},
    "mobilenet_v2": {"width_mult": 0.1},
    "mobilenet_v3_small": {"width_mult": 0.25, "head": 64},
    "efficientnet_b0": {"width_mult": 0.25, "depth_mult": 0.3},
    "efficientnet_v2_s": {"width_mult": 0.25, "depth_mult": 0.2, "head": 32},
    "convnext_small": {"layers": [1, 1, 2, 1], "widths": [4, 8, 8, 16]},
    "convnextv2_tiny": {"layers": [1, 1, 2, 1], "widths": [4, 8, 8, 16]},
    "regnet_x_400mf": {"layers": [1, 1, 2, 1], "widths": [8, 16, 16, 32], "group_width": 8},
}


@pytest.mark.parametrize("name", sorted(SPECS))
def test_declared_is_real(name, monkeypatch):
    for init in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "trunc_normal_"):
        # The largest have 140 million parameters: counting them needs no values.
        monkeypatch.setattr(nn.init, init, lambda tensor, *args, **kwargs: tensor)
    model = create_model(f"vision/{name}")
    assert sum(parameter.numel() for parameter in model.parameters()) == SPECS[name].parameters
    assert type(model.config) is resolve(SPECS[name].config)
    assert isinstance(model, Backbone)
    # Swin gives its last stage unless told otherwise.
    stages = 1 if name == "swin_backbone" else 4
    assert model.feature_strides == (4, 8, 16, 32)[-stages:] and len(model.feature_channels) == stages


def test_each_config_class_has_one_model():
    assert len({spec.config for spec in SPECS.values()}) == len(SPECS) >= 45


@pytest.mark.parametrize("name", SMALL)
def test_stages(name):
    backbone = create_backbone(name, num_classes=5, **SMALL[name])
    model = backbone.eval()
    picture = flambeau.randn(2, 3, 64, 96)
    with flambeau.no_grad():
        stages = backbone.features(picture)
        assert tuple(model(picture).shape) == (2, 5)
    wanted = [
        (2, planes, 64 // stride, 96 // stride)
        for planes, stride in zip(backbone.feature_channels, backbone.feature_strides, strict=True)
    ]
    assert [tuple(stage.shape) for stage in stages] == wanted


@pytest.mark.parametrize("name", SMALL)
def test_own_folder(name, tmp_path):
    model = create_model(f"vision/{name}", num_classes=5, classes=tuple("abcde"), **SMALL[name]).eval()
    save_pretrained(model, tmp_path)
    back = from_pretrained(tmp_path)
    assert type(back.config) is type(model.config) and list(back.config.classes) == list("abcde")
    picture = flambeau.randn(1, 3, 40, 48)
    assert back(picture).tolist() == model(picture).tolist()


class TestEfficientNet(ModelConformance):
    model = "vision/efficientnet_b0"
    config = {**SMALL["efficientnet_b0"], "num_classes": 5, "stochastic_depth": 0.0, "dropout": 0.0}
    output_shape = (2, 5)

    def inputs(self):
        return (flambeau.randn(2, 3, 40, 48),)


class TestConvNeXt(ModelConformance):
    model = "vision/convnext_tiny"
    config = {**SMALL["convnext_small"], "num_classes": 5, "stochastic_depth": 0.0}
    output_shape = (2, 5)

    def inputs(self):
        return (flambeau.randn(2, 3, 40, 48),)


def test_weights_by_name(tmp_path):
    model = create_model("vision/resnet50", **SMALL["resnet50"])
    flambeau.save(model.state_dict(), tmp_path / "resnet50.pth")
    back = create_backbone("vision/resnet50", weights=tmp_path / "resnet50.pth", **SMALL["resnet50"])
    assert back.fc.weight.tolist() == model.fc.weight.tolist()
    with pytest.raises(RuntimeError, match=r"fc\.weight"):
        create_backbone("vision/resnet50", weights=tmp_path / "resnet50.pth", num_classes=3, **SMALL["resnet50"])


def test_a_model_without_stages_is_refused():
    with pytest.raises(UsageError, match="no stages"):
        create_backbone("vision/dilated_fpn")


def test_stochastic_depth_drops_whole_rows():
    flambeau.manual_seed(0)
    layer = StochasticDepth(0.25)
    out = layer(flambeau.ones(400, 2, 3))
    assert set(out.flatten().tolist()) == {0.0, flambeau.tensor(1 / 0.75).item()}
    assert (out.amax((1, 2)) == out.amin((1, 2))).all()
    assert 0.68 < (out[:, 0, 0] > 0).float().mean().item() < 0.82
    assert layer.eval()(flambeau.ones(4, 2)).tolist() == [[1.0, 1.0]] * 4
    assert StochasticDepth(1.0)(flambeau.ones(4, 2)).sum().item() == 0
    with pytest.raises(ValueError, match="probability"):
        StochasticDepth(1.5)


@pytest.mark.parametrize(("length", "stride"), [(7, 2), (8, 2), (9, 3), (5, 1)])
def test_same_padding_puts_the_odd_row_below(length, stride):
    layer = SamePadConv2d(1, 1, 3, stride, bias=False)
    nn.init.ones_(layer.weight)
    out = layer(flambeau.ones(1, 1, length, length))
    assert tuple(out.shape[2:]) == (-(-length // stride),) * 2
    if (length, stride) == (8, 2):
        assert out[0, 0, 0, 0].item() == 9 and out[0, 0, -1, -1].item() == 4


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="bottleneck"):
        create_model("vision/resnet18", groups=2)
    with pytest.raises(ValueError, match="stage"):
        create_model("vision/convnext_tiny", layers=(1, 2))
    with pytest.raises(ValueError, match="mbconv"):
        create_model("vision/efficientnet_b0", stages=(("other", 1, 3, 2, 8, 1),))
    with pytest.raises(ValueError, match="hardswish"):
        create_model("vision/mobilenet_v3_small", blocks=((3, 8, 8, False, "gelu", 1),))
