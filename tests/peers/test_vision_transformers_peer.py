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

TOLERANCE = 1e-4  # of the largest value; what is seen stays below 2e-5


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def saved(model, folder):
    """Their model with random parameters, large enough that each one shows, in a folder; ours from there."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim > 1:
                tensor.copy_(1.5 * noise * (tensor.numel() / tensor.shape[0]) ** -0.5)
            elif tensor.is_floating_point():
                tensor += 0.2 * noise
    model.eval().save_pretrained(folder)
    return from_pretrained(folder)


def picture(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def close(ours, theirs, tolerance=TOLERANCE):
    assert tuple(ours.shape) == tuple(theirs.shape)
    if theirs.numel() == 0:
        return
    scale = max(1e-3, float(theirs.detach().abs().max()))
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


DETR = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "num_queries": 9,
    "num_labels": 7,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 24], "depths": [2, 1, 1, 2], "out_features": ["stage4"]}


def detr(change=None, backbone=None):
    resnet = transformers.ResNetConfig(**RESNET | (backbone or {}))
    return transformers.DetrForObjectDetection(transformers.DetrConfig(backbone_config=resnet, **DETR | (change or {})))


def masked(size):
    """A batch of pictures of which all but the first are padded to the right and below."""
    x, mask = picture(size[0], 3, *size[1:]), np.ones((size[0], *size[1:]), dtype=np.int64)
    for index in range(1, size[0]):
        mask[index, size[1] - 20 * index :] = mask[index, :, size[2] - 33 * index :] = 0
    return x * mask[:, None].astype(np.float32), mask


@pytest.mark.parametrize("size", [(2, 64, 64), (1, 75, 130), (3, 128, 160)])
@pytest.mark.parametrize("backbone", [{}, {"layer_type": "basic"}])
def test_detr(size, backbone, tmp_path):
    theirs = detr(backbone=backbone)
    theirs.set_attn_implementation("eager")
    ours = saved(theirs, tmp_path)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    x, mask = masked(size)
    found = ours(flambeau.tensor(x), flambeau.tensor(mask), output_attentions=True)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(x), torch.from_numpy(mask), output_attentions=True)
        whole = theirs(torch.from_numpy(x))
    close(found.logits, wanted.logits)
    close(found.pred_boxes, wanted.pred_boxes)
    for one, two in zip(found.attentions, wanted.cross_attentions, strict=True):
        close(one, two)
    close(ours(flambeau.tensor(x)).pred_boxes, whole.pred_boxes)
    assert size[0] == 1 or float((whole.pred_boxes - wanted.pred_boxes).abs().max()) > 1e-3  # the mask matters


def test_detr_with_timm_names(tmp_path):
    """The folders of the paper's own models have timm's names in the backbone."""
    from safetensors.numpy import load_file, save_file

    from flambeau_vision.models.detr import rename

    ours = saved(detr(), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    timm = {key: np.ascontiguousarray(value) for key, value in rename(state, {}).items()}
    assert "model.backbone.conv_encoder.model.layer2.0.downsample.1.running_var" in timm
    save_file(timm, tmp_path / "model.safetensors")
    x = flambeau.tensor(picture(1, 3, 64, 64))
    np.testing.assert_array_equal(from_pretrained(tmp_path)(x).logits.tolist(), ours(x).logits.tolist())


def objects(counts, classes=7, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "class_labels": rng.integers(0, classes, count),
            "boxes": np.concatenate([rng.uniform(0.2, 0.8, (count, 2)), rng.uniform(0.05, 0.4, (count, 2))], 1).astype(
                np.float32
            ),
        }
        for count in counts
    ]


def as_tensors(targets, convert):
    return [{key: convert(value) for key, value in target.items()} for target in targets]


@pytest.mark.parametrize("counts", [(3, 5), (9, 1), (0, 4), (0, 0)])
def test_detr_loss(counts, tmp_path):
    from flambeau_vision.models.set_prediction import set_prediction_loss

    theirs = detr()
    ours = saved(theirs, tmp_path)
    x, targets = picture(2, 3, 64, 96), objects(counts)
    loss, parts = set_prediction_loss(ours(flambeau.tensor(x)), as_tensors(targets, flambeau.tensor), ours.config)
    wanted = theirs(torch.from_numpy(x), labels=as_tensors(targets, torch.from_numpy))
    close(loss, wanted.loss)
    assert set(parts) == set(wanted.loss_dict)
    for name, part in parts.items():
        close(part, wanted.loss_dict[name])
    loss.backward(), wanted.loss.backward()
    for one, two in (
        (ours.bbox_predictor.layers[0], theirs.bbox_predictor.layers[0]),
        (ours.class_labels_classifier, theirs.class_labels_classifier),
        (ours.model.encoder.layers[0].self_attn.q_proj, theirs.model.encoder.layers[0].self_attn.q_proj),
        (ours.model.input_projection, theirs.model.input_projection),
    ):
        close(one.weight.grad, two.weight.grad, 1e-3)


def test_auxiliary_loss():
    """Their loss of the same outputs; in the model itself theirs norms the decoder's states between its layers."""
    from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

    from flambeau_vision.models.detr import DetrConfig
    from flambeau_vision.models.set_prediction import Detections, set_prediction_loss

    rng = np.random.default_rng(1)
    logits = rng.standard_normal((3, 2, 9, 8)).astype(np.float32)
    boxes = rng.uniform(0.1, 0.9, (3, 2, 9, 4)).astype(np.float32)
    targets = objects((4, 2))
    config = transformers.DetrConfig(**DETR, auxiliary_loss=True)
    wanted, wanted_parts, _ = ForObjectDetectionLoss(
        torch.from_numpy(logits[-1]),
        as_tensors(targets, torch.from_numpy),
        torch.device("cpu"),
        torch.from_numpy(boxes[-1]),
        config,
        torch.from_numpy(logits),
        torch.from_numpy(boxes),
    )
    ours = [(flambeau.tensor(a), flambeau.tensor(b)) for a, b in zip(logits, boxes, strict=True)]
    outputs = Detections(*ours[-1], auxiliary=tuple(ours[:-1]))
    loss, parts = set_prediction_loss(outputs, as_tensors(targets, flambeau.tensor), DetrConfig(num_classes=7))
    close(loss, wanted)
    assert set(parts) == set(wanted_parts)
    for name, part in parts.items():
        close(part, wanted_parts[name])


