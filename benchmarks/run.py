"""Time the workloads, beside PyTorch where it is installed: `python benchmarks/run.py [NAME ...]`.

Each library works in a process of its own on the same inputs and weights; both must compute the same before they are
timed. Samples are taken in turns, ours and the peer's, so that a slow moment of the machine falls on both; the ratio
is the median over these pairs, the spread its quartiles. See docs/benchmarks.md.
"""

import argparse
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import history
from measure import HERE, OURS, PEER, Result, Worker, measure
from stats import TOLERANCE, geometric_mean, worse

NAMES = sorted(p.stem for p in (HERE / "workloads").glob("*.py") if not p.stem.startswith("_"))
QUICK = ("op_overhead", "mlp_step", "conv_step")
BUSY = 0.15  # part of the machine: with more used by other programs a ratio is shown with a warning, and not recorded
WIDTH = max(map(len, NAMES))


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Times of the workloads, ours beside PyTorch's where it is installed.",
        epilog="Workloads: " + ", ".join(NAMES),
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="workloads; default: all")
    add("--threads", type=int, default=usable_cores(), help="threads of each library (default: all cores)")
    add("--repeats", type=int, help="pairs of samples (default 7, with --quick 5)")
    add("--seconds", type=float, default=0.2, help="length of a sample (default 0.2; at least one step)")
    add("--budget", type=float, default=660.0, metavar="SECONDS", help="of the whole run (default 660)")
    add("--quick", action="store_true", help="fewer repeats; without names: " + ", ".join(QUICK))
    add("--json", type=Path, metavar="FILE", help="write the results there as well")
    add("--record", action="store_true", help="add the ratios to the history")
    add("--check", action="store_true", help=f"fail if a quick ratio is {TOLERANCE:.0%} above the last recorded one")
    add("--history", type=Path, default=history.HISTORY, metavar="FILE", help="default: benchmarks/history.jsonl")
    add("--profile", metavar="NAME", help="print a profile of our side of one workload, and stop")
    add("--device", default="cpu", help="cpu (default) or cuda")
    add("--compile", action="store_true", help="time our steps as flambeau.compile makes them, too")
    add("--torch-compile", action="store_true", help="and PyTorch's by torch.compile, which takes minutes")
    add("--alone", action="store_true", help="leave the peer out")
    options = parser.parse_args(arguments)
    for name in [*options.names, *([options.profile] if options.profile else [])]:
        if name not in NAMES:
            parser.error(f"no workload {name!r}; there are {', '.join(NAMES)}")
    if options.threads < 1 or (options.repeats is not None and options.repeats < 1):
        parser.error("--threads and --repeats must be at least 1")
    options.peer = not options.alone and importlib.util.find_spec(PEER) is not None
    if (options.check or options.record) and not options.peer:
        parser.error("ratios need PyTorch: install it with make venv-peers, and leave --alone out")
    quick = options.quick or options.check
    options.repeats = options.repeats or (5 if quick else 7)
    options.names = options.names or list(QUICK if quick else NAMES)
    return options


def show(value: float | None, unit: str = "s") -> str:
    if value is None:
        return "-"
    if unit != "s":
        return f"{value:.1f} {unit}"
    return f"{value * 1e6:.1f} µs" if value < 1e-3 else f"{value * 1e3:.2f} ms" if value < 1 else f"{value:.2f} s"


def rows(r: Result) -> list[str]:
    line = f"{r.workload:{WIDTH}} {show(r.ours, r.unit):>11}"
    if r.ratio is not None:
        line += f" {show(r.peer, r.unit):>11} {r.ratio:7.2f}   {r.low:.2f} .. {r.high:.2f} {r.pairs:4d}"
        if r.compiled or r.peer_compiled:
            line += "".join(
                f" {v:>9.2f}" if isinstance(v, float) else f" {v or '-':>9}" for v in (r.compiled, r.peer_compiled)
            )
        if r.memory_ours is not None:
            line += f" {r.memory_ours:8.0f} /{r.memory_peer:5.0f}"
    if r.items:
        line += f"   {r.items[0] / r.ours:.0f} {r.items[1]}/s"
    if r.others is not None and r.others > BUSY:
        line += f"   BUSY: other programs used {r.others:.0%} of the machine"
    parts = [f"{show(c.ours)}" if c.ratio is None else f"{c.ratio:.2f}" for c in r.cases]
    return [line, *([f"  {', '.join(f'{c.name}: {p}' for c, p in zip(r.cases, parts))}"] if parts else [])]


