"""The vision transformers beside Hugging Face Transformers: a folder that it writes is loaded and gives the same."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

import flambeau
from flambeau.io import from_pretrained

torch = pytest.importorskip("torch")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4  # the largest difference that is seen is about 2e-6


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def saved(model, folder):
    """Their model with every parameter and statistic away from its initial value, in a folder; ours from there."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand(tensor.shape, generator=generator)
    model.eval().save_pretrained(folder)
    return from_pretrained(folder)


def picture(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def close(ours, theirs, tolerance=TOLERANCE):
    assert tuple(ours.shape) == tuple(theirs.shape)
    scale = max(1.0, float(theirs.detach().abs().max()))
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=0, atol=tolerance * scale)


SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 7,
}


@pytest.mark.parametrize(
    ("name", "kind", "change"),
    [
        ("ViTForImageClassification", "ViTConfig", {}),
        ("ViTForImageClassification", "ViTConfig", {"qkv_bias": False, "hidden_act": "relu", "layer_norm_eps": 1e-6}),
        ("DeiTForImageClassification", "DeiTConfig", {}),
        ("DeiTForImageClassificationWithTeacher", "DeiTConfig", {}),
    ],
)
@pytest.mark.parametrize("size", [(2, 32, 32), (1, 40, 56), (3, 64, 37)])
def test_vit(name, kind, change, size, tmp_path):
    config = getattr(transformers, kind)(**SMALL | change, attn_implementation="eager")
    theirs = getattr(transformers, name)(config)
    ours = saved(theirs, tmp_path)
    x = picture(size[0], 3, *size[1:])
    resample = size[1:] != (32, 32)
    scores, attentions = ours(flambeau.tensor(x), interpolate_pos_encoding=resample, output_attentions=True)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(x), interpolate_pos_encoding=resample, output_attentions=True)
    close(scores, wanted.logits)
    assert len(attentions) == 3
    for one, two in zip(attentions, wanted.attentions, strict=True):
        close(one, two)
    close(ours(flambeau.tensor(x), interpolate_pos_encoding=resample), wanted.logits)


def test_vit_gradients(tmp_path):
    theirs = transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL))
    ours = saved(theirs, tmp_path)
    x, labels = picture(2, 3, 32, 32), [3, 1]
    loss = flambeau.nn.functional.cross_entropy(ours(flambeau.tensor(x)), flambeau.tensor(labels))
    wanted = theirs(torch.from_numpy(x), labels=torch.tensor(labels)).loss
    close(loss, wanted)
    loss.backward(), wanted.backward()
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))
    close(ours.vit.embeddings.position_embeddings.grad, theirs.vit.embeddings.position_embeddings.grad)
    close(
        ours.vit.encoder.layer[0].attention.attention.query.weight.grad,
        theirs.vit.layers[0].attention.q_proj.weight.grad,
    )
    close(ours.classifier.weight.grad, theirs.classifier.weight.grad)


SWIN = {"embed_dim": 16, "depths": [2, 3], "num_heads": [2, 4], "window_size": 4, "image_size": 32, "patch_size": 2}


# The middle sizes divide neither by the windows nor by the patches; at the last the second stage is one window high.
@pytest.mark.parametrize(
    ("size", "change"),
    [
        ((2, 32, 32), {}),
        ((1, 45, 70), {}),
        ((2, 37, 36), {"qkv_bias": False, "window_size": 5}),
        ((1, 16, 40), {}),
    ],
)
def test_swin(size, change, tmp_path):
    theirs = transformers.SwinForImageClassification(transformers.SwinConfig(**SWIN | change, num_labels=7))
    ours = saved(theirs, tmp_path)
    x = picture(size[0], 3, *size[1:])
    with torch.no_grad():
        close(ours(flambeau.tensor(x)), theirs(torch.from_numpy(x)).logits)


def test_swin_absolute_positions(tmp_path):
    config = transformers.SwinConfig(**SWIN, use_absolute_embeddings=True)
    theirs = transformers.SwinForImageClassification(config)
    ours = saved(theirs, tmp_path)
    for size in ((32, 32), (40, 56)):
        x = picture(2, 3, *size)
        with torch.no_grad():
            wanted = theirs(torch.from_numpy(x), interpolate_pos_encoding=True).logits
        close(ours(flambeau.tensor(x)), wanted)


@pytest.mark.parametrize("size", [(2, 32, 32), (1, 45, 70), (1, 12, 20)])
def test_swin_backbone(size, tmp_path):
    config = transformers.SwinConfig(**SWIN, out_features=["stage1", "stage2"])
    theirs = transformers.SwinBackbone(config)
    ours = saved(theirs, tmp_path)
    x = picture(size[0], 3, *size[1:])
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(x)).feature_maps
    maps = ours(flambeau.tensor(x))
    assert len(maps) == len(wanted) == 2
    for one, two in zip(maps, wanted, strict=True):
        close(one, two)


SEGFORMER = {
    "depths": [2, 1, 1, 1],
    "hidden_sizes": [8, 16, 20, 32],
    "num_attention_heads": [1, 2, 5, 8],
    "decoder_hidden_size": 24,
    "num_labels": 7,
}


@pytest.mark.parametrize("size", [(2, 64, 64), (1, 96, 128), (2, 75, 90)])
def test_segformer(size, tmp_path):
    theirs = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**SEGFORMER))
    ours = saved(theirs, tmp_path)
    x = picture(size[0], 3, *size[1:])
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(x)).logits
    close(ours(flambeau.tensor(x)), wanted)
    wanted = torch.nn.functional.interpolate(wanted, size=size[1:], mode="bilinear", align_corners=False)
    close(ours(flambeau.tensor(x), upsample=True), wanted)


@pytest.mark.parametrize("size", [(2, 64, 64), (1, 75, 130)])
def test_segformer_classifier(size, tmp_path):
    theirs = transformers.SegformerForImageClassification(transformers.SegformerConfig(**SEGFORMER))
    ours = saved(theirs, tmp_path)
    x = picture(size[0], 3, *size[1:])
    with torch.no_grad():
        close(ours(flambeau.tensor(x)), theirs(torch.from_numpy(x)).logits)
