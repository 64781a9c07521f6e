"""Turning a list of samples into a batch, by PyTorch's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["default_collate", "default_convert"]


def default_convert(data: Any) -> Any:
    """Arrays inside `data` become Tensors (sharing memory); the rest stays. Used where nothing is batched."""
    from .. import Tensor

    if isinstance(data, Tensor | str | bytes):
        return data
    if isinstance(data, np.ndarray) and data.dtype.kind not in "USO":
        return _tensor(data)
    return _rebuilt(data, default_convert)


def default_collate(batch: Sequence[Any]) -> Any:
    """Stacks samples: Tensors and arrays along a new first dimension, numbers to a Tensor, dicts and tuples by field.

    Texts stay lists; tuples give a list of batches as in PyTorch; named tuples stay named.

    Raises:
        ValueError: samples of different shapes or lengths.
        TypeError: samples of a kind that cannot be batched.

    >>> import numpy as np
    >>> batch = default_collate([{"x": np.zeros(3, np.float32), "y": 1}, {"x": np.ones(3, np.float32), "y": 2}])
    >>> tuple(batch["x"].shape), batch["y"].tolist()
    ((2, 3), [1, 2])
    """
    return _collate(batch, "")


def _collate(batch: Sequence[Any], path: str) -> Any:
    from .. import Tensor

    first = batch[0]
    if isinstance(first, Tensor):
        return _stack([_raw(sample, path) for sample in batch], path)
    if isinstance(first, np.ndarray):
        if first.dtype.kind in "USO":
            raise TypeError(f"default_collate: array{path} of dtype {first.dtype} cannot become a Tensor")
        return _stack([np.asarray(sample) for sample in batch], path)
    if isinstance(first, (bool, int, float, complex, np.generic)):
        return _tensor(np.array(batch))
    if isinstance(first, (str, bytes)):
        return list(batch) if not isinstance(batch, list) else batch
    if isinstance(first, Mapping):
        keys = set(first)
        if any(set(sample) != keys for sample in batch):
            raise ValueError(f"default_collate: the dicts{path} of the batch have different keys")
        fields = {key: _collate([sample[key] for sample in batch], f"{path}[{key!r}]") for key in first}
        return fields if type(first) is dict else _same_kind(first, fields)
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise ValueError(f"default_collate: the sequences{path} of the batch have different lengths")
        columns = [_collate(column, f"{path}[{i}]") for i, column in enumerate(zip(*batch, strict=True))]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    kind = type(first).__name__
    raise TypeError(f"default_collate: samples{path} are of type {kind}, which cannot be batched; pass a collate_fn")


def _stack(arrays: list[Any], path: str) -> Any:
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        listed = ", ".join(str(shape) for shape in sorted(shapes)[:3])
        mend = "resize, crop or pad them, or pass a collate_fn"
        raise ValueError(f"default_collate: samples{path} have different shapes ({listed}); {mend}")
    return _tensor(np.stack(arrays))


def _raw(sample: Any, path: str) -> np.ndarray:
    array = sample.detach().array
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"default_collate: sample{path} is on {sample.device}; datasets give CPU tensors, move the batch"
        )
    return array


def _tensor(array: np.ndarray) -> Any:
    from ..ops import from_numpy

    return from_numpy(array)


def _rebuilt(data: Any, convert: Any) -> Any:
    if isinstance(data, Mapping):
        fields = {key: convert(value) for key, value in data.items()}
        return fields if type(data) is dict else _same_kind(data, fields)
    if hasattr(data, "_fields"):
        return type(data)(*(convert(value) for value in data))
    if isinstance(data, (list, tuple)):
        return [convert(value) for value in data]
    return data


def _same_kind(example: Mapping[Any, Any], fields: dict[Any, Any]) -> Any:
    try:
        return type(example)(fields)  # type: ignore[call-arg]
    except TypeError:
        return fields
