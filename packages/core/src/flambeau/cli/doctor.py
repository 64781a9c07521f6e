"""``flambeau doctor``: whether this installation works, and what is not there."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import click

from ..errors import EXIT_FAILURE
from ..plugins import manager
from ..plugins.manager import describe
from .output import counted, print_json, print_table


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `status` is ok, missing (optional and not there), warning or failed."""

    what: str
    status: str
    detail: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check this installation: Python, NumPy, backends, fast kernels, plugins. Exit code 1 if something is broken."""
    findings = [_python(), _core(), _numpy(), _arithmetic(), _kernels(), _cupy(), *_plugins()]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(["what", "status", "detail"], [[f.what, f.status, f.detail] for f in findings])
    if any(finding.status == "failed" for finding in findings):
        ctx.exit(EXIT_FAILURE)


def core_version() -> str:
    """The installed version of flambeau-core."""
    try:
        return version("flambeau-core")
    except PackageNotFoundError:
        return "(not installed)"


def _python() -> Finding:
    status = "ok" if sys.version_info >= (3, 11) else "failed"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("python", status, f"{platform.python_version()} on {platform.platform(terse=True)}, {cores} cores")


def _core() -> Finding:
    found = core_version()
    status = "warning" if found == "(not installed)" else "ok"
    return Finding("flambeau-core", status, f"{found} in {os.path.dirname(os.path.dirname(__file__))}")


def _numpy() -> Finding:
    try:
        import numpy
    except Exception as error:  # a broken NumPy raises all sorts of things
        return Finding("numpy", "failed", describe(error))
    status = "ok" if int(numpy.__version__.split(".")[0]) >= 2 else "failed"
    build = numpy.show_config(mode="dicts") or {}
    blas = build.get("Build Dependencies", {}).get("blas", {})
    return Finding(
        "numpy", status, f"{numpy.__version__}, BLAS {blas.get('name', '?')} {blas.get('version', '')}".strip()
    )


def _arithmetic() -> Finding:
    """One gradient, computed for real."""
    try:
        import flambeau

        x = flambeau.full((1,), 3.0, requires_grad=True)
        (x * x).sum().backward()
        slope = x.grad.item()
    except Exception as error:
        return Finding("autograd", "failed", describe(error))
    return Finding("autograd", "ok" if slope == 6.0 else "failed", f"the slope of x² at 3 is {slope}")


def _kernels() -> Finding:
    try:
        from ..backends import kernels
        from ..ops import REGISTRY

        loaded = kernels.load()
    except Exception as error:
        return Finding("fast kernels", "failed", describe(error))
    if not loaded:
        return Finding("fast kernels", "missing", "pip install 'flambeau-core[fast]'")
    if not kernels.load_numba():
        return Finding("fast kernels", "missing", "Numba's kernels: pip install 'flambeau-core[fast]' completes them")
    names = sorted(name for name, operation in REGISTRY.items() if operation.kernel is not None)
    return Finding("fast kernels", "ok", ", ".join(names))


def _cupy() -> Finding:
    try:
        import cupy
    except ModuleNotFoundError:
        return Finding("cuda", "missing", "pip install 'flambeau-core[cuda12]' (or [cuda13]) on a machine with a GPU")
    except Exception as error:
        return Finding("cuda", "failed", describe(error))
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        names = [cupy.cuda.runtime.getDeviceProperties(index)["name"].decode() for index in range(count)]
    except Exception as error:
        return Finding("cuda", "warning", f"CuPy {cupy.__version__} finds no device: {describe(error)}")
    return Finding(
        "cuda", "ok" if count else "warning", f"CuPy {cupy.__version__}, {count} devices: {', '.join(names)}"
    )


def _plugins() -> list[Finding]:
    found = manager()
    found.report = lambda line: None  # the report says it
    found.load_everything()
    lines = []
    for name, record in sorted(found.records.items()):
        counts = ", ".join(counted(number, family) for family, number in found.counts(name).items() if number)
        detail = "; ".join(record.problems) or counts or "registers nothing"
        lines.append(Finding(f"plugin {name}", record.status, detail))
    return lines
