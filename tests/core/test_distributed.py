"""Data parallel runs with real MPI processes: as one process, reproducible, and ended when a rank fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flambeau
from flambeau import distributed, nn
from flambeau.data import BatchSampler, DistributedSampler, SequentialSampler
from flambeau.distributed.sharding import ShardedBatches
from flambeau.errors import FlambeauError, MissingExtraError

HERE = Path(__file__).parent
BESIDE = Path(sysconfig.get_path("scripts")) / "mpiexec"
MPIEXEC = str(BESIDE) if BESIDE.exists() else shutil.which("mpiexec")
needs_mpi = pytest.mark.skipif(
    find_spec("mpi4py") is None or MPIEXEC is None, reason="mpi4py and mpiexec are needed: pip install mpi4py mpich"
)
pytestmark = pytest.mark.xdist_group("mpi")  # one after the other: they have more processes than cores


def start(processes, program, *arguments, timeout=None, launcher=()):
    environment = {
        **os.environ, "FLAMBEAU_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }  # fmt: skip
    if timeout:
        environment["FLAMBEAU_DISTRIBUTED_TIMEOUT"] = str(timeout)
    line = [
        *(launcher or [MPIEXEC]),
        "-n",
        str(processes),
        *([] if launcher else [sys.executable]),
        str(program),
        *map(str, arguments),
    ]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=150)


def case(processes, name, folder, *, timeout=60):
    folder.mkdir(exist_ok=True, parents=True)
    done = start(processes, HERE / "distributed_cases.py", name, folder, timeout=timeout)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as found:
        return dict(found)


def difference(a, b):
    assert a.keys() == b.keys()
    return max(float(np.abs(a[key] - b[key]).max()) for key in a)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process's results by case."""
    known = {}

    def result(name):
        if name not in known:
            known[name] = case(1, name, tmp_path_factory.mktemp(name))
        return known[name]

    return result


@needs_mpi
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("name", ["cnn", "lm"])
def test_as_one_process(name, processes, alone, tmp_path):
    """Weights, EMA, buffers and history; SyncBatchNorm, clipping, accumulation, a last batch that is too short."""
    assert difference(case(processes, name, tmp_path), alone(name)) < 1e-10


@needs_mpi
def test_the_same_run_gives_the_same_bits(tmp_path):
    assert difference(case(4, "cnn", tmp_path / "a"), case(4, "cnn", tmp_path / "b")) == 0


@needs_mpi
@pytest.mark.parametrize("processes", [2, 4])
def test_ranks_with_different_numbers_of_batches(processes, alone, tmp_path):
    found = case(processes, "uneven", tmp_path)
    assert found["n"] == 26 and difference(found, alone("uneven")) < 1e-12


@needs_mpi
def test_zero_is_the_plain_optimizer(tmp_path):
    plain, divided = case(4, "cnn", tmp_path / "a"), case(4, "cnn-zero", tmp_path / "b")
    assert difference(plain, divided) == 0
    shards = sorted(p.name.split("-", 2)[2] for p in (tmp_path / "b").glob("optimizer-*"))
    assert [f"{i}-of-4.safetensors" for i in (1, 2, 3, 4)] == sorted(set(shards))


@needs_mpi
def test_bfloat16_on_the_wire(alone, tmp_path):
    """Two or three digits survive, and the ranks stay equal to each other."""
    found = case(2, "cnn-bf16", tmp_path)
    distance = difference(found, alone("cnn"))
    assert 1e-7 < distance < 0.05


@needs_mpi
@pytest.mark.parametrize("flag", ["", "-zero"])
def test_resume_with_other_numbers_of_processes(flag, alone, tmp_path):
    """Killed in the middle of an epoch on 2, resumed on 4; the last epochs on 1: as one unbroken process."""
    reference = alone("cnn-four")
    start(2, HERE / "distributed_cases.py", f"kill{flag}", tmp_path, timeout=20)
    assert (tmp_path / "last.safetensors").exists() and not (tmp_path / "out.npz").exists()
    case(4, f"cnn{flag}-resume", tmp_path)
    (tmp_path / "out.npz").unlink()
    assert difference(case(1, "cnn-four-resume", tmp_path), reference) < 1e-10


@needs_mpi
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("kill", "has ended without a word"),
        ("stop", "has been silent"),
        ("hang", "behind is rank"),
        ("raise", "failed: ValueError: the disk is on fire"),
    ],
)
def test_a_failing_rank_ends_the_job(deed, words, rank, tmp_path):
    began = time.monotonic()
    done = start(2, HERE / "distributed_cases.py", deed, tmp_path, rank, timeout=3)
    assert done.returncode != 0 and time.monotonic() - began < 60
    if deed == "kill" and "BAD TERMINATION" in done.stderr + done.stdout:
        return  # the launcher was faster than the other rank, and said so in its own words
    line = next(line for line in done.stderr.splitlines() if line.startswith("error:"))
    assert words in line and f"rank {rank}" in line and "the job ends" in line


