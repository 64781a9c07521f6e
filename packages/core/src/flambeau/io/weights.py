"""Model weights with a passport: the file says which model it belongs to, its configuration and its plugin."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import CheckpointError
from .safetensors import safe_open, save_file

__all__ = ["ModelCard", "load_model_state", "read_model_card", "save_model_state"]

_ID, _CONFIG, _PLUGIN, _VERSION, _NOTES = (
    "flambeau.model", "flambeau.config", "flambeau.plugin", "flambeau.version", "flambeau.notes",
)  # fmt: skip


@dataclass(frozen=True)
class ModelCard:
    """What a weights file says of itself.

    Attributes:
        model: canonical id (``namespace/name``).
        config: keyword arguments that build the model.
        plugin: the distribution that provides the model, for the install hint.
        version: of Flambeau, when written.
        notes: further plain data (classes, normalisation, metrics).
    """

    model: str
    config: dict[str, Any] = field(default_factory=dict)
    plugin: str = ""
    version: str = ""
    notes: dict[str, Any] = field(default_factory=dict)


def save_model_state(
    state: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    model: str,
    config: Mapping[str, Any] | None = None,
    plugin: str = "",
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Writes a state dict with its `ModelCard` to a safetensors file that PyTorch reads, atomically."""
    save_file(state, path, card_metadata(model, config, plugin, notes))


def card_metadata(
    model: str, config: Mapping[str, Any] | None = None, plugin: str = "", notes: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """The metadata of a safetensors file that hold a `ModelCard`."""
    return {
        _ID: model,
        _CONFIG: json.dumps(dict(config or {})),
        _PLUGIN: plugin,
        _VERSION: _version(),
        _NOTES: json.dumps(dict(notes or {})),
        "format": "pt",  # other readers insist on it
    }


def read_model_card(path: str | os.PathLike[str]) -> ModelCard | None:
    """The card of a weights file; None when it has none (a file from elsewhere). Reads the header only.

    Raises:
        FlambeauError: the file is not safetensors, or its card is damaged.
    """
    return _card(safe_open(path).metadata, os.fspath(path))


def load_model_state(path: str | os.PathLike[str]) -> tuple[dict[str, Any], ModelCard | None]:
    """The state dict of a weights file and its card."""
    file = safe_open(path)
    card = _card(file.metadata, os.fspath(path))
    return {key: file.get_tensor(key) for key in file.entries}, card


def _card(metadata: Mapping[str, str], name: str) -> ModelCard | None:
    if _ID not in metadata:
        return None
    try:
        config = json.loads(metadata.get(_CONFIG, "{}"))
        notes = json.loads(metadata.get(_NOTES, "{}"))
        if not isinstance(config, dict) or not isinstance(notes, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is damaged: its model card is not JSON", "download the file again") from error
    return ModelCard(metadata[_ID], config, metadata.get(_PLUGIN, ""), metadata.get(_VERSION, ""), notes)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flambeau-core")
    except PackageNotFoundError:
        return ""
