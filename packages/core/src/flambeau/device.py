"""Devices: ``cpu`` (NumPy) and ``cuda:n`` (CuPy)."""

from __future__ import annotations

from typing import Any


class device:  # PyTorch's name
    """Where an array lives: ``device("cpu")``, ``device("cuda", 1)``, ``device("cuda:1")``.

    >>> device("cuda:1").index
    1
    """

    __slots__ = ("index", "type")

    def __init__(self, type: Any, index: int | None = None):
        if isinstance(type, device):
            type, index = type.type, type.index if index is None else index
        elif isinstance(type, int):
            type, index = "cuda", type
        elif ":" in type:
            type, _, number = type.partition(":")
            if not number.isdigit():
                raise ValueError(f"device index {number!r} is not a number; write for example 'cuda:0'")
            index = int(number)
        if type not in ("cpu", "cuda"):
            raise ValueError(f"device {type!r} is not known; the devices are 'cpu' and 'cuda'")
        self.type = type
        self.index = index

    def __repr__(self) -> str:
        return f"device(type='{self.type}'" + (f", index={self.index})" if self.index is not None else ")")

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))


CPU = device("cpu")
