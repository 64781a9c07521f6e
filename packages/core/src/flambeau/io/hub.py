"""Folders with a whole model: ``config.json`` says which, the weights lie beside it, in one file or several."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FlambeauError
from .atomic import atomic_write
from .errors import CheckpointError
from .shards import save_sharded
from .weights import card_metadata

if TYPE_CHECKING:
    from ..nn import Module

__all__ = ["from_pretrained", "save_pretrained"]

CONFIG = "config.json"
_OWN = "flambeau"  # key in config.json of what save_pretrained says of the model
_MAX_CONFIG = 50_000_000


def from_pretrained(
    folder: str | os.PathLike[str],
    *,
    model: str | None = None,
    dtype: Any = None,
    device: Any = None,
    strict: bool = True,
    **overrides: Any,
) -> Module:
    """The model in a folder, in eval mode.

    The folder was written by `save_pretrained`, or it is one in Hugging Face's layout whose ``architectures`` or
    ``model_type`` a plugin's `flambeau.plugins.ModelSpec` names.

    Args:
        folder: where ``config.json`` and the weights are; nothing is downloaded.
        model: id of the model to use, where ``config.json`` names none or several fit.
        dtype: of the floating-point parameters; ``config.json``'s ``dtype`` or ``torch_dtype`` when left out.
        device: where to put the model; the CPU when left out.
        strict: whether every tensor must have its place and every parameter its tensor.
        overrides: replace entries of ``config.json``, or options of the model.

    Raises:
        NotRegisteredError: no installed plugin has the model; the mend is the line that installs it.
        UsageError: an override that neither ``config.json`` nor the model has.
        CheckpointError: the folder is damaged, or its tensors do not fit; all names that do not are listed.
    """
    from .. import plugins
    from .serialize import load

    path = Path(folder)
    if not path.is_dir():
        raise FlambeauError(f"{path} is not a folder", f"give the folder that has {CONFIG} in it")
    if not (path / CONFIG).is_file():
        raise FlambeauError(
            f"{path} has no {CONFIG}", "give a folder written by save_pretrained; flambeau.load reads weights alone"
        )
    config = _read_config(path / CONFIG)
    own = config.get(_OWN)
    if isinstance(own, dict) and isinstance(own.get("model"), str) and model is None:
        spec = _own_spec(own)
    else:
        spec = plugins.get_model(model) if model is not None else plugins.model_for_architecture(config)
        own = None
    if own is not None:
        options = {**_options(own.get("config", {}), path / CONFIG), **overrides}
    else:
        config |= {key: value for key, value in overrides.items() if key in config}
        options = _foreign_options(spec, config)
        options |= {key: value for key, value in overrides.items() if key not in config}
    module = plugins.create_model(spec.id, **options)
    if (wanted := dtype if dtype is not None else _named_dtype(config, path / CONFIG)) is not None:
        module = module.to(wanted)
    state = _tensors(load(path), path)
    if own is None and spec.map_state is not None:
        state = dict(_code(spec, spec.map_state)(state, config))
    _fill(module, state, path, spec.id, strict)
    return module.to(device).eval() if device is not None else module.eval()


def save_pretrained(
    module: Module,
    folder: str | os.PathLike[str],
    name: str | None = None,
    config: Any = None,
    *,
    max_shard_size: int | str = "5GB",
    notes: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a folder that `from_pretrained` reads: ``config.json`` and safetensors.

    Args:
        module: the model.
        folder: made when it is not there.
        name: id of the model; found by the module's class when left out.
        config: the options that it was created with, a dict or dataclass; ``module.config`` when left out.
        max_shard_size: see `save_sharded`.
        notes: further plain data (classes, normalisation, metrics) for the model card.

    Returns:
        The folder.

    Raises:
        FlambeauError: the name or the options cannot be told from the module, or a file cannot be written.
    """
    from .. import plugins

    given = config if config is not None else getattr(module, "config", None)
    spec = plugins.get_model(name) if name is not None else _spec_of(module, given)
    options = asdict(given) if is_dataclass(given) and not isinstance(given, type) else given
    if options is None:
        options = {}
    if not isinstance(options, Mapping):
        raise FlambeauError("the model's options are no dict or dataclass", "pass them: save_pretrained(..., config=)")
    plugin = plugins.manager().owner("models", spec.id).distribution or ""
    try:
        metadata = card_metadata(spec.id, options, plugin, notes)
    except (TypeError, ValueError) as error:
        raise FlambeauError(f"the model's options cannot be written as JSON: {error}", "pass plain data") from error
    text: dict[str, Any] = {_OWN: {"model": spec.id, "config": dict(options), "plugin": plugin}}
    used = next((p.dtype.name for p in module.parameters() if p.is_floating_point()), None)
    if used is not None:
        text["dtype"] = used
    save_sharded(module.state_dict(), folder, max_shard_size, metadata)
    with atomic_write(Path(folder) / CONFIG, "w") as file:
        json.dump(text, file, indent=2)
        file.write("\n")
    return Path(folder)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_CONFIG:
            raise ValueError("it is too big")
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {str(error)[:100]}", "download the folder again") from error
    return config


