"""Models by name: building them, and the checkpoints that say which model they hold.

A checkpoint is a safetensors file whose metadata names the model, its options and the distribution that registered it,
so that it loads without being told what it is, and says what to install when the model is not there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from ..errors import FlambeauError
from .errors import NotRegisteredError, PluginError
from .manager import PluginManager, describe
from .options import check_keys, option_defaults
from .spec import ModelSpec, resolve

CHECKPOINT_NAME = "model.safetensors"


def build(manager: PluginManager, name: str, config: Mapping[str, Any]) -> Any:
    """The model called `name` with options `config`; see ``flambeau.plugins.create_model``."""
    spec: ModelSpec = manager.get("models", name)
    factory = load_object(manager, "models", spec.id, spec.factory)
    what = f"model {spec.id!r}"
    if spec.config is None:
        known = option_defaults(factory)
        if known is not None:
            check_keys(config, known, what)
        return factory(**config)
    config_class = load_object(manager, "models", spec.id, spec.config)
    known = option_defaults(config_class)
    if known is not None:
        check_keys(config, known, what)
    return factory(config_class(**config))


def load_object(manager: PluginManager, family: str, name: str, path: str) -> Any:
    """What an import path of a spec names.

    Raises:
        PluginError: the plugin promised code that is not there.
    """
    try:
        return resolve(path)
    except (ImportError, AttributeError) as error:
        plugin = manager.owner(family, name)
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0]
        if missing and missing != path.partition(".")[0].partition(":")[0]:
            mend = f"{name} needs the module {missing!r}: install it"
        else:
            mend = f"upgrade or reinstall {plugin.distribution or plugin.name}"
        raise PluginError(f"{plugin.label()} names {path!r}: {describe(error)}", mend, plugin=plugin.name) from error


def save(
    manager: PluginManager,
    module: Any,
    path: str | os.PathLike[str],
    name: str,
    config: Any = None,
    notes: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a checkpoint; see ``flambeau.plugins.save_model``."""
    spec = manager.get("models", name)
    if is_dataclass(config) and not isinstance(config, type):
        config = asdict(config)
    file = Path(path)
    if file.is_dir() or file.suffix != ".safetensors":
        file.mkdir(parents=True, exist_ok=True)
        file = file / CHECKPOINT_NAME
    distribution = manager.owner("models", name).distribution or ""
    write = resolve("flambeau.io:save_model_state")
    write(module.state_dict(), file, model=spec.id, config=config, plugin=distribution, notes=notes)
    return file


def checkpoint_path(path: str | os.PathLike[str]) -> Path | None:
    """The checkpoint file that `path` means: itself, or ``model.safetensors`` in it; None when there is none."""
    found = Path(path)
    if found.is_dir():
        found = found / CHECKPOINT_NAME
    return found if found.is_file() else None


def existing_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The same, raising `FlambeauError` when there is none."""
    file = checkpoint_path(path)
    if file is None:
        what = "holds no checkpoint" if os.path.isdir(path) else "does not exist"
        raise FlambeauError(
            f"{os.fspath(path)!r} {what}", f"pass a .safetensors file or a folder with {CHECKPOINT_NAME} in it"
        )
    return file


def spec_of_checkpoint(manager: PluginManager, file: Path) -> tuple[ModelSpec, Any]:
    """The spec of the model in a checkpoint, and the checkpoint's `flambeau.io.ModelCard`.

    Raises:
        NotRegisteredError: the model's plugin is not installed; the mend is the line that installs it.
        FlambeauError: a damaged file, or one that does not say which model it holds.
    """
    card = resolve("flambeau.io:read_model_card")(file)
    if card is None:
        raise FlambeauError(
            f"{str(file)!r} does not say which model it holds",
            "build the model with create_model and load the file into it with load_state_dict",
        )
    try:
        return manager.get("models", card.model), card
    except NotRegisteredError:
        raise manager.missing(card.model, card.plugin or None) from None


def load(manager: PluginManager, file: Path) -> Any:
    """The trained model in a checkpoint, in eval mode; see ``flambeau.plugins.load_model``."""
    spec, card = spec_of_checkpoint(manager, file)
    module = build(manager, spec.id, card.config)
    state, _ = resolve("flambeau.io:load_model_state")(file)
    try:
        module.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError) as error:
        raise FlambeauError(
            f"{str(file)!r} does not fit model {spec.id!r}: {describe(error)}",
            f"it was saved with Flambeau {card.version or '(unknown version)'}; use that, or train again",
        ) from error
    return module.eval()
