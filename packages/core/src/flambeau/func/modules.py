"""Modules as pure functions of their parameters: `functional_call`, `stack_module_state`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import ops
from ..nn.module import Module
from ..tensor import Tensor


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Calls the module with the given tensors in place of its parameters and buffers; what is not given stays.

    tie_weights: a tensor that the module has under several names is replaced under all of them. strict: names must
    be exactly those of the module. Errors: ValueError for a name in two dicts or for two values of one tied tensor,
    RuntimeError for missing or unexpected names with `strict`.

    >>> import flambeau
    >>> layer = flambeau.nn.Linear(2, 1)
    >>> state = {"weight": flambeau.ones(1, 2), "bias": flambeau.zeros(1)}
    >>> flambeau.func.functional_call(layer, state, flambeau.tensor([[1.0, 2.0]]))
    tensor([[3.]])
    """
    state = _merged(parameter_and_buffer_dicts)
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    slots = _slots(module)
    if strict:
        missing = [n for n in slots if n not in state]
        unexpected = [n for n in state if n not in slots]
        if missing or unexpected:
            raise RuntimeError(
                f"functional_call: the names do not match {type(module).__name__}: missing {missing}, "
                f"unexpected {unexpected}"
            )
    if tie_weights:
        state = _tied(slots, state)
    saved = []
    try:
        for name, value in state.items():
            if name not in slots:
                raise KeyError(f"functional_call: {type(module).__name__} has no parameter or buffer {name!r}")
            store, key, old = slots[name]
            saved.append((store, key, old))
            store[key] = value
        return module(*args, **(kwargs or {}))
    finally:
        for store, key, old in reversed(saved):
            store[key] = old


def _merged(dicts: Any) -> dict[str, Tensor]:
    if isinstance(dicts, Mapping):
        return dict(dicts)
    if not isinstance(dicts, Sequence) or not all(isinstance(d, Mapping) for d in dicts):
        raise ValueError(
            f"functional_call: expected a dict of tensors or a sequence of such dicts, but got {type(dicts).__name__}"
        )
    state: dict[str, Tensor] = {}
    for d in dicts:
        twice = sorted(state.keys() & d.keys())
        if twice:
            raise ValueError(f"functional_call: {', '.join(twice)} appears in more than one of the dicts")
        state.update(d)
    return state


def _slots(module: Module) -> dict[str, tuple[dict, str, Any]]:
    """Every parameter and buffer by its full name: the dict that holds it, its key there, and its value."""
    found = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for store in (part._parameters, part._buffers):
            for key, value in store.items():
                if value is not None:
                    found[f"{path}.{key}" if path else key] = (store, key, value)
    return found


def _tied(slots: dict, state: dict[str, Tensor]) -> dict[str, Tensor]:
    groups: dict[int, list[str]] = {}
    for name, (_, _, value) in slots.items():
        groups.setdefault(id(value), []).append(name)
    full = dict(state)
    for names in groups.values():
        given = [n for n in names if n in state]
        if not given or len(names) == 1:
            continue
        if any(state[n] is not state[given[0]] for n in given):
            raise ValueError(
                f"functional_call: {', '.join(given)} are one tied tensor of the module but were given different "
                "values; give one, or pass tie_weights=False"
            )
        full.update(dict.fromkeys(names, state[given[0]]))
    return full


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(parameters, buffers) of models of one class, stacked along a new dimension 0: what `vmap` takes for ensembles.

    Errors: RuntimeError when there are no models, or they differ in class or training mode.
    """
    if not models:
        raise RuntimeError("stack_module_state: expected at least one model, got 0")
    if not all(m.training == models[0].training for m in models):
        raise RuntimeError("stack_module_state: expected all models to be in the same training mode")
    if not all(type(m) is type(models[0]) for m in models):
        raise RuntimeError("stack_module_state: expected all models to be of one class")
    every = [dict(m.named_parameters()) for m in models]
    parameters = {}
    for name in every[0]:
        column = [p[name] for p in every]
        flags = {p.requires_grad for p in column}
        if len(flags) > 1:
            raise RuntimeError(f"stack_module_state: {name} requires a gradient in some models and not in others")
        parameters[name] = ops.stack([p.detach() for p in column]).requires_grad_(column[0].requires_grad)
    buffers = [dict(m.named_buffers()) for m in models]
    return parameters, {name: ops.stack([b[name].detach() for b in buffers]) for name in buffers[0]}