def _options(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path} is damaged: the options of the model are no JSON object", "use another copy")
    return dict(value)


def _own_spec(own: Mapping[str, Any]) -> Any:
    from .. import plugins

    try:
        return plugins.get_model(own["model"])
    except plugins.NotRegisteredError:
        package = own.get("plugin")
        raise plugins.missing_plugin_hint(
            own["model"], package if isinstance(package, str) and package else None
        ) from None


def _foreign_options(spec: Any, config: dict[str, Any]) -> dict[str, Any]:
    from .. import plugins

    if spec.from_config is not None:
        return dict(_code(spec, spec.from_config)(dict(config)))
    known = plugins.option_defaults(_code(spec, spec.config or spec.factory)) or {}
    return {key: value for key, value in config.items() if key in known}


def _code(spec: Any, path: str) -> Any:
    from .. import plugins
    from ..plugins.models import load_object

    return load_object(plugins.manager(), "models", spec.id, path)


def _named_dtype(config: Mapping[str, Any], path: Path) -> Any:
    from ..dtypes import as_dtype

    name = config.get("dtype") or config.get("torch_dtype")
    if name is None:
        return None
    try:
        found = as_dtype(name) if isinstance(name, str) else None
    except TypeError:
        found = None
    if found is None or not found.is_floating_point:
        raise CheckpointError(f"{path} names the dtype {str(name)[:40]!r}, which is not there", "pass dtype=")
    return found


def _tensors(state: Any, path: Path) -> dict[str, Any]:
    from ..tensor import Tensor

    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # a training checkpoint
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"the weights in {path} are no state dict", "save model.state_dict()")
    return dict(state)


def _fill(module: Module, state: dict[str, Any], path: Path, model: str, strict: bool) -> None:
    """Loads the state dict; what does not fit is named in full."""
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in {path} do not fit model {model!r}: {error}", "check config.json"
        ) from error
    loaded = set(state)
    groups: dict[int, set[str]] = {}
    for key, tensor in module.state_dict(keep_vars=True).items():  # tied weights have several names and need one
        groups.setdefault(id(tensor), set()).add(key)
    tied = {key for names in groups.values() if names & loaded for key in names}
    missing = [key for key in missing if key not in tied]
    if strict and (missing or unexpected):
        lists = [
            f"{len(keys)} {label} ({', '.join(keys)})"
            for label, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise CheckpointError(
            f"the weights in {path} do not fit model {model!r}: {' and '.join(lists)}",
            "check that config.json belongs to the weights, or pass strict=False to load what fits",
        )


def _spec_of(module: Module, config: Any) -> Any:
    from .. import plugins

    kind = type(module)
    factory = f"{kind.__module__}:{kind.__qualname__}"
    found = [spec for spec in plugins.list_models() if spec.factory == factory]
    if len(found) > 1:
        options = f"{type(config).__module__}:{type(config).__qualname__}"
        found = [spec for spec in found if spec.config == options] or found
    if len(found) != 1:
        known = f"registered as {len(found)} models" if found else "not registered as a model"
        raise FlambeauError(
            f"{kind.__qualname__} is {known}", "pass its id: save_pretrained(module, folder, 'lab/net')"
        )
    return found[0]
