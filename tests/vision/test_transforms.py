"""Picture and mask move together; the generator's state decides everything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flambeau_vision import transforms as T


def pair(height=40, width=60):
    """A picture whose red channel is twice its mask's class, so that joint geometry can be seen in the result."""
    ys, xs = np.mgrid[:height, :width]
    mask = ((ys // 5 + xs // 6) % 11).astype(np.uint8)
    image = np.stack([mask * 20, ys * 255 // height, xs * 255 // width], axis=-1).astype(np.uint8)
    return image, mask


GEOMETRY = [
    T.Resize((20, 30)),
    T.CenterCrop((20, 30)),
    T.CenterCrop((50, 70), ignore_index=11),
    T.RandomCrop((20, 30)),
    T.RandomCrop((40, 60), padding=4, ignore_index=11),
    T.RandomHorizontalFlip(1.0),
    T.RandomZoomCrop((24, 32), ignore_index=11),
    T.RandomZoomCrop((24, 32), scale=(1.0, 1.0), aspect=0, degrees=0, ignore_index=11),
    T.RandomZoomCrop((24, 32), ignore_index=11, focus=(3, 7), focus_p=1.0),
]


@pytest.mark.parametrize("transform", GEOMETRY, ids=lambda transform: type(transform).__name__)
def test_geometry_is_joint(transform):
    image, mask = pair()
    for seed in range(10):
        out, labels = transform(image, mask, np.random.default_rng(seed))
        assert out.shape[:2] == labels.shape
        assert out.dtype == labels.dtype == np.uint8
        inside = labels != 11
        # Bilinear mixes neighbouring classes at their borders: away from those the red channel tells the class.
        interior = inside.copy()
        for axis in (0, 1):
            for shift in (-2, -1, 1, 2):
                interior &= np.roll(labels, shift, axis) == labels
        interior[[0, 1, -1, -2]] = interior[:, [0, 1, -1, -2]] = False
        if interior.any():
            error = np.abs(out[..., 0].astype(int) - labels.astype(int) * 20)[interior]
            assert (error > 20).mean() < 0.02
        assert inside.any()


@pytest.mark.parametrize(
    "transform", [*GEOMETRY, T.LightJitter(), T.Cutout(10, 1.0), T.Normalize(0.4, 0.3)], ids=lambda t: type(t).__name__
)
def test_same_state_same_bits_and_input_unchanged(transform):
    image, mask = pair()
    before = image.copy(), mask.copy()
    first = transform(image, mask, np.random.default_rng(3))
    again = transform(image, mask, np.random.default_rng(3))
    for one, two in zip(first, again):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])
    alone, none = transform(image, None, np.random.default_rng(3))
    assert none is None
    if not (isinstance(transform, T.RandomZoomCrop) and transform.focus):
        np.testing.assert_array_equal(alone, first[0])


def test_random_transforms_differ_between_states():
    image, mask = pair()
    for transform in (T.RandomCrop((20, 30)), T.RandomZoomCrop((24, 32)), T.LightJitter(), T.Cutout(10, 1.0)):
        outs = {transform(image, mask, np.random.default_rng(seed))[0].tobytes() for seed in range(8)}
        assert len(outs) > 4


@given(st.integers(-30, 50), st.integers(-30, 50), st.integers(1, 40), st.integers(1, 40))
def test_crop_equals_slicing_a_padded_picture(top, left, height, width):
    image, _ = pair(17, 23)
    padded = np.pad(image, ((100, 100), (100, 100), (0, 0)), constant_values=7)
    wanted = padded[100 + top : 100 + top + height, 100 + left : 100 + left + width]
    np.testing.assert_array_equal(T.crop(image, top, left, (height, width), 7), wanted)


@given(st.integers(1, 40), st.integers(1, 40))
def test_resize_has_the_size_and_keeps_constants(height, width):
    image = np.full((9, 13, 3), 77, dtype=np.uint8)
    np.testing.assert_array_equal(T.resize(image, (height, width)), np.full((height, width, 3), 77))
    labels = T.resize(pair(9, 13)[1], (height, width), nearest=True)
    assert set(np.unique(labels)) <= set(np.unique(pair(9, 13)[1]))


def test_affine_shift_and_flip():
    image, mask = pair()
    shifted = T.affine(image, np.array([[1, 0, 5], [0, 1, 3.0]]), (30, 40))
    np.testing.assert_array_equal(shifted, image[3:33, 5:45])
    mirrored = T.affine(mask, np.array([[-1, 0, 60.0], [0, 1, 0]]), mask.shape, nearest=True)
    np.testing.assert_array_equal(mirrored, mask[:, ::-1])
    outside = T.affine(mask, np.array([[1, 0, 100.0], [0, 1, 0]]), (4, 4), fill=11, nearest=True)
    assert (outside == 11).all()


def test_affine_without_change_is_a_crop():
    image, mask = pair()
    transform = T.RandomZoomCrop((40, 60), scale=(1, 1), aspect=0, degrees=0, flip=0)
    out, labels = transform(image, mask, np.random.default_rng(0))
    np.testing.assert_array_equal(out, image)
    np.testing.assert_array_equal(labels, mask)


def test_focus_finds_the_rare_class():
    mask = np.zeros((200, 300), dtype=np.uint8)
    mask[150:156, 20:26] = 9
    image = np.zeros((200, 300, 3), dtype=np.uint8)
    seen = [
        (T.RandomZoomCrop((40, 40), (1, 1), focus=(9,), focus_p=p)(image, mask, np.random.default_rng(s))[1] == 9).any()
        for p in (0.0, 1.0)
        for s in range(30)
    ]
    assert sum(seen[:30]) < 10
    assert sum(seen[30:]) > 20


def test_colour_functions():
    image, _ = pair()
    np.testing.assert_array_equal(T.adjust_brightness(image, 1.0), image)
    np.testing.assert_array_equal(T.adjust_contrast(image, 1.0), image)
    np.testing.assert_array_equal(T.adjust_saturation(image, 1.0), image)
    np.testing.assert_array_equal(T.adjust_gains(image, (1, 1, 1)), image)
    assert T.adjust_brightness(image, 0.0).max() == 0
    assert T.adjust_contrast(image, 0.0).std() == 0
    grey = T.adjust_saturation(image, 0.0)
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (T.adjust_gains(image, (0, 1, 1))[..., 0] == 0).all()
    assert T.adjust_brightness(image, 9.0).max() == 255


def test_cutout_hides_a_square_and_keeps_the_labels():
    image, mask = pair()
    out, labels = T.Cutout(10, 1.0, fill=99)(image, mask, np.random.default_rng(1))
    changed = (out != image).any(-1)
    assert 0 < changed.sum() <= 100
    assert (out[changed] == 99).any(-1).all()
    np.testing.assert_array_equal(labels, mask)
    assert T.Cutout(10, 0.0)(image, mask, np.random.default_rng(1))[0] is image


def test_normalize():
    image, mask = pair()
    out, labels = T.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))(image, mask, np.random.default_rng(0))
    wanted = (image / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    np.testing.assert_allclose(out, wanted.transpose(2, 0, 1), atol=1e-6)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert labels.dtype == np.int64


def test_compose_runs_in_order():
    image, mask = pair()
    both = T.Compose([T.Resize((20, 30)), T.RandomHorizontalFlip(1.0)])
    out, labels = both(image, mask, np.random.default_rng(0))
    np.testing.assert_array_equal(out, T.resize(image, (20, 30))[:, ::-1])
    np.testing.assert_array_equal(labels, T.resize(mask, (20, 30), nearest=True)[:, ::-1])
