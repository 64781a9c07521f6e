"""Explanations: completeness, exactness on linear models, regions, seeds, what stays untouched, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau
from flambeau import explain, nn
from flambeau.explain.gradient import quadrature
from flambeau.nn import functional as F

METHODS = ["gausslegendre", "riemann_trapezoid", "riemann_left", "riemann_middle", "riemann_right"]


def close(a, b, atol=1e-9):
    a, b = (t.detach().numpy() if isinstance(t, flambeau.Tensor) else np.asarray(t) for t in (a, b))
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=atol)


def draw(*shape, seed=0):
    return flambeau.tensor(np.random.default_rng(seed).normal(size=shape))


def perceptron(seed=0, inputs=4, classes=3):
    flambeau.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, classes)).to(flambeau.float64).eval()


class Net(nn.Module):
    """Convolutions with batch norm and dropout; ReLU as a function; scores (N, 3)."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.drop, self.fc = nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.Dropout(0.5), nn.Linear(5, 3)

    def forward(self, x):
        x = F.relu(self.bn(self.conv1(x)))
        return self.fc(self.drop(F.relu(self.conv2(x)).mean((2, 3))))


def net(seed=1):
    flambeau.manual_seed(seed)
    return Net().to(flambeau.float64)


# -- linear models: all methods know the answer ----------------------------------------------------------------------
WEIGHT = np.array([[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]])


def linear(x):
    return x @ flambeau.tensor(WEIGHT).T + flambeau.tensor([5.0, 7.0], dtype=flambeau.float64)


@pytest.mark.parametrize("method", METHODS)
def test_integrated_gradients_of_a_linear_model(method):
    x, base = draw(4, 3), draw(3, seed=1)
    got, delta = explain.IntegratedGradients(linear).attribute(
        x, base, target=0, n_steps=3, method=method, return_convergence_delta=True
    )
    close(got, (x.numpy() - base.numpy()) * WEIGHT[0])
    close(delta, np.zeros(4))


def test_a_linear_model_by_the_other_methods():
    x = draw(4, 3)
    close(explain.Saliency(linear).attribute(x, target=1), np.broadcast_to(np.abs(WEIGHT[1]), (4, 3)))
    close(explain.Saliency(linear).attribute(x, target=1, abs=False), np.broadcast_to(WEIGHT[1], (4, 3)))
    for method in (explain.InputXGradient(linear), explain.FeatureAblation(linear)):
        close(method.attribute(x, target=0), x.numpy() * WEIGHT[0])
    tunnel = explain.NoiseTunnel(explain.Saliency(linear))
    close(tunnel.attribute(x, target=0, nt_samples=3), np.broadcast_to(np.abs(WEIGHT[0]), (4, 3)))
    close(tunnel.attribute(x, target=0, nt_type="vargrad"), np.zeros((4, 3)))


# -- completeness ------------------------------------------------------------------------------------------------------
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 2), st.floats(-1, 1))
def test_completeness(seed, target, base):
    model, x = perceptron(seed), draw(3, 4, seed=seed)
    start = flambeau.full((3, 4), base, dtype=flambeau.float64)
    got, delta = explain.IntegratedGradients(model).attribute(
        x, base, target=target, n_steps=40, return_convergence_delta=True
    )
    gain = (model(x) - model(start))[:, target]
    close(got.sum(1), gain, atol=1e-6)
    close(delta, got.sum(1) - gain)


def test_the_delta_shrinks_with_the_steps():
    model, x = perceptron(3), draw(2, 4) * 2
    for method in METHODS:
        errors = [
            float(
                explain.IntegratedGradients(model)
                .attribute(x, target=0, n_steps=n, method=method, return_convergence_delta=True)[1]
                .abs()
                .max()
            )
            for n in (4, 60)
        ]
        assert errors[1] < errors[0] / 5, method


@pytest.mark.parametrize("method", METHODS)
def test_quadrature_weights_are_a_mean(method):
    places, weights = quadrature(method, 7)
    assert weights.sum() == pytest.approx(1) and places.min() >= 0 and places.max() <= 1


