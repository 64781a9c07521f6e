"""Functions of nn.functional and their layers: what they refuse, what they keep, what the peers cannot show."""

import numpy as np
import pytest

import flambeau as fb
from flambeau import nn
from flambeau.nn import functional as F

LOSSES = [
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "soft_margin_loss", "hinge_embedding_loss",
    "poisson_nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss",
]  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_a_column_against_a_row_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name}.*\[4, 1\].*\[4\].*squeeze"):
        getattr(F, name)(fb.rand(4, 1), fb.rand(4))


def test_gaussian_loss_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="squeeze"):
        F.gaussian_nll_loss(fb.rand(4, 1), fb.rand(4), fb.ones(4, 1))
    with pytest.raises(ValueError, match="does not fit"):
        F.gaussian_nll_loss(fb.rand(4, 3), fb.rand(4, 3), fb.ones(2, 3))
    with pytest.raises(ValueError, match="negative"):
        F.gaussian_nll_loss(fb.rand(4), fb.rand(4), -fb.ones(4))


def test_ctc_by_counting_paths():
    """Every path that spells the target, summed one by one."""
    import itertools

    steps, classes, target = 4, 3, [1, 2]
    log_probs = fb.randn(steps, 1, classes, dtype=fb.float64).log_softmax(2)
    total = 0.0
    for path in itertools.product(range(classes), repeat=steps):
        merged = [c for c, _ in itertools.groupby(path) if c]
        if merged == target:
            total += np.exp(sum(log_probs.numpy()[t, 0, c] for t, c in enumerate(path)))
    got = F.ctc_loss(log_probs, fb.tensor([target]), [steps], [2], reduction="sum")
    assert abs(got.item() + np.log(total)) < 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((fb.tensor([[3]]), [4], [1]), "classes"), ((fb.tensor([[1]]), [5], [1]), "input_lengths"),
     ((fb.tensor([[1]]), [4, 4], [1]), "one entry"), ((fb.tensor([1]), [4], [2]), "add up")],
)  # fmt: skip
def test_ctc_names_what_is_wrong(arguments, message):
    with pytest.raises(RuntimeError, match=message):
        F.ctc_loss(fb.zeros(4, 1, 3), *arguments)


def test_unpooling_undoes_pooling_of_the_maxima():
    x = fb.randn(2, 3, 6, 8)
    values, indices = F.max_pool2d(x, 2, return_indices=True)
    back = F.max_unpool2d(values, indices, 2)
    assert back.shape == x.shape and (back.sum() - values.sum()).abs() < 1e-4
    assert ((back == 0) | (back == x)).all()
    with pytest.raises(RuntimeError, match="indices span"):
        F.max_unpool2d(values, indices + 99, 2)
    with pytest.raises(ValueError, match="output_size"):
        F.max_unpool2d(values, indices, 2, output_size=(20, 8))


def test_an_identity_grid_gives_the_input():
    x = fb.randn(2, 3, 5, 4)
    grid = F.affine_grid(fb.eye(2, 3).expand(2, 2, 3), x.shape, align_corners=False)
    for mode in ("bilinear", "nearest", "bicubic"):
        assert np.allclose(F.grid_sample(x, grid, mode, align_corners=False).numpy(), x.numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="mode"):
        F.grid_sample(x, grid, "cubic")
    with pytest.raises(RuntimeError, match="grid"):
        F.grid_sample(x, grid[:1])


def test_fractional_pooling_follows_the_seed():
    x = fb.randn(1, 2, 9, 9)
    fb.manual_seed(3)
    first = F.fractional_max_pool2d(x, 2, 5)
    fb.manual_seed(3)
    assert (nn.FractionalMaxPool2d(2, 5)(x) == first).all() and first.shape == (1, 2, 5, 5)
    with pytest.raises(ValueError, match="output_size or output_ratio"):
        nn.FractionalMaxPool2d(2)


def test_sparse_gradients_are_refused():
    for make in (lambda: nn.Embedding(3, 2, sparse=True), lambda: nn.EmbeddingBag(3, 2, sparse=True)):
        with pytest.raises(NotImplementedError, match="sparse"):
            make()


def test_sync_batch_norm_in_one_process():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4, affine=False)))
    x = fb.randn(5, 3, 2, 2)
    keys = list(net.state_dict())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(converted[1], nn.SyncBatchNorm) and isinstance(converted[2][0], nn.SyncBatchNorm)
    assert list(converted.state_dict()) == keys
    assert np.allclose(converted(x).mean((0, 2, 3)).detach().numpy(), 0, atol=1e-5)
    with pytest.raises(NotImplementedError, match="process"):
        nn.SyncBatchNorm(3, process_group=object())


def test_adaptive_softmax_agrees_with_its_full_distribution():
    layer = nn.AdaptiveLogSoftmaxWithLoss(16, 30, [5, 12], div_value=2.0)
    x, y = fb.randn(6, 16), fb.tensor([0, 4, 5, 11, 12, 29])
    out = layer(x, y)
    full = layer.log_prob(x)
    assert np.allclose(full.exp().sum(1).detach().numpy(), 1, atol=1e-5)
    assert np.allclose(out.output.detach().numpy(), full.detach().numpy()[np.arange(6), y.numpy()], atol=1e-5)
    assert np.allclose(out.loss.item(), -out.output.mean().item())
    assert (layer.predict(x) == full.argmax(1)).all()
    with pytest.raises(RuntimeError, match="target values"):
        layer(x, y + 1)
    with pytest.raises(ValueError, match="cutoffs"):
        nn.AdaptiveLogSoftmaxWithLoss(16, 30, [5, 5])


@pytest.mark.parametrize("name", ["dropout", "dropout1d", "alpha_dropout", "feature_alpha_dropout"])
def test_dropout_statistics(name):
    x = fb.ones(200, 50, 1) if "1d" in name or "feature" in name else fb.ones(100, 100)
    out = getattr(F, name)(x, 0.25, training=True)
    values, counts = np.unique(out.numpy(), return_counts=True)
    assert len(values) == 2 and abs(counts.min() / counts.sum() - 0.25) < 0.03
    assert getattr(F, name)(x, 0.25, training=False) is x
    with pytest.raises(ValueError, match="between 0 and 1"):
        getattr(F, name)(x, 1.5, training=True)


def test_attention_over_a_masked_row_is_zero_and_has_a_gradient():
    q, k, v = (fb.randn(1, 3, 2, requires_grad=True) for _ in range(3))
    mask = fb.tensor([[True, True, False], [False, False, False], [True, False, True]])
    out = F.scaled_dot_product_attention(q, k, v, mask)
    assert (out[0, 1] == 0).all()
    out.sum().backward()
    assert all(t.grad.isfinite().all() for t in (q, k, v))
