"""Padding layers: ``padding`` is a number or before/after pairs, last dimension first."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from . import functional as F
from .conv import as_tuple
from .module import Module


class _Pad(Module):
    rank: int
    mode: str

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__()
        self.padding = as_tuple(padding, 2 * self.rank)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ReflectionPad1d(_Pad):
    """Mirror the border, without repeating the edge."""

    rank, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """Mirror the border, without repeating the edge."""

    rank, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """Mirror the border, without repeating the edge."""

    rank, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """Repeat the edge."""

    rank, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """Repeat the edge."""

    rank, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """Repeat the edge."""

    rank, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """Wrap around."""

    rank, mode = 1, "circular"


class CircularPad2d(_Pad):
    """Wrap around."""

    rank, mode = 2, "circular"


class CircularPad3d(_Pad):
    """Wrap around."""

    rank, mode = 3, "circular"


class _ZeroPad(_Pad):
    mode = "constant"


class ZeroPad1d(_ZeroPad):
    """Add zeros."""

    rank = 1


class ZeroPad2d(_ZeroPad):
    """Add zeros."""

    rank = 2


class ZeroPad3d(_ZeroPad):
    """Add zeros."""

    rank = 3


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: int | tuple[int, ...], value: Any) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Add ``value``."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """Add ``value``."""

    rank = 2


class ConstantPad3d(_ConstantPad):
    """Add ``value``."""

    rank = 3
