"""The vision transformers by themselves: options, names, shapes, training and the assignment."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau
from flambeau.errors import FlambeauError
from flambeau.io import from_pretrained, save_pretrained
from flambeau.plugins import create_model, get_model
from flambeau_vision.models import detr, swin, vit
from flambeau_vision.models.blocks import StochasticDepth
from flambeau_vision.models.deit import distillation_loss
from flambeau_vision.models.parts import activation, attend, hub_options, resized
from flambeau_vision.models.set_prediction import (
    Detections,
    corners,
    generalized_iou,
    linear_sum_assignment,
    pad_batch,
    post_process,
    set_prediction_loss,
)

VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "patch_size": 8}
SWIN = {"embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4}
MIT = {"depths": (1, 1, 1, 1), "hidden_sizes": (8, 8, 10, 16)}
DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 5,
    "backbone_layer_type": "basic",
    "backbone_depths": (1, 1),
    "backbone_widths": (8, 16),
    "backbone_stem": 8,
}
YOLOS = {**VIT, "image_size": (32, 48), "num_detection_tokens": 5}
SMALL = {
    "vit": {**VIT, "image_size": 32},
    "deit": {**VIT, "image_size": 32},
    "deit_distilled": {**VIT, "image_size": 32},
    "swin": SWIN,
    "swin_backbone": {**SWIN, "out_features": ("stage1", "stage2")},
    "segformer": {**MIT, "decoder_hidden_size": 8},
    "segformer_classifier": MIT,
    "detr": DETR,
    "yolos": YOLOS,
}


def small(name, **change):
    return create_model(f"vision/{name}", num_classes=4, **SMALL[name], **change)


def flat(out):
    """All tensors of an output."""
    if isinstance(out, tuple):
        return [tensor for part in out for tensor in flat(part)]
    return [out]


@pytest.mark.parametrize("name", SMALL)
def test_own_folder(name, tmp_path):
    flambeau.manual_seed(0)
    model = small(name).eval()
    save_pretrained(model, tmp_path, name=f"vision/{name}")
    back = from_pretrained(tmp_path)
    assert back.config.num_classes == 4
    x = flambeau.randn(2, 3, 32, 32)
    for one, two in zip(flat(model(x)), flat(back(x)), strict=True):
        assert one.tolist() == two.tolist()


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns(name):
    flambeau.manual_seed(0)
    options = {"drop_path_rate": 0.0} if name[:3] in ("swi", "seg") else {}
    extra = {"interpolate_pos_encoding": True} if name[:3] in ("vit", "dei") else {}
    model = small(name, **options).train()
    out = flat(model(flambeau.randn(2, 3, 64, 64), **extra))
    sum((part * flambeau.randn(*part.shape)).sum() for part in out).backward()
    still = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum().item()]
    # DETR's queries begin at zero, so that its first self-attention has nothing to tell apart.
    assert [key for key in still if not key.startswith("model.decoder.layers.0.self_attn.")] == []


@pytest.mark.parametrize("name", ["deit", "segformer_classifier", "swin_backbone"])
def test_parameter_counts(name):
    spec = get_model(f"vision/{name}")
    assert sum(parameter.numel() for parameter in create_model(spec.id).parameters()) == spec.parameters


def test_attention_maps():
    model = small("vit").eval()
    x = flambeau.randn(2, 3, 32, 32)
    scores, maps = model(x, output_attentions=True)
    assert len(maps) == 2 and all(tuple(weights.shape) == (2, 2, 17, 17) for weights in maps)
    for weights in maps:
        np.testing.assert_allclose(weights.sum(-1).detach().numpy(), 1, rtol=1e-5)
    np.testing.assert_allclose(scores.tolist(), model(x).tolist(), atol=1e-5)


def test_attend_beside_the_formula():
    flambeau.manual_seed(1)
    query, key, value = flambeau.randn(2, 3, 8), flambeau.randn(2, 5, 8), flambeau.randn(2, 5, 8)
    bias = flambeau.randn(1, 2, 3, 5)
    weighted, weights = attend(query, key, value, 2, bias, need_weights=True)
    fused, nothing = attend(query, key, value, 2, bias)
    assert nothing is None and tuple(weights.shape) == (2, 2, 3, 5)
    np.testing.assert_allclose(weighted.tolist(), fused.tolist(), atol=1e-5)


def test_wrong_pictures():
    model = small("vit")
    with pytest.raises(ValueError, match="interpolate_pos_encoding"):
        model(flambeau.zeros(1, 3, 40, 32))
    for name in ("vit", "swin", "segformer", "detr", "yolos"):
        with pytest.raises(ValueError, match=r"pictures must be \(N, 3, H, W\)"):
            small(name)(flambeau.zeros(1, 1, 32, 32))


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("vit", {"hidden_size": 10, "num_attention_heads": 4}, "heads"),
        ("vit", {"image_size": 8, "patch_size": 16}, "larger than"),
        ("vit", {"hidden_act": "wave"}, "activation 'wave'"),
        ("swin", {"depths": (2,)}, "one entry for each stage"),
        ("swin_backbone", {"out_features": ("stage9",)}, "stage9"),
        ("segformer", {"depths": (2, 2)}, "one entry for each of 2 stages"),
        ("detr", {"backbone_layer_type": "wide"}, "'wide'"),
        ("detr", {"d_model": 30}, "divide by 4"),
    ],
)
def test_wrong_options(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        create_model(f"vision/{name}", **wrong)


def test_hub_options():
    config = {"hidden_size": 8, "image_size": [32, 48], "id2label": {"10": "k", "2": "c"}, "qkv_bias": None}
    wanted = {"hidden_size": 8, "image_size": (32, 48), "num_classes": 2, "classes": ("c", "k")}
    assert hub_options(config, vit.ViTConfig) == wanted
    assert hub_options({"id2label": {"0": "LABEL_0"}}, vit.ViTConfig) == {"num_classes": 1}
    assert hub_options({}, vit.ViTConfig) == {"num_classes": 2}
    with pytest.raises(FlambeauError, match="id2label"):
        hub_options({"id2label": {"one": "cat"}}, vit.ViTConfig)


def test_folder_that_does_not_fit(tmp_path):
    model = small("vit")
    config = {"architectures": ["ViTForImageClassification"], "model_type": "vit", "num_labels": 4, **SMALL["vit"]}
    flambeau.save(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert from_pretrained(tmp_path).classifier.bias.tolist() == model.classifier.bias.tolist()
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(FlambeauError, match="16 missing"):
        from_pretrained(tmp_path)


def test_torchvision_names():
    model = small("vit")
    state = {}
    for key, value in model.state_dict().items():
        new = key.replace("vit.embeddings.cls_token", "class_token")
        new = new.replace("vit.embeddings.patch_embeddings.projection", "conv_proj")
        new = new.replace("vit.embeddings.position_embeddings", "encoder.pos_embedding")
        new = new.replace("vit.layernorm", "encoder.ln").replace("classifier", "heads.head")
        new = new.replace("vit.encoder.layer.", "encoder.layers.encoder_layer_")
        new = new.replace("layernorm_before", "ln_1").replace("layernorm_after", "ln_2")
        new = new.replace("attention.output.dense", "self_attention.out_proj")
        new = new.replace("intermediate.dense", "mlp.0").replace("output.dense", "mlp.3")
        state[new] = value
    for layer in range(2):
        for leaf in ("weight", "bias"):
            start = f"encoder.layers.encoder_layer_{layer}."
            parts = [state.pop(f"{start}attention.attention.{part}.{leaf}") for part in ("query", "key", "value")]
            state[f"{start}self_attention.in_proj_{leaf}"] = flambeau.cat(parts)
    back = vit.from_torchvision(state)
    assert set(back) == set(model.state_dict())
    assert all(back[key].tolist() == value.tolist() for key, value in model.state_dict().items())


def test_older_swin_folders():
    """They keep the table of indices, and a backbone has the whole model's names."""
    model = small("swin")
    state = dict(model.state_dict())
    extra = "swin.encoder.layers.0.blocks.0.attention.self.relative_position_index"
    assert set(swin.rename(state | {extra: flambeau.zeros(1)}, {})) == set(state)
    renamed = set(swin.rename_backbone(state, {}))
    assert renamed == {key for key in small("swin_backbone").state_dict() if "hidden_states_norms" not in key}


