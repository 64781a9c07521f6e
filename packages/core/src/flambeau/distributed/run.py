"""``python -m flambeau.distributed.run -n 4 program.py ...``: a short form of mpiexec with this Python."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig

from ..errors import EXIT_MISSING, EXIT_USAGE

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Replaces this process by mpiexec; returns an exit code only when it cannot."""
    args = sys.argv[1:] if arguments is None else arguments
    if len(args) < 3 or args[0] not in ("-n", "-np", "--nproc-per-node") or not args[1].isdigit() or args[1] == "0":
        print("usage: python -m flambeau.distributed.run -n PROCESSES (program.py | -m module) ...", file=sys.stderr)
        return EXIT_USAGE
    beside = os.path.join(sysconfig.get_path("scripts"), "mpiexec")
    program = beside if os.access(beside, os.X_OK) else shutil.which("mpiexec")
    if program is None:
        print('error: there is no mpiexec\n  mend: pip install "flambeau-core[mpi]"', file=sys.stderr)
        return EXIT_MISSING
    os.execv(program, [program, "-n", args[1], sys.executable, *args[2:]])


if __name__ == "__main__":
    sys.exit(main())
