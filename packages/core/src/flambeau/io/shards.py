"""Folders with the weights of one model, in one file or in several with an index, in Hugging Face's layout."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FlambeauError
from .atomic import atomic_write
from .errors import CheckpointError
from .safetensors import safe_open, save_file, to_array

__all__ = ["load_folder", "parse_size", "save_sharded"]

SAFE, TORCH = "model.safetensors", "pytorch_model.bin"
_INDEX = ".index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_AGAIN = "download the folder again"
_MAX_INDEX = 200_000_000


def load_folder(folder: Path, mmap: bool, whole: Callable[[Path], Any]) -> dict[str, Any]:
    """The state dict in a folder: safetensors before PyTorch's files.

    Args:
        folder: where ``model.safetensors``, ``pytorch_model.bin`` or the index of several of them is.
        mmap: whether to map the files.
        whole: loads one file.

    Raises:
        FlambeauError: there are no weights, or they are damaged.
    """
    for name in (SAFE, TORCH):
        if (folder / (name + _INDEX)).exists():
            return _load_shards(folder, folder / (name + _INDEX), mmap, whole)
        if (folder / name).exists():
            return whole(folder / name)
    raise FlambeauError(
        f"{folder} holds no {SAFE} and no {TORCH}", "give the file with the weights, or the folder that has one"
    )


def _load_shards(folder: Path, index: Path, mmap: bool, whole: Callable[[Path], Any]) -> dict[str, Any]:
    try:
        if index.stat().st_size > _MAX_INDEX:
            raise ValueError("it is too big")
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
        if any(Path(shard).name != shard or shard in (".", "..") or "\\" in shard for shard in shards):
            raise ValueError("a shard lies outside the folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is damaged: {error}", _AGAIN) from error
    if all(shard.endswith(".safetensors") for shard in shards):
        files = {shard: safe_open(folder / shard, mapped=mmap) for shard in shards}
        _check_index(index, weight_map, {shard: file.entries for shard, file in files.items()})
        return {key: files[shard].get_tensor(key) for key, shard in weight_map.items()}
    states = {shard: whole(folder / shard) for shard in shards}
    for shard, state in states.items():
        if not isinstance(state, dict):
            raise CheckpointError(f"{folder / shard} holds no state dict but a {type(state).__name__}", _AGAIN)
    _check_index(index, weight_map, states)
    return {key: states[shard][key] for key, shard in weight_map.items()}


def _check_index(index: Path, weight_map: Mapping[str, str], shards: Mapping[str, Mapping[str, Any]]) -> None:
    for key, shard in weight_map.items():
        if key not in shards[shard]:
            raise CheckpointError(f"{index} expects tensor {key!r} in {shard}, which lacks it", _AGAIN)


def parse_size(size: int | str) -> int:
    """Bytes, from a number or a text such as ``"5GB"`` or ``"200 MiB"``.

    >>> parse_size("1.5KB"), parse_size(7)
    (1500, 7)
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B)\s*", str(size).upper())
    if not found or found[2] not in _UNITS or float(found[1]) <= 0:
        raise ValueError(f"a size is a number of bytes or a text such as '5GB', not {size!r}")
    return int(float(found[1]) * _UNITS[found[2]])


def save_sharded(
    state: Mapping[str, Any],
    folder: str | os.PathLike[str],
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Writes a state dict as ``model.safetensors``, or in several files with an index when it is bigger.

    Each file is written atomically and the index last, so a reader that follows the index finds whole files. Files of
    an earlier save that the new one does not use are removed in the end.

    Args:
        state: name -> Tensor or array.
        folder: made when it is not there.
        max_shard_size: bytes of tensors in one file; a single bigger tensor gets a file of its own.
        metadata: text pairs kept in each file.

    Returns:
        The files written, the index last.

    >>> import tempfile, numpy as np
    >>> folder = tempfile.mkdtemp()
    >>> [path.name for path in save_sharded({"a": np.zeros(3), "b": np.ones(3)}, folder, 24)][-1]
    'model.safetensors.index.json'
    """
    limit = parse_size(max_shard_size)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    arrays = {key: to_array(value, key) for key, value in state.items()}
    parts: list[dict[str, np.ndarray]] = [{}]
    room = limit
    for key, array in arrays.items():
        if array.nbytes > room and parts[-1]:
            parts.append({})
            room = limit
        parts[-1][key] = array
        room -= array.nbytes
    metadata = dict(metadata or {"format": "pt"})
    if len(parts) == 1:
        written = [target / SAFE]
        save_file(arrays, written[0], metadata)
    else:
        written, weight_map = [], {}
        for number, part in enumerate(parts, start=1):
            written.append(target / f"model-{number:05}-of-{len(parts):05}.safetensors")
            save_file(part, written[-1], metadata)
            weight_map.update(dict.fromkeys(part, written[-1].name))
        index = {"metadata": {"total_size": sum(a.nbytes for a in arrays.values())}, "weight_map": weight_map}
        written.append(target / (SAFE + _INDEX))
        with atomic_write(written[-1], "w") as file:
            json.dump(index, file, indent=1)
    for old in target.iterdir():
        ours = old.name in (SAFE, SAFE + _INDEX) or _SHARD.fullmatch(old.name)
        if ours and old not in written and old.is_file():
            old.unlink()
    return written
