"""The command ``flambeau-translate`` (also ``flambeau translate``). Nothing heavy is imported until text is read."""

from __future__ import annotations

import click

from . import __version__


@click.command(
    name="translate",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.argument("texts", nargs=-1, metavar="TEXT...")
@click.option("-i", "--input", "inputs", multiple=True, metavar="FILE", help="Text file to translate; - for stdin.")
@click.option("-o", "--output", metavar="FILE", help="Write the translations here instead of printing them.")
@click.option("--model", metavar="PATH|ID", help="Translator: a checkpoint, a run's folder, or a model's id.")
@click.option(
    "--beam", type=click.IntRange(1, 64), default=4, show_default=True, help="Width of the beam search; 1 is greedy."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Lines translated at a time."
)
@click.option("--device", default="cpu", show_default=True, help="Where the network runs: cpu, cuda, cuda:1 …")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line: source, translation, score.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="flambeau-translate")
@click.pass_context
def command(
    ctx: click.Context,
    texts: tuple[str, ...],
    inputs: tuple[str, ...],
    output: str | None,
    model: str | None,
    beam: int,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Translate each line of TEXT, of files, or of standard input; one line of translation for each.

    The languages are those that the model was trained on. No weights ship with this command yet: train some with
    `flambeau train nlp/seq2seq` and give the run's folder to --model.

    \b
    flambeau-translate "Two men are in a boat." --model runs/seq2seq
    flambeau-translate -i letter.en -o letter.de --model runs/seq2seq --beam 8
    cat letter.en | flambeau-translate - --model runs/seq2seq --json
    """
    if not texts and not inputs:
        raise click.UsageError("Missing argument 'TEXT...' or option '-i'.")
    if [*texts, *inputs].count("-") > 1:
        raise click.UsageError("standard input can be read once only: give - once.")
    from .run import Settings, run

    settings = Settings(
        inputs=inputs, output=output, model=model, beam=beam, batch_size=batch_size, device=device, as_json=as_json
    )
    ctx.exit(run(texts, settings))


def main() -> None:
    """Entry point of the console script."""
    from flambeau.cli import run

    run(command, prog_name="flambeau-translate")
