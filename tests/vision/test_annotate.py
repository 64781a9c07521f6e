"""Boxes, masks and keypoints drawn on pictures."""

import numpy as np
import pytest

from flambeau_vision.annotate import draw_bounding_boxes, draw_keypoints, draw_sample, draw_segmentation_masks

RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_a_box_is_a_line_of_its_colour_and_nothing_else():
    image = np.full((100, 120, 3), 128, np.uint8)
    out = draw_bounding_boxes(image, [[20, 30, 80, 90]], colors=[RED], width=3)
    assert (image == 128).all() and out.shape == image.shape
    assert out[60, 20:23].tolist() == [list(RED)] * 3 and out[60, 77:80].tolist() == [list(RED)] * 3
    changed = (out != image).any(axis=-1)
    y, x = np.nonzero(changed)
    assert (x.min(), x.max(), y.min(), y.max()) == (20, 79, 30, 89) and not changed[40:80, 30:70].any()
    filled = draw_bounding_boxes(image, [[20, 30, 80, 90]], colors=[RED], fill=True)
    assert filled[60, 50, 0] > 128 > filled[60, 50, 1]


def test_labels_share_colours_by_class_and_stay_inside():
    image = np.zeros((120, 160, 3), np.uint8)
    boxes = [[10, 40, 60, 100], [70, 40, 120, 100], [125, 40, 159, 100]]
    out = draw_bounding_boxes(image, boxes, ["cat 0.91", "cat 0.52", "dog 0.7"], width=2)
    assert (out[70, 10] == out[70, 70]).all() and (out[70, 10] != out[70, 125]).any()
    assert out[25:39, 10:60].any()
    corner = draw_bounding_boxes(image, [[150, 0, 160, 10]], ["a long label"])
    assert corner[:20, 60:150].any()
    with pytest.raises(ValueError, match="1 labels for 3"):
        draw_bounding_boxes(image, boxes, ["x"])
    with pytest.raises(ValueError, match="1 colours for 3"):
        draw_bounding_boxes(image, boxes, colors=[RED])


def test_nothing_to_draw_and_empty_boxes():
    image = np.full((20, 20), 7, np.uint8)
    for out in (
        draw_bounding_boxes(image, np.zeros((0, 4))),
        draw_bounding_boxes(image, [[5, 5, 5, 9]]),
        draw_segmentation_masks(image, np.zeros((0, 20, 20), bool)),
        draw_keypoints(image, np.zeros((0, 3, 2))),
        draw_keypoints(image, np.zeros((2, 3, 3))),
    ):
        assert out.shape == (20, 20, 3) and (out == 7).all()


def test_masks_are_tinted_with_an_outline():
    image, mask = np.full((40, 40, 3), 100, np.uint8), np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    out = draw_segmentation_masks(image, mask, 0.5, [RED])
    assert out[20, 20].tolist() == [178, 50, 50] and out[10, 20].tolist() == list(RED)
    assert (out[~mask] == 100).all()
    with pytest.raises(ValueError, match="shape"):
        draw_segmentation_masks(image, mask[:5])
    with pytest.raises(ValueError, match="alpha"):
        draw_segmentation_masks(image, mask, 2)


def test_keypoints_and_skeleton():
    image = np.zeros((60, 60, 3), np.uint8)
    points = [[[10, 30, 2], [50, 30, 1], [30, 5, 0]]]
    out = draw_keypoints(image, points, [(0, 1), (1, 2)], [BLUE], radius=4, width=2)
    assert out[30, 10].tolist() == list(BLUE) and out[30, 30, 2] > 180 and not out[:20].any()
    with pytest.raises(ValueError, match="shape"):
        draw_keypoints(image, np.zeros((3, 2)))


def test_a_whole_sample():
    mask = np.zeros((1, 30, 30), bool)
    mask[:, 5:20, 5:20] = True
    sample = {"image": np.zeros((30, 30), np.uint8), "boxes": np.array([[5, 5, 20, 20]]), "masks": mask}
    assert draw_sample({**sample, "labels": np.array([1])}, ("cat", "dog")).any()
    assert draw_sample({**sample, "labels": np.array([1])}).any() and draw_sample(sample).any()
    with pytest.raises(ValueError, match="Normalize"):
        draw_sample({"image": np.zeros((3, 3, 3), np.float32)})
