"""Nested containers of tensors (dicts, lists, tuples, named tuples): taken apart into leaves and put together again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple


class Structure(NamedTuple):
    """The shape of a container: its class, its keys (dicts) and the structures of its children; class None: a leaf."""

    kind: Any
    keys: tuple | None
    children: tuple


LEAF = Structure(None, None, ())


def _children(value: Any) -> tuple[tuple | None, list] | None:
    """(keys, children) of a container, None for a leaf."""
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        return tuple(value), list(value.values())
    if type(value) in (list, tuple) or (isinstance(value, tuple) and hasattr(value, "_fields")):
        return None, list(value)
    return None


def flatten(value: Any) -> tuple[list, Structure]:
    """The leaves in order and the structure to put them together again."""
    parts = _children(value)
    if parts is None:
        return [value], LEAF
    leaves: list = []
    children = []
    for child in parts[1]:
        own, structure = flatten(child)
        leaves += own
        children.append(structure)
    return leaves, Structure(type(value), parts[0], tuple(children))


def unflatten(leaves: Any, structure: Structure) -> Any:
    """The container with the given leaves."""
    supply = iter(leaves)

    def build(s: Structure) -> Any:
        if s.kind is None:
            return next(supply)
        items = [build(c) for c in s.children]
        if s.keys is not None:
            return s.kind(zip(s.keys, items, strict=True))
        return s.kind(*items) if hasattr(s.kind, "_fields") else s.kind(items)

    return build(structure)


def map_leaves(function: Callable, value: Any) -> Any:
    """The same container with `function` applied to every leaf."""
    leaves, structure = flatten(value)
    return unflatten([function(leaf) for leaf in leaves], structure)


def broadcast(value: Any, structure: Structure) -> list | None:
    """`value` spread over the leaves of `structure`: a leaf stands for everything below; None if they do not match."""
    parts = _children(value)
    if structure.kind is None:
        return [value] if parts is None else None
    if parts is None:
        return [value] * _count(structure)
    keys, children = parts
    alike = type(value) is structure.kind or {type(value), structure.kind} <= {list, tuple}
    if not alike or keys != structure.keys or len(children) != len(structure.children):
        return None
    spread: list = []
    for child, below in zip(children, structure.children, strict=True):
        part = broadcast(child, below)
        if part is None:
            return None
        spread += part
    return spread


def _count(structure: Structure) -> int:
    return 1 if structure.kind is None else sum(_count(c) for c in structure.children)
