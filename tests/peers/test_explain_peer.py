"""Explanations against captum: the same weights and inputs in float64."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peer = pytest.importorskip("captum.attr")

import flambeau
from flambeau import explain
from flambeau.random import Generator

TOLERANCE = 1e-6


def close(ours, theirs):
    ours, theirs = (value if isinstance(value, tuple) else (value,) for value in (ours, theirs))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=TOLERANCE, atol=TOLERANCE)


def layers(nn):
    """The same architecture in either library."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 4),
    )  # fmt: skip


@pytest.fixture(scope="module")
def pictures():
    """(our model, theirs, our inputs, theirs, baselines)."""
    torch.manual_seed(0)
    theirs = layers(torch.nn).double().eval()
    theirs[1].running_mean.normal_()
    ours = layers(flambeau.nn).to(flambeau.float64).eval()
    ours.load_state_dict({name: flambeau.tensor(t.numpy()) for name, t in theirs.state_dict().items()})
    x = np.random.default_rng(1).normal(size=(3, 3, 12, 10))
    base = np.random.default_rng(2).normal(size=(1, 3, 12, 10)) / 2
    tensor = torch.tensor(x)
    assert np.allclose(ours(flambeau.tensor(x)).detach().numpy(), theirs(tensor).detach().numpy())
    return ours, theirs, x, base


TARGETS = [2, [0, 3, 1]]


def their_target(target):
    return torch.tensor(target) if isinstance(target, list) else target


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("name", ["Saliency", "InputXGradient", "GuidedBackprop"])
def test_gradients(pictures, name, target):
    ours, theirs, x, _ = pictures
    want = getattr(peer, name)(theirs).attribute(torch.tensor(x, requires_grad=True), target=their_target(target))
    close(getattr(explain, name)(ours).attribute(flambeau.tensor(x), target=target), want)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("method", ["gausslegendre", "riemann_left", "riemann_middle", "riemann_right"])
@pytest.mark.parametrize("size", [None, 7])
def test_integrated_gradients(pictures, method, target, size):
    ours, theirs, x, base = pictures
    want, error = peer.IntegratedGradients(theirs).attribute(
        torch.tensor(x), torch.tensor(base), target=their_target(target), n_steps=9, method=method,
        internal_batch_size=size, return_convergence_delta=True,
    )  # fmt: skip
    got, delta = explain.IntegratedGradients(ours).attribute(
        flambeau.tensor(x), flambeau.tensor(base), target, n_steps=9, method=method,
        internal_batch_size=size, return_convergence_delta=True,
    )  # fmt: skip
    close(got, want)
    close(delta, error)


def test_the_trapezoid_differs_by_its_weights_sum(pictures):
    """captum's weights sum to (n - 1) / n, ours to 1: exact for a linear model."""
    ours, theirs, x, _ = pictures
    want = peer.IntegratedGradients(theirs).attribute(torch.tensor(x), target=1, n_steps=8, method="riemann_trapezoid")
    got = explain.IntegratedGradients(ours).attribute(
        flambeau.tensor(x), target=1, n_steps=8, method="riemann_trapezoid"
    )
    close(got * (7 / 8), want)


def test_integrated_gradients_without_the_inputs(pictures):
    ours, theirs, x, _ = pictures
    want = peer.IntegratedGradients(theirs, False).attribute(torch.tensor(x), target=1, n_steps=5)
    close(explain.IntegratedGradients(ours, False).attribute(flambeau.tensor(x), target=1, n_steps=5), want)


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel_with_the_same_noise(pictures, kind, monkeypatch):
    ours, theirs, x, _ = pictures
    generator = Generator().manual_seed(5)
    # captum draws with torch.normal, sample by sample under nt_samples_batch_size=1.
    monkeypatch.setattr(
        torch, "normal", lambda mean, std: torch.tensor(generator.normal(0.0, 0.4, tuple(std.shape), np.float64))
    )
    want = peer.NoiseTunnel(peer.Saliency(theirs)).attribute(
        torch.tensor(x), nt_type=kind, nt_samples=4, nt_samples_batch_size=1, stdevs=0.4, target=2
    )
    got = explain.NoiseTunnel(explain.Saliency(ours)).attribute(
        flambeau.tensor(x), kind, nt_samples=4, stdevs=0.4, seed=5, target=2
    )
    close(got, want)


