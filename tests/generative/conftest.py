"""Small data for the generative tests, and the public data sets that they read."""

import gzip
import struct

import numpy as np
import pytest


@pytest.fixture(scope="session")
def mnist_folder(real_data):
    return real_data("01_image_classification/mnist_t10k/t10k-images-idx3-ubyte.gz").parent


@pytest.fixture(scope="session")
def fashion_folder(real_data):
    return real_data("01_image_classification/fashion_mnist_1k/fashion-mnist_test.csv.gz").parent


def bars(count=40, size=8):
    """Pictures with one bright bar, half as thick as they are high, across or upright: easy to learn."""
    pixels = np.zeros((count, size, size), np.uint8)
    for image, draw in zip(pixels, np.random.default_rng(0).integers(0, 2 * (size // 2 + 1), count), strict=True):
        place = slice(draw // 2, draw // 2 + size // 2)
        image[(place, slice(None)) if draw % 2 else (slice(None), place)] = 255
    return pixels


def write_idx(path, pixels):
    data = struct.pack(">IIII", 0x803, *pixels.shape) + pixels.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_bars(folder, count=40):
    """A folder with one idx file of bars; returns its path as the trainers want it."""
    write_idx(folder / "train-images-idx3-ubyte.gz", bars(count))
    return str(folder)
