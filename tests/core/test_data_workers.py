"""Worker processes: the same batches, errors instead of hangs, nothing left behind. A hang shows as a timeout."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import flambeau
from flambeau.data import DataLoader, Dataset, IterableDataset, WorkerError, get_worker_info, sample_rng, transport
from flambeau.errors import FlambeauError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process tests run on Linux")


@pytest.fixture(autouse=True)
def no_hang():
    """An alarm ends a test that hangs, instead of the whole suite."""

    def rang(*_):
        raise TimeoutError("the test hangs")

    old = signal.signal(signal.SIGALRM, rang)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


class Mixed(Dataset):
    """Small and large arrays, texts and numbers."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        rng = sample_rng()
        image = rng.normal(size=(3, 32, 32)).astype(np.float32)
        return {"image": flambeau.from_numpy(image), "label": index, "name": f"n{index}", "noise": rng.normal()}


class Failing(Mixed):
    def __init__(self, how, at=9):
        self.how, self.at = how, at

    def __getitem__(self, index):
        if index == self.at:
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "exit":
                os._exit(3)
            if self.how == "sys.exit":
                sys.exit(4)
            if self.how == "sleep":
                time.sleep(1000)
            if self.how == "flambeau":
                raise FlambeauError("image 9 is empty", "delete it")
            if self.how == "unpicklable":
                raise type("Local", (Exception,), {})("lost")
            raise KeyError("no such image")
        return index


class Split(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, 21, step))


def same(a, b):
    return len(a) == len(b) and all(
        x["label"].tolist() == y["label"].tolist()
        and x["name"] == y["name"]
        and x["noise"].tolist() == y["noise"].tolist()
        and x["image"].array.tobytes() == y["image"].array.tobytes()
        for x, y in zip(a, b, strict=True)
    )


def epochs(number=1, **options):
    flambeau.manual_seed(7)
    loader = DataLoader(Mixed(), 4, shuffle=True, **options)
    return [batch for _ in range(number) for batch in loader]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("persistent", [False, True])
def test_batches_are_the_same_whatever_the_number_of_workers(workers, persistent):
    found = epochs(2, num_workers=workers, persistent_workers=persistent, prefetch_factor=3)
    assert same(found, epochs(2))


def test_batches_are_the_same_with_spawn_and_with_files_in_place_of_shared_memory(monkeypatch):
    assert same(epochs(num_workers=2, multiprocessing_context="spawn"), epochs())
    monkeypatch.setattr(transport, "ANONYMOUS", False)
    assert same(epochs(num_workers=2), epochs())


def test_arrays_come_through_shared_memory_and_may_be_written():
    batch = epochs(num_workers=1)[0]["image"].array
    batch += 1
    base = batch
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    assert "mmap" in repr(base) or "mmap" in repr(getattr(base, "obj", ""))
    assert batch.ctypes.data % 64 == 0


def test_many_live_batches_do_not_use_up_file_descriptors():
    before = len(os.listdir("/proc/self/fd"))
    loader = DataLoader(Mixed(), 1, num_workers=2, persistent_workers=True)
    kept = [batch for _ in range(8) for batch in loader]
    assert len(kept) == 8 * 23 and len(os.listdir("/proc/self/fd")) < before + 80
    del kept, loader
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_resume_in_the_middle_with_another_number_of_workers():
    whole = epochs(2)
    flambeau.manual_seed(7)
    loader = DataLoader(Mixed(), 4, shuffle=True, num_workers=2)
    batches = iter(loader)
    head = [next(batches) for _ in range(2)]
    state, rng = loader.state_dict(), flambeau.get_rng_state()
    other = DataLoader(Mixed(), 4, shuffle=True, num_workers=3)
    other.load_state_dict(state)
    flambeau.set_rng_state(rng)
    assert same(head + list(other) + list(other), whole)


def test_iterable_dataset_split_among_workers():
    batches = [b.tolist() for b in DataLoader(Split(), 2, num_workers=2)]
    assert batches[:4] == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert sorted(i for batch in batches for i in batch) == list(range(21))
    loader = DataLoader(Split(), 2, num_workers=2)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    other = DataLoader(Split(), 2, num_workers=2)
    other.load_state_dict(loader.state_dict())
    assert [b.tolist() for b in other] == batches[3:]


