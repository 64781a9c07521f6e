"""Plugins that are installed into a folder, and the command run beside them in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BROKEN = HERE / "broken"
SPIRAL = HERE / "flambeau-example-spiral"

collect_ignore = ["broken", SPIRAL.name]  # packages of their own, with their own tests


class Site:
    """A folder that stands for an environment's site-packages: distributions without pip."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths = [str(folder)]

    def add(self, name: str, module: str, source: str, version: str = "1.0", distribution: str | None = None) -> None:
        """Installs `source` as `module`, with an entry point called `name`."""
        distribution = distribution or f"example-{name}"
        (self.folder / f"{module}.py").write_text(source, encoding="utf-8")
        self.describe(name, module, version, distribution)

    def describe(self, name: str, module: str, version: str, distribution: str) -> None:
        """Writes what pip would write about a distribution."""
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[flambeau]\n{name} = {module}\n")

    def add_broken(self, case: str, name: str | None = None) -> None:
        """Installs one of the plugins under broken/."""
        (source,) = (BROKEN / case).glob("*.py")
        self.add(name or case.replace("_", "-"), source.stem, source.read_text(encoding="utf-8"))

    def add_spiral(self) -> None:
        """Installs the example package, as an editable install does."""
        self.paths.append(str(SPIRAL / "src"))
        self.describe("spiral", "flambeau_example_spiral._plugin", "0.1.0", "flambeau-example-spiral")

    def run(self, *args: str, check: bool = False, cwd: Path | None = None, **environment: str):
        """Runs ``flambeau`` with only these plugins."""
        return self.python("-m", "flambeau", *args, check=check, cwd=cwd, **environment)

    def python(self, *args: str, check: bool = False, cwd: Path | None = None, **environment: str):
        """Runs Python with these plugins; whatever else is installed is switched off."""
        own = [entry.name.partition("-")[0] for entry in self.folder.glob("*.dist-info")]
        names = ",".join(own) or "none"
        path = os.pathsep.join(filter(None, [*self.paths, os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, "FLAMBEAU_LOAD_PLUGINS": names, **environment}
        return subprocess.run(
            [sys.executable, *args], capture_output=True, text=True, env=env, check=check, timeout=120, cwd=cwd
        )


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)
