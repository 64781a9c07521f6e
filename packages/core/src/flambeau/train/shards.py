"""An optimizer's state in several files beside a checkpoint, one written by each process.

A checkpoint names its shards, which are never changed: it is whole as soon as it is there, since they were before it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ..errors import FlambeauError

__all__ = ["join", "remove_unused", "shard_name", "write"]

_NAME = re.compile(r"optimizer-\d+-\d+-of-\d+\.safetensors")


def shard_name(step: int, rank: int, size: int) -> str:
    """The file of a rank's shard."""
    return f"optimizer-{step}-{rank + 1}-of-{size}.safetensors"


def write(folder: Path, name: str, state: dict[int, Any]) -> None:
    """Writes one shard: position of a parameter -> its state."""
    from .checkpoint import write_checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / name, {"state": state})


def join(folder: Path, state: Any) -> Any:
    """The state of a checkpoint with the optimizer's shards, whatever the number of processes that wrote them.

    Raises:
        FlambeauError: a shard is missing or damaged.
    """
    from .checkpoint import read_checkpoint

    optimizer = state.get("optimizer") if isinstance(state, dict) else None
    if not isinstance(optimizer, dict) or "shards" not in optimizer:
        return state
    merged: dict[int, Any] = {}
    for name in optimizer["shards"]:
        if not _NAME.fullmatch(name):
            raise FlambeauError(f"the checkpoint names a shard {name!r}", "use another checkpoint")
        merged.update(read_checkpoint(folder / name)["state"])
    whole = {"state": dict(sorted(merged.items())), "param_groups": optimizer["param_groups"]}
    return {**state, "optimizer": whole}


def remove_unused(folder: Path, checkpoints: list[Path]) -> None:
    """Deletes the shards that none of the checkpoints names."""
    from ..io.safetensors import safe_open

    used: set[str] = set()
    for path in checkpoints:
        if path.exists():
            used.update(name for text in safe_open(path).metadata.values() for name in _NAME.findall(text))
    for entry in os.listdir(folder):
        if _NAME.fullmatch(entry) and entry not in used:
            (folder / entry).unlink(missing_ok=True)