def test_worker_seeds_and_info():
    class Seeds(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            info = get_worker_info()
            return info.id, info.num_workers, random.random(), np.random.rand(), flambeau.rand(()).item(), info.seed

    def gather():
        flambeau.manual_seed(0)
        loader = DataLoader(Seeds(), 2, num_workers=2, collate_fn=list)
        return list(loader), list(loader)

    first, second = gather()
    assert (first, second) == gather() and first != second
    flat = [row for batch in first for row in batch]
    assert {row[0] for row in flat} == {0, 1} and {row[1] for row in flat} == {2}
    assert len({row[2] for row in flat}) == len({row[3] for row in flat}) == len({row[4] for row in flat}) == 8


def test_worker_init_fn_runs_once_in_each_worker(tmp_path):
    def init(worker):
        (tmp_path / f"{worker}-{os.getpid()}").touch()

    loader = DataLoader(Mixed(), 4, num_workers=2, worker_init_fn=init, persistent_workers=True)
    list(loader), list(loader)
    assert sorted(p.name[0] for p in tmp_path.iterdir()) == ["0", "1"]


def test_an_error_in_worker_init_fn_is_raised():
    def init(worker):
        raise ValueError("bad init")

    with pytest.raises(ValueError, match="bad init") as caught:
        list(DataLoader(Mixed(), 4, num_workers=2, worker_init_fn=init))
    assert "at the start" in caught.value.__notes__[0]


# -- errors -----------------------------------------------------------------------------------------------------------


def test_an_exception_keeps_its_type_and_brings_its_traceback():
    with pytest.raises(KeyError, match="no such image") as caught:
        list(DataLoader(Failing("raise"), 4, num_workers=2))
    assert "in __getitem__" in str(caught.value.__cause__) and "worker 0 at batch 2" in caught.value.__notes__[0]


def test_a_flambeau_error_keeps_its_mend():
    with pytest.raises(FlambeauError, match="image 9 is empty") as caught:
        list(DataLoader(Failing("flambeau"), 4, num_workers=1))
    assert caught.value.mend == "delete it"


def test_an_exception_that_cannot_be_pickled():
    with pytest.raises(WorkerError, match="lost") as caught:
        list(DataLoader(Failing("unpicklable"), 4, num_workers=1))
    assert "Local" in str(caught.value.__cause__)


@pytest.mark.parametrize(("how", "words"), [("kill", "SIGKILL"), ("exit", "code 3"), ("sys.exit", "SystemExit")])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_is_an_error_after_the_batches_before_it(how, words, workers):
    loader = DataLoader(Failing(how), 4, num_workers=workers)
    got = []
    with pytest.raises(WorkerError, match=words):
        for batch in loader:
            got.append(batch.tolist())
    assert got == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert DataLoader(Failing("none", at=-1), 4, num_workers=workers).__iter__()


def test_a_worker_killed_from_outside_while_it_waits():
    loader = DataLoader(Mixed(), 4, num_workers=1, persistent_workers=True)
    list(loader)
    os.kill(loader._pool._processes[0].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="SIGKILL"):
        list(loader)
    assert len(list(loader)) == 6  # new workers


def test_a_worker_killed_while_it_sends_a_large_batch():
    class Large(Dataset):
        def __len__(self):
            return 1000

        def __getitem__(self, index):
            return np.zeros(4_000_000, np.uint8)

    for delay in np.linspace(0, 0.03, 12):
        loader = DataLoader(Large(), 2, num_workers=1, persistent_workers=True)
        iterator = iter(loader)
        next(iterator)
        time.sleep(delay)
        os.kill(loader._pool._processes[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="SIGKILL"):
            list(iterator)


def test_timeout():
    with pytest.raises(WorkerError, match=r"within 0\.5 seconds"):
        list(DataLoader(Failing("sleep"), 4, num_workers=1, timeout=0.5))


def test_a_dataset_that_cannot_be_sent_is_a_clear_error():
    class Local(Mixed):
        pass

    with pytest.raises(WorkerError, match="cannot send the dataset") as caught:
        list(DataLoader(Local(), 4, num_workers=1, multiprocessing_context="spawn"))
    assert "num_workers=0" in caught.value.mend


# -- shutting down ----------------------------------------------------------------------------------------------------


def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(file.read().split())


@pytest.mark.parametrize("persistent", [False, True])
def test_leaving_in_the_middle_stops_the_workers_soon(persistent):
    before = children()
    loader = DataLoader(Failing("sleep"), 4, num_workers=2, persistent_workers=persistent)
    for _ in loader:
        break
    began = time.monotonic()
    del loader
    gc.collect()
    assert children() <= before and time.monotonic() - began < 5


def test_a_newer_iteration_with_persistent_workers_ends_the_older_one():
    loader = DataLoader(Mixed(), 4, num_workers=2, persistent_workers=True)
    old = iter(loader)
    next(old)
    new = iter(loader)
    assert next(new)["label"].tolist() == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="newer iteration"):
        next(old)
    assert len(list(new)) == 5


SCRIPT = """
import os, sys, time, numpy as np
from flambeau.data import DataLoader, Dataset
class Slow(Dataset):
    def __len__(self): return 1000
    def __getitem__(self, index):
        time.sleep(0.01)
        return np.zeros(100_000)
loader = DataLoader(Slow(), 4, num_workers=3, persistent_workers=True)
for number, batch in enumerate(loader):
    if number == 2:
        print(*[p.pid for p in loader._pool._processes], flush=True)
        {end}
"""


@pytest.mark.parametrize("end", ["break", "sys.exit(0)", "1 / 0", "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 2)"])
def test_no_process_and_no_shared_memory_outlive_the_program(end, tmp_path):
    shared = shared_memory()
    code = textwrap.dedent(SCRIPT).format(end=end)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    pids = done.stdout.split()
    assert len(pids) == 3, done.stderr
    assert "resource_tracker" not in done.stderr and "leaked" not in done.stderr
    deadline = time.monotonic() + 10
    while alive := [pid for pid in pids if os.path.exists(f"/proc/{pid}") and "Z" not in state(pid)]:
        assert time.monotonic() < deadline, f"workers {alive} live on"
        time.sleep(0.05)
    assert shared_memory() <= shared and os.listdir(tmp_path) == []


def shared_memory():
    """Names of shared memory but that of MPI programs, which come and go beside this test."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("mpich")}


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"


# -- any order ---------------------------------------------------------------------------------------------------------


class SlowFirst(Mixed):
    """The samples of one batch take long."""

    def __init__(self, slow=range(4), seconds=0.4):
        self.slow, self.seconds = slow, seconds

    def __getitem__(self, index):
        if index in self.slow:
            time.sleep(self.seconds / len(self.slow))
        return super().__getitem__(index)


def test_a_slow_batch_holds_up_no_other_without_in_order():
    loader = DataLoader(SlowFirst(), 4, num_workers=2, in_order=False, prefetch_factor=1)
    labels = [batch["label"].tolist() for batch in loader]
    assert labels[-1] == [0, 1, 2, 3]  # the slow one, though it is the first
    assert sorted(label for batch in labels for label in batch) == list(range(23))
    ordered = [batch["label"].tolist() for batch in DataLoader(SlowFirst(), 4, num_workers=2)]
    assert ordered == [batch["label"].tolist() for batch in DataLoader(Mixed(), 4)]


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resume_without_an_order_gives_each_sample_once(stop):
    loader = DataLoader(SlowFirst(), 4, shuffle=True, num_workers=2, in_order=False)
    iterator = iter(loader)
    seen = [label for _ in range(stop) for label in next(iterator)["label"].tolist()]
    state = loader.state_dict()
    del iterator
    other = DataLoader(SlowFirst(), 4, shuffle=True, num_workers=2, in_order=False)
    other.load_state_dict(state)
    seen += [label for batch in other for label in batch["label"].tolist()]
    assert sorted(seen) == list(range(23))
    assert sorted(label for batch in other for label in batch["label"].tolist()) == list(range(23))


def test_iterable_datasets_without_an_order():
    loader = DataLoader(Split(), 3, num_workers=3, in_order=False)
    ordered = sorted(str(batch) for batch in DataLoader(Split(), 3, num_workers=3))
    assert sorted(str(batch) for batch in loader) == ordered
    with pytest.raises(NotImplementedError, match="in_order=True"):
        loader.state_dict()


@pytest.mark.parametrize("how", ["kill", "raise"])
def test_errors_without_an_order(how):
    with pytest.raises((WorkerError, Exception)) as caught:
        list(DataLoader(Failing(how), 4, num_workers=2, in_order=False))
    assert not isinstance(caught.value, TimeoutError)
    with pytest.raises(WorkerError, match="within"):
        list(DataLoader(Failing("sleep"), 4, num_workers=2, in_order=False, timeout=0.5))
