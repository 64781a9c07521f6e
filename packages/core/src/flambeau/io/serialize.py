"""``flambeau.save`` and ``flambeau.load``: state dicts and plain containers in safetensors files, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ..errors import FlambeauError
from .safetensors import SafetensorsFile, parse, safe_open, save_file, serialize
from .tree import flatten, unflatten

__all__ = ["UnsupportedFormatError", "load", "save"]

TREE = "flambeau.tree"
_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_MEND = "convert it where PyTorch is installed: safetensors.torch.save_file(state_dict, 'weights.safetensors')"
_INDEX = "model.safetensors.index.json"


class UnsupportedFormatError(FlambeauError, NotImplementedError):
    """The file is in a format that Flambeau does not read or write yet."""


def save(obj: Any, f: str | os.PathLike[str] | IO[bytes]) -> None:
    """Saves a state dict, or plain containers of tensors, to a safetensors file.

    A flat dict of Tensors becomes a plain safetensors file that PyTorch and others read. Anything else that is made of
    dict, list, tuple, texts, numbers, None, arrays and Tensors keeps its structure in the metadata.

    Args:
        obj: what to save; for a model or optimizer pass its ``state_dict()``.
        f: path (written atomically) or a binary file.

    Raises:
        FlambeauError: an object that is not plain data, or a file that cannot be written.

    >>> import flambeau, io
    >>> file = io.BytesIO()
    >>> flambeau.save({"weight": flambeau.ones(2), "epoch": 3}, file)
    >>> flambeau.load(io.BytesIO(file.getvalue()))["epoch"]
    3
    """
    if isinstance(f, (str, os.PathLike)) and Path(f).suffix in _PICKLED:
        raise UnsupportedFormatError(
            f"cannot write {os.fspath(f)}: PyTorch's pickle format is not written", "use a name ending in .safetensors"
        )
    from .. import Tensor

    flat = isinstance(obj, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in obj.items())
    if flat and "__metadata__" not in obj:
        arrays, metadata = dict(obj), None
    else:
        arrays, text = flatten(obj)
        metadata = {TREE: text}
    if isinstance(f, (str, os.PathLike)):
        save_file(arrays, f, metadata)
    else:
        f.write(serialize(arrays, metadata))


def load(f: str | os.PathLike[str] | IO[bytes], map_location: Any = None, *, mmap: bool = True) -> Any:
    """Loads what `save` wrote, any safetensors file, or a folder in Hugging Face's layout.

    Args:
        f: path, folder or binary file.
        map_location: device to move Tensors to; the CPU when left out.
        mmap: map the file into memory instead of reading it whole. Arrays may be changed, the file does not change.

    Raises:
        FlambeauError: the file is missing, cut, corrupt or not safetensors; nothing is half-loaded.
    """
    if not isinstance(f, (str, os.PathLike)):
        return _moved(_restore(parse(bytearray(f.read()), getattr(f, "name", "the data")), "the data"), map_location)
    path = Path(f)
    if path.is_dir():
        return _moved(_load_folder(path, mmap), map_location)
    if path.suffix in _PICKLED and path.exists():
        raise UnsupportedFormatError(f"{path} is a PyTorch pickle file, which is not read yet", _MEND)
    if path.is_file():
        with open(path, "rb") as file:
            start = file.read(4)
        if start[:2] == b"PK" or start[:1] == b"\x80":
            raise UnsupportedFormatError(f"{path} is a PyTorch pickle file, which is not read yet", _MEND)
    return _moved(_restore(safe_open(path, mapped=mmap), str(path)), map_location)


def _restore(file: SafetensorsFile, name: str) -> Any:
    if TREE in file.metadata:
        return unflatten(file.arrays(), file.metadata[TREE], name)
    return {key: file.get_tensor(key) for key in file.entries}


def _load_folder(folder: Path, mmap: bool) -> dict[str, Any]:
    index = folder / _INDEX
    if not index.exists():
        if not (folder / "model.safetensors").exists():
            raise FlambeauError(f"{folder} holds no model.safetensors", "give the file or a folder with model weights")
        return _restore(safe_open(folder / "model.safetensors", mapped=mmap), str(folder))
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
        if any(Path(shard).name != shard or shard in (".", "..") for shard in shards):
            raise ValueError("a shard lies outside the folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FlambeauError(f"{index} is damaged: {error}", "download the folder again") from error
    files = {shard: safe_open(folder / shard, mapped=mmap) for shard in shards}
    for key, shard in weight_map.items():
        if key not in files[shard].entries:
            raise FlambeauError(
                f"{index} expects tensor {key!r} in {shard}, which lacks it", "download the folder again"
            )
    return {key: files[shard].get_tensor(key) for key, shard in weight_map.items()}


def _moved(obj: Any, device: Any) -> Any:
    if device is None or str(device) == "cpu":
        return obj
    from .. import Tensor

    if isinstance(obj, Tensor):
        return obj.to(device)
    if isinstance(obj, dict):
        return {key: _moved(value, device) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return type(obj)(_moved(value, device) for value in obj)
    return obj
