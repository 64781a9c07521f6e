"""One workload in one library: reads `start` and `time N` on stdin, answers with a value or seconds a step."""

import gc
import importlib
import sys
import time
from pathlib import Path


def main() -> None:
    library, workload, device = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not look like an answer
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    torch = importlib.import_module(library)
    step = importlib.import_module(f"workloads.{workload}").make(torch, device)
    synchronize = torch.cuda.synchronize if device != "cpu" else lambda: None
    for line in sys.stdin:
        command, *count = line.split()
        if command == "start":
            answer = float(step())
        else:
            steps = int(count[0])
            gc.collect()
            synchronize()
            begin = time.perf_counter()
            for _ in range(steps):
                step()
            synchronize()
            answer = (time.perf_counter() - begin) / steps
        print(repr(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
