"""The public data sets that the vision tests read."""

import pytest


@pytest.fixture(scope="session")
def camvid_folder(real_data):
    return real_data("02_semantic_segmentation/camvid_240x180/test.zip").parent


@pytest.fixture(scope="session")
def cifar_folder(real_data):
    return real_data("01_image_classification/cifar10_subset/test.zip").parent


@pytest.fixture(scope="session")
def mnist_folder(real_data):
    return real_data("01_image_classification/mnist_t10k/t10k-images-idx3-ubyte.gz").parent
