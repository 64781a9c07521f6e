"""``flambeau explain``: why a trained model says what it says about a picture."""

from __future__ import annotations

import os
from typing import Any

import click

from ..errors import UsageError
from ..plugins import manager, pipeline
from .given import given_options, shared_options
from .output import print_json
from .work import complete_models, task_of, trained

_METHODS = (
    *("grad-cam", "grad-cam++", "saliency", "input-x-gradient"),
    *("guided-backprop", "integrated-gradients", "smoothgrad", "occlusion"),
)  # flambeau.explain.subject.METHODS, which cannot be imported here: it loads NumPy
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@click.command()
@click.argument("model", shell_complete=complete_models)
@click.argument("source", metavar="INPUT", type=click.Path(allow_dash=True))
@click.option("-o", "--output", required=True, type=click.Path(), help="Picture to write: .png, .jpg or .webp.")
@click.option("--method", type=click.Choice(_METHODS), default="grad-cam", show_default=True)
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
    device: str | None,
) -> None:
    """Draw which parts of INPUT speak for what MODEL says about it.

    MODEL is a checkpoint file, a run's folder, or the name of a model that has trained weights. --set takes steps (of
    integrated-gradients), samples, noise, seed (smoothgrad), window, stride (occlusion) and alpha.
    """
    if os.path.splitext(output)[1].lower() not in _SUFFIXES:
        raise UsageError(f"cannot write {output!r} as a picture", "use a name that ends in .png, .jpg or .webp")
    task = task_of(trained(model), task_name)
    options: dict[str, Any] = given_options(settings, {"layer": layer})
    found = pipeline.explain(manager(), task, model, source, output, method, target, device or "cpu", options)
    if as_json:
        print_json(dict(found))
    else:
        click.echo(f"{source}: {found['target']} by {found['method']} (score {found['score']:.4g}) -> {found['path']}")
