"""What ``flambeau explain`` explains in a photo: the score of a class, or its mean score where it was found."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import flambeau
from flambeau.errors import FlambeauError, UsageError
from flambeau.explain import Region
from flambeau.options import from_options

from ..explain import ExplainOptions, Subject, explain_to_file
from ..images import read_picture
from ..transforms import normalize, resize
from .classification import load_classifier, prepare, probabilities
from .segmentation import class_names, load_segmenter, working_size


def class_index(target: str, names: Sequence[str]) -> int:
    """The class that a text names, or whose number it is.

    Raises:
        UsageError: there is none.

    >>> class_index("car", ("road", "car")), class_index("0", ("road", "car"))
    (1, 0)
    """
    if target in names:
        return list(names).index(target)
    if target.isdecimal() and int(target) < len(names):
        return int(target)
    near = difflib.get_close_matches(target, names, 3) or list(names)[:12]
    raise UsageError(
        f"there is no class {target!r}", f"use one of {', '.join(near)}, or a number from 0 to {len(names) - 1}"
    )


def class_subject(model: str, source: str, target: str | None, device: str) -> Subject:
    """The score of a class, the likeliest where no target is given."""
    module = load_classifier(model, device)
    config, names = module.config, class_names(module)
    inputs = prepare(read_picture(source), config)[None]
    chosen = probabilities(module, inputs)[0]
    index = int(chosen.argmax()) if target is None else class_index(target, names)
    seen = inputs[0].transpose(1, 2, 0) * np.asarray(config.std) + np.asarray(config.mean)
    return Subject(
        model=module,
        inputs=flambeau.from_numpy(inputs).to(device),
        target=index,
        label=f"{names[index]} {chosen[index]:.0%}",
        picture=np.rint(seen.clip(0, 1) * 255).astype(np.uint8),
    )


def region_subject(model: str, source: str, target: str | None, device: str) -> Subject:
    """The mean score of a class over the pixels that were given to it; of the largest class where none is named.

    Raises:
        FlambeauError: the class was found nowhere in the photo.
    """
    module = load_segmenter(model, device)
    config, names = module.config, class_names(module)
    image = read_picture(source)
    small = normalize(
        resize(image, working_size(image.shape[0], image.shape[1], config.short_side)), config.mean, config.std
    )
    inputs = flambeau.from_numpy(small[None]).to(device)
    with flambeau.inference_mode():
        mask = module(inputs)[0].argmax(0).to("cpu").numpy()
    pixels = np.bincount(mask.reshape(-1), minlength=len(names))
    index = int(pixels.argmax()) if target is None else class_index(target, names)
    if not pixels[index]:
        found = ", ".join(names[k] for k in np.argsort(-pixels) if pixels[k])
        raise FlambeauError(f"{source}: no pixel is {names[index]}", f"choose what was found: {found}")
    return Subject(model=module, inputs=inputs, target=Region(index, mask == index), label=names[index], picture=image)


def classification(model: str, source: str, output: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Draws what speaks for a class of a picture."""
    return _explained(class_subject, model, source, output, options)


def segmentation(model: str, source: str, output: str, options: dict[str, Any]) -> Mapping[str, Any]:
    """Draws what speaks for a class where it was found in a photo."""
    return _explained(region_subject, model, source, output, options)


def _explained(subject: Any, model: str, source: str, output: str, options: dict[str, Any]) -> Mapping[str, Any]:
    settings = from_options(ExplainOptions, options, "explain")
    found = explain_to_file(subject(model, source, settings.target, settings.device), output, settings)
    return {"input": source, **found}
