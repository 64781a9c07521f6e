"""The root of the command tree."""

from __future__ import annotations

import click

from ..errors import EXIT_MISSING, UsageError
from ..plugins import CommandSpec, PluginError, list_commands, manager
from ..plugins.models import load_object
from ..plugins.registry import install_hint
from .groups import LazyGroup

_BUILT_IN = {
    "models": ("flambeau.cli.registry:models", "List models, or describe one."),
    "datasets": ("flambeau.cli.registry:datasets", "List datasets, or describe one."),
    "tasks": ("flambeau.cli.registry:tasks", "List tasks, or describe one."),
    "trainers": ("flambeau.cli.registry:trainers", "List trainers, or describe one."),
    "train": ("flambeau.cli.train:train", "Train a model."),
    "tune": ("flambeau.cli.tune:tune", "Train a model many times with other options, by Ray Tune."),
    "evaluate": ("flambeau.cli.work:evaluate", "Measure a trained model on a dataset."),
    "predict": ("flambeau.cli.work:predict", "Run a trained model on files."),
    "explain": ("flambeau.cli.explain:explain", "Draw why a trained model says what it says."),
    "summary": ("flambeau.cli.summary:summary", "Show a model's layers, parameters, operations and memory."),
    "plugins": ("flambeau.cli.plugins:plugins", "Show the installed plugins, check them, or start one."),
    "doctor": ("flambeau.cli.doctor:doctor", "Check this installation."),
    "completion": ("flambeau.cli.completion:completion", "Print the script that completes commands in a shell."),
}
_APPS = ("segment", "translate")


class Root(LazyGroup):
    """Built-in commands, then those of plugins. Only help, completion and unknown names look at plugins."""

    def summaries(self) -> dict[str, dict[str, str]]:
        specs = [spec for spec in list_commands() if spec.name not in self.lazy]
        return {**super().summaries(), "Commands of plugins": {spec.name: spec.summary for spec in specs}}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy:
            return super().get_command(ctx, cmd_name)
        for spec in list_commands():
            if spec.name == cmd_name:
                return _load(spec)
        return None

    def unknown_command(self, ctx: click.Context, name: str) -> UsageError:
        package = f"flambeau-{name}"
        if name in _APPS and all(record.distribution != package for record in manager().records.values()):
            cause = f"the command {name!r} comes from the package {package}, which is not installed"
            return UsageError(cause, install_hint(package), EXIT_MISSING)
        return super().unknown_command(ctx, name)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Help is where a person looks when something is missing: whatever is wrong with a plugin is said here, once.
        manager().load_everything()
        super().format_help(ctx, formatter)


def _load(spec: CommandSpec) -> click.Command:
    command = load_object(manager(), "commands", spec.name, spec.command)
    if not isinstance(command, click.Command):
        plugin = manager().owner("commands", spec.name)
        raise PluginError(f"{plugin.label()}: {spec.command!r} is not a click command", plugin=plugin.name)
    return command


def _print_version(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from .doctor import core_version

        click.echo(f"flambeau {core_version()}")
        ctx.exit()


@click.group(
    cls=Root, lazy=_BUILT_IN, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks; may stand anywhere on the line.")
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version,
              help="Show the version and exit.")  # fmt: skip
@click.pass_context
def root(ctx: click.Context) -> None:
    """Deep learning with PyTorch's API on NumPy and CuPy arrays.

    Results go to stdout, messages to stderr. Exit codes: 0 done, 1 failure, 2 wrong usage, 3 a package or extra is
    missing, 4 no such device.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
