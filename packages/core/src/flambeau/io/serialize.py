"""``flambeau.save`` and ``flambeau.load``: safetensors and PyTorch's own files, no trust needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ..errors import FlambeauError
from . import legacy
from .atomic import atomic_write
from .errors import UnsupportedFormatError
from .files import open_buffer
from .safetensors import SafetensorsFile, parse, save_file, serialize
from .shards import load_folder
from .tree import flatten, unflatten

__all__ = ["UnsupportedFormatError", "load", "save"]

TREE = "flambeau.tree"
_TORCH = (".pt", ".pth", ".bin", ".ckpt")
_FORMATS = ("safetensors", "torch")
_START = 512  # bytes that tell what a file is


def save(obj: Any, f: str | os.PathLike[str] | IO[bytes], *, format: str | None = None) -> None:
    """Saves a state dict, or plain containers of tensors.

    A path that ends in ``.pt``, ``.pth``, ``.bin`` or ``.ckpt`` gets PyTorch's zip format, which
    ``torch.load(weights_only=True)`` reads. Everything else gets safetensors: a flat dict of Tensors becomes a plain
    safetensors file that PyTorch and others read, anything else that is made of dict, list, tuple, texts, numbers,
    None, arrays and Tensors keeps its structure in the metadata.

    Args:
        obj: what to save; for a model or optimizer pass its ``state_dict()``.
        f: path (written atomically) or a binary file.
        format: ``"safetensors"`` or ``"torch"``; by the path's ending when left out, safetensors for a binary file.

    Raises:
        FlambeauError: an object that is not plain data, or a file that cannot be written.

    >>> import flambeau, io
    >>> file = io.BytesIO()
    >>> flambeau.save({"weight": flambeau.ones(2), "epoch": 3}, file)
    >>> flambeau.load(io.BytesIO(file.getvalue()))["epoch"]
    3
    """
    is_path = isinstance(f, (str, os.PathLike))
    suffix = Path(f).suffix if is_path else ""  # type: ignore[arg-type]
    if format is None:
        format = "torch" if suffix in _TORCH else "safetensors"
    if format not in _FORMATS:
        raise ValueError(f"save: format is {format!r}; it must be one of {', '.join(map(repr, _FORMATS))}")
    if suffix == ".pkl":
        raise UnsupportedFormatError(f"cannot write {os.fspath(f)}: plain pickles are not written", "name it .pt")  # type: ignore[arg-type]
    if format == "torch":
        from .torchwrite import write_zip

        if is_path:
            with atomic_write(f) as file:  # type: ignore[arg-type]
                write_zip(obj, file)
        else:
            write_zip(obj, f)  # type: ignore[arg-type]
        return
    from .. import Tensor

    flat = isinstance(obj, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in obj.items())
    if flat and "__metadata__" not in obj:
        arrays, metadata = dict(obj), None
    else:
        arrays, text = flatten(obj)
        metadata = {TREE: text}
    if is_path:
        save_file(arrays, f, metadata)  # type: ignore[arg-type]
    else:
        f.write(serialize(arrays, metadata))  # type: ignore[union-attr]


def load(
    f: str | os.PathLike[str] | IO[bytes],
    map_location: Any = None,
    *,
    weights_only: bool = True,
    mmap: bool | None = True,
) -> Any:
    """Loads a safetensors file, a PyTorch file (zip or legacy format), or a folder in Hugging Face's layout.

    The content tells the format, not the name. PyTorch's files are pickles: they are read by an interpreter that builds
    tensors and plain data and nothing else, so a hostile file is refused and no code of it runs. Tensors that share a
    storage share it here too.

    Args:
        f: path, folder or binary file.
        map_location: device to move Tensors to; the CPU when left out.
        weights_only: as in PyTorch; only True is possible.
        mmap: map the file into memory instead of reading it whole. Arrays may be changed, the file does not change.

    Raises:
        FlambeauError: the file is missing, cut, corrupt, hostile or in no known format; nothing is half-loaded.
        NotImplementedError: (the same error) it holds quantised or sparse tensors, or whole Python objects.
    """
    if not weights_only:
        raise UnsupportedFormatError(
            "load(weights_only=False) would run whatever code the file holds, which Flambeau never does",
            "leave it out; save whole models as state dicts",
        )
    place = _device(map_location)
    mapped = mmap is None or bool(mmap)
    if not isinstance(f, (str, os.PathLike)):
        name = getattr(f, "name", None)
        return _moved(_read(bytearray(f.read()), name if isinstance(name, str) else "the data"), place, {})
    path = Path(f)
    if path.is_dir():
        return _moved(load_folder(path, mapped, lambda part: _read(open_buffer(part, mapped), str(part))), place, {})
    return _moved(_read(open_buffer(path, mapped), str(path)), place, {})


def _read(data: Any, name: str) -> Any:
    start = bytes(data[:_START])
    # A safetensors file begins with a small 64-bit number and a brace, whatever else the number's bytes look like.
    if not (start[4:8] == bytes(4) and start[8:9] == b"{"):
        if start[:2] == b"PK":
            from .torchzip import load_zip

            return load_zip(data, name)
        if legacy.is_legacy(start):
            return legacy.load_legacy(data, name)
        if legacy.is_tar(start):
            raise UnsupportedFormatError(
                f"{name} is in the tar format of PyTorch 0.1, which is not read", "load it in PyTorch and save it again"
            )
        if start[:4] == b"GGUF":
            raise UnsupportedFormatError(f"{name} is a GGUF file, which is not read", "use the safetensors file")
        if start[:8] == b"\x89HDF\r\n\x1a\n":
            raise UnsupportedFormatError(f"{name} is an HDF5 file, which is not read", "use the safetensors file")
    return _restore(parse(data, name), name)


def _restore(file: SafetensorsFile, name: str) -> Any:
    if TREE in file.metadata:
        return unflatten(file.arrays(), file.metadata[TREE], name)
    return {key: file.get_tensor(key) for key in file.entries}


def _device(map_location: Any) -> Any:
    """The device that `map_location` means; None for the CPU."""
    from ..device import device

    if map_location is None:
        return None
    if not isinstance(map_location, (str, int, device)):
        kind = "function" if callable(map_location) else type(map_location).__name__
        raise FlambeauError(f"load: map_location is a {kind}", "give one device such as 'cpu' or 'cuda:0'")
    found = device(map_location)
    return None if found.type == "cpu" else found


def _moved(obj: Any, device: Any, done: dict[int, tuple[Any, Any]]) -> Any:
    """`obj` with its Tensors on `device`; what is shared in it stays shared. Containers are changed in place."""
    if device is None:
        return obj
    from ..nn import Parameter
    from ..tensor import Tensor

    if id(obj) in done:
        return done[id(obj)][1]
    moved = obj
    if isinstance(obj, Tensor):
        moved = obj.detach().to(device)
        moved = Parameter(moved, obj.requires_grad) if isinstance(obj, Parameter) else moved
        moved.requires_grad = obj.requires_grad
    elif isinstance(obj, dict):
        for key, value in obj.items():
            obj[key] = _moved(value, device, done)
    elif isinstance(obj, list):
        obj[:] = [_moved(value, device, done) for value in obj]
    elif type(obj) is tuple:
        moved = tuple(_moved(value, device, done) for value in obj)
    done[id(obj)] = obj, moved  # the object too: its id must not be used again meanwhile
    return moved
