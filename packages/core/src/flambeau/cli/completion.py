"""``flambeau completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ..errors import FlambeauError

_WHERE = {
    "bash": 'eval "$(flambeau completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(flambeau completion zsh)"   # in ~/.zshrc',
    "fish": "flambeau completion fish > ~/.config/fish/completions/flambeau.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(_WHERE)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes flambeau's commands in SHELL.

    \b
    bash  eval "$(flambeau completion bash)"   # in ~/.bashrc
    zsh   eval "$(flambeau completion zsh)"   # in ~/.zshrc
    fish  flambeau completion fish > ~/.config/fish/completions/flambeau.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise FlambeauError(f"click has no completion for {shell}", "upgrade click")
    root = ctx.find_root()
    completer = kind(root.command, {}, "flambeau", "_FLAMBEAU_COMPLETE")
    # source() also starts bash to look at its version; the script is the same.
    click.echo(completer.source_template % completer.source_vars())
