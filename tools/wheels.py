"""Build every wheel into dist/ and try each one alone in an empty environment.

For each distribution: a fresh environment, the wheel and what it declares (siblings come from dist/ only), the import,
`pip check`, `flambeau plugins --check`, `--help` of its commands. Fails when a check fails or a wheel is over its
budget in the root pyproject.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
BUDGET = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flambeau"]


class CheckFailed(Exception):
    """One step on one wheel went wrong; the message holds the step and what it printed."""


@dataclass(frozen=True)
class Wheel:
    name: str
    package: str
    path: Path

    @property
    def kb(self) -> float:
        return self.path.stat().st_size / 1000


def sources() -> list[Path]:
    """Folders of the distributions."""
    return sorted(p.parent for kind in ("packages", "apps") for p in ROOT.glob(f"{kind}/*/pyproject.toml"))


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=env, cwd=tempfile.gettempdir())
    if done.returncode:
        shown = " ".join(str(c) for c in command)
        raise CheckFailed(f"exit {done.returncode} from: {shown}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def build(out: Path) -> list[Wheel]:
    """Build all wheels with the backend of this environment (no isolation: nothing is fetched)."""
    out.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run(*pip, "--no-build-isolation", "--wheel-dir", out, *sources())
    wheels = []
    for folder in sources():
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        stem = project["name"].replace("-", "_") + "-" + project["version"]
        path = out / f"{stem}-py3-none-any.whl"
        if not path.exists():
            raise CheckFailed(f"{project['name']}: no {path.name} was built (not pure Python?)")
        wheels.append(Wheel(project["name"], next((folder / "src").glob("flambeau*")).name, path))
    return wheels


def installed_mb(environment: Path) -> float:
    """Size of what pip put there, byte code that Python makes by itself aside."""
    files = [f for f in environment.rglob("*") if f.is_file() and f.suffix != ".pyc"]
    return sum(f.stat().st_size for f in files) / 1e6


def check(wheel: Wheel, wheels: list[Wheel]) -> str:
    """Install `wheel` alone, use it, return a line for the table."""
    limit = BUDGET["wheel-kb"].get(wheel.name)
    if limit is None:
        raise CheckFailed("has no size budget: add it to [tool.flambeau.wheel-kb] in pyproject.toml")
    if wheel.kb > limit:
        raise CheckFailed(f"{wheel.kb:.0f} kB is over its budget of {limit} kB")
    with tempfile.TemporaryDirectory(prefix="flambeau-wheel-") as folder:
        environment = Path(folder) / "env"
        run(sys.executable, "-m", "venv", "--without-pip", environment)
        python = environment / "bin" / "python"
        empty = installed_mb(environment)
        # Siblings are pinned to the files just built, so that nothing of the same name can come from an index.
        siblings = Path(folder) / "constraints.txt"
        siblings.write_text("".join(f"{w.name} @ {w.path.as_uri()}\n" for w in wheels), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
        run(*pip, "install", "--quiet", "--no-compile", "--constraint", siblings, wheel.path)
        size = installed_mb(environment) - empty
        if wheel.name == "flambeau-core" and size > BUDGET["core-installed-mb"]:
            raise CheckFailed(f"installs {size:.1f} MB, the budget is {BUDGET['core-installed-mb']} MB")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FLAMBEAU", "VIRTUAL_ENV"))}
        where = run(python, "-c", f"import {wheel.package} as p; print(p.__file__, p.__version__)", env=clean)
        if not where.startswith(str(environment)):
            raise CheckFailed(f"the import came from {where.strip()}, not from the empty environment")
        run(*pip, "check")
        run(environment / "bin" / "flambeau", "plugins", "--check", env=clean)
        for script in sorted((environment / "bin").glob("flambeau*")):
            run(script, "--help", env=clean)
        return f"{wheel.name:22} {wheel.kb:8.0f} kB of {limit:5} kB   installed {size:6.1f} MB"


def main() -> int:
    shutil.rmtree(DIST, ignore_errors=True)
    try:
        wheels = build(DIST)
    except CheckFailed as error:
        print(f"FAILED: building the wheels\n{error}", file=sys.stderr)
        return 1
    failed = 0
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for wheel, job in [(w, pool.submit(check, w, wheels)) for w in wheels]:
            try:
                print(job.result(), flush=True)
            except CheckFailed as error:
                failed += 1
                print(f"{wheel.name:22} FAILED: {error}", flush=True)
    print(f"wheels: {len(wheels) - failed} passed, {failed} failed (in {DIST.relative_to(ROOT)}/)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
