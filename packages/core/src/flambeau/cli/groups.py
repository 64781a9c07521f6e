"""A click group whose commands are imported when they run, and listed without being imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..errors import UsageError
from ..plugins.registry import did_you_mean, near
from ..plugins.spec import resolve


class LazyGroup(click.Group):
    """Commands by import path.

    Args:
        lazy: command name -> (import path, one line of help).
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("invoke_without_command", True)
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})

    def summaries(self) -> dict[str, dict[str, str]]:
        """Help lines of all commands, by section of the help text."""
        lines = {name: summary for name, (_, summary) in self.lazy.items()}
        lines |= {name: command.get_short_help_str(100) for name, command in self.commands.items()}
        return {"Commands": dict(sorted(lines.items()))}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for lines in self.summaries().values() for name in lines]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy:
            command: click.Command = resolve(self.lazy[cmd_name][0])
            return command
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        result = super().invoke(ctx)
        if ctx.invoked_subcommand is None and self.callback is None:
            click.echo(ctx.get_help())
        return result

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        command = self.get_command(ctx, args[0])
        if command is None:
            if args[0].startswith("-"):
                return super().resolve_command(ctx, args)
            raise self.unknown_command(ctx, args[0])
        return args[0], command, args[1:]

    def unknown_command(self, ctx: click.Context, name: str) -> UsageError:
        """The error for a command that is not there."""
        hint = did_you_mean(near(name, self.list_commands(ctx)))
        return UsageError(f"there is no command {name!r}", hint or f"`{ctx.command_path} --help` lists the commands")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, lines in self.summaries().items():
            if lines:
                with formatter.section(section):
                    formatter.write_dl(list(lines.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        lines = {name: text for section in self.summaries().values() for name, text in section.items()}
        items = [CompletionItem(name, help=text) for name, text in lines.items() if name.startswith(incomplete)]
        return items + click.Command.shell_complete(self, ctx, incomplete)