def test_several_steps_at_once_give_the_same():
    model, x, extra = perceptron(inputs=3), draw(3, 3), draw(3, 3, seed=5)
    method = explain.IntegratedGradients(lambda a, b: model(a * b))
    one, many = (
        method.attribute(x, target=[0, 2, 1], additional_forward_args=extra, n_steps=7, internal_batch_size=size)
        for size in (None, 9)
    )
    close(one, many)


def test_several_inputs():
    def model(a, b):
        return (a * 2).sum(1) + (b**2).sum((1, 2))

    a, b = draw(2, 3), draw(2, 2, 2, seed=1)
    first, second = explain.IntegratedGradients(model).attribute((a, b), baselines=(0, None))
    close(first, 2 * a.numpy())
    close(second, b.numpy() ** 2)
    first, second = explain.FeatureAblation(model).attribute((a, b), perturbations_per_eval=3)
    close(first, 2 * a.numpy())
    close(second, b.numpy() ** 2)
    first, second = explain.Occlusion(model).attribute((a, b), ((3,), (1, 2)))
    close(first, np.repeat((2 * a.numpy()).sum(1, keepdims=True), 3, 1))
    close(second, np.broadcast_to((b.numpy() ** 2).sum(2, keepdims=True), (2, 2, 2)))


def test_layer_integrated_gradients_explain_tokens():
    flambeau.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2))
    model = model.to(flambeau.float64)
    tokens = flambeau.tensor([[1, 5, 2], [8, 8, 0]])
    method = explain.LayerIntegratedGradients(model, "0")
    got, delta = method.attribute(tokens, baselines=0, target=1, return_convergence_delta=True)
    assert tuple(got.shape) == (2, 3, 4)
    close(delta, [0, 0], atol=1e-6)
    close(got[1, 2], np.zeros(4))  # the token that is its own baseline
    # The same with the embedding taken apart.
    tail, table = model[1:], model[0].weight.detach()
    close(got, explain.IntegratedGradients(tail).attribute(table[tokens], table[flambeau.zeros_like(tokens)], 1))
    close(got, method.attribute(tokens, baselines=0, target=[1, 1], internal_batch_size=30))


# -- targets -----------------------------------------------------------------------------------------------------------
def test_all_forms_of_a_target():
    x, model = draw(2, 4), perceptron()
    method = explain.Saliency(model)
    want = method.attribute(x, target=2)
    same = [
        (2,), [2, 2], [2], [(2,), (2,)], flambeau.tensor([2, 2]), np.array([2, 2]), np.int64(2), -1,
        lambda output: output[:, 2], lambda output: output[:, 2].sum(),
    ]  # fmt: skip
    for target in same:
        close(method.attribute(x, target=target), want)
    mixed = method.attribute(x, target=[0, 2])
    close(mixed[1], want[1])
    close(mixed[0], method.attribute(x, target=0)[0])
    close(explain.Saliency(lambda a: model(a)[:, 2:]).attribute(x), want)
    close(explain.Saliency(lambda a: {"s": model(a)}).attribute(x, target=lambda o: o["s"][:, 2]), want)


def test_a_box_of_a_detector_and_a_region_of_a_segmenter():
    flambeau.manual_seed(2)
    conv = nn.Conv2d(2, 6, 3, padding=1).to(flambeau.float64)
    x = draw(1, 2, 8, 8)

    def detector(picture):  # boxes in 4 cells, each with two scores
        return [{"scores": F.adaptive_avg_pool2d(conv(p[None]), 2)[0].reshape(6, 4).T} for p in picture]

    got = explain.Saliency(detector).attribute(x, target=lambda found: found[0]["scores"][3, 1])
    assert got[0, :, 3:, 3:].sum() > 0 and float(got[0, :, :3].sum() + got[0, :, :, :3].sum()) == 0

    mask = np.zeros((8, 8), bool)
    mask[:2, :2] = True
    region = explain.Region(4, mask)
    close(region(conv(x)), conv(x)[:, 4, :2, :2].mean((1, 2)))
    close(explain.Region(4)(conv(x)), conv(x)[:, 4].mean((1, 2)))
    close(explain.Region(4, mask[None])(conv(x)), region(conv(x)))
    got = explain.Saliency(conv).attribute(x, target=region)
    assert got[0, :, :3, :3].min() > 0 and float(got.sum()) == pytest.approx(float(got[0, :, :3, :3].sum()))


