"""Memory: freed arrays are reused without page faults, counted, and given back when asked."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest

import flambeau

MEMORY = """
import resource
import numpy as np
import flambeau
from flambeau.backends.memory import keep_freed_memory
kept = keep_freed_memory() > 0
def faults(mib):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        a = np.ones(mib << 18, np.float32)
        b = a + a
        c = a * b
        del a, b, c
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(3)
print(kept, faults(3))
"""


def test_a_loop_over_large_arrays_takes_no_page_faults():
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_TUNABLES"))}

    def run(**settings):
        command = [sys.executable, "-c", MEMORY]
        output = subprocess.run(command, env={**environment, **settings}, check=True, capture_output=True, text=True)
        kept, faults = output.stdout.split()
        return kept == "True", int(faults)

    kept, faults = run()
    if not kept:
        pytest.skip("the C library is not glibc")
    assert faults < 100
    assert run(FLAMBEAU_KEEP_BYTES="0")[0] is False
    assert run(MALLOC_ARENA_MAX="4")[0] is False


def test_statistics_follow_what_is_held():
    before = flambeau.memory_stats()
    if "allocated_bytes" not in before:
        pytest.skip("the C library does not count")
    held = flambeau.ones(4 << 20)
    during = flambeau.memory_stats()
    size = held.numel() * held.element_size()
    assert size <= during["allocated_bytes"] - before["allocated_bytes"] < 1.5 * size
    del held
    gc.collect()
    after = flambeau.memory_stats()
    assert during["allocated_bytes"] - after["allocated_bytes"] >= size
    assert set(after) >= {"free_bytes", "reserved_bytes", "keep_bytes", "page_faults", "peak_resident_bytes"}
    assert after["free_bytes"] + after["allocated_bytes"] == pytest.approx(after["reserved_bytes"], rel=0.01)


RELEASE = """
import numpy as np, flambeau as fb
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
kept = fb.memory_stats()["keep_bytes"]
a = fb.zeros(1)
start = resident()
a = [fb.ones(1 << 20) for _ in range(64)]
del a
held = resident() - start
fb.empty_cache()
print(kept, held >> 20, (resident() - start) >> 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_kept_memory_is_given_back_when_asked():
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", RELEASE], env=environment, capture_output=True, text=True, check=True)
    kept, held, left = map(int, done.stdout.split())
    if not kept:
        pytest.skip("the C library is not glibc")
    assert held >= 250 and left < 30


def test_a_steady_training_loop_takes_no_page_faults():
    if not flambeau.memory_stats().get("keep_bytes"):
        pytest.skip("the C library is not glibc")
    net = flambeau.nn.Sequential(flambeau.nn.Linear(256, 512), flambeau.nn.ReLU(), flambeau.nn.Linear(512, 256))
    optimizer = flambeau.optim.Adam(net.parameters())
    x = flambeau.from_numpy(np.ones((1024, 256), np.float32))

    def step():
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    for _ in range(30):  # until the heap has found its size
        step()
    before = flambeau.memory_stats()["page_faults"]
    for _ in range(10):
        step()
    assert flambeau.memory_stats()["page_faults"] - before < 200  # a single new array of this step takes 256
