"""What flambeau-translate registers with Flambeau. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from flambeau.plugins import CommandSpec, hookimpl


@hookimpl
def flambeau_register_commands() -> Iterator[CommandSpec]:
    yield CommandSpec(
        name="translate",
        command="flambeau_translate.cli:command",
        summary="Translate text, line by line, with a trained encoder-decoder.",
    )
