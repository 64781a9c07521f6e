"""What all metrics share: the protocol, the checks of what comes in, averages over classes, and the plain mean."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from ...errors import FlambeauError

__all__ = ["Mean", "Metric"]


class Metric:
    """Base class; a metric's whole state is the attributes that ``reset`` sets, listed in ``_fields``.

    All other attributes are its options: they must be equal where two metrics are merged. Numbers, arrays and lists of
    arrays may be state.
    """

    _fields: tuple[str, ...] = ()
    higher_is_better = True

    def reset(self) -> None:
        """Forgets all samples."""
        raise NotImplementedError

    def update(self, *args: Any) -> None:
        """Takes a batch."""
        raise NotImplementedError

    def compute(self) -> Any:
        """The value over all samples since the last reset."""
        raise NotImplementedError

    def merge(self, other: Self) -> None:
        """Takes the samples of another metric of the same kind and options in, as of a run on other data.

        >>> left, right = Mean(), Mean()
        >>> left.update(1.0)
        >>> right.update(4.0, 2)
        >>> left.merge(right)
        >>> left.compute()
        3.0
        """
        self._check_alike(other)
        for name in self._fields:
            # A list grows by the other's arrays, which are never changed in place; numbers and arrays are added.
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def state_dict(self) -> dict[str, Any]:
        """The counts, as plain data and arrays."""
        return {name: _copy(getattr(self, name)) for name in self._fields}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes saved counts over."""
        if set(state) != set(self._fields):
            cause = f"{type(self).__name__}: the state has {sorted(state)}, not {sorted(self._fields)}"
            raise ValueError(f"{cause}; was it saved by another metric?")
        for name in self._fields:
            setattr(self, name, _copy(state[name]))

    def _check_alike(self, other: Metric) -> None:
        name = type(self).__name__
        if type(other) is not type(self):
            raise ValueError(f"{name}: cannot merge a {type(other).__name__}; both must be of one kind")
        for key, value in vars(self).items():
            if key not in self._fields and not np.array_equal(value, getattr(other, key)):
                cause = f"{name}: cannot merge metrics with {key}={value!r} and {key}={getattr(other, key)!r}"
                raise ValueError(f"{cause}; make both with the same options")

    def _array(self, value: Any, what: str) -> np.ndarray:
        array = value.detach().cpu().array if hasattr(value, "detach") else np.asarray(value)
        if array.dtype.kind not in "biuf":
            try:
                array = array.astype(np.float32)  # bfloat16 and other types that NumPy does not know
            except (TypeError, ValueError):
                raise ValueError(f"{type(self).__name__}: the {what} must be numbers, not {array.dtype}") from None
        if array.dtype.kind == "f" and np.isnan(array).any():
            name = type(self).__name__
            raise FlambeauError(
                f"{name}: the {what} contain NaN", "look for what makes it: flambeau.autograd.detect_anomaly()"
            )
        return array

    def _weight(self, weight: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Weights of the samples, one for each sample or for each target, in the shape of the targets."""
        weights = self._array(weight, "weights").astype(np.float64)
        name = type(self).__name__
        if weights.ndim < len(shape) and weights.shape == shape[: weights.ndim]:
            weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
        elif weights.shape != shape:
            raise ValueError(f"{name}: weights of shape {weights.shape} do not fit targets of shape {shape}")
        if (weights < 0).any() or not np.isfinite(weights).all():
            raise ValueError(f"{name}: the weights must be finite and not negative")
        return np.broadcast_to(weights, shape)

    def _need(self, count: Any) -> None:
        if not count:
            raise FlambeauError(
                f"{type(self).__name__}: there are no samples to compute it from", "is the dataset empty?"
            )


class Mean(Metric):
    """Weighted mean of numbers, such as a loss: ``update(value, weight)``.

    >>> mean = Mean()
    >>> mean.update(1.0, 3)
    >>> mean.update(5.0)
    >>> mean.compute()
    2.0
    """

    _fields = ("total", "weight")
    higher_is_better = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total, self.weight = 0.0, 0.0

    def update(self, value: Any, weight: Any = 1.0) -> None:
        values = self._array(value, "values").astype(np.float64)
        weights = np.broadcast_to(self._array(weight, "weights").astype(np.float64), values.shape)
        self.total += float((values * weights).sum())
        self.weight += float(weights.sum())

    def compute(self) -> float:
        self._need(self.weight)
        return self.total / self.weight


def class_last(scores: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    """Scores (N, C, ...) as (N, ..., C)."""
    if scores.ndim != labels.ndim + 1 or scores.shape[:1] + scores.shape[2:] != labels.shape:
        raise ValueError(f"{name}: scores of shape {scores.shape} do not fit targets of shape {labels.shape}")
    return np.moveaxis(scores, 1, -1)


def as_labels(guess: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    """Predictions that are class numbers already."""
    check_shape(guess, labels, name)
    if guess.dtype.kind == "f":
        raise ValueError(
            f"{name}: predictions of shape {guess.shape} must be class numbers; scores have one dimension more"
        )
    return guess


def check_shape(guess: np.ndarray, truth: np.ndarray, name: str) -> None:
    """Predictions and targets must have one shape."""
    if guess.shape != truth.shape:
        raise ValueError(f"{name}: predictions of shape {guess.shape} do not fit targets of shape {truth.shape}")


def check_range(labels: np.ndarray, classes: int, what: str, name: str) -> None:
    """Class numbers must be whole and within the classes."""
    if labels.dtype.kind == "f":
        raise ValueError(f"{name}: the {what} must be class numbers, not {labels.dtype}")
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        wrong = int(labels.min() if labels.min() < 0 else labels.max())
        raise ValueError(
            f"{name}: the {what} contain class {wrong}, but there are {classes} classes; set ignore_index?"
        )


def check_probabilities(values: np.ndarray, name: str) -> None:
    """Probabilities lie in [0, 1]; in the last dimension of two or more they sum to one."""
    if values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError(f"{name}: predictions must be probabilities in [0, 1]; apply softmax or sigmoid")


def check_sums(values: np.ndarray, name: str) -> None:
    """Probabilities of all classes sum to one, within the rounding of their type."""
    tolerance = max(1e-3, float(np.sqrt(np.finfo(values.dtype).eps)))
    if values.size and np.abs(values.sum(-1, dtype=np.float64) - 1).max() > tolerance:
        raise ValueError(f"{name}: the probabilities of a sample must sum to one; apply softmax")


def check_choice(value: Any, choices: Sequence[Any], what: str, name: str) -> None:
    """One of several options."""
    if value not in choices:
        listed = ", ".join(map(str, choices[:-1])) + f" or {choices[-1]}"
        raise ValueError(f"{name}: {what} must be {listed}, not {value!r}")


def ratio(over: Any, under: Any, otherwise: float = np.nan) -> np.ndarray:
    """Division, with `otherwise` where the divisor is zero."""
    over, under = np.asarray(over, np.float64), np.asarray(under, np.float64)
    return np.divide(over, under, out=np.full(np.broadcast_shapes(over.shape, under.shape), otherwise), where=under > 0)


def undefined(name: str, why: str, value: str = "nan") -> None:
    """Warns that a value does not exist for these samples."""
    warnings.warn(f"{name}: {why}; the value is {value}", RuntimeWarning, stacklevel=3)


def texts(predictions: Any, targets: Any, name: str) -> tuple[list[Any], list[Any]]:
    """Two lists of one length."""
    if isinstance(predictions, str) or isinstance(targets, str):
        raise ValueError(f"{name}: it takes lists of texts, not one text; put it in a list")
    ours, theirs = list(predictions), list(targets)
    if len(ours) != len(theirs):
        raise ValueError(f"{name}: {len(ours)} predictions do not fit {len(theirs)} targets")
    for text in ours:
        if not isinstance(text, str):
            raise ValueError(f"{name}: a prediction must be a text, not {type(text).__name__}")
    return ours, theirs


def references(targets: list[Any], name: str, empty: bool = False) -> list[list[str]]:
    """The references of each text: one text, or a list of them (never empty, unless `empty`)."""
    found = [[target] if isinstance(target, str) else list(target) for target in targets]
    for several in found:
        if not all(isinstance(text, str) for text in several):
            raise ValueError(f"{name}: a target must be a text or a list of texts")
        if not several and not empty:
            raise ValueError(f"{name}: a target has no text; leave the sample out")
    return found


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return np.copy(value) if isinstance(value, np.ndarray) else value
