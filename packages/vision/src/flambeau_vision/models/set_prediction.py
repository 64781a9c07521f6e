"""Detection as set prediction (Carion et al. 2020): each object is matched to one query, and the pairs are scored.

Boxes are (centre x, centre y, width, height) in shares of the picture, unless something else is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

import flambeau
import flambeau.nn.functional as F
from flambeau import Tensor


class Detections(NamedTuple):
    """What a detector gives for N pictures and Q queries.

    Attributes:
        logits: class scores (N, Q, K + 1); the last class is "no object".
        pred_boxes: (N, Q, 4).
        auxiliary: the same after each earlier layer of the decoder, as pairs (logits, boxes); empty unless asked for.
        attentions: attention weights of each layer; empty unless asked for.
    """

    logits: Tensor
    pred_boxes: Tensor
    auxiliary: tuple[tuple[Tensor, Tensor], ...] = ()
    attentions: tuple[Tensor, ...] = ()


class LossWeights(Protocol):
    """The entries of a detector's config that `set_prediction_loss` reads."""

    @property
    def num_classes(self) -> int: ...
    @property
    def class_cost(self) -> float: ...
    @property
    def bbox_cost(self) -> float: ...
    @property
    def giou_cost(self) -> float: ...
    @property
    def bbox_loss_coefficient(self) -> float: ...
    @property
    def giou_loss_coefficient(self) -> float: ...
    @property
    def eos_coefficient(self) -> float: ...


def linear_sum_assignment(cost: Any) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of rows and columns, each used at most once, whose costs have the smallest sum.

    Shortest augmenting paths (Jonker & Volgenant 1987, for any shape as in Crouse 2016): O(n^2 m) for n <= m.

    Args:
        cost: a matrix (n, m); infinity forbids a pair.

    Returns:
        Rows, ascending, and their columns: min(n, m) of each.

    Raises:
        ValueError: no matrix, NaN or minus infinity in it, or no assignment without a forbidden pair.

    >>> rows, columns = linear_sum_assignment([[4, 1, 3], [2, 0, 5], [3, 2, 2]])
    >>> rows.tolist(), columns.tolist()
    ([0, 1, 2], [1, 0, 2])
    """
    matrix = np.asarray(cost, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"costs must be a matrix, not of shape {matrix.shape}")
    if np.isnan(matrix).any() or np.isneginf(matrix).any():
        raise ValueError("costs must not be NaN or minus infinity")
    transposed = matrix.shape[0] > matrix.shape[1]
    if transposed:
        matrix = matrix.T
    column_of = _augment(matrix)
    rows = np.arange(len(matrix))
    if not transposed:
        return rows, column_of
    order = np.argsort(column_of)
    return column_of[order], rows[order]


def _augment(cost: np.ndarray) -> np.ndarray:
    """The column of each row, for no more rows than columns: rows are added one by one along a shortest path."""
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    column_of, row_of = np.full(rows, -1), np.full(columns, -1)
    for start in range(rows):
        distance, previous = np.full(columns, np.inf), np.full(columns, -1)
        done = np.zeros(columns, dtype=bool)
        visited, row, lowest = [], start, 0.0
        while True:
            visited.append(row)
            through = lowest + cost[row] - row_price[row] - column_price
            nearer = ~done & (through < distance)
            distance[nearer], previous[nearer] = through[nearer], row
            open_distance = np.where(done, np.inf, distance)
            lowest = open_distance.min()
            if lowest == np.inf:
                raise ValueError("there is no assignment without a forbidden pair")
            nearest = np.flatnonzero(open_distance == lowest)
            free = nearest[row_of[nearest] < 0]
            column = int(free[0] if len(free) else nearest[0])  # a free column ends the path sooner
            done[column] = True
            if row_of[column] < 0:
                break
            row = int(row_of[column])
        row_price[start] += lowest
        for other in visited[1:]:
            row_price[other] += lowest - distance[column_of[other]]
        column_price[done] -= lowest - distance[done]
        while True:  # each row of the path takes the column that it was reached for
            row = int(previous[column])
            row_of[column] = row
            column_of[row], column = column, int(column_of[row])
            if row == start:
                break
    return column_of


def corners(boxes: Any) -> Any:
    """Boxes (..., 4) as (left, top, right, bottom).

    >>> corners(flambeau.tensor([0.5, 0.5, 0.5, 1.0])).tolist()
    [0.25, 0.0, 0.75, 1.0]
    """
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    if isinstance(boxes, np.ndarray):
        return np.concatenate([centre - half, centre + half], -1)
    return flambeau.cat([centre - half, centre + half], -1)


def generalized_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised intersection over union (Rezatofighi et al. 2019) of boxes (..., 4) given by corners; they broadcast.

    >>> a, b = flambeau.tensor([0.0, 0.0, 1.0, 1.0]), flambeau.tensor([2.0, 0.0, 3.0, 1.0])
    >>> round(generalized_iou(a, a).item(), 4), round(generalized_iou(a, b).item(), 4)
    (1.0, -0.3333)
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    other_low, other_high = others[..., :2], others[..., 2:]
    shared = _area(flambeau.minimum(high, other_high) - flambeau.maximum(low, other_low))
    union = _area(high - low) + _area(other_high - other_low) - shared
    hull = _area(flambeau.maximum(high, other_high) - flambeau.minimum(low, other_low))
    return shared / union - (hull - union) / hull


def _area(sides: Tensor) -> Tensor:
    sides = sides.clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def match(
    logits: Tensor, boxes: Tensor, targets: Sequence[Mapping[str, Tensor]], weights: LossWeights
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each picture the queries and the objects that they are matched to, by the smallest cost (equation 1).

    The cost of a pair is the class's probability, the boxes' L1 distance and their generalised IoU, weighted. A
    prediction that is not finite is matched last.
    """
    pairs = []
    with flambeau.no_grad():
        probabilities = flambeau.softmax(logits.detach(), -1)
        for index, target in enumerate(targets):
            predicted, wanted = boxes[index].detach().unsqueeze(1), target["boxes"].unsqueeze(0)
            cost = (
                weights.bbox_cost * (predicted - wanted).abs().sum(-1)
                - weights.class_cost * probabilities[index][:, target["class_labels"]]
                - weights.giou_cost * generalized_iou(corners(predicted), corners(wanted))
            )
            matrix = cost.to("cpu").numpy().astype(np.float64)
            worst = float(np.finfo(np.float32).max)
            pairs.append(linear_sum_assignment(np.nan_to_num(matrix, nan=worst, posinf=worst, neginf=worst)))
    return pairs


