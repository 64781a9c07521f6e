"""Documents tell the truth: their links lead somewhere, their examples run, and so do the examples in docstrings.

In README.md and docs/: a ```python block runs (all blocks of one file in order, in one process, in an empty folder), a
```python notest block does not; the `$ ` lines of a ```console test block run and must succeed, other console blocks
are shown only.
"""

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import api_snapshot

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("packages/*/README.md"),
        *ROOT.glob("apps/*/README.md"),
        ROOT / "benchmarks" / "README.md",
    ]
)
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def blocks(path: Path, info: str) -> list[tuple[int, str]]:
    """(line number, text) of the fenced blocks with that info string."""
    text = path.read_text(encoding="utf-8")
    found = [(text[: m.start()].count("\n") + 2, m[2]) for m in FENCE.finditer(text) if m[1].strip() == info]
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def environment() -> dict[str, str]:
    scripts = sysconfig.get_path("scripts")
    return {**os.environ, "PATH": scripts + os.pathsep + os.environ.get("PATH", ""), "MPLBACKEND": "agg"}


def anchors(path: Path) -> set[str]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.replace("`", "").lower()).strip().replace(" ", "-") for t in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links(path):
    dead = []
    for target in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            dead.append(target)
    assert not dead


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if blocks(p, "python")], ids=name)
def test_python_blocks(path, tmp_path):
    # Blank lines put each block at its own line number, so that a traceback points into the document.
    source, line = "", 1
    for start, text in blocks(path, "python"):
        source += "\n" * (start - line) + text
        line = start + text.count("\n")
    script = tmp_path / (path.stem + ".py")
    script.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{name(path)}:\n{done.stderr}"


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if blocks(p, "console test")], ids=name)
def test_console_blocks(path, tmp_path):
    ran = 0
    for _, text in blocks(path, "console test"):
        for command in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
            done = subprocess.run(
                shlex.split(command), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{name(path)}: {command}\n{done.stdout}{done.stderr}"
            ran += 1
    assert ran, "a console test block without a `$ ` line"


def examples(module) -> list[doctest.DocTest]:
    """Doctests of a module: its docstring, what it defines (also objects that are not functions), its methods."""
    parser, found = doctest.DocTestParser(), []
    namespace = vars(module)
    todo = [(module.__name__, module)]
    for key, value in namespace.items():
        if key.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        todo.append((f"{module.__name__}.{key}", value))
        if isinstance(value, type):
            for method, inner in vars(value).items():
                inner = getattr(inner, "__func__", getattr(inner, "fget", inner))
                if callable(inner) and getattr(inner, "__module__", None) == module.__name__:
                    todo.append((f"{module.__name__}.{key}.{method}", inner))
    for label, value in todo:
        doc = getattr(value, "__doc__", None)
        if isinstance(doc, str) and ">>>" in doc:
            found.append(parser.get_doctest(doc, dict(namespace), label, module.__file__, None))
    return found


@pytest.mark.parametrize("module", api_snapshot.public_modules())
def test_docstring_examples(module, tmp_path, monkeypatch):
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        if not error.name or error.name.startswith("flambeau"):
            raise
        pytest.skip(f"needs {error.name}")
    monkeypatch.chdir(tmp_path)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for case in examples(imported):
        runner.run(case, out=report.append)
    assert not runner.failures, "".join(report)
