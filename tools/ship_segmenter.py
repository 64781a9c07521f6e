"""Put a trained street segmenter into the app: weights, digest, learning curve and model card, all from one run.

    python tools/ship_segmenter.py runs/street --data /path/to/camvid --hardware "2 cores of a Xeon"

The scores in the card are computed here, from the float16 file that ships, on the official test split.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from flambeau.io import atomic_write, read_model_card
from flambeau.plugins import get_model, get_trainer, resolve
from flambeau.train import to_plain
from flambeau_vision.tasks.segmentation import evaluate
from flambeau_vision.trainers.common import store_half

DATA = Path(__file__).parents[1] / "apps/segment/src/flambeau_segment/data"

CARD = """# Model card: street segmenter

| | |
|---|---|
| model | `{model}`, {parameters:,} parameters, float16, {kilobytes:,} kB (`model.safetensors`) |
| task | semantic segmentation of street scenes seen from a car, 11 classes |
| input | RGB; the shorter side scaled to {short_side} pixels |
| data | CamVid (Brostow, Fauqueur & Cipolla 2009), images of {short_side} pixels height, trained on: {splits} |
| test | official test split, {images} images, at the size of the data |
| **mean IoU** | **{mean_iou:.4f}** on the test split, as the app runs it: each picture once as it \
is and once mirrored, averaged ({mean_iou_plain:.4f} without the mirror image) |
| pixel accuracy | {pixel_accuracy:.4f} |
| licence | weights: non-commercial use (made from CamVid, see below); code: Apache-2.0 |
| seed | {seed} |
| training | {epochs} epochs, {hours:.1f} hours on {hardware} |

Mean IoU: intersection over union of each class, all pixels of the split counted together, void left out, mean of the
11 classes.

| class | IoU |
|---|---|
{rows}

![learning curve](curve.png)

## Made with

```
{command}
flambeau evaluate vision/dilated_fpn --data CAMVID --split test
```

The run's own options, complete:

```json
{options}
```

## Licence

The code is Apache-2.0. CamVid is distributed for research and other non-commercial use only (the copy used here:
CC BY-NC 4.0), and these weights were made from it: **use the weights for non-commercial purposes**, or train your own
on data that you may use; the command above does it. No picture of CamVid is part of this package.

## What it can and cannot do

It has seen a few hundred pictures of one town, in daylight and at dusk, from behind a windscreen. It knows road, sky,
buildings, trees and cars well; poles, signs, pedestrians and cyclists are small at this resolution and often missed.
Scenes of another kind (indoors, aerial, night, snow, motorways with bare hills) get the nearest of the 11 classes,
without a warning. It is a demonstration and a baseline: nothing that matters for anyone's safety may rest on it.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder that `flambeau train` wrote")
    parser.add_argument("--data", required=True, help="CamVid folder")
    parser.add_argument("--hardware", required=True, help="what it was trained on, for the card")
    arguments = parser.parse_args()

    weights = DATA / "model.safetensors"
    shutil.copyfile(arguments.run / "model.safetensors", weights)
    store_half(weights)
    with atomic_write(DATA / "model.safetensors.sha256", "w") as file:
        file.write(hashlib.sha256(weights.read_bytes()).hexdigest() + "\n")
    shutil.copyfile(arguments.run / "curve.png", DATA / "curve.png")
    run = json.loads((arguments.run / "config.json").read_text(encoding="utf-8"))
    history = [json.loads(line) for line in (arguments.run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = evaluate(str(weights), arguments.data, "test", {})
    plain = evaluate(str(weights), arguments.data, "test", {"flip": False})
    card = read_model_card(weights)
    assert card is not None, "the run's weights do not say which model they hold"
    text = CARD.format(
        model=card.model,
        parameters=get_model(card.model).parameters,
        kilobytes=round(weights.stat().st_size / 1000),
        short_side=card.config["short_side"],
        splits=", ".join(run["options"]["splits"]),
        images=scores["images"],
        mean_iou=scores["mean_iou"],
        mean_iou_plain=plain["mean_iou"],
        pixel_accuracy=scores["pixel_accuracy"],
        seed=run["options"]["seed"],
        epochs=history[-1]["epoch"],
        hours=sum(row["seconds"] for row in history) / 3600,
        hardware=arguments.hardware,
        rows="\n".join(
            f"| {name} | {'absent' if value is None else f'{value:.4f}'} |" for name, value in scores["iou"].items()
        ),
        command=command(card.model, run["options"]),
        options=json.dumps(run["options"]),
    )
    with atomic_write(DATA / "model_card.md", "w") as file:
        file.write(text)
    print(f"mean IoU on the test split {scores['mean_iou']:.4f}; written to {DATA}")
    return 0


def command(model: str, options: dict[str, Any]) -> str:
    """The command line that makes the run again: the options that differ from the trainer's defaults."""
    kind = resolve(str(get_trainer("vision/segmentation").config))
    defaults = to_plain(kind())
    parts = [f"flambeau train {model} --data CAMVID"]
    flags = {"epochs", "batch_size", "lr", "seed", "device"}
    for field in dataclasses.fields(kind):
        value = options.get(field.name, defaults[field.name])
        if value == defaults[field.name] and field.name not in ("epochs", "seed"):
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        if field.name in flags:
            parts.append(f"--{field.name.replace('_', '-')} {text}")
        else:
            parts.append(f"--set '{field.name}={text}'")
    return " ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
