"""Real processes that are killed, told to stop, or started twice: the run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import resume_cases

from flambeau.train import CheckpointFolder

PROGRAM = Path(resume_cases.__file__)
KINDS = ["images", "text"]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


def start(kind, folder, *flags):
    """A process that has begun to train."""
    resume = ["--resume"] if (Path(folder) / "checkpoints").exists() else []
    command = [sys.executable, str(PROGRAM), kind, str(folder), *resume, *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def outcome(folder):
    """Final weights (model and EMA) bit for bit, history without times, and the last and best checkpoints."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    checkpoints = CheckpointFolder(folder / "checkpoints")
    states = [plain(state) for state in (checkpoints.load(), checkpoints.load_best())]
    return (folder / "final.safetensors").read_bytes(), [{**row, "seconds": 0} for row in rows], states


def plain(value):
    """All of a state but the times, comparable."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "seconds"}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    array = getattr(value, "array", value)
    return array.tobytes() if hasattr(array, "tobytes") else value


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    done = {}

    def get(kind):
        if kind not in done:
            folder = tmp_path_factory.mktemp("unbroken") / kind
            process = start(kind, folder)
            error = process.communicate(timeout=120)[1]
            assert process.returncode == 0, error
            done[kind] = outcome(folder)
        return done[kind]

    return get


def end(process):
    """Collects a process and its workers, whatever state the test is in."""
    process.kill()
    process.communicate(timeout=20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_twenty_random_moments(unbroken, tmp_path, kind):
    expected = unbroken(kind)
    rng = random.Random(11)
    kills = runs = 0
    while kills < 20:
        folder = tmp_path / str(runs)
        while True:
            process = start(kind, folder)
            try:
                process.wait(rng.uniform(0, 0.25) if kills < 20 else 60)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
            error = process.communicate(timeout=20)[1]
            assert process.returncode in (0, -signal.SIGKILL), error
            if process.returncode == 0:
                break
        runs += 1
        assert outcome(folder) == expected
        left = {path.name for path in (folder / "checkpoints").iterdir()}
        assert left == {".lock", "last.safetensors", "previous.safetensors", "best.safetensors"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_saves_and_the_rest_follows(unbroken, tmp_path, number):
    process = start("images", tmp_path / "r", "--slow")
    try:
        time.sleep(0.3)
        os.killpg(process.pid, number)  # the workers get it too, as from a terminal or a batch system
        error = process.communicate(timeout=20)[1]
    finally:
        end(process)
    assert process.returncode == 128 + number, error
    lines = [line for line in error.splitlines() if line]
    assert len(lines) == 2, error
    assert lines[0].startswith(f"{number.name}: finishing this step") and "--resume" in lines[1]
    step = int(lines[1].split("optimizer step ")[1].split(";")[0])
    assert CheckpointFolder(tmp_path / "r" / "checkpoints").load()["counters"]["optimizer_step"] == step > 0
    process = start("images", tmp_path / "r")
    assert process.wait(60) == 0, process.communicate()[1]
    process.communicate()
    assert outcome(tmp_path / "r") == unbroken("images")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, {-2, 130, 1}), (signal.SIGTERM, {-15})])
def test_the_second_signal_ends_at_once(tmp_path, number, code):
    process = start("images", tmp_path / "r", "--stuck")
    try:
        time.sleep(0.3)
        process.send_signal(number)
        assert "finishing this step" in process.stderr.readline() + process.stderr.readline()
        began = time.monotonic()
        process.send_signal(number)
        process.wait(20)
        assert time.monotonic() - began < 3 and process.returncode in code
    finally:
        end(process)


def test_two_processes_in_one_folder(tmp_path):
    first = start("images", tmp_path / "r", "--slow")
    try:
        command = [sys.executable, str(PROGRAM), "images", str(tmp_path / "r"), "--resume"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        assert f"checkpoints is in use: process {first.pid} on" in second.stderr.splitlines()[-1]
        first.send_signal(signal.SIGKILL)
        first.wait(20)
        end(start("images", tmp_path / "r"))  # the lock has gone with its holder
    finally:
        end(first)
