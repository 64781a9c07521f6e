"""Checkpoints of a run: one safetensors file each, atomic, checksummed, with everything that an exact resume needs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FlambeauError
from ..io.atomic import atomic_write
from ..io.safetensors import safe_open, to_array, write
from ..io.tree import flatten, unflatten
from .shards import join

__all__ = ["CheckpointFolder", "capture_rng", "read_checkpoint", "restore_rng", "seed_everything", "write_checkpoint"]

_TREE, _CHECKSUM = "flambeau.tree", "flambeau.sha256"


def write_checkpoint(path: str | os.PathLike[str], state: Any) -> None:
    """Writes nested plain data (dict, list, numbers, arrays, Tensors) to one file, atomically, with a SHA-256 checksum.

    Raises:
        FlambeauError: the file cannot be written; an older file of that name stays.
    """
    tensors, text = flatten(state)
    arrays = {key: to_array(value, key) for key, value in tensors.items()}
    with atomic_write(path) as file:
        write(file, arrays, {_TREE: text, _CHECKSUM: _digest(arrays, text)})


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Reads what `write_checkpoint` wrote.

    Raises:
        FlambeauError: the file is missing, cut, or does not match its checksum.
    """
    name = os.fspath(path)
    file = safe_open(path, mapped=False)
    if _TREE not in file.metadata or _CHECKSUM not in file.metadata:
        raise FlambeauError(f"{name} is not a checkpoint of a run", "give a file from the run's checkpoints folder")
    arrays, text = file.arrays(), file.metadata[_TREE]
    if _digest(arrays, text) != file.metadata[_CHECKSUM]:
        raise FlambeauError(f"{name} is damaged: its checksum does not match", "use another checkpoint")
    return unflatten(arrays, text, name)


def _digest(arrays: dict[str, np.ndarray], text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8"))
    for key in sorted(arrays):
        array = arrays[key]
        digest.update(f"{key}|{array.dtype}|{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class CheckpointFolder:
    """The checkpoints of a run: ``last``, ``previous`` (the one before) and ``best``.

    Args:
        path: the folder; it is created with the first checkpoint.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.last = self.path / "last.safetensors"
        self.previous = self.path / "previous.safetensors"
        self.best = self.path / "best.safetensors"

    def exists(self) -> bool:
        """Whether there is something to resume from."""
        return self.last.exists() or self.previous.exists()

    def save(self, state: Any, best: bool = False) -> None:
        """Writes `state` as the newest checkpoint; the newest so far becomes ``previous``. As ``best`` too if asked."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlambeauError(
                f"cannot create {self.path}: {error.strerror}", "choose another output folder"
            ) from error
        fresh = self.path / "new.safetensors"
        write_checkpoint(fresh, state)
        # At every moment one of last and previous is whole: a crash between the two renames leaves previous.
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.last, self.previous)
        os.replace(fresh, self.last)
        if best:
            self._copy_to_best()

    def _copy_to_best(self) -> None:
        temporary = self.path / "best.new"
        temporary.unlink(missing_ok=True)
        try:
            os.link(self.last, temporary)  # checkpoints are replaced, never changed in place: a link is a copy
        except OSError:
            shutil.copyfile(self.last, temporary)
        os.replace(temporary, self.best)

    def load(self) -> Any:
        """The newest whole checkpoint; a damaged one is passed over with a warning.

        Raises:
            FlambeauError: there is none.
        """
        problems = []
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                state = join(self.path, read_checkpoint(path))
            except FlambeauError as error:
                problems.append(error.cause)
                continue
            if problems:
                warnings.warn(f"{problems[0]}; going on from {path.name}", stacklevel=2)
            return state
        if problems:
            raise FlambeauError(f"no checkpoint is usable: {problems[0]}", "start the run again in another folder")
        raise FlambeauError(f"{self.path} holds no checkpoint", "start the run without resume")

    def load_best(self) -> Any | None:
        """The best checkpoint, or None when there is none."""
        return read_checkpoint(self.best) if self.best.exists() else None


def seed_everything(seed: int) -> None:
    """Seeds the global random generators: Flambeau's, NumPy's and Python's."""
    from ..random import manual_seed

    manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def capture_rng() -> dict[str, Any]:
    """The state of the global random generators: Flambeau's, NumPy's and Python's."""
    from ..random import get_rng_state

    kind, keys, position, has_gauss, gauss = np.random.get_state()  # type: ignore[misc]
    version, internal, gauss_next = random.getstate()
    return {
        "flambeau": get_rng_state(),
        "numpy": {"kind": kind, "keys": keys, "position": position, "has_gauss": has_gauss, "gauss": gauss},
        "python": {"version": version, "internal": np.array(internal, np.int64), "gauss_next": gauss_next},
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Sets the global random generators to a captured state."""
    from ..random import set_rng_state

    set_rng_state(state["flambeau"])
    numpy, python = state["numpy"], state["python"]
    np.random.set_state((numpy["kind"], numpy["keys"], numpy["position"], numpy["has_gauss"], numpy["gauss"]))
    random.setstate((python["version"], tuple(python["internal"].tolist()), python["gauss_next"]))
