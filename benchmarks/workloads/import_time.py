"""A new Python process that imports the library and makes one tensor."""

import subprocess
import sys

COMPILES = False


def make(torch, device):
    code = f"import {torch.__name__} as torch; torch.ones(1)"

    def step() -> float:
        subprocess.run([sys.executable, "-c", code], check=True)
        return 0.0

    return step
