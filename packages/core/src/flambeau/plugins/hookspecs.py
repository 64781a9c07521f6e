"""The hooks that a plugin may implement. A plugin marks its functions with ``flambeau.plugins.hookimpl``.

Every ``flambeau_register_*`` hook takes nothing and returns an iterable of specs (a generator will do). It must import
nothing heavy: specs name code by import path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .spec import CommandSpec, DatasetSpec, ExporterSpec, ModelSpec, TaskSpec, TrainerSpec

PROJECT = "flambeau"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin module as the implementation of the hook of the same name."""


@hookspec
def flambeau_register_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Model families."""


@hookspec
def flambeau_register_trainers() -> Iterable[TrainerSpec]:  # type: ignore[empty-body]
    """Trainers."""


@hookspec
def flambeau_register_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Dataset readers."""


@hookspec
def flambeau_register_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]
    """Tasks."""


@hookspec
def flambeau_register_exporters() -> Iterable[ExporterSpec]:  # type: ignore[empty-body]
    """File formats that models are exported to."""


@hookspec
def flambeau_register_commands() -> Iterable[CommandSpec]:  # type: ignore[empty-body]
    """Sub-commands of ``flambeau``."""


@hookspec(firstresult=True)
def flambeau_resolve_weights(uri: str, cache_dir: str) -> str | None:
    """The local path of the weights at `uri`, fetched into `cache_dir` if need be; None: not an address I know."""
