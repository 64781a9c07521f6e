"""Training scripts written for PyTorch, run as they are and with their import lines alone changed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
SCRIPTS = sorted(Path(__file__).with_name("scripts").glob("*.py"))
# float64 leaves no room for another order of sums; float32 leaves little
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


def translate(source):
    """The script for Flambeau: nothing but `import` lines is touched."""
    lines = []
    for line in source.splitlines():
        if re.match(r"import torch$", line):
            line = "import flambeau as torch"
        elif re.match(r"(import|from) torch\b", line):
            line = re.sub(r"\btorch\b", "flambeau", line, count=1)
        lines.append(line)
    return "\n".join(lines) + "\n"


def run(script, *args):
    environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", FLAMBEAU_NUM_THREADS="1")
    done = subprocess.run([sys.executable, script, *args], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script(script, dtype, tmp_path, record_property):
    weights = str(tmp_path / "first.pt")
    expected = run(script, "--weights", weights, "--dtype", dtype, "--create")
    ours = tmp_path / script.name
    ours.write_text(translate(script.read_text()))
    assert "import torch" not in ours.read_text()
    losses = run(ours, "--weights", weights, "--dtype", dtype)
    assert len(losses) >= 20 and expected[0] > expected[19]
    difference = np.max(np.abs(np.subtract(losses, expected)) / np.abs(expected))
    record_property("relative_difference", f"{difference:.1e}")
    assert difference < TOLERANCE[dtype], f"largest relative difference of a loss {difference:.2e}"
