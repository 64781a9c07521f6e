"""What flambeau-segment registers with Flambeau. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from flambeau.plugins import CommandSpec, hookimpl


@hookimpl
def flambeau_register_commands() -> Iterator[CommandSpec]:
    yield CommandSpec(
        name="segment",
        command="flambeau_segment.cli:command",
        summary="Colour road, sky, buildings, trees, cars … in street photos.",
    )
