"""``flambeau plugins new``: the package of a working plugin, with its tests."""

from __future__ import annotations

import keyword
import random
import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from ..errors import FlambeauError, UsageError
from ..plugins.discovery import canonical
from ..plugins.registry import KNOWN_DISTRIBUTIONS
from .doctor import core_version
from .output import note

_FILES = {
    "pyproject.toml": "pyproject.toml.in",
    "README.md": "README.md.in",
    "src/{package}/__init__.py": "init.py.in",
    "src/{package}/_plugin.py": "plugin.py.in",
    "src/{package}/model.py": "model.py.in",
    "src/{package}/task.py": "task.py.in",
    "src/{package}/trainer.py": "trainer.py.in",
    "tests/test_plugin.py": "test_plugin.py.in",
}


@click.command()
@click.argument("name")
@click.option("--directory", type=click.Path(file_okay=False), help="Folder to write to [default: NAME].")
def new(name: str, directory: str | None) -> None:
    """Write the package of a new plugin called NAME, such as flambeau-lab: a model, a trainer, a task and tests.

    The models' namespace is NAME without "flambeau-".
    """
    names = _names(name)
    target = Path(directory or name)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FlambeauError(f"{str(target)!r} exists and is not an empty folder", "name another with --directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place and moved there whole: an error half-way leaves nothing behind.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".flambeau-") as scratch:
        written = Path(scratch) / "package"
        _write(written, names)
        if target.exists():
            target.rmdir()
        shutil.move(written, target)
    click.echo(str(target))
    note(f"next: cd {target} && pip install -e '.[test]' && pytest")


def _names(name: str) -> dict[str, str]:
    """What the templates fill in for a plugin of this name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise UsageError(
            f"{name!r} is not a name for a package", "use lower-case words joined by '-', such as flambeau-lab"
        )
    distribution = canonical(name)
    namespace = distribution.removeprefix("flambeau-")
    package = distribution.replace("-", "_")
    if namespace in KNOWN_DISTRIBUTIONS or namespace in ("flambeau", "core"):
        raise UsageError(f"the name {name!r} is Flambeau's own", "choose another")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names:
        raise UsageError(f"{package!r} is a word or module of Python", f"choose another, such as flambeau-{namespace}")
    found = core_version()
    match = re.match(r"(\d+)\.(\d+)", found)
    core_range = f">={match[1]}.{match[2]},<{match[1]}.{int(match[2]) + 1}" if match else ""
    return {"distribution": distribution, "namespace": namespace, "package": package, "core_range": core_range}


def _write(folder: Path, names: dict[str, str]) -> None:
    templates = files(__package__) / "templates"
    for name, template in _FILES.items():
        path = folder / name.format(**names)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template((templates / template).read_text("utf-8")).substitute(names), encoding="utf-8")
    examples = folder / "examples"
    examples.mkdir()
    rows = _rows()
    (examples / "rows.csv").write_text("".join(rows), encoding="utf-8")
    (examples / "new.csv").write_text("".join(row.rpartition(",")[0] + "\n" for row in rows[:10]), encoding="utf-8")


def _rows() -> list[str]:
    """Two clouds of points that a small network tells apart."""
    draw = random.Random(0)
    rows = []
    for number in range(200):
        label = number % 2
        x, y = (draw.gauss(centre, 0.5) for centre in ((-1, -1), (1, 1))[label])
        rows.append(f"{x:.3f},{y:.3f},{label}\n")
    return rows
