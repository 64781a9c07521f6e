"""Metrics against scikit-learn, on random and edge inputs."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

sk = pytest.importorskip("sklearn.metrics")

from flambeau.train import F1, MAE, R2, RMSE, Accuracy, ConfusionMatrix, Dice, Mean, MeanIoU, Perplexity

CLASSES = 5
SEEDS = range(8)


def labels(seed, kind="random"):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 80))
    truth, guess = rng.integers(0, CLASSES, n), rng.integers(0, CLASSES, n)
    if kind == "one class":
        truth[:] = guess[:] = 2
    if kind == "disjoint":
        truth, guess = truth % 2, 2 + guess % 2
    return truth, guess


kinds = pytest.mark.parametrize("kind", ["random", "one class", "disjoint"])
seeds = pytest.mark.parametrize("seed", SEEDS)


@kinds
@seeds
def test_classification(seed, kind):
    truth, guess = labels(seed, kind)

    def ours(metric):
        for part in np.array_split(np.arange(len(truth)), 3):
            if len(part):
                metric.update(guess[part], truth[part])
        return metric.compute()

    assert ours(Accuracy()) == pytest.approx(sk.accuracy_score(truth, guess))
    np.testing.assert_array_equal(
        ours(ConfusionMatrix(CLASSES)), sk.confusion_matrix(truth, guess, labels=range(CLASSES))
    )
    for average in ("macro", "micro", "weighted"):
        expected = sk.f1_score(truth, guess, average=average, zero_division=0)
        assert ours(F1(CLASSES, average)) == pytest.approx(expected, abs=1e-12)
        assert ours(Dice(CLASSES, average)) == pytest.approx(expected, abs=1e-12)
    assert ours(MeanIoU(CLASSES)) == pytest.approx(
        sk.jaccard_score(truth, guess, average="macro", zero_division=0), abs=1e-12
    )
    per_class = sk.f1_score(truth, guess, average=None, labels=range(CLASSES), zero_division=np.nan)
    np.testing.assert_allclose(ours(F1(CLASSES, "none")), per_class)


@seeds
@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k(seed, k):
    rng = np.random.default_rng(seed)
    truth, scores = rng.integers(0, CLASSES, 50), rng.normal(size=(50, CLASSES))
    metric = Accuracy(top_k=k)
    metric.update(scores, truth)
    assert metric.compute() == pytest.approx(sk.top_k_accuracy_score(truth, scores, k=k, labels=range(CLASSES)))


@seeds
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_regression(seed, offset):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=40) + offset
    guess = truth + rng.normal(size=40)
    for metric, reference in (
        (MAE(), sk.mean_absolute_error),
        (RMSE(), sk.root_mean_squared_error),
        (R2(), sk.r2_score),
    ):
        for part in np.array_split(np.arange(40), 3):
            metric.update(guess[part], truth[part])
        assert metric.compute() == pytest.approx(reference(truth, guess), rel=1e-9)


@seeds
def test_r2_of_several_outputs(seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(30, 3))
    guess = truth + rng.normal(size=(30, 3)) * [0.1, 1, 3]
    metric = R2()
    metric.update(guess[:11], truth[:11])
    metric.update(guess[11:], truth[11:])
    assert metric.compute() == pytest.approx(sk.r2_score(truth, guess))


def test_r2_of_a_constant_target():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for guess in (np.ones(4), np.arange(4.0)):
            metric = R2()
            metric.update(guess, np.ones(4))
            assert metric.compute() == sk.r2_score(np.ones(4), guess)


@seeds
def test_perplexity_is_exp_of_log_loss(seed):
    rng = np.random.default_rng(seed)
    logits, truth = rng.normal(size=(30, CLASSES)) * 4, rng.integers(0, CLASSES, 30)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    metric = Perplexity()
    metric.update(logits, truth)
    assert metric.compute() == pytest.approx(np.exp(sk.log_loss(truth, p, labels=range(CLASSES))))


@seeds
def test_mean_is_numpys_weighted_average(seed):
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=20), rng.uniform(size=20)
    metric = Mean()
    metric.update(values[:5], weights[:5])
    metric.update(values[5:], weights[5:])
    assert metric.compute() == pytest.approx(np.average(values, weights=weights))
