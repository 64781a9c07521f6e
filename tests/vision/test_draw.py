"""Overlays, legends and the palette."""

import numpy as np
import pytest

from flambeau_vision.draw import (
    STREET_CLASSES,
    STREET_PALETTE,
    class_palette,
    class_shares,
    overlay,
    panels,
    percent_text,
    with_legend,
)

# Linear-RGB matrices of Machado, Oliveira & Fernandes (2009) at full severity.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def lab(palette, sight):
    encoded = palette / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.asarray(sight).T, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)


@pytest.mark.parametrize("sight", SIGHT)
def test_the_colours_are_told_apart_by_everyone(sight):
    colours = lab(STREET_PALETTE, SIGHT[sight])
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 24


def test_palettes_of_other_classes():
    np.testing.assert_array_equal(class_palette(STREET_CLASSES), STREET_PALETTE)
    many = class_palette([f"class {i}" for i in range(30)])
    assert many.shape == (30, 3)
    assert len(np.unique(many, axis=0)) == 30
    assert class_palette([]).shape == (0, 3)


def scene(height=60, width=90):
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[height // 2 :] = 3
    mask[height // 2 : -5, 10:20] = 8
    return image, mask


def test_overlay_blends_and_leaves_the_input():
    image, mask = scene()
    before = image.copy()
    plain = overlay(image, mask, STREET_PALETTE, alpha=0.5, outline=False)
    wanted = image * 0.5 + STREET_PALETTE[mask] * 0.5
    assert np.abs(plain - wanted).max() <= 1
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(overlay(image, mask, STREET_PALETTE, alpha=0, outline=False), image)
    full = overlay(image, mask, STREET_PALETTE, alpha=1, outline=False)
    np.testing.assert_array_equal(full, STREET_PALETTE[mask])


def test_outlines_lie_on_borders_only():
    image, mask = scene()
    plain = overlay(image, mask, STREET_PALETTE, outline=False)
    lined = overlay(image, mask, STREET_PALETTE)
    changed = (plain != lined).any(-1)
    assert changed[30].any()
    assert not changed[:25].any()
    assert (lined.astype(int) - plain >= -1).all()


def test_void_stays_as_it_is():
    image, mask = scene()
    mask[:5] = 11
    out = overlay(image, mask, STREET_PALETTE, outline=False)
    np.testing.assert_array_equal(out[:5], image[:5])


def test_overlay_refuses_what_does_not_fit():
    image, mask = scene()
    with pytest.raises(ValueError, match="shape"):
        overlay(image, mask[1:], STREET_PALETTE)
    with pytest.raises(ValueError, match="alpha"):
        overlay(image, mask, STREET_PALETTE, alpha=1.5)


@pytest.mark.parametrize("size", [(540, 960), (960, 540), (40, 60), (100, 900), (1, 1), (30, 3000)])
def test_the_legend_keeps_the_picture(size):
    image, mask = scene(*size) if min(size) >= 30 else (np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8))
    shares = class_shares(mask, STREET_CLASSES)
    out = np.asarray(with_legend(image, shares, STREET_PALETTE, title="a rather long name of a photo.jpg", note="x"))
    np.testing.assert_array_equal(out[: size[0], : size[1]], image)
    beside, below = out[:, size[1] :], out[size[0] :, :]
    panel = beside if beside.shape[1] else below
    for entry in shares:
        colour = STREET_PALETTE[entry.index]
        assert (panel == colour).all(-1).sum() > 20, entry.name
    assert (panel.max() - panel.min()) > 150


def test_shares_are_sorted_and_whole():
    mask = np.array([[3, 3, 3], [0, 8, 0]], dtype=np.uint8)
    shares = class_shares(mask, STREET_CLASSES)
    assert [(s.name, s.pixels) for s in shares] == [("road", 3), ("sky", 2), ("car", 1)]
    assert sum(s.share for s in shares) == pytest.approx(1)
    assert class_shares(np.full((2, 2), 11), STREET_CLASSES) == []


def test_percent_text():
    assert [percent_text(s) for s in (0, 0.0004, 0.0006, 0.5, 1)] == ["0.0 %", "<0.1 %", "0.1 %", "50.0 %", "100.0 %"]


def test_panels():
    picture = np.zeros((30, 40, 3), np.uint8)
    sheet = panels([picture] * 3, ["a", "a title that is much too long", "c"], columns=2)
    assert sheet.width == 3 * 6 + 80 and sheet.height > 60
    assert panels([picture]).size == (40 + 12, 30 + 12)
    with pytest.raises(ValueError, match="one size"):
        panels([picture, picture[1:]])
    with pytest.raises(ValueError, match="1 titles for 2 pictures"):
        panels([picture, picture], ["a"])