# -- perturbations -----------------------------------------------------------------------------------------------------
def patch(picture):
    """Looks at the square 2..5 of the first channel alone."""
    return picture[:, :1, 2:6, 2:6].sum((2, 3))


@pytest.mark.parametrize("together", [1, 5])
def test_occlusion_finds_the_region(together):
    x = flambeau.ones(2, 3, 9, 9)
    got = explain.Occlusion(patch).attribute(x, (1, 2, 2), strides=(1, 2, 2), target=0, perturbations_per_eval=together)
    want = np.zeros((2, 3, 9, 9))
    want[:, 0, 2:6, 2:6] = 4
    close(got, want)


def test_occlusion_averages_where_windows_overlap():
    got = explain.Occlusion(lambda x: x[:, 2]).attribute(flambeau.ones(1, 5), (2,), baselines=-1.0)
    close(got, [[0, 1, 2, 1, 0]])  # a change of 2, where half or all of the windows cover element 2


def test_feature_masks_ablate_groups():
    x = draw(2, 3)
    mask = np.array([0, 0, 7])
    got = explain.FeatureAblation(linear).attribute(x, target=0, feature_mask=mask)
    parts = x.numpy() * WEIGHT[0]
    close(got, np.stack([parts[:, :2].sum(1), parts[:, :2].sum(1), parts[:, 2]], 1))
    own = np.array([[0, 0, 1], [1, 0, 0]])  # one mask for each sample
    got = explain.FeatureAblation(linear).attribute(x, target=0, feature_mask=flambeau.tensor(own))
    close(got[1], [parts[1, 0], parts[1, 1:].sum(), parts[1, 1:].sum()])


def test_ablation_of_tokens():
    counts = explain.FeatureAblation(lambda tokens: (tokens == 3).sum(1).to(flambeau.float32))
    close(counts.attribute(flambeau.tensor([[3, 1, 3, 2]])), [[1, 0, 1, 0]])


# -- maps of layers ----------------------------------------------------------------------------------------------------
def by_hand(model, x, target):
    """(maps of conv2, their gradients): the end of `Net` written out."""
    maps = model.conv2(F.relu(model.bn(model.conv1(x)))).detach()
    slopes = (maps.numpy() > 0) * model.fc.weight.detach().numpy()[target][None, :, None, None] / 16
    return maps.numpy(), slopes


def test_grad_cam_by_its_formula():
    model, x = net().eval(), draw(2, 2, 8, 8)
    maps, slopes = by_hand(model, x, 1)
    want = (slopes.mean((2, 3), keepdims=True) * maps).sum(1, keepdims=True)
    method = explain.LayerGradCam(model, "conv2")
    close(method.attribute(x, target=1), want)
    close(explain.LayerGradCam(model, model.conv2).attribute(x, target=1, relu_attributions=True), want.clip(0))
    large = method.attribute(x, target=1, size=(8, 8))
    close(large, F.interpolate(flambeau.tensor(want), size=(8, 8), mode="bilinear", align_corners=False))


def test_grad_cam_plus_plus_by_its_formula():
    model, x = net().eval(), draw(2, 2, 8, 8)
    maps, slopes = by_hand(model, x, 0)
    below = 2 * slopes**2 + maps.sum((2, 3), keepdims=True) * slopes**3
    alpha = np.divide(slopes**2, below, out=np.zeros_like(below), where=below != 0)
    weights = (alpha * slopes.clip(0)).sum((2, 3), keepdims=True)
    got = explain.LayerGradCamPlusPlus(model, "conv2").attribute(x, target=0)
    close(got, (weights * maps).sum(1, keepdims=True))


