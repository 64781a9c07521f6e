"""Where the public data sets are, for the tests that read them."""

import os
from pathlib import Path

import pytest


def data_root():
    """``$FLAMBEAU_DATA``, or ``shared/data`` beside the checkout."""
    return Path(os.environ.get("FLAMBEAU_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(scope="session")
def real_data():
    """Gives the path of a public file, or skips the test when it is not here."""

    def find(name):
        path = data_root() / name
        if not path.exists():
            pytest.skip(f"no data here: set FLAMBEAU_DATA to the folder that holds {name}")
        return path

    return find
