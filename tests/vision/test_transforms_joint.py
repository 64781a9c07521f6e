"""Pixels, masks, boxes and keypoints move together: a painted square must be found where its annotations say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter

import flambeau.data as data
from flambeau_vision import transforms as T

GEOMETRY = {
    "resize": T.Resize((70, 110)),
    "shorter side": T.Resize(60, max_size=100),
    "centre crop": T.CenterCrop((50, 60)),
    "crop": T.RandomCrop((50, 60), padding=8),
    "resized crop": T.RandomResizedCrop((64, 64), scale=(0.4, 1.0)),
    "hflip": T.RandomHorizontalFlip(1.0),
    "vflip": T.RandomVerticalFlip(1.0),
    "pad": T.Pad((3, 5, 7, 9)),
    "affine": T.RandomAffine(40, (0.1, 0.1), (0.8, 1.3), 10),
    "perspective": T.RandomPerspective(0.5, 1.0),
    "elastic": T.ElasticTransform(40.0, 6.0),
    "zoom crop": T.RandomZoomCrop((60, 80), degrees=20),
    "randaugment": T.RandAugment(3, 12),
    "trivial": T.TrivialAugmentWide(),
}


def painted(top=20, left=30, side=24, shape=(80, 100)):
    image = np.zeros((*shape, 3), np.uint8)
    image[top : top + side, left : left + side] = 255
    mask = (image[..., 0] > 0).astype(np.int64)
    centre = [left + side / 2, top + side / 2, 2]
    return {
        "image": image,
        "mask": mask,
        "masks": mask[None].astype(bool),
        "boxes": np.array([[left, top, left + side, top + side]], np.float32),
        "keypoints": np.array([[centre]], np.float32),
        "labels": np.array([3]),
    }


def extent(mask):
    y, x = np.nonzero(mask)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


@pytest.mark.parametrize("name", GEOMETRY)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), top=st.integers(4, 48), left=st.integers(4, 68))
def test_annotations_follow_the_pixels(name, seed, top, left):
    before = painted(top, left)
    kept = {key: value.copy() for key, value in before.items()}
    out = GEOMETRY[name](before, rng=np.random.default_rng(seed))
    for key, value in kept.items():
        np.testing.assert_array_equal(before[key], value, err_msg=f"{key} was changed in place")
    size = out["image"].shape[:2]
    assert out["mask"].shape == size and out["masks"].shape[1:] == size and out["mask"].dtype == np.int64
    inside = out["masks"][0]
    np.testing.assert_array_equal(out["mask"] == 1, inside)
    (box,) = out["boxes"]
    assert (box[:2] >= 0).all() and box[2] <= size[1] and box[3] <= size[0]
    if not inside.any():
        assert (box[2:] - box[:2] < 2).any()
        return
    found = extent(inside)
    assert (found[:2] >= box[:2] - 1.01).all() and (found[2:] <= box[2:] + 1.01).all()
    rotates = name in ("affine", "perspective", "elastic", "zoom crop", "randaugment", "trivial")
    if not rotates:
        np.testing.assert_allclose(found, box, atol=1.01)
    x, y, seen = out["keypoints"][0, 0]
    assert 0 <= x <= size[1] and 0 <= y <= size[0] and (seen == 2 or x == y == seen == 0)
    whole = (found[:2] > 1).all() and found[2] < size[1] - 1 and found[3] < size[0] - 1
    if whole and name not in ("perspective",):
        assert seen == 2
        rows, columns = np.nonzero(inside)
        slack = 3.5 if name == "elastic" else 1.0
        assert abs(columns.mean() + 0.5 - x) < slack and abs(rows.mean() + 0.5 - y) < slack
    if seen and 1 < x < size[1] - 1 and 1 < y < size[0] - 1:
        assert inside[int(y), int(x)]
    if name not in ("randaugment", "trivial"):  # the picture itself: bright where the mask says, up to blurred edges
        assert ((out["image"][..., 0] > 128) != inside).mean() < 0.04


@pytest.mark.parametrize("name", GEOMETRY)
def test_the_seed_alone_decides(name):
    first, again = (GEOMETRY[name](painted(), rng=np.random.default_rng(5)) for _ in range(2))
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])


def test_the_loaders_seed_decides_whatever_the_workers():
    class Painted(data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return T.Compose([T.RandomAffine(90), T.ColorJitter(0.5)])(painted())["boxes"]

    def boxes(workers):
        import flambeau

        flambeau.manual_seed(3)
        return np.concatenate([np.asarray(batch) for batch in data.DataLoader(Painted(), 2, num_workers=workers)])

    np.testing.assert_array_equal(boxes(0), boxes(2))
    assert len(np.unique(boxes(0).reshape(6, 4), axis=0)) == 6


def test_sanitize_drops_every_row_of_an_empty_box():
    sample = painted()
    sample["boxes"] = np.array([[30, 20, 54, 44], [90, 0, 95, 5]], np.float32)
    sample["labels"], sample["names"] = np.array([3, 4]), ["a", "b"]
    sample["masks"] = np.concatenate([sample["masks"]] * 2)
    sample["keypoints"] = np.concatenate([sample["keypoints"]] * 2)
    out = T.Compose([T.CenterCrop((60, 60)), T.SanitizeBoundingBoxes()])(sample)
    assert out["labels"].tolist() == [3] and out["names"] == ["a"]
    assert len(out["boxes"]) == len(out["masks"]) == len(out["keypoints"]) == 1


def test_no_boxes_pass_through_every_transform():
    sample = {**painted(), "boxes": np.zeros((0, 4), np.float32), "masks": np.zeros((0, 80, 100), bool)}
    for transform in GEOMETRY.values():
        out = transform(sample, rng=np.random.default_rng(0))
        assert out["boxes"].shape == (0, 4) and out["masks"].shape == (0, *out["image"].shape[:2])


def test_flip_swaps_left_and_right_keypoints():
    sample = {"image": np.zeros((4, 10, 3), np.uint8), "keypoints": np.array([[[1, 1, 2], [8, 1, 2]]], np.float32)}
    out = T.RandomHorizontalFlip(1.0, pairs=((0, 1),))(sample)
    assert out["keypoints"][0, :, 0].tolist() == [2, 9]


def test_padding_modes_are_numpys_and_others_are_refused():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for mode in ("edge", "reflect", "symmetric"):
        np.testing.assert_array_equal(T.Pad((1, 2), padding_mode=mode)(image), np.pad(image, ((2, 2), (1, 1)), mode))
    with pytest.raises(ValueError, match="padding_mode"):
        T.Pad(1, padding_mode="wrap")(image)


def test_colours_agree_with_pillow():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    picture = Image.fromarray(image)
    for ours, theirs in (
        (T.adjust_brightness, ImageEnhance.Brightness),
        (T.adjust_contrast, ImageEnhance.Contrast),
        (T.adjust_saturation, ImageEnhance.Color),
    ):
        for factor in (0.3, 1.0, 1.7):
            difference = ours(image, factor).astype(int) - np.asarray(theirs(picture).enhance(factor))
            assert np.abs(difference).max() <= 2
    grey = T.Grayscale()(image).astype(int)
    assert np.abs(grey[..., 0] - np.asarray(picture.convert("L"))).max() <= 1
    assert np.abs(T.adjust_hue(image, 0.0).astype(int) - image).max() <= 8  # Pillow's HSV is 8-bit


def test_blur_agrees_with_scipy_and_keeps_the_mean():
    image = np.random.default_rng(1).integers(0, 256, (24, 24), dtype=np.uint8)
    ndimage = pytest.importorskip("scipy.ndimage")
    expected = ndimage.gaussian_filter(image.astype(np.float64), 1.5, mode="mirror", radius=4)
    assert np.abs(T.gaussian_blur(image, 9, 1.5) - expected).max() <= 0.51
    assert np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.5))).std() < image.std()
    with pytest.raises(ValueError, match="odd"):
        T.GaussianBlur(4)


def test_erasing_and_grey_pictures():
    image = np.full((40, 50), 9, np.uint8)
    erased = T.RandomErasing(1.0, value=200)(image, None, np.random.default_rng(0))[0]
    assert 0.01 < (erased == 200).mean() < 0.4 and (image == 9).all()
    for transform in (T.ColorJitter(0.4, 0.4, 0.4, 0.1), T.LightJitter(), T.Grayscale(), T.GaussianBlur(3)):
        assert transform(image).shape == image.shape


def test_choice_and_apply():
    image = np.zeros((4, 6, 3), np.uint8)
    choice = T.RandomChoice([T.Resize((2, 2)), T.Resize((3, 3))], p=[0, 1])
    assert choice(image).shape == (3, 3, 3)
    assert T.RandomApply([T.Resize((2, 2))], p=0.0)(image).shape == (4, 6, 3)
    assert T.RandomApply([T.Resize((2, 2))], p=1.0)(image).shape == (2, 2, 3)


def test_mixup_and_cutmix_share_labels_by_pixels():
    images = np.stack([np.zeros((3, 16, 20), np.float32), np.ones((3, 16, 20), np.float32)])
    for mix in (T.MixUp(num_classes=2), T.CutMix(num_classes=2)):
        for seed in range(10):
            mixed, labels = mix(images, np.array([0, 1]), np.random.default_rng(seed))
            np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), labels[:, 1], atol=1e-5)
    with pytest.raises(ValueError, match="alpha"):
        T.MixUp(num_classes=2, alpha=0)


def test_mosaic_joins_boxes_where_the_pixels_went():
    samples = [painted(top, left) for top, left in ((10, 10), (40, 20), (20, 60), (30, 30))]
    out = T.Mosaic((120, 160))(samples, np.random.default_rng(4))
    assert out["image"].shape == (120, 160, 3) and len(out["boxes"]) == len(out["labels"]) == 4
    for box, mask in zip(out["boxes"], out["masks"], strict=True):
        if mask.any():
            np.testing.assert_allclose(extent(mask), box, atol=1.01)
            assert out["image"][mask].mean() > 240
    with pytest.raises(ValueError, match="four"):
        T.Mosaic((8, 8))(samples[:3])


@pytest.mark.parametrize("seed", range(8))
def test_every_operation_of_randaugment_runs_on_colour_and_grey(seed):
    for transform in (T.RandAugment(6, 30), T.TrivialAugmentWide()):
        for image in (painted()["image"], painted()["image"][..., 0]):
            out = transform(image, None, np.random.default_rng(seed))[0]
            assert out.shape == image.shape and out.dtype == np.uint8
    with pytest.raises(ValueError, match="magnitude"):
        T.RandAugment(magnitude=31)
