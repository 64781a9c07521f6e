"""A third-party package from its wheel to its removal, and one that `flambeau plugins new` wrote; all with pip."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pip")]

ROOT = Path(__file__).resolve().parents[2]
SPIRAL = Path(__file__).parent / "flambeau-example-spiral"


class Environment:
    """A virtual environment with core alone."""

    def __init__(self, folder: Path):
        venv.create(folder, with_pip=True)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *args, code=0, cwd=None):
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FLAMBEAU_"))}
        command = [str(self.bin / args[0]), *map(str, args[1:])]
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=600)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def pip(self, *args):
        return self.run("python", "-m", "pip", "--disable-pip-version-check", "--quiet", *args)


def wheel(source: Path, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], check=True)
    return max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    pytest.importorskip("hatchling", reason="wheels are built without isolation")
    environment = Environment(tmp_path_factory.mktemp("environment"))
    environment.pip("install", wheel(ROOT / "packages" / "core", tmp_path_factory.mktemp("wheel")), "pytest")
    return environment


def test_a_third_party_package_from_wheel_to_removal(core, tmp_path):
    assert core.run("flambeau", "models", "list").stdout == ""
    core.pip("install", wheel(SPIRAL, tmp_path))
    core.run("python", "-m", "pip", "check")
    listed = core.run("flambeau", "models", "list").stdout.splitlines()
    assert len(listed) == 2 and listed[1].startswith("spiral/rbf")
    assert "1 plugin checked, no problems" in core.run("flambeau", "plugins", "--check").stderr

    core.run("flambeau", "train", "spiral/rbf", "--set", "steps=2", "--output", "run", cwd=tmp_path)
    (tmp_path / "points.csv").write_text("0.5,0.5\n")
    assert core.run("flambeau", "predict", "run", "points.csv", cwd=tmp_path).stdout.startswith("points.csv: [")
    shutil.copytree(SPIRAL / "tests", tmp_path / "tests")  # away from this suite's settings
    core.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=tmp_path)

    core.pip("uninstall", "--yes", "flambeau-example-spiral")
    assert core.run("flambeau", "models", "list").stdout == ""
    gone = core.run("flambeau", "predict", "run", "points.csv", cwd=tmp_path, code=3)
    assert gone.stderr.splitlines() == [
        "error: 'spiral/rbf' comes from the package flambeau-example-spiral, which is not installed",
        "  mend: pip install flambeau-example-spiral",
    ]
    load = "from flambeau.plugins import *\ntry: load_model('run')\nexcept NotRegisteredError as e: print(e.mend)"
    assert core.run("python", "-c", load, cwd=tmp_path).stdout == "pip install flambeau-example-spiral\n"


def test_a_new_plugin_passes_its_own_tests_and_does_what_its_readme_says(core, tmp_path):
    core.run("flambeau", "plugins", "new", "flambeau-lab", cwd=tmp_path)
    package = tmp_path / "flambeau-lab"
    core.pip("install", wheel(package, tmp_path))
    report = core.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package).stdout
    assert " passed" in report and "failed" not in report
    readme = (package / "README.md").read_text().split("```")[1].splitlines()
    commands = [line.split() for line in readme if line.startswith("flambeau ")]
    assert [command[1] for command in commands] == ["models", "train", "evaluate", "predict"]
    for command in commands:
        assert core.run(*command, cwd=package).stdout
    core.pip("uninstall", "--yes", "flambeau-lab")