def test_guided_backprop_passes_on_positive_gradients_only():
    x = flambeau.tensor([[1.0, 2.0, -1.0]], requires_grad=True)
    weight = flambeau.tensor([1.0, -3.0, 5.0])
    got = explain.GuidedBackprop(lambda t: (F.relu(t) * weight).sum(1)).attribute(x)
    close(got, [[1, 0, 0]])
    assert x.grad is None


def test_deepest_layer():
    assert explain.deepest_layer(net(), draw(1, 2, 8, 8)) == "conv2"
    after_relu = nn.Sequential(nn.Conv2d(1, 2, 2, 2), nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU()), nn.Conv2d(3, 1, 1))
    after_relu.append(nn.AdaptiveAvgPool2d(1))
    nn.init.constant_(after_relu[2].bias, -9.0)
    assert explain.deepest_layer(after_relu, flambeau.randn(1, 1, 8, 8)) == "1"
    with pytest.raises(ValueError, match="returns maps"):
        explain.deepest_layer(perceptron(), draw(1, 4))


# -- attention ---------------------------------------------------------------------------------------------------------
def test_rollout_by_its_formula():
    maps = [F.softmax(draw(2, 3, 4, 4, seed=s), -1) for s in range(3)]
    want = np.eye(4)
    for m in maps:
        layer = m.numpy().mean(1) / 2 + np.eye(4) / 2
        want = layer @ want
    got = explain.attention_rollout(maps)
    close(got, want)
    close(got.sum(-1), np.ones((2, 4)))
    close(explain.attention_rollout(maps, residual=False, start_layer=2), maps[2].numpy().mean(1))
    fused = explain.attention_rollout(maps[:1], head_fusion="max", residual=False)
    top = maps[0].numpy().max(1)
    close(fused, top / top.sum(-1, keepdims=True))


def test_maps_are_caught_wherever_attention_is_made():
    flambeau.manual_seed(0)
    mha = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = flambeau.randn(2, 5, 8)
    with explain.attention_maps() as maps, flambeau.no_grad():
        _, weights = mha(x, x, x, average_attn_weights=False)
        mha(x, x, x, need_weights=False)
        causal = F.scaled_dot_product_attention(x, x, x, is_causal=True)
        F.softmax(x, -1)  # no attention: nothing is made of it
    assert len(maps) == 3
    close(maps[0], weights, 1e-6)
    close(maps[1], weights, 1e-6)
    close(maps[2] @ x, causal, 1e-5)
    assert float(maps[2].triu(1).abs().max()) == 0


def test_rollout_of_an_encoder():
    flambeau.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3).train()
    x = flambeau.randn(2, 5, 8)
    got = explain.AttentionRollout(encoder).attribute(x)
    with explain.attention_maps() as maps, flambeau.no_grad():
        encoder.eval()(x)
    assert len(maps) == 3
    close(got, explain.attention_rollout(maps), 1e-6)
    given = explain.AttentionRollout(lambda t: {"maps": maps}, maps=lambda output: output["maps"])
    close(given.attribute(x), got, 1e-6)
    with pytest.raises(ValueError, match="no attention maps"):
        explain.AttentionRollout(nn.Linear(8, 2)).attribute(x)


# -- nothing is left behind ----------------------------------------------------------------------------------------
def everything(model, x):
    explain.Saliency(model).attribute(x, target=0)
    explain.GuidedBackprop(model).attribute(x, target=0)
    explain.IntegratedGradients(model).attribute(x, target=0, n_steps=2, return_convergence_delta=True)
    explain.LayerGradCam(model, "conv2").attribute(x, target=0)
    explain.LayerGradCamPlusPlus(model, "conv2").attribute(x, target=0)
    explain.LayerIntegratedGradients(model, "conv1").attribute(x, target=0, n_steps=2)
    explain.Occlusion(model).attribute(x, (2, 4, 4), strides=4, target=0)
    explain.deepest_layer(model, x)


