"""The bounds of the house: file length, direction of imports, dependencies, what an import loads, wheels."""

import ast
import io
import json
import subprocess
import sys
import tokenize
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMITS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flambeau"]
FOLDERS = sorted(p.parent for kind in ("packages", "apps") for p in ROOT.glob(f"{kind}/*/pyproject.toml"))
PROJECTS = {f: tomllib.loads((f / "pyproject.toml").read_text(encoding="utf-8"))["project"] for f in FOLDERS}
SOURCES = sorted(s for f in FOLDERS for s in (f / "src").rglob("*.py"))
CORE = ROOT / "packages" / "core" / "src" / "flambeau"

# The distribution that an import name comes from, where the two differ.
DISTRIBUTION = {
    "PIL": "pillow", "_cffi_backend": "cffi", "cupy": "cupy-cuda12x", "cupyx": "cupy-cuda12x",
    "llvmlite": "numba",  # which requires it
}  # fmt: skip
# Compared with in tests, never used by a package.
NEVER = {"torch", "torchvision", "tensorflow", "jax", "scipy", "sklearn", "pandas", "transformers"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_lines(source: str) -> int:
    """Lines that hold code: docstrings, comments and blank lines do not count."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docstrings.update(range(first.lineno, first.end_lineno + 1))
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def imports(path: Path) -> list[tuple[str, bool]]:
    """Absolute names of the modules that a file imports, and whether it does so when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    src = next(p for p in path.parents if p.name == "src")
    package = list(path.relative_to(src).with_suffix("").parts[:-1])
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, eager: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, eager) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.append((module, eager))
            found.extend((f"{module}.{alias.name}", eager) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, eager and not lazy)

    visit(tree, True)
    return found


def test_the_counter_counts_code_only():
    source = (
        '"""Doc.\n\nmore\n"""\n\n# why\nx = 1  # note\n\n\ndef f():\n    """Doc."""\n    return (\n        x\n    )\n'
    )
    assert code_lines(source) == 5


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_file_length(path):
    lines = code_lines(path.read_text(encoding="utf-8"))
    assert lines <= LIMITS["max-file-lines"], f"{relative(path)} has {lines} lines of code: split it by theme"


# What a part of core may not import, in any function either: dependencies point one way.
UPPER = {"nn", "optim", "data", "train", "io", "plugins", "cli", "testing"}
FORBIDDEN = {
    "dtypes": UPPER | {"ops", "autograd", "tensor", "backends"},
    "backends": UPPER | {"ops", "autograd", "tensor"},
    "autograd": UPPER,
    "ops": UPPER,
    "tensor": UPPER,
    "nn": UPPER - {"nn"},
    "optim": UPPER - {"optim", "nn"},
    "data": UPPER - {"data"},
    "io": UPPER - {"io", "nn", "plugins"},  # files hold parameters; from_pretrained asks the plugins for models
    "plugins": UPPER - {"plugins", "testing"},
    "train": {"cli", "testing"},
}


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda p: p.relative_to(CORE).as_posix())
def test_imports_of_core_point_one_way(path):
    part = path.relative_to(CORE).parts[0].removesuffix(".py")
    forbidden = FORBIDDEN.get(part, set())
    if "kernels" in path.parts:
        forbidden = forbidden - {"ops"}  # a kernel is registered under the name of an op
    wrong = {n for n, _ in imports(path) if n.startswith("flambeau.") and n.split(".")[1] in forbidden}
    assert not wrong, f"flambeau.{part} may not import {sorted(wrong)}"


@pytest.mark.parametrize("folder", FOLDERS, ids=relative)
def test_imports_are_declared(folder):
    """Imported on import: a dependency. In a function: a dependency or an extra. Never another domain."""
    project = PROJECTS[folder]

    def names(requirements):
        cut = str.maketrans(dict.fromkeys("<>=!~;[ ", "\0"))
        return {r.translate(cut).split("\0")[0].lower().replace("_", "-") for r in requirements}

    core = next(p for p in PROJECTS.values() if p["name"] == "flambeau-core")
    always = names(project["dependencies"]) | {project["name"]} | names(core["dependencies"])
    extras = names(r for rs in project.get("optional-dependencies", {}).values() for r in rs)
    wrong = []
    for path in sorted((folder / "src").rglob("*.py")):
        optional = path.parent.name == "kernels" or path.stem == "cupy"  # imported only where their library is
        for name, eager in imports(path):
            top = name.split(".")[0]
            if not top or top in sys.stdlib_module_names or top == "__future__":
                continue
            if top == "flambeau":
                distribution = "flambeau-core"
            else:
                distribution = DISTRIBUTION.get(top, top).lower().replace("_", "-")
            allowed = always if eager and not optional else always | extras
            if top in NEVER or distribution not in allowed:
                wrong.append(f"{relative(path)}: {name}")
    assert not wrong, f"imported but not declared by {project['name']}: {sorted(set(wrong))}"


