"""Plugins: what model families, trainers, datasets, tasks, exporters and commands are there.

A plugin is a distribution with an entry point of the group ``flambeau`` that names a module with hook implementations:

>>> from flambeau.plugins import ModelSpec, hookimpl
>>> @hookimpl
... def flambeau_register_models():
...     yield ModelSpec(id="lab/mlp", factory="lab.mlp:MLP", summary="a perceptron")

Importing this module, registering and listing import no array library.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import FlambeauError, MissingExtraError
from . import hub as _hub
from . import models as _models
from .errors import AmbiguousNameError, NotRegisteredError, PluginError, PluginWarning, SpecError
from .hookspecs import hookimpl
from .manager import PluginManager, PluginRecord
from .models import checkpoint_path
from .options import check_keys, option_defaults
from .registry import install_hint
from .spec import (
    API_VERSION,
    CommandSpec,
    DatasetSpec,
    ExporterSpec,
    ModelSpec,
    TaskSpec,
    TrainerSpec,
    resolve,
)

if TYPE_CHECKING:
    from ..nn import Module

__all__ = [
    "API_VERSION",
    "AmbiguousNameError",
    "CommandSpec",
    "DatasetSpec",
    "ExporterSpec",
    "ModelSpec",
    "NotRegisteredError",
    "PluginError",
    "PluginManager",
    "PluginRecord",
    "PluginWarning",
    "SpecError",
    "TaskSpec",
    "TrainerSpec",
    "check_keys",
    "checkpoint_path",
    "create_dataset",
    "create_model",
    "find_checkpoint",
    "get_dataset",
    "get_exporter",
    "get_model",
    "get_task",
    "get_trainer",
    "hookimpl",
    "list_commands",
    "list_datasets",
    "list_exporters",
    "list_models",
    "list_tasks",
    "list_trainers",
    "load_model",
    "manager",
    "missing_plugin_hint",
    "model_for_architecture",
    "option_defaults",
    "resolve",
    "resolve_weights",
    "save_model",
]

_manager: PluginManager | None = None
_lock = threading.Lock()


def manager() -> PluginManager:
    """The process's plugin manager. Plugins are loaded at the first look-up, not here."""
    global _manager
    with _lock:
        if _manager is None:
            _manager = PluginManager()
        return _manager


def get_model(name: str) -> ModelSpec:
    """The spec of the model with this id or short name.

    Raises:
        NotRegisteredError: there is none; its ``mend`` suggests a near miss or the package to install.
        AmbiguousNameError: the short name stands for several ids.
    """
    return cast(ModelSpec, manager().get("models", name))


def get_trainer(name: str) -> TrainerSpec:
    """The spec of the trainer with this id or short name; raises as `get_model` does."""
    return cast(TrainerSpec, manager().get("trainers", name))


def get_dataset(name: str) -> DatasetSpec:
    """The spec of the dataset with this id or short name; raises as `get_model` does."""
    return cast(DatasetSpec, manager().get("datasets", name))


def get_task(name: str) -> TaskSpec:
    """The spec of the task with this id or short name; raises as `get_model` does."""
    return cast(TaskSpec, manager().get("tasks", name))


def get_exporter(name: str) -> ExporterSpec:
    """The spec of the exporter with this id or short name; raises as `get_model` does."""
    return cast(ExporterSpec, manager().get("exporters", name))


def list_models(namespace: str | None = None, task: str | None = None, tag: str | None = None) -> list[ModelSpec]:
    """The registered models, sorted by id.

    Args:
        namespace: only those whose id starts with it.
        task: only those of this task (id or the part after its slash).
        tag: only those with this tag.
    """
    found = cast(list[ModelSpec], manager().specs("models"))
    return [
        spec
        for spec in found
        if (namespace is None or spec.namespace == namespace)
        and (task is None or (spec.task is not None and task in (spec.task, spec.task.rpartition("/")[2])))
        and (tag is None or tag in spec.tags)
    ]


def list_trainers() -> list[TrainerSpec]:
    """The registered trainers, sorted by id."""
    return cast(list[TrainerSpec], manager().specs("trainers"))


def list_datasets() -> list[DatasetSpec]:
    """The registered datasets, sorted by id."""
    return cast(list[DatasetSpec], manager().specs("datasets"))


def list_tasks() -> list[TaskSpec]:
    """The registered tasks, sorted by id."""
    return cast(list[TaskSpec], manager().specs("tasks"))


def list_exporters() -> list[ExporterSpec]:
    """The registered exporters, sorted by id."""
    return cast(list[ExporterSpec], manager().specs("exporters"))


def list_commands() -> list[CommandSpec]:
    """The commands that plugins add to ``flambeau``, sorted by name."""
    return cast(list[CommandSpec], manager().specs("commands"))


def create_model(name: str, /, **config: Any) -> Module:
    """A fresh, untrained model by id or short name.

    Args:
        config: the model's options (`option_defaults` of its config class or factory tells them).

    Raises:
        NotRegisteredError: no such model.
        UsageError: an option that it does not have.
        PluginError: the plugin's code cannot be imported.
    """
    return cast("Module", _models.build(manager(), name, config))


