"""Public names of every public module, kept in tests/repo/api_snapshot.json: `python tools/api_snapshot.py --write`.

A name that appears or goes away must show in a diff. Without --write the difference is printed, and the exit code is 1
if there is one.
"""

import importlib
import importlib.util
import inspect
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
    """`__all__`, or else what the module itself defines."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    own = []
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        if getattr(value, "__module__", None) == module.__name__:
            own.append(name)
    return sorted(own)


def snapshot() -> dict[str, list[str]]:
    out = {}
    for name in public_modules():
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            # Backends of libraries that are not installed; a broken import of our own must not be skipped.
            if (error.name or "").startswith("flambeau") or not error.name:
                raise
            continue
        names = public_names(module)
        if names:
            out[name] = names
    for path in CLASSES:
        module, _, attribute = path.rpartition(".")
        cls = getattr(importlib.import_module(module), attribute)
        out[path] = sorted(n for n in dir(cls) if not n.startswith("_"))
    return out


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
    print("\n".join(lines) or "no difference")
    if "--write" in sys.argv[1:]:
        SNAPSHOT.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
