"""Calling a module with other parameters than its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...tensor import Tensor
from ..module import Module

_STORES = ("_parameters", "_buffers")


def _places(module: Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Where each parameter and buffer stands: path -> (store, name)."""
    found = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for kind in _STORES:
            store = getattr(part, kind)
            for name, tensor in store.items():
                if tensor is not None:
                    found[f"{path}.{name}" if path else name] = (store, name)
    return found


@contextmanager
def _replaced(module: Module, values: Mapping[str, Any], tie_weights: bool, strict: bool) -> Iterator[None]:
    places = _places(module)
    unexpected = [key for key in values if key not in places]
    if strict:
        given = {id(places[k][0][places[k][1]]) for k in values if k in places} if tie_weights else set()
        missing = [k for k, (store, name) in places.items() if k not in values and id(store[name]) not in given]
        if missing or unexpected:
            raise RuntimeError(
                f"functional_call: missing keys {missing} and unexpected keys {unexpected} for {type(module).__name__}"
            )
    elif unexpected:
        raise AttributeError(f"functional_call: {type(module).__name__} has no parameter or buffer {unexpected[0]!r}")
    replaced: dict[str, Any] = dict(values)
    if tie_weights:
        owners: dict[int, list[str]] = {}
        for key, (store, name) in places.items():
            owners.setdefault(id(store[name]), []).append(key)
        for names in owners.values():
            chosen = [values[n] for n in names if n in values]
            if any(v is not chosen[0] for v in chosen[1:]):
                raise ValueError(f"functional_call got different values for tied tensors {', '.join(names)}")
            if chosen:
                replaced.update(dict.fromkeys(names, chosen[0]))
    before = {key: places[key][0][places[key][1]] for key in replaced}
    try:
        for key, value in replaced.items():
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"functional_call: {key!r} must be a Tensor, not {type(value).__name__}")
            store, name = places[key]
            store[name] = value
        yield
    finally:
        for key, value in before.items():
            store, name = places[key]
            store[name] = value


def functional_call(
    module: Module,
    parameters_and_buffers: Mapping[str, Tensor],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """``module(*args, **kwargs)`` with the given tensors in place of its parameters and buffers.

    The module is as before afterwards, except for what ``forward`` changes in place in the tensors. Those that are
    not given stay its own; with ``strict`` all must be given. ``tie_weights``: a tensor that stands under several
    names is replaced under all of them.

    Raises:
        RuntimeError: keys are missing or unexpected and ``strict``. AttributeError: a name that the module lacks.

    >>> import flambeau
    >>> layer = flambeau.nn.Linear(2, 1)
    >>> functional_call(layer, {"weight": flambeau.ones(1, 2), "bias": flambeau.ones(1)}, flambeau.ones(2))
    tensor([3.])
    """
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with _replaced(module, parameters_and_buffers, tie_weights, strict):
        return module(*args, **(kwargs or {}))
