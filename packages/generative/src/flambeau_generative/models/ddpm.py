"""Denoising diffusion (Ho et al. 2020, arXiv:2006.11239): a small U-Net that predicts the noise, and the DDIM sampler.

A picture x_0 in -1..1 is noised to x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, t = 0 … steps - 1; the
network is given x_t and t and says what the noise was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

import flambeau
import flambeau.nn.functional as F
from flambeau import Tensor, nn
from flambeau.random import Generator


@dataclass(frozen=True)
class DDPMConfig:
    """Sizes of a `DDPM`.

    Attributes:
        size: side of the square pictures; it is halved after each width but the last.
        channels: 1 for grey, 3 for colour.
        widths: channels at each resolution; multiples of `groups`.
        heads: heads of the attention at the lowest resolution.
        groups: of the group normalisation.
        steps: steps of the noising.
        schedule: ``"cosine"`` (Nichol & Dhariwal 2021) or ``"linear"`` (Ho et al. 2020).
    """

    size: int = 28
    channels: int = 1
    widths: tuple[int, ...] = (32, 64, 64)
    heads: int = 4
    groups: int = 8
    steps: int = 1000
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        if not self.widths or any(width < 1 or width % self.groups or width % self.heads for width in self.widths):
            raise ValueError(f"widths={self.widths} must be multiples of groups={self.groups} and heads={self.heads}")
        part = 2 ** (len(self.widths) - 1)
        if self.size < part or self.size % part:
            raise ValueError(f"size={self.size} must be a multiple of {part} with {len(self.widths)} widths")
        if self.steps < 2:
            raise ValueError(f"steps={self.steps} must be at least 2")
        if self.schedule not in ("cosine", "linear"):
            raise ValueError(f"schedule must be 'cosine' or 'linear', not {self.schedule!r}")


def alpha_bars(schedule: str, steps: int) -> np.ndarray:
    """The share of the picture's variance that is left after each step: float64 (steps,), falling from near 1.

    Sources: linear, Ho et al. 2020 (betas 1e-4 … 0.02 at 1000 steps, scaled for others); cosine, Nichol & Dhariwal
    2021, equation 17, with betas up to 0.999.

    >>> alpha_bars("linear", 1000).round(4)[[0, -1]].tolist()
    [0.9999, 0.0]
    """
    if schedule == "linear":
        betas = np.minimum(np.linspace(1e-4, 0.02, steps) * 1000 / steps, 0.999)
    else:
        curve = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    return np.cumprod(1 - betas)


class ResBlock(nn.Module):
    """Two normalised 3x3 convolutions with the time added between them, and the short-cut past them."""

    def __init__(self, inplanes: int, planes: int, time_width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inplanes)
        self.conv1 = nn.Conv2d(inplanes, planes, 3, 1, 1)
        self.time = nn.Linear(time_width, planes)
        self.norm2 = nn.GroupNorm(groups, planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1)
        self.shortcut = nn.Identity() if inplanes == planes else nn.Conv2d(inplanes, planes, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out = self.conv1(F.silu(self.norm1(x))) + self.time(time)[:, :, None, None]
        return self.conv2(F.silu(self.norm2(out))) + self.shortcut(x)


class Attention(nn.Module):
    """Self-attention among all places of a map (N, C, H, W), with a short-cut."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, width, height, breadth = x.shape
        parts = self.qkv(self.norm(x)).reshape(n, 3, self.heads, width // self.heads, height * breadth)
        query, key, value = (parts[:, index].transpose(-1, -2) for index in range(3))
        out = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj(out.transpose(-1, -2).reshape(n, width, height, breadth))


class DDPM(nn.Module):
    """The noise (N, C, H, W) in noised pictures (N, C, H, W) at the steps ``t`` (N,).

    >>> model = DDPM(DDPMConfig(size=8, widths=(8, 16))).eval()
    >>> tuple(model(flambeau.zeros(3, 1, 8, 8), flambeau.tensor([0, 500, 999])).shape)
    (3, 1, 8, 8)
    """

    def __init__(self, config: DDPMConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DDPMConfig()
        kept = alpha_bars(config.schedule, config.steps)
        self.alpha_bars = kept
        # Both roots from float64: 1 - alpha_bar in float32 is off by a thousandth at the first steps.
        self.register_buffer("signal", flambeau.tensor(np.sqrt(kept).astype(np.float32)), persistent=False)
        self.register_buffer("noise", flambeau.tensor(np.sqrt(1 - kept).astype(np.float32)), persistent=False)

        widths, groups = list(config.widths), config.groups
        time_width = 4 * widths[0]
        self.time = nn.Sequential(nn.Linear(widths[0], time_width), nn.SiLU(), nn.Linear(time_width, time_width))
        self.stem = nn.Conv2d(config.channels, widths[0], 3, 1, 1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for inplanes, planes in zip([widths[0], *widths], widths):
            self.down.append(ResBlock(inplanes, planes, time_width, groups))
            self.shrink.append(nn.Conv2d(planes, planes, 3, 2, 1) if len(self.down) < len(widths) else nn.Identity())
        self.middle1 = ResBlock(widths[-1], widths[-1], time_width, groups)
        self.attention = Attention(widths[-1], config.heads, groups)
        self.middle2 = ResBlock(widths[-1], widths[-1], time_width, groups)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for planes, below in zip(widths[::-1], [*widths[-2::-1], None]):
            self.up.append(ResBlock(2 * planes, planes, time_width, groups))
            self.grow.append(nn.Identity() if below is None else nn.Conv2d(planes, below, 3, 1, 1))
        self.norm = nn.GroupNorm(groups, widths[0])
        self.head = nn.Conv2d(widths[0], config.channels, 3, 1, 1)
        for module in self.modules():  # blocks begin as their short-cuts, the network as the zero function
            if isinstance(module, ResBlock):
                nn.init.zeros_(module.conv2.weight)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = F.silu(self.time(self._embed(t)))
        x = self.stem(x)
        kept = []
        for block, shrink in zip(self.down, self.shrink):
            x = block(x, time)
            kept.append(x)
            x = shrink(x)
        x = self.middle2(self.attention(self.middle1(x, time)), time)
        for block, grow in zip(self.up, self.grow):
            x = block(flambeau.cat([x, kept.pop()], 1), time)
            if kept:
                x = grow(F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.head(F.silu(self.norm(x)))

    def diffuse(self, images: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t for pictures (N, C, H, W) in -1..1, steps (N,) and standard normal noise (equation 4 of the paper)."""
        return self.signal[t][:, None, None, None] * images + self.noise[t][:, None, None, None] * noise

    def sample(
        self, count: int, generator: Generator | None = None, *, steps: int | None = None, eta: float = 0.0
    ) -> Tensor:
        """Pictures (count, C, H, W) in 0..1 by DDIM (Song et al. 2021, arXiv:2010.02502, equation 12).

        Args:
            steps: evaluations of the network, spread evenly over the noising steps; None for 50, or all where there
                are fewer.
            eta: 0 draws nothing after the first noise; 1 with all steps is DDPM's own sampler.
        """
        config = self.config
        steps = min(50, config.steps) if steps is None else steps
        if not 1 <= steps <= config.steps:
            raise ValueError(f"steps={steps} must lie between 1 and {config.steps}")
        device = self.signal.device
        shape = (count, config.channels, config.size, config.size)
        x = flambeau.randn(shape, generator=generator, device=device)
        times = np.linspace(config.steps - 1, 0, steps).round().astype(int)
        with flambeau.inference_mode():
            for index, t in enumerate(times):
                now = float(self.alpha_bars[t])
                after = float(self.alpha_bars[times[index + 1]]) if index + 1 < steps else 1.0
                noise = self(x, flambeau.full((count,), int(t), device=device))
                clean = ((x - math.sqrt(1 - now) * noise) / math.sqrt(now)).clamp(-1, 1)
                noise = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)  # what goes with the clipped picture
                sigma = eta * math.sqrt((1 - after) / (1 - now) * (1 - now / after))
                x = math.sqrt(after) * clean + math.sqrt(max(1 - after - sigma**2, 0.0)) * noise
                if sigma > 0:
                    x = x + sigma * flambeau.randn(shape, generator=generator, device=device)
            return (x + 1) / 2

    def _embed(self, t: Tensor) -> Tensor:
        """Sines and cosines of the step at geometrically spaced frequencies (N, widths[0])."""
        half = self.config.widths[0] // 2
        frequencies = flambeau.exp(flambeau.arange(half, device=t.device).float() * (-math.log(10000.0) / half))
        angles = t.float()[:, None] * frequencies
        return flambeau.cat([flambeau.sin(angles), flambeau.cos(angles)], 1)
