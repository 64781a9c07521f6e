"""``flambeau explain``: why a trained model says what it says about a picture."""

from __future__ import annotations

from typing import Any

import click

from ..plugins import manager, pipeline
from .given import given_options, shared_options
from .output import print_json
from .work import complete_models, task_of, trained


@click.command()
@click.argument("model", shell_complete=complete_models)
@click.argument("source", metavar="INPUT", type=click.Path(allow_dash=True))
@click.option("-o", "--output", required=True, type=click.Path(), help="Picture to write: .png, .jpg or .webp.")
@click.option("--method", default="grad-cam", show_default=True, help="How; see above.")
@click.option("--target", help="Class that is explained, by name or number [default: the one that is found].")
@click.option("--layer", help="Layer of grad-cam, such as layer4 [default: the deepest one with maps].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@shared_options
def explain(
    model: str,
    source: str,
    output: str,
    method: str,
    target: str | None,
    layer: str | None,
    as_json: bool,
    task_name: str | None,
    settings: tuple[str, ...],
    **flags: Any,
) -> None:
    """Draw which parts of INPUT speak for what MODEL says about it.

    MODEL is a checkpoint file, a run's folder, or the name of a model that has trained weights. Methods for pictures:
    grad-cam, grad-cam++, saliency, input-x-gradient, guided-backprop, integrated-gradients, smoothgrad, occlusion.
    --set takes steps (integrated-gradients), samples, noise, seed (smoothgrad), window, stride (occlusion), alpha.
    """
    task = task_of(trained(model), task_name)
    options = given_options(settings, {"method": method, "target": target, "layer": layer, **flags})
    found = pipeline.explain(manager(), task, model, source, output, options)
    if as_json:
        print_json(dict(found))
    else:
        click.echo(f"{source}: {found['target']} by {found['method']} (score {found['score']:.4g}) -> {found['path']}")