def test_the_model_stays_as_it_was():
    model, x = net().train(), draw(2, 2, 8, 8).requires_grad_()
    model.bn.eval()
    model.conv2.weight.requires_grad = False
    model(x).sum().backward()
    grads = {name: None if p.grad is None else p.grad.numpy().copy() for name, p in model.named_parameters()}
    state = {name: t.numpy().copy() for name, t in model.state_dict().items()}
    mine = x.grad.numpy().copy()
    random = flambeau.get_rng_state()
    everything(model, x)
    assert [m.training for m in model.modules()] == [True, True, False, True, True, True]
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["conv2.weight"]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    close(x.grad, mine)
    for name, p in model.named_parameters():
        assert (p.grad is None) == (grads[name] is None)
        if p.grad is not None:
            assert np.array_equal(p.grad.numpy(), grads[name])
    for name, t in model.state_dict().items():
        assert np.array_equal(t.numpy(), state[name]), name
    assert flambeau.get_rng_state() == random
    with pytest.raises(IndexError):
        explain.LayerGradCam(model, "conv2").attribute(x, target=9)
    assert model.training and model.conv1.weight.requires_grad and not model.conv2._forward_hooks


def test_gradients_come_under_no_grad_too():
    model, x = net(), draw(2, 2, 8, 8)
    want = explain.Saliency(model).attribute(x, target=0)
    with flambeau.no_grad():
        close(explain.Saliency(model).attribute(x, target=0), want)
        explain.LayerGradCam(model, "conv2").attribute(x, target=0)
    assert not want.requires_grad


def test_noise_is_seeded():
    model, x = net(), draw(2, 2, 8, 8)
    tunnel = explain.NoiseTunnel(explain.Saliency(model))

    def run(seed):
        return tunnel.attribute(x, nt_samples=3, stdevs=0.3, seed=seed, target=1).numpy()

    assert np.array_equal(run(1), run(1)) and not np.array_equal(run(1), run(2))
    square = tunnel.attribute(x, nt_type="smoothgrad_sq", nt_samples=3, stdevs=0.3, seed=1, target=1).numpy()
    spread = tunnel.attribute(x, nt_type="vargrad", nt_samples=3, stdevs=0.3, seed=1, target=1).numpy()
    close(spread, square - run(1) ** 2)


# -- errors ------------------------------------------------------------------------------------------------------------
X = draw(2, 4)


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (TypeError, "must be a Tensor", lambda m: explain.Saliency(m).attribute(np.zeros((2, 4)), target=0)),
        (ValueError, "batches of one size", lambda m: explain.Saliency(m).attribute((X, X[:1]), target=0)),
        (ValueError, "one number for each sample", lambda m: explain.Saliency(m).attribute(X)),
        (IndexError, "out of range", lambda m: explain.Saliency(m).attribute(X, target=3)),
        (IndexError, "2 indices", lambda m: explain.Saliency(m).attribute(X, target=(0, 1))),
        (ValueError, "3 targets for a batch of 2", lambda m: explain.Saliency(m).attribute(X, target=[0, 1, 2])),
        (TypeError, "returns a dict", lambda m: explain.Saliency(lambda x: {"a": x}).attribute(X, target=0)),
        (TypeError, "must return a Tensor", lambda m: explain.Saliency(m).attribute(X, target=lambda o: 1.0)),
        (RuntimeError, "does not depend", lambda m: explain.Saliency(lambda x: flambeau.ones(2)).attribute(X)),
        (TypeError, "LayerIntegratedGradients", lambda m: explain.Saliency(m).attribute(flambeau.ones(2, 4).long())),
        (ValueError, "does not fit", lambda m: explain.IntegratedGradients(m).attribute(X, flambeau.ones(3), 0)),
        (ValueError, "no method 'simpson'", lambda m: explain.IntegratedGradients(m).attribute(X, method="simpson")),
        (ValueError, "at least 1", lambda m: explain.IntegratedGradients(m).attribute(X, n_steps=0)),
        (ValueError, "no layer 'conv'", lambda m: explain.LayerGradCam(m, "conv")),
        (ValueError, "no layer of the model", lambda m: explain.LayerGradCam(m, nn.ReLU())),
        (ValueError, "no nt_type", lambda m: explain.NoiseTunnel(explain.Saliency(m)).attribute(X, "smooth")),
        (ValueError, "negative", lambda m: explain.NoiseTunnel(explain.Saliency(m)).attribute(X, stdevs=-1.0)),
        (ValueError, "does not fit into", lambda m: explain.Occlusion(m).attribute(X, (5,), target=0)),
        (ValueError, "no wider than", lambda m: explain.Occlusion(m).attribute(X, (2,), 3, target=0)),
        (ValueError, "1 extents", lambda m: explain.Occlusion(m).attribute(X, (2, 2), target=0)),
        (ValueError, "one for each", lambda m: explain.FeatureAblation(m).attribute(X, target=lambda o: o.sum())),
        (TypeError, "integers", lambda m: explain.FeatureAblation(m).attribute(X, target=0, feature_mask=np.ones(4))),
        (ValueError, "region is empty", lambda m: explain.Region(0, np.zeros((2, 2), bool))),
        (ValueError, "no attention maps from", lambda m: explain.attention_rollout([])),
        (ValueError, "one sequence", lambda m: explain.attention_rollout([flambeau.ones(1, 2, 3, 4)])),
    ],
)
def test_errors_name_the_cause(error, text, call):
    with pytest.raises(error, match=text):
        call(perceptron())


