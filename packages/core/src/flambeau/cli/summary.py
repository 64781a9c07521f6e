"""``flambeau summary``: a model's layers, parameters, operations and memory."""

from __future__ import annotations

from typing import Any

import click

from ..errors import FlambeauError, UsageError
from ..plugins import create_model
from .given import given_options
from .output import note, print_json
from .registry import names_completion


@click.command()
@click.argument("model", shell_complete=names_completion("models"))
@click.option("--input-size", "sizes", multiple=True, metavar="N,...", help="Shape of an input, as 1,3,224,224.")
@click.option("--dtype", "kinds", multiple=True, help="Its dtype, such as int64 [default: float32, int64 for tokens].")
@click.option("--depth", type=click.IntRange(min=0), default=3, show_default=True, help="Levels of layers to list.")
@click.option("--optimizer", default="adamw", show_default=True, help="Whose state is part of the training memory.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the model; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def summary(
    model: str,
    sizes: tuple[str, ...],
    kinds: tuple[str, ...],
    depth: int,
    optimizer: str,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what MODEL, the id or short name of a model, is made of.

    With --input-size (batch included; repeatable) the model runs once: shapes, multiply-adds and memory are shown too.
    """
    shapes = [_shape(text) for text in sizes]
    if kinds and not shapes:
        raise UsageError("--dtype says nothing without --input-size", "add --input-size, such as 1,16")
    net = create_model(model, **given_options(settings, {}))
    from .. import dtypes
    from ..utils.summary import OPTIMIZER_STATES
    from ..utils.summary import summary as summarise

    if optimizer not in ("none", *OPTIMIZER_STATES):
        raise UsageError(f"there is no optimizer {optimizer!r}", f"use none, {', '.join(OPTIMIZER_STATES)}")
    found_kinds = [getattr(dtypes, kind, None) for kind in kinds]
    for kind, found in zip(kinds, found_kinds, strict=True):
        if not isinstance(found, dtypes.dtype):
            raise UsageError(f"there is no dtype {kind!r}", "use float32, int64 …")
    given: dict[str, Any] = {"input_size": shapes} if shapes else {}
    if found_kinds:
        given["dtypes"] = found_kinds if len(found_kinds) > 1 else found_kinds[0]
    try:
        result = summarise(net, depth=depth, optimizer=optimizer, **given)
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        cause = f"{model} does not take {', '.join(sizes)}: {' '.join(str(error).split())}"
        raise FlambeauError(cause, "give the shape with the batch, and --dtype int64 for tokens") from error
    if as_json:
        print_json(result.to_dict())
        return
    click.echo(str(result))
    if not shapes:
        note("add --input-size, such as 1,3,224,224, to see shapes, operations and memory")


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = (-1,)
    if any(n < 0 for n in shape):
        raise UsageError(f"--input-size {text!r} is no shape", "write it as 1,3,224,224, batch first")
    return shape
