"""Our transforms beside torchvision's v2 functions: pixels, and boxes where geometry moves them."""

import numpy as np
import pytest

from flambeau_vision import transforms as T
from flambeau_vision.transforms.geometry import _homography

torch = pytest.importorskip("torch")
V = pytest.importorskip("torchvision.transforms.v2.functional", exc_type=Exception)
tv_tensors = pytest.importorskip("torchvision.tv_tensors")

SIZE = (40, 60)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
BOXES = np.array([[5, 6, 30, 25], [20, 1, 59, 39]], np.float32)
CORNERS = [[0, 0], [60, 0], [60, 40], [0, 40]]
MOVED = [[5, 3], [55, 2], [58, 36], [2, 38]]
TURN = {"angle": 25.0, "translate": [4, -3], "scale": 1.2, "shear": [8.0, 5.0]}


def picture():
    return torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())


def boxes():
    return tv_tensors.BoundingBoxes(torch.tensor(BOXES), format="XYXY", canvas_size=SIZE)


def rows(image):
    return image.numpy().transpose(1, 2, 0).astype(int)


# The share of pixels that may differ by more than one: turned pictures blend with what is outside, each in its way.
GEOMETRY = {
    "resize": (T.Scale(SIZE, (23, 31)), lambda x: V.resize(x, [23, 31]), 0),
    "larger": (T.Scale(SIZE, (80, 131)), lambda x: V.resize(x, [80, 131]), 0),
    "hflip": (T.Flip(SIZE, True), lambda x: V.horizontal_flip(x), 0),
    "vflip": (T.Flip(SIZE, False), lambda x: V.vertical_flip(x), 0),
    "crop": (T.Crop(5, 7, (20, 30)), lambda x: V.crop(x, 5, 7, 20, 30), 0),
    "affine": (
        T.Projective(T.affine_matrix(SIZE, 25.0, (4, -3), 1.2, (8.0, 5.0)), SIZE),
        lambda x: V.affine(x, **TURN, interpolation=V.InterpolationMode.BILINEAR),
        0.06,
    ),
    "perspective": (
        T.Projective(_homography(np.array(MOVED, float), np.array(CORNERS, float)), SIZE),
        lambda x: V.perspective(x, CORNERS, MOVED),
        0.12,
    ),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry(name):
    ours, theirs, share = GEOMETRY[name]
    out = T.warp({"image": IMAGE, "boxes": BOXES}, ours)
    difference = np.abs(out["image"] - rows(theirs(picture())))
    assert (difference > 1).mean() <= share
    np.testing.assert_allclose(out["boxes"], theirs(boxes()).numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colour(name):
    amount, slack = (0.2, 12) if name == "hue" else (1.4, 1)  # our hue turns in Pillow's 8-bit HSV
    out = getattr(T, f"adjust_{name}")(IMAGE, amount)
    assert np.abs(out - rows(getattr(V, f"adjust_{name}")(picture(), amount))).max() <= slack


def test_blur_and_grey():
    assert np.abs(T.gaussian_blur(IMAGE, 7, 1.3) - rows(V.gaussian_blur(picture(), [7, 7], [1.3, 1.3]))).max() <= 1
    assert np.abs(T.to_grayscale(IMAGE) - rows(V.rgb_to_grayscale(picture(), 3))).max() <= 1
