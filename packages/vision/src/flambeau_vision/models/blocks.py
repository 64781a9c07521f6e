"""What several networks are built of, with torchvision's state-dict keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import flambeau
from flambeau import Tensor, nn
from flambeau.nn import functional as F

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Layer = Callable[[], nn.Module]
Norm = Callable[[int], nn.Module]


@dataclass(frozen=True)
class ClassifierConfig:
    """What all classifiers are told.

    Attributes:
        num_classes: classes to tell apart.
        classes: names of the classes; empty when they have none.
        mean: of the training pictures' channels (0..1), subtracted from the input.
        std: of those channels; divides the input.
        size: side of the square pictures that it was trained on.
    """

    num_classes: int = 1000
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: int = 224


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, at least `divisor`, and not more than a tenth below `value`.

    >>> make_divisible(19.2), make_divisible(18.0), make_divisible(3)
    (24, 24, 8)
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class SamePadConv2d(nn.Conv2d):
    """A convolution whose output has ceil(side / stride) pixels, by TensorFlow's rule: the odd row goes below."""

    def forward(self, input: Tensor) -> Tensor:
        sides = []
        for length, kernel, stride in zip(input.shape[-2:], self.kernel_size, self.stride, strict=True):
            total = max(kernel - (length % stride or stride), 0)
            sides.append((total // 2, total - total // 2))
        (top, bottom), (left, right) = sides
        return super().forward(F.pad(input, (left, right, top, bottom)))


class ConvNormActivation(nn.Sequential):
    """A convolution without bias that keeps the size (but for `stride`), a normalisation, an activation."""

    def __init__(
        self,
        inplanes: int,
        planes: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        norm: Norm = nn.BatchNorm2d,
        activation: Layer | None = nn.ReLU,
        same: bool = False,
    ) -> None:
        kind, padding = (SamePadConv2d, 0) if same else (nn.Conv2d, (kernel - 1) // 2)
        layers = [kind(inplanes, planes, kernel, stride, padding, groups=groups, bias=False), norm(planes)]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)


class SqueezeExcitation(nn.Module):
    """Weighs the channels by what they hold on average (Hu et al. 2018)."""

    def __init__(
        self, planes: int, squeezed: int, activation: Layer = nn.ReLU, scale_activation: Layer = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(planes, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, planes, 1)
        self.activation = activation()
        self.scale_activation = scale_activation()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.activation(self.fc1(F.adaptive_avg_pool2d(x, 1)))
        return self.scale_activation(self.fc2(scale)) * x


class StochasticDepth(nn.Module):
    """Drops a residual branch for some rows of the batch while training (Huang et al. 2016).

    >>> flambeau.manual_seed(0) and None
    >>> rows = StochasticDepth(0.5)(flambeau.ones(64, 1))
    >>> sorted(set(rows.flatten().tolist()))
    [0.0, 2.0]
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be a probability, not {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = 1 - self.p
        kept = (flambeau.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < keep).to(x.dtype)
        return x * (kept / keep if keep else kept)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Stages(nn.Sequential):
    """The layers of a network in a row; called, it gives the outputs of those at `ends`, finest first.

    >>> stages = Stages([nn.MaxPool2d(2), nn.MaxPool2d(2), nn.ReLU()], ends=(0, 1))
    >>> [tuple(stage.shape) for stage in stages(flambeau.zeros(1, 3, 8, 8))]
    [(1, 3, 4, 4), (1, 3, 2, 2)]
    """

    def __init__(self, layers: Sequence[nn.Module], ends: Sequence[int]) -> None:
        super().__init__(*layers)
        self.ends = tuple(ends)

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        found = []
        for index, layer in enumerate(self):
            x = layer(x)
            if index in self.ends:
                found.append(x)
            if index == self.ends[-1]:
                break
        return found

    def last(self, x: Tensor) -> Tensor:
        """What the last layer of all gives."""
        for layer in self:
            x = layer(x)
        return x


def stage_ends(strides: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The last layer at each reduction of 4 or more, and those reductions, for layers with these strides.

    >>> stage_ends([2, 1, 2, 1, 2])
    ((3, 4), (4, 8))
    """
    ends, reductions, reduction = [], [], 1
    for index, stride in enumerate(strides):
        reduction *= stride
        if reduction >= 4 and (index + 1 == len(strides) or strides[index + 1] > 1):
            ends.append(index)
            reductions.append(reduction)
    return tuple(ends), tuple(reductions)


def initialize(model: nn.Module, linear: Callable[[nn.Linear], object]) -> None:
    """Kaiming's normal weights for the convolutions, `linear` for the linear layers, and no biases."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            linear(module)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