@pytest.mark.parametrize(
    ("window", "strides"), [((3, 4, 4), (3, 2, 4)), ((1, 5, 3), (1, 4, 3)), ((3, 5, 4), 3), ((2, 6, 6), (1, 6, 5))]
)
def test_occlusion(pictures, window, strides):
    ours, theirs, x, base = pictures
    want = peer.Occlusion(theirs).attribute(
        torch.tensor(x), window, strides=strides, baselines=torch.tensor(base), target=[0, 3, 1]
    )
    for together in (1, 4):
        got = explain.Occlusion(ours).attribute(
            flambeau.tensor(x), window, strides, flambeau.tensor(base), target=[0, 3, 1],
            perturbations_per_eval=together,
        )  # fmt: skip
        close(got, want)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("layer", [0, 4, 5])
def test_grad_cam(pictures, layer, relu):
    ours, theirs, x, _ = pictures
    want = peer.LayerGradCam(theirs, theirs[layer]).attribute(torch.tensor(x), target=2, relu_attributions=relu)
    method = explain.LayerGradCam(ours, str(layer))
    close(method.attribute(flambeau.tensor(x), target=2, relu_attributions=relu), want)
    large = torch.nn.functional.interpolate(want, size=(12, 10), mode="bilinear", align_corners=False)
    close(method.attribute(flambeau.tensor(x), target=2, relu_attributions=relu, size=(12, 10)), large)


@pytest.mark.parametrize("target", [(1, 2, 3), [(0, 1, 1), (2, 3, 4), (5, 0, 0)]], ids=str)
def test_one_pixel_of_a_map(pictures, target):
    ours, theirs, x, _ = pictures
    want = peer.Saliency(theirs[:5]).attribute(torch.tensor(x, requires_grad=True), target=target, abs=False)
    close(explain.Saliency(ours[:5]).attribute(flambeau.tensor(x), target=target, abs=False), want)


def test_several_inputs_and_an_additional_argument(pictures):
    rng = np.random.default_rng(3)
    a, b, c = rng.normal(size=(4, 3)), rng.normal(size=(4, 5)), rng.normal(size=(4, 3))

    def model(a, b, c):
        return (a * c).sum(1) * (b**3).sum(1)

    for name, given in (
        ("IntegratedGradients", {"n_steps": 6, "internal_batch_size": 8}),
        ("FeatureAblation", {}),
        ("FeatureAblation", {"perturbations_per_eval": 3}),
        ("InputXGradient", {}),
    ):
        want = getattr(peer, name)(model).attribute(
            (torch.tensor(a), torch.tensor(b)), additional_forward_args=torch.tensor(c), **given
        )
        got = getattr(explain, name)(model).attribute(
            (flambeau.tensor(a), flambeau.tensor(b)), additional_forward_args=flambeau.tensor(c), **given
        )
        close(got, want)


def test_feature_ablation_by_groups(pictures):
    ours, theirs, x, _ = pictures
    mask = np.arange(12).reshape(12, 1) // 4 + 3 * (np.arange(10) // 5)  # six blocks, the same in all channels
    want = peer.FeatureAblation(theirs).attribute(
        torch.tensor(x), baselines=0.5, target=1, feature_mask=torch.tensor(mask)[None, None]
    )
    got = explain.FeatureAblation(ours).attribute(flambeau.tensor(x), 0.5, 1, feature_mask=mask[None, None])
    close(got, want)


def test_layer_integrated_gradients_of_tokens():
    def build(nn):
        return nn.Sequential(nn.Embedding(12, 6), nn.Flatten(), nn.Linear(30, 8), nn.Tanh(), nn.Linear(8, 3))

    torch.manual_seed(4)
    theirs, ours = build(torch.nn).double(), build(flambeau.nn).to(flambeau.float64)
    ours.load_state_dict({name: flambeau.tensor(t.numpy()) for name, t in theirs.state_dict().items()})
    tokens = np.random.default_rng(4).integers(0, 12, (3, 5))
    want, error = peer.LayerIntegratedGradients(theirs, theirs[0]).attribute(
        torch.tensor(tokens), torch.zeros(3, 5, dtype=torch.int64), target=2, n_steps=11, return_convergence_delta=True
    )
    got, delta = explain.LayerIntegratedGradients(ours, "0").attribute(
        flambeau.tensor(tokens), 0, target=2, n_steps=11, return_convergence_delta=True
    )
    close(got, want)
    close(delta, error)
