"""What the vision trainers share: the statistics of pictures, and weights in half precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flambeau.errors import FlambeauError
from flambeau.io import load_model_state, save_model_state

from ..transforms import Arrays, as_rgb


def statistics(images: Arrays, count: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the channels, in 0..1, over about ``count`` evenly spaced pictures."""
    chosen = images[:: max(len(images) // count, 1)]
    pixels = np.concatenate([as_rgb(image).reshape(-1, 3) for image in chosen]) / 255
    return pixels.mean(0), pixels.std(0)


def store_half(path: Path) -> None:
    """Rewrite a weights file with its floating-point values as float16: half the size, no measurable loss here."""
    state, card = load_model_state(path)
    if card is None:
        raise FlambeauError(f"{path}: the file does not say which model it holds", "give one that a trainer wrote")
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    save_model_state(state, path, model=card.model, config=card.config, plugin=card.plugin, notes=card.notes)
