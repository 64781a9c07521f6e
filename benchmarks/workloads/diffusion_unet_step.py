"""A training step of a small diffusion model (Ho et al. 2020): 8 images of 32x32, widths 64 and 128, AdamW.

A U-Net with group normalisation, SiLU, the time added in every block, and attention at 8x8.
"""

import math

import numpy as np

from ._common import array, integers, set_weights

ITEMS = (8, "images")


def denoiser(torch, width=64, time_width=128):
    nn = torch.nn
    functional = nn.functional

    class Block(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.norm1, self.conv1 = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
            self.time = nn.Linear(time_width, outputs)
            self.norm2, self.conv2 = nn.GroupNorm(8, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
            self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

        def forward(self, x, t):
            h = self.conv1(functional.silu(self.norm1(x))) + self.time(t)[:, :, None, None]
            return self.conv2(functional.silu(self.norm2(h))) + self.skip(x)

    class Attention(nn.Module):
        def __init__(self, channels, heads=4):
            super().__init__()
            self.norm, self.heads = nn.GroupNorm(8, channels), heads
            self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

        def forward(self, x):
            n, c, h, w = x.shape
            q, k, v = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).transpose(3, 4).unbind(1)
            y = functional.scaled_dot_product_attention(q, k, v)
            return x + self.out(y.transpose(2, 3).reshape(n, c, h, w))

    class Denoiser(nn.Module):
        def __init__(self):
            super().__init__()
            wide = 2 * width
            self.time = nn.Sequential(nn.Linear(width, time_width), nn.SiLU(), nn.Linear(time_width, time_width))
            self.stem = nn.Conv2d(3, width, 3, padding=1)
            self.down1, self.shrink1 = Block(width, width), nn.Conv2d(width, width, 3, stride=2, padding=1)
            self.down2, self.shrink2 = Block(width, wide), nn.Conv2d(wide, wide, 3, stride=2, padding=1)
            self.middle1, self.attention, self.middle2 = Block(wide, wide), Attention(wide), Block(wide, wide)
            self.up2, self.up1 = Block(2 * wide, wide), Block(wide + width, width)
            self.norm, self.head = nn.GroupNorm(8, width), nn.Conv2d(width, 3, 3, padding=1)
            self.register_buffer("rates", torch.exp(-math.log(10000.0) / (width // 2) * torch.arange(width // 2)))

        def forward(self, x, t):
            angles = t[:, None].float() * self.rates
            t = functional.silu(self.time(torch.cat([angles.sin(), angles.cos()], dim=1)))
            x = self.stem(x)
            first = self.down1(x, t)
            second = self.down2(self.shrink1(first), t)
            x = self.middle2(self.attention(self.middle1(self.shrink2(second), t)), t)
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = self.up2(torch.cat([x, second], dim=1), t)
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = self.up1(torch.cat([x, first], dim=1), t)
            return self.head(functional.silu(self.norm(x)))

    return Denoiser()


def make(torch, device):
    model = set_weights(torch, denoiser(torch), device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    kept = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000)).astype(np.float32)
    kept = torch.from_numpy(kept).to(device)
    images = torch.from_numpy(array(8, 3, 32, 32)).to(device)
    noise = torch.from_numpy(array(8, 3, 32, 32, seed=1)).to(device)
    times = torch.from_numpy(integers(1000, 8)).to(device)

    def step():
        optimizer.zero_grad()
        part = kept[times][:, None, None, None]
        noisy = part.sqrt() * images + (1 - part).sqrt() * noise
        loss = torch.nn.functional.mse_loss(model(noisy, times), noise)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
