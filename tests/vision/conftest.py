"""Where the public data sets are, for the tests that read them."""

import os
from pathlib import Path

import pytest


def data_root():
    """``$FLAMBEAU_DATA``, or ``shared/data`` beside the checkout."""
    return Path(os.environ.get("FLAMBEAU_DATA") or Path(__file__).parents[3] / "shared" / "data")


def _folder(name, wanted):
    folder = data_root() / name
    if not (folder / wanted).is_file():
        pytest.skip(f"no data here: set FLAMBEAU_DATA to the folder that holds {name}/{wanted}")
    return folder


@pytest.fixture(scope="session")
def camvid_folder():
    return _folder("02_semantic_segmentation/camvid_240x180", "test.zip")


@pytest.fixture(scope="session")
def cifar_folder():
    return _folder("01_image_classification/cifar10_subset", "test.zip")


@pytest.fixture(scope="session")
def mnist_folder():
    return _folder("01_image_classification/mnist_t10k", "t10k-images-idx3-ubyte.gz")
