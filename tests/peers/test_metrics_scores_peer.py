"""Metrics of classes, scores, probabilities and numbers against scikit-learn and SciPy, weights and edges too."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

sk = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")

from flambeau.train import (
    AUROC,
    F1,
    MAE,
    MAPE,
    MSE,
    R2,
    RMSE,
    Accuracy,
    AveragePrecision,
    BalancedAccuracy,
    BrierScore,
    CalibrationError,
    CohenKappa,
    ConfusionMatrix,
    ExplainedVariance,
    FBeta,
    HausdorffDistance,
    LogLoss,
    MatthewsCorrelation,
    MultilabelAccuracy,
    PearsonCorrelation,
    PixelAccuracy,
    Precision,
    Recall,
    SpearmanCorrelation,
    Specificity,
)  # fmt: skip

CLASSES = 4
seeds = pytest.mark.parametrize("seed", range(6))
weighted = pytest.mark.parametrize("weighted", [False, True])


@pytest.fixture(autouse=True)
def _undefined_values():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def ours(metric, *data, **options):
    """The value from three batches, the last of them in another metric that is merged in."""
    parts = np.array_split(np.arange(len(data[0])), 3)
    other = type(metric)(**options)
    for place, part in enumerate(parts):
        (other if place == 2 else metric).update(*(x[part] for x in data if x is not None))
    metric.merge(other)
    return metric.compute()


def value(make, *data, **options):
    return ours(make(**options), *data, **options)


def classes(seed, with_weights):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 60))
    truth, guess = rng.integers(0, CLASSES, n), rng.integers(0, CLASSES, n)
    if seed == 1:
        truth[:] = 2
    if seed == 2:
        guess[:] = 0
    if seed == 3:
        truth[:], guess[:] = 1, 1
    return truth, guess, rng.uniform(0.1, 2, n) if with_weights else None


@seeds
@weighted
def test_classes(seed, weighted):
    truth, guess, w = classes(seed, weighted)
    data, n = (guess, truth, w), {"num_classes": CLASSES}
    assert value(Accuracy, *data) == pytest.approx(sk.accuracy_score(truth, guess, sample_weight=w))
    assert value(PixelAccuracy, *data, **n) == pytest.approx(sk.accuracy_score(truth, guess, sample_weight=w))
    expected = sk.confusion_matrix(truth, guess, labels=range(CLASSES), sample_weight=w)
    np.testing.assert_allclose(value(ConfusionMatrix, *data, **n), expected, rtol=1e-12)
    assert value(MatthewsCorrelation, *data, **n) == pytest.approx(
        sk.matthews_corrcoef(truth, guess, sample_weight=w), abs=1e-12
    )
    for adjusted in (False, True):
        expected = sk.balanced_accuracy_score(truth, guess, sample_weight=w, adjusted=adjusted)
        found = value(BalancedAccuracy, *data, **n, adjusted=adjusted)
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True) or len(set(truth)) == 1
    for kind in (None, "linear", "quadratic"):
        expected = sk.cohen_kappa_score(truth, guess, weights=kind, sample_weight=w, labels=range(CLASSES))
        assert value(CohenKappa, *data, **n, weights=kind) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@seeds
@weighted
@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "none"])
def test_precision_recall_and_f(seed, weighted, average):
    truth, guess, w = classes(seed, weighted)
    options = {"num_classes": CLASSES, "average": average}
    more = {"average": None if average == "none" else average, "sample_weight": w, "zero_division": 0}
    if average == "none":
        more["labels"] = range(CLASSES)
    for make, reference, extra in (
        (Precision, sk.precision_score, {}), (Recall, sk.recall_score, {}), (F1, sk.f1_score, {}),
        (FBeta, sk.fbeta_score, {"beta": 0.5}), (FBeta, sk.fbeta_score, {"beta": 2.0}),
    ):  # fmt: skip
        found = value(make, guess, truth, w, **options, **extra)
        np.testing.assert_allclose(np.nan_to_num(found), reference(truth, guess, **more, **extra), atol=1e-12)


@seeds
@weighted
def test_specificity_is_the_recall_of_the_rest(seed, weighted):
    truth, guess, w = classes(seed, weighted)
    found = value(Specificity, guess, truth, w, num_classes=CLASSES, average="none")
    for k in np.flatnonzero(~np.isnan(found)):
        assert found[k] == pytest.approx(sk.recall_score(truth != k, guess != k, sample_weight=w, zero_division=0))


@seeds
@weighted
def test_binary_and_multilabel(seed, weighted):
    rng = np.random.default_rng(seed)
    truth, scores = rng.integers(0, 2, (30, 3)), rng.random((30, 3))
    if seed == 1:
        truth[:, 1] = 0
    w = rng.uniform(0.1, 2, 30) if weighted else None
    guess = scores >= 0.4
    for exact, expected in (
        (True, sk.accuracy_score(truth, guess, sample_weight=w)),
        (False, 1 - sk.hamming_loss(truth, guess, sample_weight=w)),
    ):
        assert value(MultilabelAccuracy, scores, truth, w, threshold=0.4, exact=exact) == pytest.approx(expected)
    for average in ("macro", "micro", "weighted"):
        for make, reference in ((Precision, sk.precision_score), (Recall, sk.recall_score), (F1, sk.f1_score)):
            expected = reference(truth, guess, average=average, sample_weight=w, zero_division=0)
            options = dict(num_classes=3, average=average, multilabel=True, threshold=0.4)
            assert value(make, scores, truth, w, **options) == pytest.approx(expected, abs=1e-12)
    one, other = truth[:, 0], guess[:, 0].astype(int)
    found = value(F1, other, one, w, num_classes=2, average="binary")
    assert found == pytest.approx(sk.f1_score(one, other, sample_weight=w))


@seeds
@weighted
@pytest.mark.parametrize("ties", [False, True])
def test_areas_under_curves(seed, weighted, ties):
    rng = np.random.default_rng(seed)
    n = 60
    scores = rng.random((n, CLASSES))
    if ties:
        scores = np.round(scores, 1) + 0.1
    scores /= scores.sum(1, keepdims=True)
    if ties:
        scores[:30] = scores[0]
    w = rng.uniform(0.1, 2, n) if weighted else None
    truth = rng.permutation(np.arange(n) % CLASSES)
    labels, positive = rng.integers(0, 2, (n, CLASSES)), truth == 0
    one = scores[:, 0]
    assert value(AUROC, one, positive, w) == pytest.approx(sk.roc_auc_score(positive, one, sample_weight=w), abs=1e-12)
    expected = sk.average_precision_score(positive, one, sample_weight=w)
    assert value(AveragePrecision, one, positive, w) == pytest.approx(expected, abs=1e-12)
    for average in ("macro", "weighted", "micro"):
        expected = sk.roc_auc_score(labels, scores, average=average, sample_weight=w)
        assert value(AUROC, scores, labels, w, average=average) == pytest.approx(expected, abs=1e-12)
        expected = sk.average_precision_score(labels, scores, average=average, sample_weight=w)
        assert value(AveragePrecision, scores, labels, w, average=average) == pytest.approx(expected, abs=1e-12)
        if average != "micro":
            expected = sk.roc_auc_score(truth, scores, multi_class="ovr", average=average, sample_weight=w)
            assert value(AUROC, scores, truth, w, average=average) == pytest.approx(expected, abs=1e-12)
            expected = sk.average_precision_score(truth, scores, average=average, sample_weight=w)
            assert value(AveragePrecision, scores, truth, w, average=average) == pytest.approx(expected, abs=1e-12)


def test_areas_where_a_class_is_missing():
    scores = np.array([0.2, 0.7, 0.7])
    for truth in (np.zeros(3, int), np.ones(3, int)):
        assert value(AUROC, scores, truth) == pytest.approx(sk.roc_auc_score(truth, scores), nan_ok=True)
        assert value(AveragePrecision, scores, truth) == sk.average_precision_score(truth, scores)


@seeds
@weighted
def test_probabilities(seed, weighted):
    rng = np.random.default_rng(seed)
    truth, p = rng.integers(0, CLASSES, 40), rng.dirichlet(np.ones(CLASSES) * 0.3, 40)
    p[:2] = np.eye(CLASSES)[:2]  # certain, so right or wrong without bound
    w = rng.uniform(0.1, 2, 40) if weighted else None
    expected = sk.log_loss(truth, p, labels=range(CLASSES), sample_weight=w)
    assert value(LogLoss, p, truth, w) == pytest.approx(expected, rel=1e-9)
    expected = sk.log_loss(truth > 1, p[:, 0], labels=[0, 1], sample_weight=w)
    assert value(LogLoss, p[:, 0], truth > 1, w) == pytest.approx(expected, rel=1e-9)
    onehot = np.eye(CLASSES)[truth]
    assert value(BrierScore, p, truth, w) == pytest.approx(np.average(((p - onehot) ** 2).sum(1), weights=w))
    expected = sk.brier_score_loss(truth > 1, p[:, 0], sample_weight=w)
    assert value(BrierScore, p[:, 0], truth > 1, w) == pytest.approx(expected)


@seeds
@pytest.mark.parametrize("adaptive", [False, True])
def test_calibration_error_from_the_calibration_curve(seed, adaptive):
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    rng = np.random.default_rng(seed)
    p = rng.beta(0.5, 0.5, 200)
    truth = rng.random(200) < p**2
    right, confidence = curve(truth, p, n_bins=10, strategy="quantile" if adaptive else "uniform")
    edges = np.quantile(p, np.linspace(0, 1, 11)) if adaptive else np.linspace(0, 1, 11)
    counts = np.bincount(np.searchsorted(edges[1:-1], p), minlength=10)
    share = counts[counts > 0] / 200
    found = value(CalibrationError, p, truth.astype(int), bins=10, adaptive=adaptive)
    assert found == pytest.approx((share * np.abs(right - confidence)).sum(), abs=1e-12)
    found = value(CalibrationError, p, truth.astype(int), bins=10, adaptive=adaptive, norm="max")
    assert found == pytest.approx(np.abs(right - confidence).max(), abs=1e-12)


@seeds
@weighted
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_regression(seed, weighted, offset):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=50) + offset
    guess = truth * 0.9 + 0.1 * offset + rng.normal(size=50) + 0.3
    w = rng.uniform(0.1, 2, 50) if weighted else None
    for make, reference in (
        (MAE, sk.mean_absolute_error), (MSE, sk.mean_squared_error), (RMSE, sk.root_mean_squared_error),
        (MAPE, sk.mean_absolute_percentage_error), (R2, sk.r2_score), (ExplainedVariance, sk.explained_variance_score),
    ):  # fmt: skip
        assert value(make, guess, truth, w) == pytest.approx(reference(truth, guess, sample_weight=w), rel=1e-8)
    if not weighted:
        assert value(PearsonCorrelation, guess, truth) == pytest.approx(stats.pearsonr(guess, truth)[0], rel=1e-8)
        coarse, rough = np.round(guess), np.round(truth)
        for a, b in ((guess, truth), (coarse, rough)):
            assert value(SpearmanCorrelation, a, b) == pytest.approx(stats.spearmanr(a, b)[0], abs=1e-10)


def test_regression_of_constants_and_of_zero():
    for make, reference in ((PearsonCorrelation, stats.pearsonr), (SpearmanCorrelation, stats.spearmanr)):
        found = value(make, np.ones(5), np.arange(5.0))
        assert np.isnan(found) and np.isnan(reference(np.ones(5), np.arange(5.0))[0])
    found = value(MAPE, np.ones(3), np.zeros(3))
    assert found == pytest.approx(sk.mean_absolute_percentage_error(np.zeros(3), np.ones(3)))
    for guess in (np.ones(4), np.arange(4.0)):
        assert value(ExplainedVariance, guess, np.ones(4)) == sk.explained_variance_score(np.ones(4), guess)


@seeds
def test_hausdorff_distance(seed):
    directed = pytest.importorskip("scipy.spatial.distance").directed_hausdorff
    rng = np.random.default_rng(seed)
    guess, truth = rng.random((2, 4, 9, 11)) < 0.15
    guess[:, 0, 0] = truth[:, 5, 5] = True
    pairs = [(np.argwhere(a) * [1, 2], np.argwhere(b) * [1, 2]) for a, b in zip(guess, truth)]
    expected = np.mean([max(directed(a, b)[0], directed(b, a)[0]) for a, b in pairs])
    assert value(HausdorffDistance, guess, truth, spacing=(1, 2)) == pytest.approx(expected)
