"""Streaming metrics: values, streams equal to the whole, edge inputs. Those of scikit-learn are met in tests/peers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flambeau.errors import FlambeauError
from flambeau.train import F1, MAE, R2, RMSE, Accuracy, ConfusionMatrix, Dice, Mean, MeanIoU, Perplexity

rng = np.random.default_rng(0)
SCORES, LABELS = rng.normal(size=(60, 4)), rng.integers(0, 4, 60)
TRUTH = rng.normal(size=60)
GUESS = TRUTH + rng.normal(size=60)

CASES = {
    "mean": (Mean, (GUESS, np.abs(TRUTH))),
    "accuracy": (Accuracy, (SCORES, LABELS)),
    "top2": (lambda: Accuracy(top_k=2), (SCORES, LABELS)),
    "confusion": (lambda: ConfusionMatrix(4), (SCORES, LABELS)),
    "iou": (lambda: MeanIoU(4), (SCORES, LABELS)),
    "f1": (lambda: F1(4), (SCORES, LABELS)),
    "dice": (lambda: Dice(4, "none"), (SCORES, LABELS)),
    "mae": (MAE, (GUESS, TRUTH)),
    "rmse": (RMSE, (GUESS, TRUTH)),
    "r2": (R2, (GUESS, TRUTH)),
    "perplexity": (Perplexity, (SCORES, LABELS)),
}
all_cases = pytest.mark.parametrize(("make", "data"), CASES.values(), ids=CASES.keys())


@all_cases
def test_batches_give_the_same_as_the_whole(make, data):
    whole, stream = make(), make()
    whole.update(*data)
    for part in np.split(np.arange(60), [1, 7, 30]):
        stream.update(*(values[part] for values in data))
    np.testing.assert_allclose(stream.compute(), whole.compute(), rtol=1e-12)


@all_cases
def test_reset_and_state(make, data):
    metric, other = make(), make()
    metric.update(*data)
    value = metric.compute()
    other.load_state_dict(metric.state_dict())
    np.testing.assert_array_equal(other.compute(), value)
    other.update(*data)
    np.testing.assert_array_equal(metric.compute(), value)
    metric.reset()
    with pytest.raises(FlambeauError, match=r"no samples|at least two"):
        metric.compute()
    metric.update(*data)
    np.testing.assert_array_equal(metric.compute(), value)


@all_cases
def test_nan_is_refused(make, data):
    bad = np.array(data[0], copy=True)
    bad.flat[3] = np.nan
    metric = make()
    with pytest.raises(FlambeauError, match="contain NaN"):
        metric.update(bad, *data[1:])
    metric.update(*data)


@all_cases
def test_shapes_that_do_not_fit_are_refused(make, data):
    if make is Mean:
        pytest.skip("a mean broadcasts its weights")
    with pytest.raises(ValueError, match=r"shape|scores"):
        make().update(data[0], data[1][:, None])


def test_accuracy_ties_go_to_the_lower_class():
    accuracy = Accuracy()
    accuracy.update(np.zeros((2, 3)), np.array([0, 1]))
    assert accuracy.compute() == 0.5


def test_accuracy_of_pixels_with_ignored_targets():
    scores = np.zeros((1, 2, 2, 2))
    scores[0, 1] = [[1, -1], [1, -1]]
    accuracy = Accuracy(ignore_index=255)
    accuracy.update(scores, np.array([[[1, 1], [255, 0]]]))
    assert accuracy.compute() == 2 / 3


def test_only_ignored_targets_are_no_samples():
    accuracy = Accuracy(ignore_index=-100)
    accuracy.update(np.zeros((2, 3)), np.full(2, -100))
    with pytest.raises(FlambeauError, match="no samples"):
        accuracy.compute()


def test_iou_leaves_out_classes_that_do_not_occur():
    iou = MeanIoU(4, ignore_index=11)
    iou.update(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 11]))
    np.testing.assert_array_equal(iou.per_class(), [0.5, 0.5, np.nan, np.nan])
    assert iou.compute() == 0.5


@pytest.mark.parametrize("metric", [Accuracy(), MeanIoU(3), Perplexity()], ids=["accuracy", "iou", "perplexity"])
@pytest.mark.parametrize("label", [-1, 3])
def test_targets_out_of_range_are_refused(metric, label):
    with pytest.raises(ValueError, match=f"class {label}"):
        metric.update(np.zeros((2, 3)), np.array([0, label]))


def test_scores_in_place_of_class_numbers_are_refused():
    with pytest.raises(ValueError, match="class numbers"):
        F1(2).update(np.array([0.2, 0.9]), np.array([0, 1]))


def test_r2_is_accurate_far_from_zero():
    metric = R2()
    for part in np.split(np.arange(60), 6):
        metric.update(GUESS[part] + 1e8, TRUTH[part] + 1e8)
    expected = 1 - ((GUESS - TRUTH) ** 2).sum() / ((TRUTH - TRUTH.mean()) ** 2).sum()
    assert metric.compute() == pytest.approx(expected, rel=1e-6)


def test_r2_of_a_constant_target():
    met, missed = R2(), R2()
    met.update(np.ones(3), np.ones(3))
    missed.update(np.array([1.0, 1, 2]), np.ones(3))
    assert (met.compute(), missed.compute()) == (1.0, 0.0)


def test_perplexity_of_a_uniform_guess_is_the_number_of_classes():
    metric = Perplexity()
    metric.update(np.full((2, 5, 3), 1000.0), np.array([[0, 1, -100], [4, 3, 2]]))
    assert metric.compute() == pytest.approx(5)
    assert metric.count == 5


def test_perplexity_of_an_impossible_token_is_finite_only_by_its_bound():
    metric = Perplexity()
    metric.update(np.array([[0.0, -1e9]]), np.array([1]))
    assert metric.compute() == math.exp(709.0)


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_confusion_matrix_counts_pairs(pairs):
    guess, truth = map(np.array, zip(*pairs, strict=True))
    metric = ConfusionMatrix(4)
    metric.update(guess, truth)
    for t in range(4):
        for p in range(4):
            assert metric.compute()[t, p] == pairs.count((p, t))


def test_wrong_options_are_refused():
    for make in (lambda: Accuracy(top_k=0), lambda: F1(2, average="mean")):
        with pytest.raises(ValueError):
            make()
    with pytest.raises(ValueError, match="top_k=5"):
        Accuracy(top_k=5).update(SCORES, LABELS)
