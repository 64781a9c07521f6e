"""The random generators of the process as plain data, for checkpoints."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

__all__ = ["capture_rng", "restore_rng", "seed_everything"]


def seed_everything(seed: int) -> None:
    """Seeds the global random generators: Flambeau's, NumPy's and Python's."""
    from ..random import manual_seed

    manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def capture_rng() -> dict[str, Any]:
    """The state of the global random generators: Flambeau's (of every device), NumPy's and Python's.

    CuPy's own generator is not among them: it cannot say where it stands. Flambeau draws nothing from it.
    """
    from ..random import get_rng_state

    kind, keys, position, has_gauss, gauss = np.random.get_state()  # type: ignore[misc]
    version, internal, gauss_next = random.getstate()
    return {
        "flambeau": get_rng_state(),
        "numpy": {"kind": kind, "keys": keys, "position": position, "has_gauss": has_gauss, "gauss": gauss},
        "python": {"version": version, "internal": np.array(internal, np.int64), "gauss_next": gauss_next},
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Sets the global random generators to a captured state."""
    from ..random import set_rng_state

    set_rng_state(state["flambeau"])
    numpy, python = state["numpy"], state["python"]
    np.random.set_state((numpy["kind"], numpy["keys"], numpy["position"], numpy["has_gauss"], numpy["gauss"]))
    random.setstate((python["version"], tuple(python["internal"].tolist()), python["gauss_next"]))
