"""A small segmentation network: a residual encoder with dilated blocks and a feature-pyramid decoder.

The encoder halves the picture three times; at 1/8 a row of residual blocks whose second convolution is dilated
(Yu & Koltun 2016; the 1-2-4-8 cycle of ENet, Paszke et al. 2016) sees far without losing resolution. The decoder adds a
global context vector and climbs back to 1/2 over lateral connections (Lin et al. 2017, FPN). In training a second
classifier on the 1/4 map helps the deep layers along (deep supervision).
"""

from __future__ import annotations

from dataclasses import dataclass

import flambeau.nn.functional as F
from flambeau import Tensor, nn


@dataclass(frozen=True)
class DilatedFPNConfig:
    """Sizes of a `DilatedFPN`.

    Attributes:
        num_classes: classes to tell apart.
        widths: channels at 1/2, 1/4 and 1/8 of the picture.
        blocks: plain residual blocks at 1/2 and at 1/4.
        dilations: one residual block at 1/8 for each entry.
        bottleneck: channels inside the blocks at 1/8.
        decoder: channels of the decoder at 1/4 and 1/2.
        dropout: probability of dropping a channel inside the blocks at 1/8.
        auxiliary: whether training also scores the 1/4 map.
        classes: names of the classes; empty when they have none.
        mean: of the pictures that it was trained on (0..1), subtracted from its input.
        std: of those pictures; divides its input.
        short_side: of those pictures, in pixels: the scale at which it knows its objects.
    """

    num_classes: int = 11
    widths: tuple[int, int, int] = (24, 48, 112)
    blocks: tuple[int, int] = (1, 1)
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2, 4, 8)
    bottleneck: int = 64
    decoder: tuple[int, int] = (64, 32)
    dropout: float = 0.0
    auxiliary: bool = True
    classes: tuple[str, ...] = ()
    mean: float = 0.41
    std: float = 0.30
    short_side: int = 180


class ConvBN(nn.Module):
    """Convolution without bias that keeps the size at stride 1, batch norm, and ReLU unless ``relu`` is false."""

    def __init__(
        self, cin: int, cout: int, kernel: int = 3, stride: int = 1, dilation: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
        self.bn = nn.BatchNorm2d(cout)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x) if self.relu else x


class Residual(nn.Module):
    """``relu(x + dropout(conv(conv(x))))``; the second convolution is dilated.

    The last norm starts with weight 0, so that a fresh block is the identity (Goyal et al. 2017).
    """

    def __init__(self, channels: int, middle: int, dilation: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = ConvBN(channels, middle)
        self.conv2 = ConvBN(middle, channels, dilation=dilation, relu=False)
        self.dropout = nn.Dropout2d(dropout)
        nn.init.zeros_(self.conv2.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.dropout(self.conv2(self.conv1(x))))


class DilatedFPN(nn.Module):
    """Scores (N, num_classes, H, W) for pictures (N, 3, H, W) of any size.

    While training with ``auxiliary`` it returns a pair: the scores, and the auxiliary scores at about 1/4 of the size
    (element (i, j) belongs to the picture's pixel (4 i + 2, 4 j + 2)).

    >>> import flambeau
    >>> model = DilatedFPN(DilatedFPNConfig(num_classes=3)).eval()
    >>> tuple(model(flambeau.zeros(1, 3, 32, 48)).shape)
    (1, 3, 32, 48)
    """

    def __init__(self, config: DilatedFPNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DilatedFPNConfig()
        half, quarter, eighth = config.widths
        coarse, fine = config.decoder
        self.stem = ConvBN(3, half, stride=2)
        self.stage1 = nn.Sequential(*[Residual(half, half) for _ in range(config.blocks[0])])
        self.down1 = ConvBN(half, quarter, stride=2)
        self.stage2 = nn.Sequential(*[Residual(quarter, quarter) for _ in range(config.blocks[1])])
        self.down2 = ConvBN(quarter, eighth, stride=2)
        self.stage3 = nn.Sequential(
            *[Residual(eighth, config.bottleneck, dilation, config.dropout) for dilation in config.dilations]
        )
        self.context = nn.Conv2d(eighth, coarse, 1)
        self.lateral3 = ConvBN(eighth, coarse, 1, relu=False)
        self.lateral2 = ConvBN(quarter, coarse, 1, relu=False)
        self.smooth2 = ConvBN(coarse, coarse)
        self.reduce = ConvBN(coarse, fine, 1, relu=False)
        self.lateral1 = ConvBN(half, fine, 1, relu=False)
        self.smooth1 = ConvBN(fine, fine)
        self.classifier = nn.Conv2d(fine, config.num_classes, 1)
        self.aux_classifier = nn.Conv2d(coarse, config.num_classes, 1) if config.auxiliary else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        half = self.stage1(self.stem(x))
        quarter = self.stage2(self.down1(half))
        eighth = self.stage3(self.down2(quarter))
        context = self.context(F.adaptive_avg_pool2d(eighth, 1))
        coarse = _up(self.lateral3(eighth) + context, quarter)
        coarse = self.smooth2(F.relu(coarse + self.lateral2(quarter)))
        fine = _up(self.reduce(coarse), half)
        fine = self.smooth1(F.relu(fine + self.lateral1(half)))
        scores = _up(self.classifier(fine), x)
        if self.training and self.aux_classifier is not None:
            return scores, self.aux_classifier(coarse)
        return scores


def _up(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=tuple(like.shape[-2:]), mode="bilinear", align_corners=False)