def test_shifted_windows_do_not_mix_opposite_edges():
    """A change at the right edge must not reach the left one within one shifted block."""
    config = swin.SwinConfig(**SWIN)
    block = swin.Block(config, 8, 2, shift=2, drop_path=0.0).eval()
    x = flambeau.randn(1, 8, 12, 8)
    other = x.clone()
    other[:, :, -1] += 1.0
    changed = (block(x) - block(other)).abs().sum((0, 1, 3)) > 0
    assert changed.tolist() == [False] * 10 + [True] * 2


def test_drop_path():
    flambeau.manual_seed(0)
    drop = StochasticDepth(0.25)
    out = drop(flambeau.ones(4000, 2)).numpy()
    assert (out[:, 0] == out[:, 1]).all()
    assert set(np.unique(out.round(2)).astype(str)) == {"0.0", "1.33"}
    assert out.mean() == pytest.approx(1, abs=0.05)
    assert drop.eval()(flambeau.ones(3)).tolist() == [1, 1, 1]


def test_activations():
    x = flambeau.linspace(-2, 2, 5)
    wanted = x.numpy() / (1 + np.exp(-x.numpy()))
    np.testing.assert_allclose(activation("swish")(x).numpy(), wanted, rtol=1e-5)
    assert activation("gelu_new")(x).tolist() != activation("gelu")(x).tolist()


def test_resized_keeps_the_rest_of_the_shape():
    positions = flambeau.randn(2, 1, 6, 5)
    assert tuple(resized(positions, (2, 3), (4, 5)).shape) == (2, 1, 20, 5)
    assert resized(positions, (2, 3), (2, 3)) is positions


def test_distillation_learns():
    flambeau.manual_seed(0)
    model = small("deit_distilled").train()
    x, labels = flambeau.randn(4, 3, 32, 32), flambeau.tensor([0, 1, 2, 3])
    teacher = flambeau.nn.functional.one_hot(flambeau.tensor([3, 2, 1, 0]), 4).float()
    optimizer = flambeau.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = distillation_loss(model(x), labels, teacher)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    own, taught = model(x)
    assert own.argmax(1).tolist() == [0, 1, 2, 3] and taught.argmax(1).tolist() == [3, 2, 1, 0]


def test_segformer_scores_lie_on_the_labels_while_training():
    model = small("segformer")
    x = flambeau.randn(2, 3, 40, 56)
    assert tuple(model.train()(x).shape) == (2, 4, 40, 56)
    assert tuple(model.eval()(x).shape) == (2, 4, 10, 14)


# --- detection


def test_detr_options():
    plain = detr.options({"backbone": "resnet18", "num_labels": 91})
    assert plain["backbone_layer_type"] == "basic" and plain["backbone_widths"] == (64, 128, 256, 512)
    timm = {"model_type": "timm_backbone", "backbone": "resnet101.a1_in1k"}
    assert detr.options({"backbone_config": timm, "backbone": None})["backbone_depths"] == (3, 4, 23, 3)
    for wrong in (
        {"backbone": "swin_tiny"},
        {"position_embedding_type": "learned"},
        {"backbone_config": {"model_type": "resnet", "downsample_in_bottleneck": True}},
    ):
        with pytest.raises(FlambeauError, match="DETR"):
            detr.options(wrong)


def test_padding_does_not_matter_to_detr():
    """What lies under the mask is not seen by the transformer; the convolutions see it near the border."""
    flambeau.manual_seed(0)
    model = small("detr").eval()
    batch, mask = pad_batch([flambeau.randn(3, 32, 48), flambeau.randn(3, 16, 16)])
    assert mask.sum((1, 2)).tolist() == [32 * 48, 16 * 16]
    other = batch.clone()
    other[1, :, :, 40:] = 5.0
    assert model(batch, mask).pred_boxes[1].tolist() == model(other, mask).pred_boxes[1].tolist()
    assert model(batch).pred_boxes[1].tolist() != model(other).pred_boxes[1].tolist()
    with pytest.raises(ValueError, match="pixel_mask"):
        model(batch, mask[:1])