def test_post_process():
    from flambeau_vision.models.set_prediction import Detections, post_process

    rng = np.random.default_rng(2)
    logits = 3 * rng.standard_normal((2, 9, 8)).astype(np.float32)
    boxes = rng.uniform(0.1, 0.9, (2, 9, 4)).astype(np.float32)
    theirs = transformers.models.detr.modeling_detr.DetrObjectDetectionOutput(
        logits=torch.from_numpy(logits), pred_boxes=torch.from_numpy(boxes)
    )
    process = transformers.DetrImageProcessorPil().post_process_object_detection
    for sizes in ([(480, 640), (300, 200)], None):
        wanted = process(theirs, threshold=0.5, target_sizes=sizes)
        found = post_process(Detections(flambeau.tensor(logits), flambeau.tensor(boxes)), 0.5, sizes)
        assert 3 < sum(len(one["scores"]) for one in found) < 18
        for one, two in zip(found, wanted, strict=True):
            assert one["labels"].tolist() == two["labels"].tolist()
            close(one["scores"], two["scores"])
            close(one["boxes"], two["boxes"])


YOLOS = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": [32, 48],
    "patch_size": 8,
    "num_detection_tokens": 6,
    "num_labels": 7,
}


@pytest.mark.parametrize("size", [(2, 32, 48), (1, 48, 32), (2, 61, 80)])
@pytest.mark.parametrize("between", [True, False])
def test_yolos(size, between, tmp_path):
    from flambeau_vision.models.set_prediction import set_prediction_loss

    config = transformers.YolosConfig(**YOLOS, use_mid_position_embeddings=between)
    theirs = transformers.YolosForObjectDetection(config)
    ours = saved(theirs, tmp_path)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    x, targets = picture(size[0], 3, *size[1:]), objects([3, 2][: size[0]])
    found = ours(flambeau.tensor(x), output_attentions=True)
    wanted = theirs(torch.from_numpy(x), labels=as_tensors(targets, torch.from_numpy))
    close(found.logits, wanted.logits)
    close(found.pred_boxes, wanted.pred_boxes)
    assert len(found.attentions) == 3
    loss, _ = set_prediction_loss(found, as_tensors(targets, flambeau.tensor), ours.config)
    close(loss, wanted.loss)


def test_assignment_beside_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    from flambeau_vision.models.set_prediction import linear_sum_assignment

    rng = np.random.default_rng(0)
    for _ in range(300):
        shape = rng.integers(0, 25, 2)
        cost = rng.standard_normal(shape)
        if rng.random() < 0.3:
            cost = np.round(cost * 2)  # ties: the pairs may differ, the sum may not
        rows, columns = linear_sum_assignment(cost)
        wanted = optimize.linear_sum_assignment(cost)
        assert len(rows) == min(shape) and (np.diff(rows) > 0).all() and len(set(columns)) == len(columns)
        assert cost[rows, columns].sum() == pytest.approx(cost[wanted].sum(), abs=1e-9)
    cost = rng.standard_normal((100, 40))
    np.testing.assert_array_equal(linear_sum_assignment(cost), optimize.linear_sum_assignment(cost))


@pytest.mark.parametrize(
    ("model", "name", "kind", "change"),
    [
        ("vit", "ViTForImageClassification", "ViTConfig", {"num_labels": 1000}),
        ("deit_distilled", "DeiTForImageClassificationWithTeacher", "DeiTConfig", {"num_labels": 1000}),
        ("swin", "SwinForImageClassification", "SwinConfig", {"num_labels": 1000}),
        ("segformer", "SegformerForSemanticSegmentation", "SegformerConfig", {"num_labels": 150}),
        ("segformer_classifier", "SegformerForImageClassification", "SegformerConfig", {"num_labels": 1000}),
        ("detr", "DetrForObjectDetection", "DetrConfig", {"num_labels": 91}),
        ("yolos", "YolosForObjectDetection", "YolosConfig", {"num_labels": 91}),
    ],
)
def test_registered_counts(model, name, kind, change):
    from flambeau.plugins import get_model

    if model == "detr":
        change = change | {"backbone_config": transformers.ResNetConfig(out_features=["stage4"])}
    with torch.device("meta"):
        theirs = getattr(transformers, name)(getattr(transformers, kind)(**change))
    assert get_model(f"vision/{model}").parameters == sum(parameter.numel() for parameter in theirs.parameters())
