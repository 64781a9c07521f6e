"""The ``flambeau`` command. Nothing here imports an array library before a command needs one."""

from .run import run

__all__ = ["main", "run"]


def main(args: list[str] | None = None) -> None:
    """Runs ``flambeau`` with `args` (default: the process's) and exits."""
    from .root import root

    run(root, args, "flambeau")