def test_a_layer_that_runs_twice_or_never_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.spare = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3)

        def forward(self, x):
            return self.conv(self.conv(x)).mean((1, 2, 3))

    for layer, times in (("conv", 2), ("spare", 0)):
        with pytest.raises(ValueError, match=f"{layer} ran {times} times"):
            explain.LayerGradCam(Twice(), layer).attribute(flambeau.ones(1, 1, 4, 4))


# -- drawing -----------------------------------------------------------------------------------------------------------
def test_heat_maps():
    values = np.array([[[1.0, -4.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 0.0]]])
    close(explain.heat_map(values, outliers=0), [[1, 0], [0, 1]])
    close(explain.heat_map(values, "negative", 0), [[0, 1], [0, 0]])
    close(explain.heat_map(values, "absolute_value", 0), [[0.5, 1], [0, 0.5]])
    close(explain.heat_map(values, "all", 0), [[0.5, -1], [0, 0.5]])
    close(explain.heat_map(np.zeros((2, 3))), np.zeros((2, 3)))
    single = np.zeros((30, 30))
    single[3, 4] = 5
    assert explain.heat_map(single).max() == 1  # not cut away as an outlier
    for wrong, text in ((np.zeros(3), "no map"), (np.full((2, 2), np.nan), "not finite")):
        with pytest.raises(ValueError, match=text):
            explain.heat_map(wrong)


def test_overlay_leaves_grey_where_nothing_counts():
    picture = np.full((8, 10, 3), (200, 100, 50), np.uint8)
    seen = explain.overlay(picture, flambeau.tensor([[1.0, 0.0]]))
    assert seen.shape == picture.shape and seen.dtype == np.uint8
    assert len(set(seen[0, -1].tolist())) == 1 and len(set(seen[0, 0].tolist())) == 3
    assert explain.overlay(picture[..., 0], np.eye(3)).shape == (8, 10, 3)
    with pytest.raises(ValueError, match="uint8"):
        explain.overlay(picture / 255, np.eye(3))


def test_tokens_as_html():
    text = explain.tokens_html(["<b>", " bad"], flambeau.tensor([1.0, -2.0]), title="a & b")
    assert "&lt;b&gt;" in text and "a &amp; b" in text and 'title="-2"' in text and text.count("<span") == 2
    assert "nan" not in explain.tokens_html(["a"], [0.0]) and explain.tokens_html([], []).startswith("<p")
    with pytest.raises(ValueError, match="1 scores for 2 tokens"):
        explain.tokens_html(["a", "b"], [1.0])
