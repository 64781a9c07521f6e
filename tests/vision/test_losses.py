"""The losses and class weights of the segmentation trainer, against direct computations."""

import numpy as np
import pytest

import flambeau
from flambeau.testing.gradients import gradcheck
from flambeau_vision.datasets import CamVid
from flambeau_vision.trainers.segmentation import SegmentationLoss, SegmentationOptions, class_weights, jaccard_loss


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((2, 11, 6, 8)).astype(np.float32)
    masks = rng.integers(0, 12, (2, 6, 8))
    masks[masks == 4] = 5  # one class is absent
    return scores, masks


def softmax(scores):
    exponents = np.exp(scores - scores.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def test_jaccard_loss(batch):
    scores, masks = batch
    probabilities, known = softmax(scores), masks != 11
    values = []
    for index in range(11):
        truth = masks == index
        if truth.any():
            hits = probabilities[:, index][truth].sum()
            values.append(hits / (probabilities[:, index][known].sum() + truth.sum() - hits))
    loss = jaccard_loss(flambeau.tensor(scores), flambeau.tensor(masks), 11)
    assert loss.item() == pytest.approx(1 - np.mean(values), abs=1e-5)


def test_jaccard_loss_has_right_gradients(batch):
    scores, masks = (part[:1, ..., :3, :3] for part in batch)
    scores = flambeau.tensor(scores.astype(np.float64), requires_grad=True)
    target = flambeau.tensor(np.ascontiguousarray(masks))
    assert gradcheck(lambda x: jaccard_loss(x, target, 11), (scores,))


def test_nothing_labelled_gives_a_finite_loss(batch):
    scores = flambeau.tensor(batch[0], requires_grad=True)
    loss = jaccard_loss(scores, flambeau.tensor(np.full((2, 6, 8), 11)), 11)
    loss.backward()
    assert np.isfinite(loss.item())
    assert np.isfinite(scores.grad.numpy()).all()


def test_segmentation_loss_is_a_sum_over_labelled_pixels(batch):
    scores, masks = batch
    weights = np.linspace(0.5, 2, 11).astype(np.float32)
    plain = SegmentationLoss(weights, SegmentationOptions(jaccard=0.0, auxiliary=0.0))
    total, count = plain(flambeau.tensor(scores), flambeau.tensor(masks))
    known = masks != 11
    assert count == known.sum()
    picked = np.take_along_axis(np.log(softmax(scores)), np.where(known, masks, 0)[:, None], 1)[:, 0]
    weight = np.where(known, weights[np.where(known, masks, 0)], 0)
    assert total.item() / count == pytest.approx(-(picked * weight).sum() / weight.sum(), rel=1e-4)

    both = SegmentationLoss(weights, SegmentationOptions(jaccard=1.0, auxiliary=0.4))
    auxiliary = flambeau.tensor(np.random.default_rng(1).standard_normal((2, 11, 2, 2)).astype(np.float32))
    coarse, _ = plain(auxiliary[:, :, :1, :2], flambeau.tensor(np.ascontiguousarray(masks[:, 2::4, 2::4])))
    coarse_count = (masks[:, 2::4, 2::4] != 11).sum()
    jaccard = jaccard_loss(flambeau.tensor(scores), flambeau.tensor(masks), 11).item()
    wanted = total.item() / count + jaccard + 0.4 * coarse.item() / coarse_count
    combined, _ = both((flambeau.tensor(scores), auxiliary), flambeau.tensor(masks))
    assert combined.item() / count == pytest.approx(wanted, rel=1e-4)


def test_class_weights():
    dataset = CamVid.__new__(CamVid)
    dataset.images, dataset.targets = [None], [np.repeat([0, 3, 3, 11], 25).reshape(10, 10)]
    share = dataset.class_frequencies()
    assert share[3] == pytest.approx(2 / 3)
    weights = class_weights([dataset], 1.02)
    assert weights[1] > weights[0] > weights[3] > 0
    assert (weights * share).sum() == pytest.approx(1)
    assert class_weights([dataset], 0).tolist() == [1] * 11