def heading(options: argparse.Namespace) -> list[str]:
    machine = f"{history.processor()}, {options.threads} threads, {options.device}, Python {platform.python_version()}"
    if not options.peer and not options.alone:
        machine += "; PyTorch is not installed, so ours alone (make venv-peers)"
    head = f"{'workload':{WIDTH}} {'ours':>11}"
    if options.peer:
        head += f" {'PyTorch':>11} {'ratio':>7}   {'quartiles':12} {'pairs':>4}"
        if options.compile or options.torch_compile:
            head += f" {'compiled':>9} {'their own':>9}"
        head += f" {'peak MB':>15}"
    return [machine, head]


def run_all(options: argparse.Namespace) -> tuple[list[Result], int]:
    """The results, printed as they come, and the number of failures.

    The budget is divided among the workloads that remain: what a quick one leaves, the later ones may use.
    """
    end = time.monotonic() + options.budget
    results, failed = [], 0
    for i, name in enumerate(options.names):
        left = end - time.monotonic()
        if left <= 0:
            print(f"not run, the budget is spent: {', '.join(options.names[i:])}", flush=True)
            break
        try:
            result = measure(
                name,
                repeats=options.repeats,
                seconds=options.seconds,
                threads=options.threads,
                device=options.device,
                peer=options.peer,
                limit=left / (len(options.names) - i),
                compiled=[OURS] * options.compile + [PEER] * (options.torch_compile and options.peer),
            )
        except RuntimeError as error:
            failed += 1
            print(f"{name:{WIDTH}} FAILED: {error}", flush=True)
            continue
        results.append(result)
        print("\n".join(rows(result)), flush=True)
    return results, failed


def mean_lines(results: Iterable[Result]) -> list[str]:
    """The geometric means of the ratios of times: of the eager steps, and of the faster form of each step."""
    timed = [r for r in results if r.ratio is not None and r.unit == "s"]
    if not timed:
        return []
    groups: dict[str, list[Result]] = {}
    for result in timed:
        groups.setdefault(result.group or result.workload, []).append(result)

    def mean(ratio: Callable[[Result], float]) -> float:
        return geometric_mean(geometric_mean(map(ratio, group)) for group in groups.values())

    lines = [f"geometric mean of {len(groups)} ratios: {mean(lambda r: r.ratio):.2f}"]
    if any(isinstance(r.compiled, float) for r in timed):
        lines.append(f"with flambeau.compile where that is faster: {mean(lambda r: r.best):.2f}")
    return lines


def check(options: argparse.Namespace) -> int:
    """Exit code: 1 where a ratio is worse than the recorded one. A suspect is measured once more, with more pairs."""
    before = history.last_ratios(history.read(options.history), options.names, options.threads, options.device)
    missing = [n for n in options.names if n not in before]
    if missing:
        print(
            f"no recorded ratio of {', '.join(missing)} with {options.threads} threads on {options.device}: "
            "record one with --record first",
            file=sys.stderr,
        )
        return 2
    results, failed = run_all(options)
    now = {r.workload: r.ratio for r in results}
    suspects = worse(now, before)
    if suspects:
        print("once more: " + ", ".join(suspects))
        options.names, options.repeats = list(suspects), 2 * options.repeats
        again, more = run_all(options)
        failed += more
        now.update({r.workload: min(r.ratio, now[r.workload]) for r in again})
    found = worse(now, before)
    for name, factor in found.items():
        print(f"WORSE: {name}: ratio {now[name]:.2f}, recorded {before[name]:.2f}: {factor - 1:+.0%}")
    if not found and not failed:
        print(f"no ratio is more than {TOLERANCE:.0%} above the recorded one")
    return 1 if found or failed else 0


def write_json(path: Path, options: argparse.Namespace, results: Iterable[Result]) -> None:
    document = {**history.entry([], options.threads, options.device), "results": [asdict(r) for r in results]}
    del document["ratios"], document["quartiles"]
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(json.dumps(document, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def profile(options: argparse.Namespace) -> None:
    worker = Worker(OURS, options.profile, options.threads, options.device)
    try:
        worker.ask("profile", "5")
    finally:
        worker.close()


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.profile:
        profile(options)
        return 0
    print("\n".join(heading(options)), flush=True)
    if options.check:
        return check(options)
    results, failed = run_all(options)
    print("\n".join(mean_lines(results)))
    if options.json:
        write_json(options.json, options, results)
    busy = [r.workload for r in results if (r.others or 0.0) > BUSY]
    if busy:
        print(f"not to be relied on, as other programs were busy: {', '.join(busy)}")
    if options.record and not failed:
        quiet = [r for r in results if r.workload not in busy]
        if quiet:
            history.record(history.entry(quiet, options.threads, options.device), options.history)
        print(f"recorded in {options.history}: {len(quiet)} of {len(results)} workloads")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
