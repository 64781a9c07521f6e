"""Random bits by position: the same for a seed whoever computes them, in whichever order and with whichever threads.

A counter-based generator in the manner of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3"), with the
32-bit mixing function of Mulvey and Wellons ("lowbias32") twice, keyed by seed and row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ROW", "bits", "keeps", "threshold"]

ROW = 1 << 13  # numbers of a row where the shape does not say

_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B


def _mix(x: Any) -> Any:
    """A bijection of 32-bit numbers in which every bit depends on every bit; works in place."""
    x ^= x >> np.uint32(16)
    x *= np.uint32(_FIRST)
    x ^= x >> np.uint32(15)
    x *= np.uint32(_SECOND)
    x ^= x >> np.uint32(16)
    return x


def bits(xp: Any, seed: int, rows: int, columns: int) -> Any:
    """Random uint32 numbers, (rows, columns); a number depends on the seed (64 bits), its row and its column."""
    low, high = np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32 & 0xFFFFFFFF)
    row = xp.arange(rows, dtype=np.uint32)
    first = _mix(_mix(row ^ low) + high)
    second = _mix(first ^ high)
    out = xp.arange(columns, dtype=np.uint32) ^ first[:, None]
    out = _mix(out)
    out += second[:, None]
    return _mix(out)


def threshold(p: float) -> int:
    """Numbers of `bits` below this one occur with probability p (0 <= p < 1)."""
    return min(round(p * 2.0**32), 2**32 - 1)


def keeps(xp: Any, seed: int, rows: int, columns: int, p: float) -> Any:
    """True with probability 1 - p, (rows, columns)."""
    return bits(xp, seed, rows, columns) >= np.uint32(threshold(p))
