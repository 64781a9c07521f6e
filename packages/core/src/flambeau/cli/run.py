"""Runs a click command the way every Flambeau command behaves: one line of cause, one of mend, an exit code.

0 done, 1 failure, 2 wrong usage, 3 a package or extra is missing, 4 no such device, 130 interrupted. A traceback is
shown only with ``--debug`` (anywhere on the line) or ``FLAMBEAU_DEBUG=1``.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from ..errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_MISSING, EXIT_OK, FlambeauError
from .output import note, print_error

_EXTRAS = {
    "cupy": "pip install 'flambeau-core[cuda12]' (or [cuda13])",
    "matplotlib": "pip install 'flambeau-core[plot]'",
    "tensorboardX": "pip install 'flambeau-core[tensorboard]'",
    "PIL": "pip install Pillow",
    "mpi4py": "pip install 'flambeau-core[mpi]'",
}
_NO_ARGUMENTS: type[click.UsageError] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())  # click 8.2


def run(command: click.Command, args: Sequence[str] | None = None, prog_name: str | None = None) -> NoReturn:
    """Runs `command` and exits. An application's entry point is ``def main(): run(command, prog_name="my-app")``.

    Args:
        args: the arguments; default those of the process.
        prog_name: name shown in messages.
    """
    arguments, debug = _take_debug(list(sys.argv[1:] if args is None else args))
    _report_plugins_to_stderr()
    try:
        code = command.main(arguments, prog_name=prog_name, standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        sys.exit(EXIT_FAILURE)
    except Exception as error:
        if debug:
            traceback.print_exc()
        code = _explain(error, debug)
        _end_others(error, code)
        sys.exit(code)
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(code if isinstance(code, int) and not isinstance(code, bool) else EXIT_OK)


def _end_others(error: Exception, code: int) -> None:
    """Other processes of a parallel run would wait for this one."""
    group = sys.modules.get("flambeau.distributed.group")
    if group is not None:
        group.fail(f"{type(error).__name__}: {' '.join(str(error).split())}", code)


def _take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """``--debug`` is understood wherever it stands: whoever sees an error adds it to the end of the line."""
    debug = os.environ.get("FLAMBEAU_DEBUG", "") not in ("", "0")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    before = [argument for argument in arguments[:end] if argument != "--debug"]
    return before + arguments[end:], debug or len(before) < end


def _report_plugins_to_stderr() -> None:
    from ..plugins import manager

    # A shell that asks what could be typed (click's variable _PROGRAM_COMPLETE) would show complaints amid the line.
    completing = any(name.startswith("_") and name.endswith("_COMPLETE") for name in os.environ)
    manager().report = lambda line: None if completing else note(f"warning: {line}")


def _explain(error: Exception, debug: bool) -> int:
    """Prints the lines for an error; returns the exit code."""
    if isinstance(error, FlambeauError):
        print_error(error.cause, error.mend)
        return error.exit_code
    if isinstance(error, click.Abort):
        interrupted = isinstance(error.__cause__ or error.__context__, KeyboardInterrupt)
        print_error("interrupted" if interrupted else "aborted")
        return EXIT_INTERRUPTED if interrupted else EXIT_FAILURE
    if isinstance(error, _NO_ARGUMENTS):
        click.echo(error.format_message(), err=True)
        return error.exit_code
    if isinstance(error, click.UsageError):
        print_error(*_usage(error))
        return error.exit_code
    if isinstance(error, click.ClickException):
        print_error(error.format_message())
        return error.exit_code
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name.partition(".")[0]
        print_error(f"the module {module!r} is not installed", _EXTRAS.get(module, f"install what provides {module!r}"))
        return EXIT_MISSING
    if isinstance(error, OSError) and error.filename and error.strerror:
        print_error(f"{os.fspath(error.filename)!r}: {error.strerror}", "check the path and its permissions")
        return EXIT_FAILURE
    text = " ".join(str(error).split())
    mend = "" if debug else "add --debug to see where it happened"
    print_error(f"{type(error).__name__}: {text}" if text else type(error).__name__, mend)
    return EXIT_FAILURE


def _usage(error: click.UsageError) -> tuple[str, str]:
    from ..plugins.registry import did_you_mean

    help_line = f"`{error.ctx.command_path} --help` shows the usage" if error.ctx else ""
    if isinstance(error, click.NoSuchOption):
        return f"there is no option {error.option_name!r}", did_you_mean(error.possibilities or ()) or help_line
    message = " ".join(error.format_message().split()).rstrip(".")
    return message[:1].lower() + message[1:], help_line


def _silence_stdout() -> None:
    # The interpreter flushes stdout at exit and would complain about the closed pipe again.
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass
