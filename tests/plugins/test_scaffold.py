"""The package that `flambeau plugins new` writes works, here without pip; and it goes through the generic tasks."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def lab(site, tmp_path):
    """Runs commands in the folder of a new plugin, beside which no other is installed."""
    site.run("plugins", "new", "flambeau-lab", cwd=tmp_path, check=True)
    package = tmp_path / "flambeau-lab"
    site.paths.append(str(package / "src"))
    site.describe("lab", "flambeau_lab._plugin", "0.1.0", "flambeau-lab")
    return lambda *args: site.run(*args, cwd=package), package


def test_its_own_tests_pass(lab, site):
    _, package = lab
    done = site.python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr


def test_what_its_readme_says(lab):
    run, package = lab
    done = run("train", "lab/mlp", "--data", "examples/rows.csv", "--epochs", "5", "--output", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] > 0.9

    done = run("evaluate", "run", "--data", "examples/rows.csv", "--batch-size", "7", "--json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["accuracy"] > 0.9 and metrics["rows"] == 200

    (package / "text.csv").write_text("a,b\n")
    done = run("predict", "run", "examples/new.csv", "text.csv", "none.csv", "examples/rows.csv", "--jsonl")
    first, *failed = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1 and len(first["output"]) == 10 and set(first["output"]) <= {0, 1}
    assert [result["input"] for result in failed] == ["text.csv", "none.csv", "examples/rows.csv"]
    assert all(result["error"] and result["mend"] for result in failed) and "Traceback" not in done.stderr

    for args, says in (
        (["predict", "run", "examples/new.csv", "-o", "out"], "task 'lab/rows' cannot write its output"),
        (["predict", "run", "examples/new.csv", "--set", "x=1"], "task 'lab/rows' has no option 'x'"),
        (["evaluate", "run", "--data", "examples/rows.csv", "--set", "x=1"], "task 'lab/rows' has no option 'x'"),
    ):
        done = run(*args)
        assert done.returncode == 2 and done.stderr.startswith(f"error: {says}"), done.stderr


def test_stdin(lab, site):
    run, package = lab
    assert run("train", "lab/mlp", "--data", "examples/rows.csv", "--epochs", "1", "--output", "run").returncode == 0
    path = os.pathsep.join([*site.paths, os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "FLAMBEAU_LOAD_PLUGINS": "lab"}
    command = [sys.executable, "-m", "flambeau", "predict", "run", "-"]
    done = subprocess.run(command, input="1,1\n", capture_output=True, text=True, cwd=package, env=env, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("-: ["), done.stderr


def test_names(site, tmp_path):
    run = lambda *args: site.run("plugins", "new", *args, cwd=tmp_path)
    assert run("spiral_nets").stdout == "spiral_nets\n"
    assert (tmp_path / "spiral_nets" / "src" / "spiral_nets" / "_plugin.py").is_file()
    assert 'name = "spiral-nets"' in (tmp_path / "spiral_nets" / "pyproject.toml").read_text()
    for name in ("Lab", "a b", "../x", "-x", "1x", "flambeau-vision", "core", "class", "a--b", "é"):
        done = run(name)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 2, (name, done.stderr)
    assert [path.name for path in tmp_path.iterdir() if path.name != "site"] == ["spiral_nets"]