@needs_mpi
def test_a_run_folder_as_one_process(tmp_path):
    for processes in (1, 2):
        done = start(processes, HERE / "distributed_cases.py", "supervised", tmp_path / str(processes))
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("epoch 1/2") == 1  # rank 0 alone speaks
    rows = [np.genfromtxt(tmp_path / str(n) / "history.csv", delimiter=",", skip_header=1)[:, :-1] for n in (1, 2)]
    np.testing.assert_allclose(*rows, rtol=1e-10)
    assert (tmp_path / "2" / "model.safetensors").exists()
    again = start(2, HERE / "distributed_cases.py", "supervised", tmp_path / "2", timeout=10)
    assert again.returncode != 0 and "already holds a run" in again.stderr


@needs_mpi
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_collectives_and_the_parallel_module(processes):
    launcher = [sys.executable, "-m", "flambeau.distributed.run"]
    done = start(processes, HERE / "distributed_collectives.py", timeout=30, launcher=launcher)
    assert done.returncode == 0 and done.stdout.count("ok") == processes, done.stderr


# -- without MPI -----------------------------------------------------------------------------------------------------


@given(n=st.integers(0, 40), size=st.integers(1, 7), seed=st.integers(0, 9), shuffle=st.booleans())
def test_every_index_is_in_one_share(n, size, seed, shuffle):
    shares = [DistributedSampler(range(n), size, r, shuffle, seed) for r in range(size)]
    assert sorted(i for share in shares for i in share) == list(range(n))
    assert [len(list(share)) for share in shares] == [len(share) for share in shares]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    kept = [list(DistributedSampler(range(n), size, r, shuffle, seed, drop_last=True)) for r in range(size)]
    assert {len(k) for k in kept} == {n // size} and len({i for k in kept for i in k}) == n // size * size


@given(n=st.integers(0, 40), batch=st.integers(1, 9), size=st.integers(1, 7))
def test_every_batch_is_divided(n, batch, size):
    whole = BatchSampler(SequentialSampler(range(n)), batch, False)
    parts = [list(ShardedBatches(whole, r, size)) for r in range(size)]
    assert [sorted(chain(*rows)) for rows in zip(*parts, strict=True)] == list(whole)


def test_without_a_group():
    assert not distributed.is_initialized()
    for call in (distributed.get_rank, distributed.barrier, lambda: distributed.all_reduce(flambeau.ones(1))):
        with pytest.raises(FlambeauError, match="no process group"):
            call()
    with pytest.raises(FlambeauError, match="no process group"):
        nn.parallel.DistributedDataParallel(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="backend 'gloo'"):
        distributed.init_process_group("gloo")


def test_missing_mpi4py_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(MissingExtraError) as error:
        distributed.init_process_group("mpi")
    assert error.value.mend == 'pip install "flambeau-core[mpi]"'


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (3, 8, 1)),
        ({"PMI_RANK": "2", "PMI_SIZE": "4"}, (2, 4, 0)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, (1, 2, 1)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6", "SLURM_LOCALID": "2"}, (5, 6, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "6"}, (0, 1, 0)),  # the batch script, not srun
    ],
)
def test_what_the_launcher_says(variables, expected, monkeypatch):
    from flambeau import launch

    for name in list(os.environ):
        if name.startswith(("PMI", "OMPI", "SLURM", "RANK", "WORLD", "LOCAL_RANK", "MPI_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (launch.global_rank(), launch.world_size(), launch.local_rank()) == expected
    assert launch.is_main_process() == (expected[0] == 0)


def test_hooks_fire_while_backward_runs():
    """With a reducer about, a parameter's gradient is final before backward has reached the layers below."""
    from flambeau.autograd import engine

    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = nn.Parameter(net[1].weight.detach().clone())
    seen = []
    for name, p in net.named_parameters():
        p.register_post_accumulate_grad_hook(lambda p, name=name: seen.append((name, net[0].weight.grad is None)))
    engine.early_hooks += 1
    try:
        net(net(flambeau.ones(2, 3))).sum().backward()  # each layer twice: final with the second use
    finally:
        engine.early_hooks -= 1
    assert [name for name, _ in seen].index("1.weight") < [name for name, _ in seen].index("0.weight")
    assert dict(seen)["1.weight"] and len(seen) == 4
    early = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net(net(flambeau.ones(2, 3))).sum().backward()
    assert all((a == p.grad).all() for a, p in zip(early, net.parameters(), strict=True))
