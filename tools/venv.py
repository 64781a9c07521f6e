"""Make or refresh `.venv` for one purpose: `python3 tools/venv.py demo|test|peers`.

Runs with the standard library alone, on whatever `python3` the machine has; an old one gets a clear message. Each
purpose has a stamp file in `.venv` that holds a hash of the pyproject and requirements files, the interpreter and the
folder: nothing is installed again until one of them changes.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
MINIMUM = (3, 11)
DEMO = ["packages/core", "packages/vision", "apps/segment"]
REQUIREMENTS = {"demo": "requirements/build.txt", "test": "requirements/dev.txt", "peers": "requirements/peers.txt"}


def fail(cause, mend):
    print("error: " + cause + "\n  " + mend, file=sys.stderr)
    sys.exit(1)


def workspace():
    """Folders of all distributions, core first."""
    folders = [p.parent.relative_to(ROOT).as_posix() for p in ROOT.glob("*/*/pyproject.toml")]
    folders = [f for f in folders if f.startswith(("packages/", "apps/"))]
    return sorted(folders, key=lambda f: (f != "packages/core", not f.startswith("packages/"), f))


def check_interpreter():
    if sys.version_info < MINIMUM:
        fail(
            "Python {}.{} or later is needed, {} is {}.{}".format(*MINIMUM, sys.executable, *sys.version_info[:2]),
            "install a newer Python, or name one that is there already: make PYTHON=python3.12 ...",
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        fail(
            f"this Python cannot make virtual environments ({error})",
            "install the missing part (Debian, Ubuntu: apt install python3-venv), or choose another: make PYTHON=...",
        )


def make_venv():
    """An environment of this interpreter: one of another version, or one that no longer starts, is made anew."""
    want = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if PYTHON.exists():
        code = "import sys, pip; print('%d.%d' % sys.version_info[:2])"
        have = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=False)
        if have.returncode == 0 and have.stdout.strip() == want:
            return
    print(f"making .venv with Python {want}", flush=True)
    done = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False)
    if done.returncode:
        fail(
            f"'{sys.executable} -m venv .venv' failed",
            "install the venv module (Debian, Ubuntu: apt install python3-venv), or choose another: make PYTHON=...",
        )


def pip(*arguments):
    command = [str(PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, cwd=str(ROOT), check=False).returncode == 0


def editables(folders, fast):
    out = []
    for folder in folders:
        out += ["-e", folder + ("[fast]" if fast and folder == "packages/core" else "")]
    return out


def install(purpose):
    requirements = REQUIREMENTS[purpose]
    print(f"installing what '{purpose}' needs into .venv", flush=True)
    if not pip("-r", requirements):
        fail(f"pip could not install {requirements}", "see its message above; is the package index reachable?")
    if purpose == "peers":
        return
    folders = DEMO if purpose == "demo" else workspace()
    # Build isolation would fetch the build backend once per package; it is in the environment already.
    if pip("--no-build-isolation", *editables(folders, fast=True)):
        return
    print("the fast CPU kernels could not be installed here: going on without them", flush=True)
    if not pip("--no-build-isolation", *editables(folders, fast=False)):
        fail("pip could not install the packages", "see its message above; is the package index reachable?")


def key(purpose):
    digest = hashlib.sha256(f"{purpose} {ROOT} {sys.version}".encode())
    for path in sorted([*ROOT.glob("*/*/pyproject.toml"), *ROOT.glob("requirements/*.txt"), Path(__file__)]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in REQUIREMENTS:
        fail("usage: venv.py demo|test|peers", "see the Makefile")
    check_interpreter()
    with open(__file__) as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)  # two make runs at once take turns
        except ImportError:
            pass
        make_venv()
        for purpose in ["test", "peers"] if sys.argv[1] == "peers" else [sys.argv[1]]:
            stamp = VENV / (".installed-" + purpose)
            if stamp.exists() and stamp.read_text() == key(purpose):
                continue
            install(purpose)
            stamp.write_text(key(purpose))


if __name__ == "__main__":
    main()