def test_domains_do_not_depend_on_each_other():
    domains = {p["name"] for f, p in PROJECTS.items() if f.parent.name == "packages"} - {"flambeau-core"}
    for folder, project in PROJECTS.items():
        if folder.parent.name == "packages":
            asked = " ".join(project["dependencies"])
            assert not [d for d in domains - {project["name"]} if d in asked], project["name"]


def test_versions_are_in_lockstep():
    versions = {p["name"]: p["version"] for p in PROJECTS.values()}
    assert len(set(versions.values())) == 1, versions
    for folder, project in PROJECTS.items():
        code = f"import {next((folder / 'src').glob('flambeau*')).name} as p; print(p.__version__)"
        assert run(code).strip() == project["version"], project["name"]


def test_core_depends_on_little():
    core = next(p for p in PROJECTS.values() if p["name"] == "flambeau-core")
    names = {d.split(">")[0] for d in core["dependencies"]}
    assert names == {"numpy", "pluggy", "click", "tqdm", "ml_dtypes"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(statement: str) -> set[str]:
    """Modules in sys.modules after `statement`, in a process of its own."""
    code = f"import sys, json\n{statement}\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    return set(json.loads(run(code).splitlines()[-1]))


def test_import_of_flambeau_is_light():
    modules = loaded("import flambeau")
    tops = {m.split(".")[0] for m in modules}
    heavy = tops & {"click", "PIL", "tqdm", "matplotlib", "cffi", "numba", "cupy", "safetensors", "pluggy", *NEVER}
    assert not heavy, f"`import flambeau` loads {sorted(heavy)}"
    extra = modules - loaded("import numpy")
    assert len(extra) <= 60, f"`import flambeau` loads {len(extra)} modules beyond NumPy's: {sorted(extra)}"


@pytest.mark.parametrize("module", ["flambeau.plugins", "flambeau.cli", *(f"{d}._plugin" for d in (
    "flambeau_vision", "flambeau_nlp", "flambeau_rl", "flambeau_science", "flambeau_generative",
    "flambeau_segment", "flambeau_translate"))])  # fmt: skip
def test_plugins_and_cli_load_no_array_library(module):
    tops = {m.split(".")[0] for m in loaded(f"import {module}")}
    assert not tops & {"numpy", "PIL", "cupy", "matplotlib", *NEVER}


# --- wheels -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """All wheels, built once by the tool that `make wheels` uses."""
    pytest.importorskip("hatchling", reason="wheels are built without isolation, with the backend of this environment")
    sys.path.insert(0, str(ROOT / "tools"))
    import wheels as tool

    return tool.build(tmp_path_factory.mktemp("wheels"))


@pytest.mark.xdist_group("wheels")
def test_wheels_are_within_their_budgets(wheels):
    sizes = {w.name: w.kb for w in wheels}
    assert set(sizes) == set(LIMITS["wheel-kb"])
    over = {n: f"{kb:.0f} kB" for n, kb in sizes.items() if kb > LIMITS["wheel-kb"][n]}
    assert not over, f"over budget: {over}"


@pytest.mark.xdist_group("wheels")
def test_wheels_hold_all_files_of_the_package(wheels):
    """Weights, photos and cards included: a file that an ignore rule swallows would be missed only after a release."""
    by_name = {p["name"]: f for f, p in PROJECTS.items()}
    for wheel in wheels:
        names = set(zipfile.ZipFile(wheel.path).namelist())
        src = by_name[wheel.name] / "src"
        files = [f for f in src.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
        want = {f.relative_to(src).as_posix() for f in files}
        assert want <= names, f"{wheel.path.name} lacks {sorted(want - names)}"
        assert any(n.endswith("licenses/LICENSE") for n in names), f"{wheel.path.name} has no licence"