def test_detr_gives_earlier_layers_for_the_loss():
    model = small("detr", auxiliary_loss=True).eval()
    found = model(flambeau.randn(1, 3, 32, 32), output_attentions=True)
    assert len(found.auxiliary) == 1 and len(found.attentions) == 2
    target = {"class_labels": flambeau.tensor([1]), "boxes": flambeau.tensor([[0.5, 0.5, 0.2, 0.2]])}
    loss, parts = set_prediction_loss(found, [target], model.config)
    weights = {"ce": 1, "bbox": 5, "giou": 2}
    wanted = sum(weights[name.split("_")[1]] * part.item() for name, part in parts.items() if name[:4] == "loss")
    assert loss.item() == pytest.approx(wanted, rel=1e-5) and len(parts) == 8


@pytest.mark.parametrize("name", ["detr", "yolos"])
def test_detectors_learn_a_picture(name):
    flambeau.manual_seed(0)
    options = {"dropout": 0.0} if name == "detr" else {}
    model = small(name, **options).train()
    x = flambeau.zeros(1, 3, 32, 48)
    x[:, 0, 4:12, 4:20] = 2.0
    x[:, 1, 20:30, 26:46] = 2.0
    boxes = flambeau.tensor([[0.25, 0.25, 1 / 3, 0.25], [0.75, 25 / 32, 20 / 48, 10 / 32]])
    target = {"class_labels": flambeau.tensor([2, 0]), "boxes": boxes}
    optimizer = flambeau.optim.AdamW(model.parameters(), lr=2e-3)
    first = None
    for _ in range(150):
        optimizer.zero_grad()
        loss, _ = set_prediction_loss(model(x), [target], model.config)
        first = first or loss.item()
        loss.backward()
        optimizer.step()
    found = post_process(model.eval()(x), 0.5)[0]
    assert loss.item() < 0.2 * first
    assert sorted(found["labels"].tolist()) == [0, 2]
    order = [found["labels"].tolist().index(label) for label in (2, 0)]
    np.testing.assert_allclose(found["boxes"].detach().numpy()[order], corners(boxes).numpy(), atol=0.1)


def test_loss_and_objects_need_as_many_targets():
    outputs = Detections(flambeau.zeros(2, 3, 5), flambeau.full((2, 3, 4), 0.5))
    with pytest.raises(ValueError, match="1 targets for 2"):
        set_prediction_loss(outputs, [{}], detr.DetrConfig(num_classes=4))
    with pytest.raises(ValueError, match="1 target_sizes for 2"):
        post_process(outputs, target_sizes=[(3, 4)])


def test_diverged_predictions_are_matched_last():
    boxes = flambeau.full((1, 3, 4), 0.5)
    boxes[0, 0] = float("nan")
    outputs = Detections(flambeau.zeros(1, 3, 5), boxes)
    target = {"class_labels": flambeau.tensor([1]), "boxes": flambeau.tensor([[0.5, 0.5, 0.5, 0.5]])}
    loss, _ = set_prediction_loss(outputs, [target], detr.DetrConfig(num_classes=4))
    assert np.isfinite(loss.item())


@given(st.integers(0, 5), st.integers(0, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_assignment_is_the_best_of_all(rows, columns, data):
    cells = data.draw(st.lists(st.integers(-9, 9), min_size=rows * columns, max_size=rows * columns))
    cost = np.array(cells, dtype=float).reshape(rows, columns)
    chosen = linear_sum_assignment(cost)
    count = min(rows, columns)
    assert len(chosen[0]) == len(set(chosen[0])) == len(set(chosen[1])) == count
    assert chosen[0].tolist() == sorted(chosen[0])
    wide = cost if rows <= columns else cost.T
    every = itertools.permutations(range(wide.shape[1]), count)
    assert cost[chosen].sum() == min(sum(wide[row, column] for row, column in enumerate(p)) for p in every)


def test_forbidden_pairs():
    inf = float("inf")
    assert linear_sum_assignment([[inf, 1], [1, 0]])[1].tolist() == [1, 0]
    for wrong, message in (
        ([[inf, inf], [0, 0]], "no assignment"),
        ([[float("nan")]], "NaN"),
        ([[-inf]], "minus infinity"),
        ([1, 2], "matrix"),
    ):
        with pytest.raises(ValueError, match=message):
            linear_sum_assignment(wrong)


def test_generalized_iou():
    boxes = flambeau.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3]])
    pairs = generalized_iou(boxes[:, None], boxes[None])
    shared = 1 / 7 - (9 - 7) / 9
    np.testing.assert_allclose(pairs.numpy(), [[1, shared], [shared, 1]], rtol=1e-6)
