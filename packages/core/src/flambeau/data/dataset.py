"""Datasets: something indexed (`Dataset`) or something read in order (`IterableDataset`)."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from .seeding import draw_seed

__all__ = [
    "ChainDataset",
    "ConcatDataset",
    "Dataset",
    "IterableDataset",
    "StackDataset",
    "Subset",
    "TensorDataset",
    "random_split",
]

T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """Samples by index: subclasses define ``__getitem__`` and, for most samplers, ``__len__``.

    A ``__getitems__(indices)`` that returns a list of samples is used when defined. Random augmentation belongs on
    :func:`sample_rng`, so that a sample is the same whatever the number of workers.
    """

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(self, index)")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """Samples in order: subclasses define ``__iter__``. With several workers each iterates a copy of its own: split the
    work in ``__iter__`` with :func:`get_worker_info`.
    """

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__(self)")

    def __add__(self, other: Dataset[Any]) -> ChainDataset:  # type: ignore[override]
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Any, ...]]):
    """Samples are tuples of the i-th slices of tensors (or arrays) of equal first size.

    >>> import numpy as np
    >>> TensorDataset(np.arange(6).reshape(3, 2), np.arange(3))[1]
    (array([2, 3]), np.int64(1))
    """

    def __init__(self, *tensors: Any) -> None:
        sizes = [len(tensor) for tensor in tensors]
        if not tensors or len(set(sizes)) != 1:
            raise ValueError(f"TensorDataset: the tensors must have the same first size, not {sizes}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class Subset(Dataset[T]):
    """The samples of `dataset` at `indices`."""

    def __init__(self, dataset: Dataset[T], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    @property
    def __getitems__(self) -> Callable[[list[int]], list[T]]:
        """There is one when the dataset has one."""
        several = self.dataset.__getitems__  # type: ignore[attr-defined]
        return lambda indices: several([self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


class StackDataset(Dataset[Any]):
    """Samples are tuples of the i-th samples of several datasets, or dicts when the datasets are given by name.

    >>> import numpy as np
    >>> StackDataset(image=["a", "b"], label=[0, 1])[1]
    {'image': 'b', 'label': 1}
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            raise ValueError(
                "StackDataset takes datasets by position (samples are tuples) or by name (dicts), not both"
            )
        if not args and not kwargs:
            raise ValueError("StackDataset: at least one dataset should be passed")
        self.datasets: Any = kwargs or args
        sizes = {len(dataset) for dataset in (kwargs.values() or args)}
        if len(sizes) > 1:
            raise ValueError(f"StackDataset: size mismatch between datasets: {sorted(sizes)}")
        (self._length,) = sizes

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __len__(self) -> int:
        return self._length


class ChainDataset(IterableDataset[Any]):
    """Iterable datasets one after the other."""

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        super().__init__()
        self.datasets = datasets

    def __iter__(self) -> Iterator[Any]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise TypeError("ChainDataset takes IterableDatasets; concatenate the others with ConcatDataset")
            yield from dataset

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)  # type: ignore[arg-type,misc]


class ConcatDataset(Dataset[Any]):
    """Datasets one after the other."""

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset: there must be at least one dataset")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise TypeError("ConcatDataset: an IterableDataset cannot be indexed")
        self.cumulative_sizes = list(itertools.accumulate(len(dataset) for dataset in self.datasets))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"ConcatDataset: index {index} is out of range for {len(self)} samples")
        index %= len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]


def random_split(dataset: Dataset[T], lengths: Sequence[float], generator: Any = None) -> list[Subset[T]]:
    """Splits a dataset at random into subsets of given lengths, or of fractions that sum to 1.

    What fractions leave over goes one by one to the first subsets, as in PyTorch.

    Raises:
        ValueError: the lengths do not sum to the length of the dataset.

    >>> import numpy as np
    >>> [len(part) for part in random_split(TensorDataset(np.zeros(10)), [0.7, 0.3])]
    [7, 3]
    """
    total = len(dataset)  # type: ignore[arg-type]
    sizes: list[Any] = list(lengths)
    if math.isclose(sum(sizes), 1) and sum(sizes) <= 1 + 1e-9 and not all(isinstance(size, int) for size in sizes):
        if any(not 0 <= size <= 1 for size in sizes):
            raise ValueError(f"random_split: fractions must lie between 0 and 1, not {sizes}")
        sizes = [math.floor(total * size) for size in sizes]
        for i in range(total - sum(sizes)):
            sizes[i % len(sizes)] += 1
    if sum(sizes) != total:
        raise ValueError(f"random_split: the lengths sum to {sum(sizes)}, the dataset has {total} samples")
    order = np.random.default_rng(draw_seed(generator)).permutation(total).tolist()
    stops = list(itertools.accumulate(int(size) for size in sizes))
    return [Subset(dataset, order[stop - int(size) : stop]) for size, stop in zip(sizes, stops, strict=True)]
