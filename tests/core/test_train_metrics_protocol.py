"""What every metric keeps to: any split into batches and runs gives the same, state goes round, bad input is told."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau
from flambeau.errors import FlambeauError
from flambeau.train import metrics as M

N = 24
rng = np.random.default_rng(5)
SCORES, LABELS = np.round(rng.normal(size=(N, 4)), 1), rng.integers(0, 4, N)
PROBABILITIES = rng.dirichlet(np.ones(4), N)
P, ONES = np.round(rng.random(N), 1), rng.integers(0, 2, N)
MULTI, MARKS = np.round(rng.random((N, 3)), 1), rng.integers(0, 2, (N, 3))
TRUTH = np.round(rng.normal(size=N), 1) + 3
GUESS = TRUTH + np.round(rng.normal(size=N), 1)
MASKS = rng.random((2, N, 4, 4)) < 0.4
MASKS[:, :, 0, 0] = True
WORDS = np.array(["the", "cat", "sat", "on", "a", "mat.", "3.5"])
TEXTS = np.array([" ".join(rng.choice(WORDS, rng.integers(1, 8))) for _ in range(N)], object)
REFERENCES = np.array([" ".join(rng.choice(WORDS, rng.integers(1, 8))) for _ in range(N)], object)


def detections(seed):
    gen, out = np.random.default_rng(seed), []
    for _ in range(N):
        n = int(gen.integers(0, 4))
        corner = gen.integers(0, 3, (n, 2)) * 10.0
        boxes = np.concatenate([corner, corner + gen.integers(10, 60, (n, 2))], 1)
        out.append({"boxes": boxes, "labels": gen.integers(0, 2, n), "scores": np.round(gen.random(n), 1)})
    return np.array(out, object)


FOUND, OBJECTS = detections(1), detections(2)

CASES = {
    "mean": (M.Mean, (GUESS, np.abs(TRUTH))),
    "accuracy": (M.Accuracy, (SCORES, LABELS)),
    "weighted accuracy": (lambda: M.Accuracy(), (SCORES, LABELS, P)),
    "multilabel accuracy": (M.MultilabelAccuracy, (MULTI, MARKS)),
    "confusion": (lambda: M.ConfusionMatrix(4), (SCORES, LABELS)),
    "balanced": (lambda: M.BalancedAccuracy(4), (SCORES, LABELS)),
    "matthews": (lambda: M.MatthewsCorrelation(4), (SCORES, LABELS)),
    "kappa": (lambda: M.CohenKappa(4), (SCORES, LABELS)),
    "precision": (lambda: M.Precision(4), (SCORES, LABELS)),
    "recall": (lambda: M.Recall(3, multilabel=True), (MULTI, MARKS)),
    "specificity": (lambda: M.Specificity(4, "none"), (SCORES, LABELS)),
    "fbeta": (lambda: M.FBeta(4, 2.0, "weighted"), (SCORES, LABELS, P)),
    "f1": (lambda: M.F1(4), (SCORES, LABELS)),
    "dice": (lambda: M.Dice(4), (SCORES, LABELS)),
    "iou": (lambda: M.MeanIoU(4), (SCORES, LABELS)),
    "pixels": (lambda: M.PixelAccuracy(4), (SCORES, LABELS)),
    "log loss": (M.LogLoss, (PROBABILITIES, LABELS)),
    "brier": (M.BrierScore, (PROBABILITIES, LABELS)),
    "auroc": (M.AUROC, (P, ONES)),
    "auroc of classes": (lambda: M.AUROC("weighted"), (SCORES, LABELS, P + 0.1)),
    "average precision": (lambda: M.AveragePrecision("micro"), (MULTI, MARKS)),
    "calibration": (lambda: M.CalibrationError(5), (PROBABILITIES, LABELS)),
    "adaptive calibration": (lambda: M.CalibrationError(5, adaptive=True), (P, ONES)),
    "mae": (M.MAE, (GUESS, TRUTH)),
    "mse": (M.MSE, (GUESS, TRUTH)),
    "rmse": (M.RMSE, (GUESS, TRUTH)),
    "mape": (M.MAPE, (GUESS, TRUTH)),
    "r2": (M.R2, (GUESS, TRUTH, P + 0.1)),
    "explained": (M.ExplainedVariance, (GUESS, TRUTH)),
    "pearson": (M.PearsonCorrelation, (GUESS, TRUTH)),
    "spearman": (M.SpearmanCorrelation, (GUESS, TRUTH)),
    "hausdorff": (lambda: M.HausdorffDistance(95), tuple(MASKS)),
    "detection": (M.MeanAveragePrecision, (FOUND, OBJECTS)),
    "perplexity": (M.Perplexity, (SCORES, LABELS)),
    "bleu": (M.BLEU, (TEXTS, REFERENCES)),
    "chrf": (lambda: M.CHRF(word_order=2), (TEXTS, REFERENCES)),
    "wer": (M.WER, (TEXTS, REFERENCES)),
    "cer": (M.CER, (TEXTS, REFERENCES)),
    "rouge": (M.ROUGE, (TEXTS, REFERENCES)),
    "squad": (M.SQuAD, (TEXTS, REFERENCES)),
}
all_cases = pytest.mark.parametrize(("make", "data"), CASES.values(), ids=CASES.keys())
WHOLE = {}


def take(metric, data, part):
    if len(part):
        metric.update(*(values[part] for values in data))


def whole(make, data):
    if make not in WHOLE:
        WHOLE[make] = make()
        WHOLE[make].update(*data)
    return WHOLE[make].compute()


def same(found, expected):
    if isinstance(expected, dict):
        assert found == pytest.approx(expected, rel=1e-10)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_every_metric_is_tried():
    tried = {type(make()).__name__ for make, _ in CASES.values()}
    assert tried == set(M.__all__) - {"Metric"}
    assert set(M.__all__) <= set(flambeau.train.__all__)


@all_cases
@settings(max_examples=8)
@given(cuts=st.lists(st.integers(0, N), min_size=1, max_size=4))
def test_batches_and_merged_runs_give_the_same_as_the_whole(make, data, cuts):
    stream, runs = make(), [make() for _ in range(len(cuts) + 1)]
    for run, part in zip(runs, np.split(np.arange(N), sorted(cuts)), strict=True):
        take(stream, data, part)
        take(run, data, part)
    for run in runs[1:]:
        before = run.state_dict()
        runs[0].merge(run)
        np.testing.assert_equal(run.state_dict(), before)
    same(stream.compute(), whole(make, data))
    same(runs[0].compute(), whole(make, data))


@all_cases
@settings(max_examples=5)
@given(cut=st.integers(0, N))
def test_state_goes_on_where_it_was(make, data, cut):
    first, second = make(), make()
    take(first, data, np.arange(cut))
    state = first.state_dict()
    take(first, data, np.arange(cut, N))
    second.load_state_dict(state)
    take(second, data, np.arange(cut, N))
    np.testing.assert_equal(second.state_dict(), first.state_dict())
    np.testing.assert_equal(second.compute(), first.compute())
    with pytest.raises(ValueError, match="another metric"):
        second.load_state_dict({"what": 1})


@all_cases
def test_nothing_to_compute_from_is_an_error(make, data):
    metric = make()
    with pytest.raises(FlambeauError, match=r"no samples|at least two"):
        metric.compute()
    metric.update(*data)
    metric.reset()
    metric.merge(make())
    with pytest.raises(FlambeauError, match=r"no samples|at least two"):
        metric.compute()
    metric.update(*data)
    np.testing.assert_equal(metric.compute(), whole(make, data))


@all_cases
def test_nan_and_what_does_not_fit_are_refused_and_leave_no_trace(make, data):
    metric = make()
    before = metric.state_dict()
    if data[0].dtype.kind == "f":
        bad = data[0].copy()
        bad.flat[3] = np.nan
        with pytest.raises(FlambeauError, match="contain NaN"):
            metric.update(bad, *data[1:])
    if not isinstance(metric, M.Mean):
        with pytest.raises(ValueError, match=r"shape|fit|scores"):
            metric.update(data[0], data[1][:-1])
    np.testing.assert_equal(metric.state_dict(), before)
    with pytest.raises(ValueError, match="of one kind"):
        metric.merge(M.Accuracy() if not isinstance(metric, M.Accuracy) else M.Mean())


@all_cases
def test_tensors_and_plain_data_give_the_same(make, data):
    if data[0].dtype == object:
        data = [list(x) for x in data]
        metric = make()
        metric.update(*data)
        return same(metric.compute(), whole(make, CASES[next(k for k, v in CASES.items() if v[0] is make)][1]))
    tensors, lists = make(), make()
    tensors.update(*(flambeau.tensor(x) for x in data))
    lists.update(*(x.tolist() for x in data))
    same(tensors.compute(), whole(make, data))
    same(lists.compute(), whole(make, data))


@all_cases
def test_values_are_plain(make, data):
    value = whole(make, data)
    if not isinstance(value, np.ndarray):
        json.dumps(value)
        assert type(value) in (float, dict)


def test_weights_count_samples():
    for make, data in CASES.values():
        if len(data) != 2 or isinstance(make(), M.Mean):
            continue
        once, twice = make(), make()
        try:
            twice.update(*data, np.arange(N) % 3)
        except TypeError:
            continue  # it takes no weights
        once.update(*(np.repeat(x, np.arange(N) % 3, axis=0) for x in data))
        if not getattr(once, "adaptive", False):  # there the edges are of samples, not of weights
            same(twice.compute(), once.compute())
        for bad in (-np.ones(N), np.ones(N - 1), np.full(N, np.inf)):
            with pytest.raises(ValueError, match="weights"):
                make().update(*data, bad)


def test_different_options_are_not_merged():
    with pytest.raises(ValueError, match="average="):
        M.F1(3).merge(M.F1(3, "micro"))
    with pytest.raises(ValueError, match="thresholds="):
        M.MeanAveragePrecision().merge(M.MeanAveragePrecision(iou_thresholds=[0.5]))


def test_a_class_that_is_missing():
    auroc, precision, kappa = M.AUROC(), M.AveragePrecision(), M.CohenKappa(2)
    for metric, data in ((auroc, P), (precision, P), (kappa, np.zeros(N, int))):
        metric.update(data, np.zeros(N, int))
    with pytest.warns(RuntimeWarning, match="all positive or all negative"):
        assert np.isnan(auroc.compute())
    with pytest.warns(RuntimeWarning, match="no positive"):
        assert precision.compute() == 0
    with pytest.warns(RuntimeWarning, match="one class"):
        assert np.isnan(kappa.compute())


def test_constants_have_no_correlation_however_they_are_rounded():
    for metric in (M.PearsonCorrelation(), M.SpearmanCorrelation()):
        for _ in range(3):
            metric.update(np.full(7, 0.1), np.arange(7.0))
        with pytest.warns(RuntimeWarning, match="constant"):
            assert np.isnan(metric.compute())
    metric = M.R2()
    metric.update(np.arange(3.0), np.full(3, 0.1))
    assert metric.compute() == 0


@given(scores=st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2))
def test_auroc_counts_pairs(scores):
    values, positive = np.array([s for s, _ in scores]), np.array([p for _, p in scores])
    metric = M.AUROC()
    metric.update(values, positive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = [(a > b) + (a == b) / 2 for a in values[positive] for b in values[~positive]]
        assert metric.compute() == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)


@given(truth=st.text("abc", max_size=9), guess=st.text("abc", max_size=9))
def test_alignments_add_up_to_the_edit_distance(truth, guess):
    from flambeau.train.metrics.text import align

    hits, substitutions, deletions, insertions = align(truth, guess)
    assert hits + substitutions + deletions == len(truth) and hits + substitutions + insertions == len(guess)
    row = list(range(len(guess) + 1))
    for i, a in enumerate(truth, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(guess, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    assert substitutions + deletions + insertions == row[-1]


def test_squad_by_hand():
    for version, text, answers, expected in (
        (1, "The cat!", ["a cat", "dog"], (100, 100)),
        (1, "big cat", ["cat"], (0, 200 / 3)),
        (1, "", ["the"], (100, 0)),
        (2, "", [], (100, 100)),
        (2, "the", [], (100, 100)),
        (2, "cat", [], (0, 0)),
        (2, "", ["cat"], (0, 0)),
    ):
        metric = M.SQuAD(version)
        metric.update([text], [answers])
        assert tuple(metric.compute().values()) == pytest.approx(expected), (version, text, answers)


def test_image_ids_make_the_order_of_runs_indifferent():
    targets = np.array([{**o, "image_id": k} for k, o in enumerate(OBJECTS)], object)
    order = np.random.default_rng(0).permutation(N)
    one, other = M.MeanAveragePrecision(), M.MeanAveragePrecision()
    one.update(FOUND[order[:9]], targets[order[:9]])
    other.update(FOUND[order[9:]], targets[order[9:]])
    other.merge(one)
    assert other.compute() == whole(*CASES["detection"])
    with pytest.raises(ValueError, match="image_id"):
        other.update(FOUND[:1], OBJECTS[:1])


@pytest.mark.parametrize(
    ("make", "data", "message"),
    [
        (M.LogLoss, ([[0.5, 0.6]], [0]), "sum to one"),
        (M.BrierScore, ([1.5], [0]), r"probabilities in \[0, 1\]"),
        (M.CalibrationError, ([[2.0, 1.0]], [0]), r"probabilities in \[0, 1\]"),
        (M.AUROC, ([0.1], [2]), "class 2"),
        (lambda: M.AUROC("micro"), (SCORES, LABELS), "micro"),
        (M.HausdorffDistance, ([[[1, 0]]], [[[0, 0]]]), "is empty"),
        (M.BLEU, ("a text", "a text"), "list"),
        (M.BLEU, (["a"], [[]]), "no text"),
        (M.WER, (["a"], [["a"]]), "must be a text"),
        (M.ROUGE, ([1], ["a"]), "must be a text"),
        (M.MeanAveragePrecision, ({}, {}), "list of dictionaries"),
        (M.MeanAveragePrecision, ([{"boxes": [], "labels": []}], [{"boxes": [], "labels": []}]), "scores"),
        (
            M.MeanAveragePrecision,
            ([{"boxes": [[5, 5, 1, 1]], "labels": [0], "scores": [1]}], [{"boxes": [], "labels": []}]),
            "negative size",
        ),
        (lambda: M.Precision(3, "binary"), None, "num_classes=2"),
        (lambda: M.ROUGE(["rouge0"]), None, "rouge0"),
        (lambda: M.BLEU(tokenize="zh"), None, "tokenize"),
        (lambda: M.CohenKappa(2, "cubic"), None, "weights"),
        (lambda: M.CalibrationError(0), None, "bins"),
    ],
)
def test_wrong_use_is_told(make, data, message):
    with pytest.raises((ValueError, FlambeauError), match=message):
        make().update(*data)
