"""Checkpoints of a run: one safetensors file each, atomic, checksummed, with everything that an exact resume needs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FlambeauError
from ..io.atomic import FULL, atomic_write, remove_leftovers, sync_folder
from ..io.safetensors import layout, safe_open, to_array
from ..io.tree import flatten, unflatten
from .lock import FolderLock
from .random_state import capture_rng, restore_rng, seed_everything
from .shards import join

__all__ = ["CheckpointFolder", "capture_rng", "read_checkpoint", "restore_rng", "seed_everything", "write_checkpoint"]

_TREE, _PARTS, _CHECKSUM = "flambeau.tree", "flambeau.parts", "flambeau.sha256"
_OLDER = re.compile(r"previous(?:-(\d+))?\.safetensors")


def write_checkpoint(path: str | os.PathLike[str], state: Any) -> None:
    """Writes nested plain data (dict, list, numbers, arrays, Tensors) to one file, atomically.

    The file holds the SHA-256 of each array and one of them all, its description included.

    Raises:
        FlambeauError: the file cannot be written; an older file of that name stays.
    """
    tensors, text = flatten(state)
    arrays = {key: to_array(value, key) for key, value in tensors.items()}
    blank = {_TREE: text, _PARTS: _parts_text(dict.fromkeys(arrays, "0" * 64)), _CHECKSUM: "0" * 64}
    header, order = layout(arrays, blank)
    try:
        # The checksums are computed while the arrays go to the disk; the header is written again at the end.
        with atomic_write(path) as file, ThreadPoolExecutor(1) as other:
            waiting = other.submit(_digests, arrays)
            file.write(header)
            for key in order:
                file.write(arrays[key].reshape(-1).view(np.uint8).data)
            parts = waiting.result()
            known = {_TREE: text, _PARTS: _parts_text(parts), _CHECKSUM: _checksum(arrays, parts, text)}
            file.seek(0)
            file.write(layout(arrays, known)[0])
    except FlambeauError as error:
        if getattr(error.__cause__, "errno", None) not in FULL:
            raise
        raise _no_room(path, error, len(header) + sum(array.nbytes for array in arrays.values())) from error.__cause__


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Reads what `write_checkpoint` wrote.

    Raises:
        FlambeauError: the file is missing, cut, or does not match its checksums.
    """
    name = os.fspath(path)
    file = safe_open(path, mapped=False)
    if not {_TREE, _PARTS, _CHECKSUM} <= file.metadata.keys():
        raise FlambeauError(f"{name} is not a checkpoint of a run", "give a file from the run's checkpoints folder")
    arrays, text = file.arrays(), file.metadata[_TREE]
    parts = _digests(arrays)
    if _checksum(arrays, parts, text) != file.metadata[_CHECKSUM]:
        raise FlambeauError(
            f"{name} is damaged: its checksum does not match{_where(parts, file.metadata[_PARTS])}",
            "use another checkpoint",
        )
    return unflatten(arrays, text, name)


