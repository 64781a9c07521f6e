"""What the readers of Hugging Face Transformers' vision folders share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flambeau import FlambeauError


def class_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The number of classes and their names in a ``config.json``.

    Raises:
        FlambeauError: ``id2label`` is no dict of numbered names.

    >>> class_options({"id2label": {"1": "dog", "0": "cat"}})
    {'num_classes': 2, 'classes': ('cat', 'dog')}
    """
    labels = config.get("id2label") or {}
    try:
        classes = tuple(str(labels[key]) for key in sorted(labels, key=int))
    except (TypeError, ValueError, AttributeError) as error:
        raise FlambeauError("config.json: id2label is no dict of numbered names", "use another copy") from error
    # Transformers leaves out a number of labels that is its default, 2, together with the names.
    return {"num_classes": len(classes) or config.get("num_labels", 2), "classes": classes}


def require(config: Mapping[str, Any], kind: str, **wanted: Any) -> None:
    """Raises `FlambeauError` where an entry that is there has another value than the one that can be loaded."""
    for key, value in wanted.items():
        if (given := config.get(key, value)) != value:
            raise FlambeauError(f"this {kind} has {key} {given!r}", f"models with {key} {value!r} can be loaded")


def renamed(key: str, rules: Sequence[tuple[re.Pattern[str], Any]]) -> str:
    """The name by the first rule whose pattern the whole key matches; the key itself when there is none."""
    for pattern, name in rules:
        if found := pattern.fullmatch(key):
            return name(*found.groups()) if callable(name) else found.expand(name)
    return key
