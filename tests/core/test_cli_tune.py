"""``flambeau tune``: what stands on its line; the sweep itself where Ray Tune is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from flambeau.cli.tune import parse_space
from flambeau.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=loguniform:1e-5,1e-2", ("lr", ("loguniform", [1e-5, 1e-2]))),
        ("batch-size=choice:16,32", ("batch_size", ("choice", [16, 32]))),
        ("optimizer=grid:sgd,adam", ("optimizer", ("grid", ["sgd", "adam"]))),
        ("model.width=quniform:8,64,8", ("model.width", ("quniform", [8, 64, 8]))),
    ],
)
def test_spaces(text, expected):
    assert parse_space(text) == expected


@pytest.mark.parametrize("text", ["lr", "lr=uniform", "lr=uniform:1", "lr=normal:0,1", "=choice:1", "lr=uniform:a,b"])
def test_what_is_no_space(text):
    with pytest.raises(UsageError, match="--space"):
        parse_space(text)


def _tune(folder, *more):
    command = [sys.executable, "-m", "flambeau", "tune", "science/mlp", "--data", "t.csv", "--set", "epochs=1"]
    return subprocess.run([*command, *more], cwd=folder, capture_output=True, text=True, timeout=600)


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray Tune is installed")
def test_without_ray_it_says_what_to_install(tmp_path):
    done = _tune(tmp_path, "--space", "lr=choice:0.1", "--metric", "accuracy")
    assert done.returncode == 3 and "pip install 'flambeau-core[ray]'" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra [ray]")
def test_a_sweep_gives_runs_best_first(tmp_path):
    rows = [f"{i % 7 - 3},{i % 5 - 2},{int(i % 7 + i % 5 > 5)}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,label", *rows]) + "\n")
    done = _tune(
        tmp_path, "--set", "target=label", "--set", "kind=classification", "--space", "lr=grid:1e-3,1e-2",
        "--trials", "1", "--metric", "accuracy", "--mode", "max", "--output", "sweep",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)
    assert {t["options"]["lr"] for t in trials} == {1e-3, 1e-2}
    assert trials[0]["accuracy"] >= trials[1]["accuracy"]
    assert all((tmp_path / t["run"] / "model.safetensors").exists() for t in trials)
