"""One workload in one library: reads commands on stdin, answers each with a line of JSON.

`start` makes the workload and names its cases, `check FILE` runs each case twice and saves what it returned,
`time CASE N` gives seconds a step, `memory` the process's peak in MB, `cpu` the processor seconds it used,
`profile SECONDS` prints a profile.
"""

import cProfile
import gc
import importlib
import json
import multiprocessing
import os
import pstats
import resource
import sys
import time
from pathlib import Path

import numpy as np

from workloads._common import Call

CHECKED_STEPS = 2  # the second loss of a training step depends on the gradients and the update, too


class Timed:
    """A workload made in one library. A single step is a case without a name."""

    def __init__(self, library: str, workload: str, device: str, threads: int):
        library, _, form = library.partition("+")  # "torch+compile": each step as `torch.compile` makes it
        torch = importlib.import_module(library)
        torch.set_num_threads(threads)
        module = importlib.import_module(f"workloads.{workload}")
        made = module.make(torch, device)
        self.cases = made if isinstance(made, dict) else {"": made}
        if form:
            self.cases = {
                name: Call(torch.compile(step.function), *step.inputs)
                if isinstance(step, Call)
                else torch.compile(step)
                for name, step in self.cases.items()
            }
        self.unit = getattr(module, "UNIT", "s")
        self.tolerance = getattr(module, "TOLERANCE", 1e-4)
        self.items = getattr(module, "ITEMS", None)
        self.group = getattr(module, "GROUP", None)  # workloads that count as one in the mean
        self.compiles = getattr(module, "COMPILES", True)  # False: a step is more than array operations
        self.synchronize = torch.cuda.synchronize if device != "cpu" else lambda: None

    def start(self) -> dict:
        about = {"cases": list(self.cases), "unit": self.unit, "tolerance": self.tolerance, "items": self.items}
        return {**about, "compiles": self.compiles, "group": self.group}

    def value(self) -> float:
        """What a workload that is not a time returns."""
        return float(self.cases[""]())

    def check(self, path: str) -> None:
        values = {}
        for case, step in self.cases.items():
            for repeat in range(CHECKED_STEPS):
                found = step()
                for i, value in enumerate(found if isinstance(found, tuple) else [found]):
                    array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
                    values[f"{case or 'value'}, step {repeat + 1}, output {i + 1}"] = array
        np.savez(path, **values)

    def time(self, case: str, count: str) -> float:
        step, steps = self.cases[case], int(count)
        gc.collect()
        self.synchronize()
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        self.synchronize()
        return (time.perf_counter() - begin) / steps

    def memory(self) -> float:
        """The largest resident size so far, of this process or of one that it started (kilobytes on Linux)."""
        peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return max(peaks) * (1 if sys.platform == "darwin" else 1024) / 1e6

    def cpu(self) -> float:
        """Processor seconds so far, of this process and of those that it started."""
        total = sum(os.times()[:4])  # with the children that have ended
        for child in multiprocessing.active_children():
            try:
                fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
            except OSError:
                continue  # no /proc: then nothing is compared with it, or it has just ended
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total

    def profile(self, seconds: str) -> None:
        for step in self.cases.values():
            step()
        profiler = cProfile.Profile()
        steps, end = 0, time.perf_counter() + float(seconds)
        profiler.enable()
        while time.perf_counter() < end or not steps:
            for step in self.cases.values():
                step()
            steps += 1
        profiler.disable()
        print(f"{steps} steps")
        pstats.Stats(profiler, stream=sys.stdout).strip_dirs().sort_stats("tottime").print_stats(25)


def main() -> None:
    library, workload, device, threads = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not look like an answer
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    timed = Timed(library, workload, device, int(threads))
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        print(json.dumps(getattr(timed, command)(*arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
