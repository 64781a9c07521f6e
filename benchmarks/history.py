"""The recorded runs, `history.jsonl`: a line is an object with date, machine, versions and the ratios of one run."""

import datetime
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

HISTORY = Path(__file__).resolve().parent / "history.jsonl"


def processor() -> str:
    """The processor's name where Linux tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> dict[str, str]:
    """What took part: Python, the libraries that are installed, and the commit of this checkout if it is one."""
    found = {"python": platform.python_version()}
    for name, distribution in [("flambeau", "flambeau-core"), ("torch", "torch"), ("numpy", "numpy")]:
        try:
            found[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            pass
    command = ["git", "-C", str(HISTORY.parent), "rev-parse", "--short", "HEAD"]
    try:
        found["commit"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pass  # no git, or not a checkout
    return found


def entry(results: Iterable[Any], threads: int, device: str) -> dict[str, Any]:
    """One line of the history: `ratios` and their quartiles of the workloads that were compared."""
    compared = [r for r in results if r.ratio is not None]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": threads, "device": device},
        "versions": versions(),
        "ratios": {r.workload: round(r.ratio, 4) for r in compared},
        "quartiles": {r.workload: [round(r.low, 4), round(r.high, 4)] for r in compared},
    }


def read(path: Path = HISTORY) -> list[dict[str, Any]]:
    """All recorded runs, oldest first; an absent file has none. A line that is no record raises ValueError."""
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            one = json.loads(line)
            if not all(isinstance(one[key], dict) for key in ("machine", "versions", "ratios")) or not one["date"]:
                raise TypeError
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path}, line {number}, is not a recorded run: mend or delete that line") from None
        entries.append(one)
    return entries


def record(one: Mapping[str, Any], path: Path = HISTORY) -> None:
    """Add a line; the file is replaced as a whole, so that it is never half written."""
    lines = [json.dumps(e) for e in [*read(path), one]]
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def last_ratios(entries: Iterable[Mapping[str, Any]], names: Iterable[str], threads: int, device: str):
    """For each workload its ratio in the last recorded run that has it, with this number of threads and this device."""
    found: dict[str, float] = {}
    for one in entries:
        if one["machine"].get("threads") == threads and one["machine"].get("device") == device:
            found.update({n: one["ratios"][n] for n in names if n in one["ratios"]})
    return found
