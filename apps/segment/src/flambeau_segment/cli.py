"""The command ``flambeau-segment`` (also ``flambeau segment``). Nothing heavy is imported until photos are read."""

from __future__ import annotations

import click

from . import __version__


@click.command(
    name="segment",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.argument("photos", nargs=-1, metavar="PHOTO...")
@click.option(
    "-o", "--output", metavar="PATH", help="Overlay to write (.png, .jpg, .webp); with several photos, a folder."
)
@click.option("--mask", metavar="PATH", help="Also write the class indices as a palette PNG; with several, a folder.")
@click.option("--overlay/--no-overlay", default=True, help="Write the overlay picture at all (default: yes).")
@click.option("--legend/--no-legend", default=True, help="Put the legend beside the photo (default: yes).")
@click.option(
    "--alpha", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Strength of the class colours."
)
@click.option("--flip/--no-flip", default=True, help="Average with the mirrored photo: better, slower (default: yes).")
@click.option("--model", metavar="PATH|ID", help="Another network: a checkpoint, a run's folder, or a model's id.")
@click.option("--device", default="cpu", show_default=True, help="Where the network runs: cpu, cuda, cuda:1 …")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a photo instead of a table.")
@click.option("--sample", is_flag=True, help="Segment the two street photos that ship with this command.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="flambeau-segment")
@click.pass_context
def command(
    ctx: click.Context,
    photos: tuple[str, ...],
    output: str | None,
    mask: str | None,
    overlay: bool,
    legend: bool,
    alpha: float,
    flip: bool,
    model: str | None,
    device: str,
    as_json: bool,
    sample: bool,
) -> None:
    """Segment street photos: which pixels are road, sky, building, tree, car, pedestrian …

    PHOTO is a picture of any size and kind, a folder of them, or - for standard input. The class shares are printed,
    and an overlay with a legend is written to PHOTO_segmented.png in the current folder, or where -o says.

    \b
    flambeau-segment street.jpg
    flambeau-segment street.jpg -o seen.png --mask classes.png
    flambeau-segment holiday/ -o segmented/ --json
    """
    if not photos and not sample:
        raise click.UsageError("Missing argument 'PHOTO...'.")
    if output == "-" or mask == "-":
        raise click.UsageError("pictures are not written to standard output: give a file name.")
    from .run import Settings, run

    settings = Settings(
        output=output,
        mask=mask,
        overlay=overlay,
        legend=legend,
        alpha=alpha,
        flip=flip,
        model=model,
        device=device,
        as_json=as_json,
    )
    ctx.exit(run(photos, settings, sample=sample))


def main() -> None:
    """Entry point of the console script."""
    from flambeau.cli import run

    run(command, prog_name="flambeau-segment")
