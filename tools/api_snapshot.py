"""The public names, kept in tests/repo/api_snapshot.json: `python tools/api_snapshot.py --write`.

Recorded are the modules that people import from, the methods of the main classes, and the ids that the packages
register. A name that appears or goes away must show in a diff. Without --write the difference is printed, and the exit
code is 1 if there is one.
"""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
SNAPSHOT = ROOT / "tests" / "repo" / "api_snapshot.json"
PACKAGES = [
    "flambeau",
    "flambeau_vision",
    "flambeau_nlp",
    "flambeau_rl",
    "flambeau_science",
    "flambeau_generative",
    "flambeau_segment",
    "flambeau_translate",
]
FACADES = [
    "flambeau",
    "flambeau.autograd",
    "flambeau.data",
    "flambeau.errors",
    "flambeau.io",
    "flambeau.nn",
    "flambeau.nn.functional",
    "flambeau.nn.init",
    "flambeau.nn.utils",
    "flambeau.optim",
    "flambeau.optim.lr_scheduler",
    "flambeau.plugins",
    "flambeau.testing",
    "flambeau.train",
    *PACKAGES[1:],
]
DISTRIBUTIONS = {"flambeau-core" if p == "flambeau" else p.replace("_", "-") for p in PACKAGES}
FAMILIES = ["models", "trainers", "datasets", "tasks", "exporters", "commands"]
CLASSES = ["flambeau.Tensor", "flambeau.nn.Module", "flambeau.optim.Optimizer"]


def public_modules() -> list[str]:
    """Modules of all packages, found as files; a part that starts with an underscore is private."""
    names = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"{package} is not installed: run `make venv-test`", name=package)
        root = Path(spec.submodule_search_locations[0])
        for file in root.rglob("*.py"):
            parts = [package, *file.relative_to(root).with_suffix("").parts]
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(n for n in names if not any(part.startswith("_") for part in n.split(".")))


def public_names(module: ModuleType) -> list[str]:
    """`__all__`, or what a module without one shows of its own (the lazy `flambeau` has a `__dir__`)."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    names = [n for n in dir(module) if not n.startswith("_")]
    if "__dir__" in vars(module):
        return sorted(names)
    return sorted(n for n in names if getattr(getattr(module, n), "__module__", None) == module.__name__)


def snapshot() -> dict[str, list[str]]:
    out = {name: public_names(importlib.import_module(name)) for name in FACADES}
    for path in CLASSES:
        module, _, attribute = path.rpartition(".")
        cls = getattr(importlib.import_module(module), attribute)
        out[path] = sorted(n for n in dir(cls) if not n.startswith("_"))
    manager = importlib.import_module("flambeau.plugins").manager()
    for family in FAMILIES:
        own = [e for e in manager.entries(family) if (manager.records[e.plugin].distribution or "") in DISTRIBUTIONS]
        out[f"registered {family}"] = sorted(e.spec.key for e in own)
    return {name: names for name, names in out.items() if names}


def differences(old: dict[str, list[str]], new: dict[str, list[str]]) -> list[str]:
    lines = []
    for module in sorted(old.keys() | new.keys()):
        before, now = set(old.get(module, ())), set(new.get(module, ()))
        lines += [f"- {module}: {n}" for n in sorted(before - now)] + [f"+ {module}: {n}" for n in sorted(now - before)]
    return lines


def main() -> int:
    new = snapshot()
    old = json.loads(SNAPSHOT.read_text(encoding="utf-8")) if SNAPSHOT.exists() else {}
    lines = differences(old, new)
    shown = lines if "--write" in sys.argv[1:] else lines[:40]
    print(
        "\n".join([*shown, *([f"... and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else [])])
        or "no difference"
    )
    if "--write" in sys.argv[1:]:
        SNAPSHOT.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