def load_model(model: str | os.PathLike[str]) -> Module:
    """A trained model, in eval mode.

    Args:
        model: a checkpoint file, a run's folder with ``model.safetensors``, or the name of a model that has weights.

    Raises:
        NotRegisteredError: no such model, or the checkpoint's plugin is not installed (the mend installs it).
        FlambeauError: the file is missing, damaged or does not fit, or the model has no trained weights.
    """
    file, spec = find_checkpoint(model)
    if file is None:
        raise FlambeauError(
            f"model {spec.id!r} has no trained weights",
            f"train it with `flambeau train {spec.id}` and use the folder that this writes",
        )
    return cast("Module", _models.load(manager(), file))


def find_checkpoint(model: str | os.PathLike[str]) -> tuple[Path | None, ModelSpec]:
    """The checkpoint file that `model` means, as `load_model` understands it, and the spec of the model in it.

    The file is None for the name of a model that has no trained weights. The weights are not read.
    """
    file = _models.checkpoint_path(model)
    if file is None:
        try:
            spec = get_model(os.fspath(model))
        except NotRegisteredError:
            if _looks_like_path(model):
                _models.existing_checkpoint(model)
            raise
        if not spec.weights:
            return None, spec
        file = resolve_weights(spec.weights[0])
    return file, _models.spec_of_checkpoint(manager(), file)[0]


def save_model(
    model: Module,
    path: str | os.PathLike[str],
    name: str,
    config: object = None,
    notes: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a checkpoint that `load_model` reads: a safetensors file that names its model.

    Args:
        path: the file; a folder gets ``model.safetensors``.
        name: id or short name of the model.
        config: the options that it was created with: a dict or a dataclass, JSON-serialisable.
        notes: further plain data (classes, normalisation, metrics).

    Returns:
        The file written.
    """
    return _models.save(manager(), model, path, name, config, notes)


def create_dataset(name: str, /, root: str, split: str = "train", **options: Any) -> Any:
    """The dataset called `name` over the files under `root`.

    Raises:
        UsageError: it has no such split.
    """
    spec = get_dataset(name)
    if spec.splits:
        check_keys([split], spec.splits, f"dataset {spec.id!r}: split")
    return _models.load_object(manager(), "datasets", spec.id, spec.factory)(root, split, **options)


def model_for_architecture(config: Mapping[str, Any]) -> ModelSpec:
    """The model that loads a Hugging Face folder with this ``config.json``.

    Raises:
        NotRegisteredError: no registered model has its ``architectures`` or ``model_type``; the mend is the line that
            installs the package of a well-known one, or lists what is there.
        AmbiguousNameError: several models have.
    """
    return _hub.find(manager(), config)


def resolve_weights(uri: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The local file of an address of weights.

    A path stands for itself, ``package:name/inside/file`` for a file that an installed package ships, and every other
    address is the plugins' (``flambeau_resolve_weights``).

    Args:
        cache_dir: where a plugin may keep what it fetches; default ``$FLAMBEAU_CACHE`` or ``~/.cache/flambeau``.

    Raises:
        FlambeauError: nobody knows the address, or the file is not there.
    """
    if uri.startswith("package:"):
        return _package_file(uri)
    if Path(uri).is_file():
        return Path(uri)
    folder = cache_dir or os.environ.get("FLAMBEAU_CACHE") or Path.home() / ".cache" / "flambeau"
    found = manager().resolve_weights(uri, os.fspath(folder))
    if found is None or not Path(found).is_file():
        raise FlambeauError(
            f"weights {uri!r} are not there", "pass the path of a file, or install the plugin that fetches it"
        )
    return Path(found)


def missing_plugin_hint(model_id: str, distribution: str | None = None) -> NotRegisteredError:
    """Why a model that something names is not there: an error whose ``mend`` is the ``pip install`` line.

    Args:
        model_id: ``"namespace/name"``.
        distribution: the package that a checkpoint's metadata names, which wins over a guess from the namespace.

    >>> missing_plugin_hint("spiral/rbf", "flambeau-example-spiral").mend
    'pip install flambeau-example-spiral'
    """
    return manager().missing(model_id, distribution)


def _looks_like_path(model: str | os.PathLike[str]) -> bool:
    text = os.fspath(model)
    return text.endswith(".safetensors") or text.startswith((".", "/", "~")) or os.path.exists(text)


def _package_file(uri: str) -> Path:
    from importlib.util import find_spec

    package, _, inside = uri.removeprefix("package:").partition("/")
    try:
        found = find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None and package.startswith("flambeau_"):
        distribution = package.replace("_", "-")
        cause = f"weights {uri!r} come with the package {distribution}, which is not installed"
        raise MissingExtraError(cause, install_hint(distribution))
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (Path(folder) / inside).is_file():
            return Path(folder) / inside
    raise FlambeauError(f"weights {uri!r} are not there", f"reinstall the package that ships {package!r}")
