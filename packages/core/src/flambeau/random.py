"""Seeded randomness: every draw comes from a `Generator`, PCG64DXSM underneath."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np


class Generator:
    """A stream of random numbers. The same seed gives the same numbers on every machine.

    >>> float(Generator().manual_seed(1).uniform(0, 1, ())) == float(Generator().manual_seed(1).uniform(0, 1, ()))
    True
    """

    def __init__(self, device: Any = "cpu"):
        self.device = device
        self.manual_seed(0)

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream anew from `seed`."""
        self._seed = int(seed) % 2**64
        self.numpy = np.random.Generator(np.random.PCG64DXSM(self._seed))
        return self

    def seed(self) -> int:
        """Starts anew from entropy of the operating system; returns the seed."""
        self.manual_seed(int(np.random.SeedSequence().generate_state(1, np.uint64)[0]))
        return self._seed

    def initial_seed(self) -> int:
        """The seed last set."""
        return self._seed

    def get_state(self) -> dict:
        """The position in the stream, as plain data (JSON-serialisable)."""
        return {"seed": self._seed, "state": self.numpy.bit_generator.state}

    def set_state(self, state: dict) -> None:
        """Continues from a position that `get_state` gave."""
        self._seed = state["seed"]
        self.numpy.bit_generator.state = state["state"]

    def uniform(self, low: float, high: float, shape: Any, dtype: Any = np.float32) -> np.ndarray:
        """Uniform numbers in [low, high)."""
        draw = np.float64 if np.dtype(dtype) == np.float64 else np.float32
        values = self.numpy.random(shape, draw)
        return np.asarray(values * draw(high - low) + draw(low)).astype(dtype, copy=False)

    def normal(self, mean: float, std: float, shape: Any, dtype: Any = np.float32) -> np.ndarray:
        """Normally distributed numbers."""
        draw = np.float64 if np.dtype(dtype) == np.float64 else np.float32
        values = self.numpy.standard_normal(shape, draw)
        return np.asarray(values * draw(std) + draw(mean)).astype(dtype, copy=False)

    def integers(self, low: int, high: int, shape: Any, dtype: Any = np.int64) -> np.ndarray:
        """Integers in [low, high)."""
        return np.asarray(self.numpy.integers(low, high, shape, dtype))

    def keeps(self, p: float, shape: tuple) -> np.ndarray:
        """True with probability 1 - p. Of a large array only the seed is drawn, its bits follow from that."""
        from .ops import _counter

        size = math.prod(shape)
        if size < _counter.ROW:
            return self.uniform(0, 1, shape, np.float32) >= p
        seed = int(self.integers(0, 2**63, ()))
        return _counter.keeps(np, seed, -(-size // _counter.ROW), _counter.ROW, p).reshape(-1)[:size].reshape(shape)

    def permutation(self, n: int) -> np.ndarray:
        """0 … n - 1 in random order."""
        return self.numpy.permutation(n)


_default = Generator()


class _Override(threading.local):
    generator: Generator | None = None


_override = _Override()


def override(generator: Generator | None) -> Generator | None:
    """Draws come from `generator` in this thread from now on (None: from the default one); returns the previous."""
    previous, _override.generator = _override.generator, generator
    return previous


def default_generator() -> Generator:
    """The generator that is used when none is given."""
    return _override.generator or _default


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator."""
    return _default.manual_seed(seed)


def seed() -> int:
    """Seeds the default generator from entropy; returns the seed."""
    return _default.seed()


def initial_seed() -> int:
    """The default generator's seed."""
    return _default.initial_seed()


def get_rng_state() -> dict:
    """The default generator's position."""
    return _default.get_state()


def set_rng_state(state: dict) -> None:
    """Sets the default generator's position."""
    _default.set_state(state)