def _digests(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {
        key: hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()
        for key, array in arrays.items()
    }


def _parts_text(parts: Mapping[str, str]) -> str:
    return json.dumps(dict(parts), separators=(",", ":"))


def _checksum(arrays: Mapping[str, np.ndarray], parts: Mapping[str, str], text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8"))
    for key in sorted(arrays):
        digest.update(f"|{key}|{arrays[key].dtype}|{arrays[key].shape}|{parts[key]}".encode())
    return digest.hexdigest()


def _where(parts: Mapping[str, str], text: str) -> str:
    """Which arrays differ, for the message."""
    try:
        saved = json.loads(text)
        differing = sorted(key for key in parts.keys() | saved.keys() if parts.get(key) != saved.get(key))
    except (ValueError, AttributeError):
        return ""
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return f" (at {', '.join(differing[:3])}{more})" if differing else ""


def _no_room(path: str | os.PathLike[str], error: FlambeauError, needed: int) -> FlambeauError:
    free = ""
    with contextlib.suppress(OSError):
        free = f", {_size(shutil.disk_usage(Path(path).parent).free)} are free"
    return FlambeauError(
        f"{error.cause}; the checkpoint needs {_size(needed)}{free}",
        "make room and resume; the checkpoints before this one are untouched",
    )


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


class CheckpointFolder:
    """The checkpoints of a run: ``last``, ``previous`` (the one before), ``previous-2``, …, and ``best``.

    Args:
        path: the folder; it is created with the first checkpoint.
        keep: how many of the newest to keep; with 1 there is nothing to fall back to when the newest is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"CheckpointFolder: keep must be at least 1, not {keep}")
        self.path = Path(path)
        self.keep = keep
        self.last = self.path / "last.safetensors"
        self.previous = self.path / "previous.safetensors"
        self.best = self.path / "best.safetensors"

    def exists(self) -> bool:
        """Whether there is something to resume from."""
        return bool(self.files())

    def files(self) -> list[Path]:
        """The checkpoints that are there, newest first, without ``best``."""
        try:
            found = [(m, name) for name in os.listdir(self.path) if (m := _OLDER.fullmatch(name))]
        except OSError:
            return []
        older = [self.path / name for _, name in sorted(found, key=lambda item: int(item[0][1] or 1))]
        return [self.last, *older] if self.last.exists() else older

    def lock(self) -> FolderLock:
        """A lock (``with folder.lock():``) that keeps other processes out; makes the folder.

        Raises:
            FlambeauError: the folder is in use, or cannot be made.
        """
        self._make()
        return FolderLock(self.path)

    def clean(self) -> None:
        """Removes what killed writers left; only for who holds the lock."""
        remove_leftovers(self.path)
        for name in ("new.safetensors", "best.new"):
            with contextlib.suppress(OSError):
                (self.path / name).unlink()

    def save(self, state: Any, best: bool = False) -> None:
        """Writes `state` as the newest checkpoint; the newest so far becomes ``previous``. As ``best`` too if asked.

        Raises:
            FlambeauError: it cannot be written, e.g. on a full disk; the older checkpoints are untouched.
        """
        self._make()
        fresh = self.path / "new.safetensors"
        write_checkpoint(fresh, state)
        try:
            # Best comes first: were it second, a run killed in between would go on after this epoch without it.
            if best:
                self._copy_to_best(fresh)
            # At every moment the newest checkpoint but one is whole: nothing is ever renamed over it.
            kept = self.files()[: self.keep - 1]
            for number, path in reversed(list(enumerate(kept, 1))):
                os.replace(path, self._older(number))
            os.replace(fresh, self.last)
            for path in self.files()[self.keep :]:
                path.unlink()
        except OSError as error:
            raise FlambeauError(
                f"cannot save the checkpoint in {self.path}: {error.strerror}", "check the folder and the disk"
            ) from error
        sync_folder(str(self.path))

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlambeauError(
                f"cannot create {self.path}: {error.strerror}", "choose another output folder"
            ) from error

    def _older(self, number: int) -> Path:
        return self.previous if number == 1 else self.path / f"previous-{number}.safetensors"

    def _copy_to_best(self, fresh: Path) -> None:
        temporary = self.path / "best.new"
        temporary.unlink(missing_ok=True)
        try:
            os.link(fresh, temporary)  # checkpoints are replaced, never changed in place: a link is a copy
        except OSError:
            shutil.copyfile(fresh, temporary)
        os.replace(temporary, self.best)

    def load(self) -> Any:
        """The newest whole checkpoint; damaged ones are passed over with a warning.

        Raises:
            FlambeauError: there is none; the line says what is wrong with each file.
        """
        files, problems = self.files(), []
        for path in files:
            try:
                state = join(self.path, read_checkpoint(path))
            except FlambeauError as error:
                problems.append(error.cause)
                continue
            if problems:
                warnings.warn(f"{'; '.join(problems)}; going on from {path.name}", stacklevel=2)
            return state
        if problems:
            raise FlambeauError(
                f"no checkpoint is usable: {'; '.join(problems)}", "start the run again in another folder"
            )
        raise FlambeauError(f"{self.path} holds no checkpoint", "start the run without resume")

    def load_best(self) -> Any | None:
        """The best checkpoint, or None when there is none."""
        return read_checkpoint(self.best) if self.best.exists() else None


def load_parts(owner: Any, names: Iterable[str], state: Mapping[str, Any]) -> None:
    """Gives each part (model, optimizer, …) of a run its saved state.

    Raises:
        FlambeauError: the run has a part that was not saved, or the other way round, or a state does not fit.
    """
    mend = "resume with the options of the saved run"
    for name in names:
        part = getattr(owner, name, None)
        if hasattr(part, "state_dict") != (name in state):
            cause = f"the checkpoint has {'a' if name in state else 'no'} state for the {name}, this run differs"
            raise FlambeauError(cause, mend)
        if name in state:
            try:
                part.load_state_dict(state[name])  # type: ignore[union-attr]
            except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
                text = " ".join(str(error).split())
                raise FlambeauError(f"the checkpoint does not fit the {name} of this run: {text}", mend) from error


def save_callbacks(callbacks: Iterable[Any]) -> list[dict[str, Any]]:
    """The states of those callbacks that have one, with the names of their classes."""
    return [
        {"kind": type(callback).__qualname__, "state": callback.state_dict()}
        for callback in callbacks
        if hasattr(callback, "state_dict")
    ]


def load_callbacks(callbacks: Iterable[Any], saved: list[dict[str, Any]]) -> None:
    """Gives the callbacks their states by class and order; warns of states and callbacks that are left over."""
    waiting = list(saved)
    fresh = []
    for callback in callbacks:
        if not hasattr(callback, "load_state_dict"):
            continue
        kind = type(callback).__qualname__
        entry = next((entry for entry in waiting if entry["kind"] == kind), None)
        if entry is None:
            fresh.append(kind)
            continue
        waiting.remove(entry)
        callback.load_state_dict(entry["state"])
    if fresh:
        warnings.warn(f"the checkpoint has no state for {', '.join(fresh)}, which starts anew", stacklevel=3)
    if waiting:
        names = ", ".join(entry["kind"] for entry in waiting)
        warnings.warn(f"the checkpoint has a state for {names}, which this run does not have", stacklevel=3)
