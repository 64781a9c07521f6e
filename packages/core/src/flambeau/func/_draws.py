"""Randomness under `vmap`: the generator that is the default one while a function runs batched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import random
from ..random import Generator
from ..tensor import Tensor

_REFUSED = (
    "vmap: a random operation was called with randomness='error'; say with randomness='different' that each sample "
    "draws numbers of its own, or with randomness='same' that all get the same ones"
)


class Draws(np.ndarray):
    """Random numbers of a whole batch (dimension 0) that show the shape of one sample's.

    Element by element it is an array as any other; what is made of it is one too.
    """

    level: int = 0

    def __array_finalize__(self, source: Any) -> None:
        self.level = getattr(source, "level", 0)

    @property
    def shape(self) -> tuple:
        return self.view(np.ndarray).shape[1:]

    @property
    def ndim(self) -> int:
        return self.view(np.ndarray).ndim - 1

    @property
    def size(self) -> int:
        return self.view(np.ndarray)[:1].size

    def item(self, *args: Any) -> Any:
        raise RuntimeError("vmap: .item() was called on random numbers, which differ between the samples")

    tolist = item


def draws_of(array: Draws) -> Tensor:
    """The numbers of the whole batch."""
    return Tensor._wrap(array.view(np.ndarray))


class _Refusing(Generator):
    def uniform(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(_REFUSED)

    normal = integers = keeps = permutation = uniform


class _Different(Generator):
    """Draws for every sample of the batch what the function asks for once."""

    def __init__(self, source: Generator, level: int, batch: int):
        self.device, self.numpy, self._seed = source.device, source.numpy, source._seed
        self._source, self._level, self._batch = source, level, batch

    def _marked(self, values: Any) -> Any:
        if isinstance(values, Draws):
            raise NotImplementedError("vmap: randomness='different' in two nested vmaps is not supported")
        out = values.view(Draws)
        out.level = self._level
        return out

    def uniform(self, low: float, high: float, shape: Any, dtype: Any = np.float32) -> Any:
        return self._marked(self._source.uniform(low, high, (self._batch, *_tuple(shape)), dtype))

    def normal(self, mean: float, std: float, shape: Any, dtype: Any = np.float32) -> Any:
        return self._marked(self._source.normal(mean, std, (self._batch, *_tuple(shape)), dtype))

    def integers(self, low: int, high: int, shape: Any, dtype: Any = np.int64) -> Any:
        return self._marked(self._source.integers(low, high, (self._batch, *_tuple(shape)), dtype))

    def keeps(self, p: float, shape: Any) -> Any:
        return self._marked(self._source.keeps(p, (self._batch, *_tuple(shape))))

    def permutation(self, n: int) -> Any:
        return self._marked(np.stack([self._source.permutation(n) for _ in range(self._batch)]))


def _tuple(shape: Any) -> tuple:
    return (shape,) if isinstance(shape, int) else tuple(shape)


@contextlib.contextmanager
def drawing(randomness: str, level: int, size: int) -> Iterator[None]:
    """Sets the default generator of this thread as `randomness` asks."""
    source = random.default_generator()
    if randomness == "same":
        yield
        return
    made = _Refusing() if randomness == "error" else _Different(source, level, size)
    previous = random.override(made)
    try:
        yield
    finally:
        random.override(previous)
