"""The public names are those of api_snapshot.json: none comes or goes unnoticed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_public_names_are_the_recorded_ones():
    # In a process of its own: what other tests imported or registered must not count.
    command = [sys.executable, str(ROOT / "tools" / "api_snapshot.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"{done.stdout}{done.stderr}\nIf meant: python tools/api_snapshot.py --write, and a line in CHANGELOG.md"
    )


def test_a_difference_is_seen():
    sys.path.insert(0, str(ROOT / "tools"))
    import api_snapshot

    lines = api_snapshot.differences({"m": ["a", "b"]}, {"m": ["b", "c"], "n": ["d"]})
    assert lines == ["- m: a", "+ m: c", "+ n: d"]
