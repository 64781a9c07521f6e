"""The benchmarks: their statistics, command line and history; every workload runs and agrees with PyTorch.

Nothing here looks at how long anything takes.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import history
import measure
import run
import stats

POSITIVE = st.floats(1e-6, 1e6)


# ---- statistics


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_geometric_mean_lies_between_the_extremes_and_inverts(values):
    mean = stats.geometric_mean(values)
    assert min(values) * (1 - 1e-9) <= mean <= max(values) * (1 + 1e-9)
    assert stats.geometric_mean([1 / v for v in values]) == pytest.approx(1 / mean)


def test_geometric_mean_of_nothing_raises():
    with pytest.raises(ValueError, match="no values"):
        stats.geometric_mean([])


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_quartiles_are_those_of_numpy(values):
    assert stats.quartiles(values) == pytest.approx(tuple(np.percentile(values, [25, 50, 75])))


def test_ratios_are_taken_pair_by_pair():
    # A slow moment that falls on both sides of a pair leaves its ratio as it is.
    ours, peer = [[2.0, 20.0, 2.0]], [[1.0, 10.0, 1.0]]
    assert stats.paired_ratios(ours, peer) == pytest.approx([2.0, 2.0, 2.0])
    assert stats.paired_ratios([[1.0], [8.0]], [[1.0], [2.0]]) == pytest.approx([2.0])
    with pytest.raises(ValueError):
        stats.paired_ratios([[1.0, 2.0]], [[1.0]])


def test_worse_names_what_grew_beyond_the_tolerance():
    before = {"a": 1.0, "b": 1.0, "c": 2.0}
    assert stats.worse({"a": 1.24, "b": 1.26, "c": 1.0, "new": 9.0}, before) == {"b": pytest.approx(1.26)}


def test_summary_of_cases():
    result = measure.summary("w", ["a", "b"], [[[1.0, 1.0], [4.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert (result.ratio, result.low, result.high) == pytest.approx((2.0, 2.0, 2.0))
    assert result.ours == pytest.approx(2.0) and result.pairs == 2
    assert [(c.name, c.ratio) for c in result.cases] == [("a", 1.0), ("b", 4.0)]
    alone = measure.summary("w", [""], [[[3.0, 1.0, 2.0]]])
    assert alone.ours == 2.0 and alone.ratio is None and alone.cases == []


# ---- the guard


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"x": [1.0, 2.1]}, "differ by"),
        ({"x": [1.0, np.nan]}, "differ by"),
        ({"x": [1.0]}, "shape"),
        ({"y": [1.0, 2.0]}, "different outputs"),
    ],
)
def test_different_values_are_an_error(tmp_path, other, message):
    np.savez(tmp_path / "a.npz", x=[1.0, 2.0])
    np.savez(tmp_path / "b.npz", **other)
    assert measure.compare(tmp_path / "a.npz", tmp_path / "a.npz", 1e-4) == 0.0
    with pytest.raises(measure.Disagreement, match=message):
        measure.compare(tmp_path / "a.npz", tmp_path / "b.npz", 1e-4)


# ---- the history


def result(name, ratio):
    return measure.Result(name, ratio, 1.0, ratio, 0.9 * ratio, 1.1 * ratio, 5)


def test_history_has_a_line_a_run(tmp_path):
    path = tmp_path / "history.jsonl"
    assert history.read(path) == []
    history.record(history.entry([result("a", 1.0), result("b", 2.0), measure.Result("alone", 1.0)], 2, "cpu"), path)
    history.record(history.entry([result("a", 3.0)], 2, "cpu"), path)
    history.record(history.entry([result("a", 5.0)], 8, "cpu"), path)
    assert [sorted(json.loads(line)) for line in path.read_text().splitlines()] == [
        ["date", "machine", "quartiles", "ratios", "versions"]
    ] * 3
    entries = history.read(path)
    assert entries[0]["ratios"] == {"a": 1.0, "b": 2.0}
    assert entries[0]["versions"].keys() >= {"python", "flambeau", "numpy"}
    # the last run that has the workload, with the same number of threads
    assert history.last_ratios(entries, ["a", "b", "c"], 2, "cpu") == {"a": 3.0, "b": 2.0}
    assert history.last_ratios(entries, ["a"], 2, "cuda") == {}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"date": "2026-01-01"}'])
def test_a_broken_history_says_where(tmp_path, line):
    path = tmp_path / "history.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1"):
        history.read(path)


def test_the_recorded_history_can_be_read():
    assert all(set(entry["ratios"]) <= set(run.NAMES) for entry in history.read())


# ---- the command line


def test_defaults():
    options = run.parse(["--alone"])
    assert options.names == run.NAMES and options.repeats == 7 and not options.peer
    quick = run.parse(["--quick", "--alone"])
    assert quick.names == list(run.QUICK) and quick.repeats == 5
    assert set(run.QUICK) <= set(run.NAMES)
    assert run.parse(["mlp_step", "--quick", "--repeats", "2"]).names == ["mlp_step"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no workload 'nothing'"),
        (["--profile", "nothing"], "no workload 'nothing'"),
        (["--threads", "0"], "at least 1"),
        (["--check", "--alone"], "ratios need PyTorch"),
    ],
)
def test_wrong_options(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run.parse(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def bench(*arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


SHORT = ["op_overhead", "--threads", "1", "--repeats", "1", "--seconds", "0.001"]


def test_alone_and_json(tmp_path):
    done = bench(*SHORT, "--alone", "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    assert "op_overhead" in done.stdout and "ratio" not in done.stdout
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert document["machine"]["threads"] == 1
    (row,) = document["results"]
    assert row["workload"] == "op_overhead" and row["ours"] > 0 and row["ratio"] is None and row["memory_ours"] > 1


def test_a_spent_budget_runs_nothing_more():
    done = bench(*SHORT, "--alone", "--budget", "0")
    assert done.returncode == 0 and "not run, the budget is spent: op_overhead" in done.stdout


def test_profile():
    done = bench("--profile", "op_overhead", "--threads", "1")
    assert done.returncode == 0 and "tottime" in done.stderr and "steps" in done.stderr


def test_busy_ratios_are_not_recorded(monkeypatch, tmp_path, capsys):
    pytest.importorskip("torch")
    rows = [result("mlp_step", 1.0), replace(result("conv_step", 1.0), others=0.5)]
    monkeypatch.setattr(run, "measure", lambda name, **_: next(r for r in rows if r.workload == name))
    path = tmp_path / "history.jsonl"
    assert run.main(["mlp_step", "conv_step", "--record", "--history", str(path)]) == 0
    assert history.read(path)[0]["ratios"] == {"mlp_step": 1.0}
    assert "not to be relied on, as other programs were busy: conv_step" in capsys.readouterr().out


def test_check_compares_with_the_last_record(monkeypatch, tmp_path, capsys):
    pytest.importorskip("torch")
    path = tmp_path / "history.jsonl"
    arguments = ["--check", "--threads", "2", "--history", str(path)]
    assert run.main(arguments) == 2 and "record one with --record first" in capsys.readouterr().err
    history.record(history.entry([result(name, 1.0) for name in run.QUICK], 2, "cpu"), path)
    ratios = dict.fromkeys(run.QUICK, 1.2)
    monkeypatch.setattr(run, "measure", lambda name, **_: result(name, ratios[name]))
    assert run.main(arguments) == 0
    ratios["mlp_step"] = 1.3
    assert run.main(arguments) == 1
    assert "WORSE: mlp_step: ratio 1.30, recorded 1.00: +30%" in capsys.readouterr().out


# ---- the workloads


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("name", run.NAMES)
def test_workload_agrees_with_torch(name, tmp_path):
    pytest.importorskip("torch")
    workers = []
    try:
        for library in (measure.OURS, measure.PEER):
            workers.append(measure.Worker(library, name, 1, "cpu"))
        about = [worker.ask("start") for worker in workers]
        assert about[0] == about[1]
        if about[0]["unit"] == "s":
            ours, peer = [measure.values_of(worker, str(tmp_path)) for worker in workers]
            assert measure.compare(ours, peer, about[0]["tolerance"]) <= about[0]["tolerance"]
            assert workers[0].ask("time", about[0]["cases"][0], "1") > 0
        else:
            assert all(worker.ask("value") > 0 for worker in workers)
    finally:
        for worker in workers:
            worker.close()
