"""Settings that all tests share."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A developer's own switches must not change what is tested, but for where the data and the arrays are.
KEPT = ("FLAMBEAU_DATA", "FLAMBEAU_DEVICE")
for _name in [n for n in os.environ if n.startswith("FLAMBEAU_") and n not in KEPT]:
    del os.environ[_name]

# A shell's background job ignores Ctrl-C, and its children do: a test that sends it would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time: a failure is never a matter of luck. `HYPOTHESIS_PROFILE=explore` looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# What the tests against PyTorch's own databases count, by how their names begin.
DATABASES = {
    "tests/peers/test_ops_peer.py::test_operator": "entries of PyTorch's operator database (op_db) agree",
    "tests/peers/test_module_db.py::test_module[": "entries of PyTorch's module database (module_db) agree",
    "tests/peers/test_optim_db.py::test_every_sample_input[": "optimizers of PyTorch's database (optim_db) agree",
}
PEERS = Path(__file__).parent / "peers"


def _gpu_missing() -> str | None:
    """Why GPU tests cannot run here; None where they can."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    import cupy

    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CUDA does not work here: {error}"


@pytest.fixture(scope="session")
def real_data():
    """Gives the path of a public file or folder, or skips the test when it is not here.

    They lie under ``$FLAMBEAU_DATA``, or ``shared/data`` beside the checkout.
    """
    root = Path(os.environ.get("FLAMBEAU_DATA") or Path(__file__).parents[2] / "shared" / "data")

    def find(name):
        if not (root / name).exists():
            pytest.skip(f"no data here: set FLAMBEAU_DATA to the folder that holds {name}")
        return root / name

    return find


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts with the same random numbers, whatever ran before it in the process."""
    if "flambeau.random" in sys.modules:
        sys.modules["flambeau.random"].manual_seed(0)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects, so that it sees the marker added here
def pytest_collection_modifyitems(config, items):
    missing = None
    if any(item.get_closest_marker("gpu") for item in items):
        missing = _gpu_missing()
    for item in items:
        if PEERS in item.path.parents:
            item.add_marker(pytest.mark.peer)
        if missing and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=missing))


def pytest_terminal_summary(terminalreporter):
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])]
    cases = sum(1 for r in reports if r.when == "call" and "opcase" in r.keywords)
    if cases:
        terminalreporter.write_line(f"{cases} cases generated from the declarations of the ops")
    for start, what in DATABASES.items():
        passed = sum(r.when == "call" and r.nodeid.startswith(start) for r in terminalreporter.stats.get("passed", []))
        if passed:
            terminalreporter.write_line(f"{passed} {what}")
    for report in reports:
        for name, value in report.user_properties:
            if name == "relative_difference":
                terminalreporter.write_line(f"{report.nodeid.rsplit('::')[-1]}: losses differ by {value} at most")