def set_prediction_loss(
    outputs: Detections, targets: Sequence[Mapping[str, Tensor]], weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a detector's output: cross-entropy of all queries, L1 and generalised IoU of the matched boxes.

    Args:
        outputs: what the detector gave.
        targets: for each picture ``class_labels`` (int64, one for each object) and ``boxes`` (objects, 4).
        weights: the detector's config.

    Returns:
        The weighted sum, and its parts by name: ``loss_ce``, ``loss_bbox``, ``loss_giou`` and, for the earlier layers
        in ``outputs.auxiliary``, the same with ``_0``, ``_1``, ...; ``cardinality_error`` is for information.

    >>> from flambeau_vision.models.detr import DetrConfig
    >>> sure = flambeau.tensor([[[9.0, 0.0], [0.0, 9.0]]])
    >>> boxes = flambeau.tensor([[[0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.1, 0.1]]])
    >>> target = {"class_labels": flambeau.tensor([0]), "boxes": boxes[0, :1]}
    >>> loss, parts = set_prediction_loss(Detections(sure, boxes), [target], DetrConfig(num_classes=1))
    >>> round(loss.item(), 4), sorted(parts)
    (0.0001, ['cardinality_error', 'loss_bbox', 'loss_ce', 'loss_giou'])
    """
    if len(targets) != len(outputs.logits):
        raise ValueError(f"{len(targets)} targets for {len(outputs.logits)} pictures")
    parts = _parts(outputs.logits, outputs.pred_boxes, targets, weights)
    for index, (logits, boxes) in enumerate(outputs.auxiliary):
        earlier = _parts(logits, boxes, targets, weights)
        parts |= {f"{name}_{index}": value for name, value in earlier.items()}
    factors = {"ce": 1.0, "bbox": weights.bbox_loss_coefficient, "giou": weights.giou_loss_coefficient}
    terms = [factors[name.split("_")[1]] * part for name, part in parts.items() if name.startswith("loss_")]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total, parts


def _parts(
    logits: Tensor, boxes: Tensor, targets: Sequence[Mapping[str, Tensor]], weights: LossWeights
) -> dict[str, Tensor]:
    pairs = match(logits, boxes, targets, weights)
    device, nothing = logits.device, weights.num_classes
    classes = np.full(tuple(logits.shape[:2]), nothing)
    for index, (queries, objects) in enumerate(pairs):
        classes[index, queries] = targets[index]["class_labels"].to("cpu").numpy()[objects]
    class_weights = flambeau.ones(nothing + 1, dtype=logits.dtype, device=device)
    class_weights[-1] = weights.eos_coefficient
    wanted = flambeau.from_numpy(classes).to(device)

    where = np.concatenate([np.full(len(queries), index) for index, (queries, _) in enumerate(pairs)])
    which = np.concatenate([queries for queries, _ in pairs])
    matched = boxes[flambeau.from_numpy(where).to(device), flambeau.from_numpy(which).to(device)]
    true_boxes = flambeau.cat(
        [
            target["boxes"][flambeau.from_numpy(objects).to(device)]
            for target, (_, objects) in zip(targets, pairs, strict=True)
        ]
    )
    count = max(sum(len(target["class_labels"]) for target in targets), 1)
    counts = flambeau.tensor([float(len(target["class_labels"])) for target in targets], device=device)
    found = (logits.detach().argmax(-1) != nothing).sum(1).float()
    return {
        "loss_ce": F.cross_entropy(logits.transpose(1, 2), wanted, class_weights),
        "loss_bbox": (matched - true_boxes).abs().sum() / count,
        "loss_giou": (1 - generalized_iou(corners(matched), corners(true_boxes))).sum() / count,
        "cardinality_error": (found - counts).abs().mean(),
    }


def post_process(
    outputs: Detections, threshold: float = 0.5, target_sizes: Sequence[tuple[int, int]] | None = None
) -> list[dict[str, Tensor]]:
    """The objects of each picture: ``scores``, ``labels`` and ``boxes`` (left, top, right, bottom).

    Args:
        outputs: what the detector gave.
        threshold: the objects with a greater probability are kept.
        target_sizes: (height, width) of each picture, for boxes in pixels; without it they are shares of the picture.

    Raises:
        ValueError: not as many sizes as pictures.

    >>> logits, boxes = flambeau.tensor([[[5.0, 0.0], [0.0, 5.0]]]), flambeau.tensor([[[0.5, 0.5, 0.2, 0.4]] * 2])
    >>> found = post_process(Detections(logits, boxes), target_sizes=[(100, 200)])[0]
    >>> found["labels"].tolist(), [round(side) for side in found["boxes"][0].tolist()]
    ([0], [80, 30, 120, 70])
    """
    if target_sizes is not None and len(target_sizes) != len(outputs.logits):
        raise ValueError(f"{len(target_sizes)} target_sizes for {len(outputs.logits)} pictures")
    scores, labels = flambeau.softmax(outputs.logits, -1)[..., :-1].max(-1)
    boxes = corners(outputs.pred_boxes)
    if target_sizes is not None:
        sides = [[float(width), float(height)] * 2 for height, width in target_sizes]
        boxes = boxes * flambeau.tensor(sides, dtype=boxes.dtype, device=boxes.device).unsqueeze(1)
    results = []
    for index in range(len(scores)):
        kept = scores[index] > threshold
        results.append({"scores": scores[index][kept], "labels": labels[index][kept], "boxes": boxes[index][kept]})
    return results


def pad_batch(pictures: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Pictures (3, H, W) of several sizes as one batch (N, 3, H, W), zeros to the right and below, and its mask.

    The mask (N, H, W) is True on the pictures' pixels.

    >>> batch, mask = pad_batch([flambeau.ones(3, 4, 6), flambeau.ones(3, 5, 2)])
    >>> tuple(batch.shape), mask.sum((1, 2)).tolist()
    ((2, 3, 5, 6), [24, 10])
    """
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (1, 2))
    padded, masks = [], []
    for picture in pictures:
        picture = flambeau.as_tensor(picture)
        below, right = height - picture.shape[1], width - picture.shape[2]
        padded.append(F.pad(picture, (0, right, 0, below)))
        inside = flambeau.ones(picture.shape[1], picture.shape[2], device=picture.device)
        masks.append(F.pad(inside, (0, right, 0, below)) > 0)
    return flambeau.stack(padded), flambeau.stack(masks)
