"""Figures from paired samples: ratios, their median and quartiles, geometric means, and what counts as worse."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

TOLERANCE = 0.25  # a ratio may grow by this part before `--check` calls it worse: shared machines vary by 10 to 15 %


def geometric_mean(values: Iterable[float]) -> float:
    """exp of the mean of the logarithms; the values must be above 0.

    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    values = list(values)
    if not values:
        raise ValueError("the geometric mean of no values is not defined")
    return math.exp(math.fsum(math.log(v) for v in values) / len(values))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; of one value, that value three times.

    >>> quartiles([4.0, 1.0, 2.0, 3.0, 5.0])
    (2.0, 3.0, 4.0)
    """
    if len(values) == 1:
        return (values[0],) * 3
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def paired_ratios(ours: Sequence[Sequence[float]], peer: Sequence[Sequence[float]]) -> list[float]:
    """One ratio a pair from samples[case][pair]: the geometric mean of ours / peer's over the cases.

    >>> paired_ratios([[1.0, 2.0], [4.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]])
    [2.0, 2.0]
    """
    cases = [[a / b for a, b in zip(x, y, strict=True)] for x, y in zip(ours, peer, strict=True)]
    return [geometric_mean(pair) for pair in zip(*cases, strict=True)]


def worse(now: Mapping[str, float], before: Mapping[str, float], tolerance: float = TOLERANCE) -> dict[str, float]:
    """Workloads whose ratio grew by more than `tolerance`, with the factor; those without an earlier ratio never do.

    >>> worse({"a": 1.3, "b": 1.2, "c": 9.0}, {"a": 1.0, "b": 1.0})
    {'a': 1.3}
    """
    factors = {name: ratio / before[name] for name, ratio in now.items() if name in before}
    return {name: factor for name, factor in factors.items() if factor > 1 + tolerance}
