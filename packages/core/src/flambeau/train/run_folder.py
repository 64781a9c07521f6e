"""The folder of a supervised run: its ``config.json``, and what a resumed run must share with the one before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FlambeauError, UsageError
from ..io.atomic import atomic_write, remove_leftovers
from ..options import to_plain
from .checkpoint import CheckpointFolder

if TYPE_CHECKING:
    from .supervised import Options

__all__ = ["binding", "prepare"]

_WRITTEN = ("config.json", "history.jsonl", "history.csv", "curve.png", "report.html", "model.safetensors")


def prepare(
    folder: Path, model_id: str, options: Options, config: Mapping[str, Any] | None, plugin: str, resume: bool
) -> Path:
    """The run folder with its config.json; a run is neither overwritten nor resumed with other options."""
    checkpoints = CheckpointFolder(folder / "checkpoints")
    exists = checkpoints.exists()
    if exists and not resume:
        raise UsageError(f"{folder} already holds a run", "resume it, or choose another output folder")
    if resume and not exists and not (folder / "config.json").exists():
        raise UsageError(f"{folder} holds no run to resume", "start it without resume, or check the path")
    plain = {"model": model_id, "config": to_plain(dict(config or {})), "plugin": plugin, "options": to_plain(options)}
    if resume:
        _check_same(folder / "config.json", plain["options"])
    with checkpoints.lock():  # a run that is at work here keeps its config.json and its temporary files
        remove_leftovers(folder, _WRITTEN)
        with atomic_write(folder / "config.json", "w") as file:
            json.dump(plain, file, indent=2)
            file.write("\n")
    return folder


# These do not change what a run computes.
_FREE = {"workers", "device", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "tensorboard"}


def binding(options: Options) -> dict[str, Any]:
    """The options that a resumed run must share."""
    return {name: value for name, value in to_plain(options).items() if name not in _FREE}


def _check_same(path: Path, options: dict[str, Any]) -> None:
    try:
        saved = json.loads(path.read_text("utf-8"))["options"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FlambeauError(f"{path} cannot be read: {error}", "start the run again in another folder") from error
    for name in options.keys() - _FREE:
        if to_plain(options[name]) != saved.get(name, options[name]):
            cause = f"option {name} is {options[name]!r}, the run in {path.parent} was started with {saved[name]!r}"
            raise UsageError(cause, f"resume with {name}={saved[name]}, or start a new run in another folder")
