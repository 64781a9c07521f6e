"""Folders that Transformers writes, read here without a mapping of one's own: the scores agree."""

import numpy as np
import pytest

import flambeau
from flambeau.errors import FlambeauError
from flambeau.io import from_pretrained

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 2, 1, 2], "num_labels": 5}
CASES = {
    "resnet-basic": ("ResNet", {**SMALL, "layer_type": "basic", "embedding_size": 8}),
    "resnet-stem": ("ResNet", {**SMALL, "layer_type": "basic", "embedding_size": 12}),
    "resnet-bottleneck": ("ResNet", {**SMALL, "layer_type": "bottleneck", "embedding_size": 16}),
    "resnet-first": ("ResNet", {**SMALL, "embedding_size": 8, "downsample_in_first_stage": True}),
    "resnet-early": ("ResNet", {**SMALL, "embedding_size": 8, "downsample_in_bottleneck": True}),
    "convnext": ("ConvNext", {**SMALL, "layer_scale_init_value": 0.5}),
    "convnext-unscaled": ("ConvNext", {**SMALL, "layer_scale_init_value": 0.0, "patch_size": 2}),
    "convnextv2": ("ConvNextV2", SMALL),
    "mobilenetv2": ("MobileNetV2", {"depth_multiplier": 0.35, "num_labels": 5}),
    "mobilenetv2-symmetric": ("MobileNetV2", {"depth_multiplier": 0.5, "tf_padding": False, "num_labels": 5}),
    "mobilenetv2-narrow-head": (
        "MobileNetV2",
        {"depth_multiplier": 0.25, "finegrained_output": False, "num_labels": 5},
    ),
    "regnet-y": ("RegNet", {**SMALL, "groups_width": 8, "embedding_size": 8}),
    "regnet-x": ("RegNet", {**SMALL, "groups_width": 4, "embedding_size": 8, "layer_type": "x"}),
    "regnet-first": ("RegNet", {**SMALL, "groups_width": 8, "downsample_in_first_stage": False}),
}
SIZES = [(64, 64), (65, 97), (50, 83)]


def written(kind, options, folder):
    """A model of Transformers with random values everywhere, in normalisations and scales too."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**options)
    model = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point() and value.ndim < 4:
                value.add_(torch.rand(value.shape) * 0.3)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("case", CASES)
def test_scores(case, tmp_path):
    kind, options = CASES[case]
    theirs = written(kind, options, tmp_path)
    ours = from_pretrained(tmp_path)
    assert len(ours.config.classes) == ours.config.num_classes == 5
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        pictures = rng.standard_normal((3, 3, height, width)).astype(np.float32)
        with flambeau.no_grad(), torch.no_grad():
            got = ours(flambeau.tensor(pictures)).numpy()
            wanted = theirs(torch.from_numpy(pictures)).logits.numpy()
        assert wanted.std() > 1e-3
        np.testing.assert_allclose(got, wanted, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        ("MobileNetV2", {"output_stride": 16}, "output_stride"),
        ("MobileNetV2", {"first_layer_is_expansion": False}, "first_layer"),
        ("ConvNext", {**SMALL, "hidden_act": "relu"}, "hidden_act"),
        ("RegNet", {**SMALL, "hidden_act": "silu"}, "hidden_act"),
        ("ResNet", {**SMALL, "num_channels": 1}, "num_channels"),
    ],
)
def test_what_cannot_be_loaded_is_said(kind, options, word, tmp_path):
    getattr(transformers, f"{kind}Config")(**options, architectures=[f"{kind}ForImageClassification"]).save_pretrained(
        tmp_path
    )
    with pytest.raises(FlambeauError, match=word):
        from_pretrained(tmp_path)
